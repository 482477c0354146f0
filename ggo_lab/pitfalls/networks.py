"""A trained network that reads what it should not."""

from dataclasses import replace

import numpy as np

from ggo_lab.backbones import Backbone
from ggo_lab.errors import CohortError, check_whole
from ggo_lab.evaluation import predict
from ggo_lab.images import ImageSet
from ggo_lab.pitfalls.pixels import corner_mask
from ggo_lab.pitfalls.verdict import ALARM, Verdict, beside_chance


def find_corner_reader(model: Backbone, images: ImageSet, corner: int = 4, swaps: int = 10, seed: int = 0) -> Verdict:
    """Give scans the corners of other scans, and see whether a network's answers follow the corners.

    There is no patient in a corner, so an honest network answers as before. The images stay what it knows: unlike
    corners that are painted over, exchanged ones hold values that it has met.

    Args:
        model: fitted, in any mode.
        images: which it did not learn from, labels known.
        corner: rows and columns of each of the four corners of every channel.
        swaps: how often corners are dealt out anew.
        seed: of the dealing.

    Raises:
        CohortError: fewer than two classes, or unknown ones.
        ChoiceError: corners that are empty or overlap.
    """
    if len(set(images.labels)) < 2 or (images.labels < 0).any():
        raise CohortError("The probe needs scans of known label, of two classes or more.")
    place, pixels = corner_mask(images.pixels.shape[2:], corner), np.asarray(images.pixels)
    rng = np.random.default_rng(check_whole("seed", seed))
    givers, answers = [], []
    for _ in range(swaps):
        givers.append(rng.permutation(len(images)))
        swapped = pixels.copy()
        swapped[:, :, place] = pixels[givers[-1]][:, :, place]
        answers.append(predict(model, replace(images, pixels=swapped)).predicted)
    said = np.concatenate(answers)
    corners = beside_chance(images.labels[np.concatenate(givers)], said, seed)
    patients = beside_chance(np.tile(images.labels, swaps), said, seed)
    return Verdict(
        corners.p < ALARM,
        f"given the corners of other scans, its answers meet the class of the corners with a mean recall of {corners} "
        f"and that of the patients with {patients.recall:.2f}; an honest network does not look there.",
    )
