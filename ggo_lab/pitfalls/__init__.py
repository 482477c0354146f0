"""Mistakes that make a network look better than it is: plant_* makes each, find_* catches it."""

from ggo_lab.pitfalls.networks import find_corner_reader
from ggo_lab.pitfalls.numbers import (
    find_accuracy_trap,
    find_test_selection,
    find_uncopied_state,
    find_wrong_loss,
    plant_last_batch_loss,
    plant_majority,
    plant_mean_of_batches,
    plant_test_selection,
    plant_uncopied_state,
)
from ggo_lab.pitfalls.pixels import (
    find_label_leak,
    find_telling_pixel,
    find_wrong_slope,
    plant_label_pixel,
    plant_wrong_slope,
)
from ggo_lab.pitfalls.splits import (
    find_duplicates,
    find_shared_patients,
    plant_duplicates,
    plant_slice_split,
)
from ggo_lab.pitfalls.verdict import Verdict

__all__ = [
    "Verdict",
    "find_accuracy_trap",
    "find_corner_reader",
    "find_duplicates",
    "find_label_leak",
    "find_shared_patients",
    "find_telling_pixel",
    "find_test_selection",
    "find_uncopied_state",
    "find_wrong_loss",
    "find_wrong_slope",
    "plant_duplicates",
    "plant_label_pixel",
    "plant_last_batch_loss",
    "plant_majority",
    "plant_mean_of_batches",
    "plant_slice_split",
    "plant_test_selection",
    "plant_uncopied_state",
    "plant_wrong_slope",
]
