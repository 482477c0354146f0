"""The images of a cohort, or of one scan, in one array beside their table."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ggo_lab.cohort.splits import SPLITS, Splits, checked_labels, positions_of
from ggo_lab.errors import CohortError
from ggo_lab.images.cut import Cut
from ggo_lab.images.recipe import Recipe
from ggo_lab.tasks import GGO_SEVERITY, Task


@dataclass(frozen=True, eq=False)
class ImageSet(Splits):
    """The images of a cohort.

    Attributes:
        pixels: uint8 (N, C, H, W).
        table: N rows: name, patient, label (0..K-1, missing where unknown), split, slices (the chosen indices).
        recipe: how they were made.
        left_out: name and reason of each scan of the cohort that could not be used.
        task: what the labels mean.

    Raises:
        CohortError: pixels and rows that do not fit together, or labels that the task does not have.
    """

    pixels: np.ndarray
    table: pd.DataFrame
    recipe: Recipe
    left_out: pd.DataFrame = dataclasses.field(default_factory=lambda: pd.DataFrame(columns=["name", "reason"]))
    task: Task = GGO_SEVERITY

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or len(self.pixels) != len(self.table):
            raise CohortError(
                f"An ImageSet needs uint8 pixels (N, C, H, W) and N rows; found {self.pixels.dtype} "
                f"{self.pixels.shape} and {len(self.table)} rows."
            )
        checked_labels(self.table, self.task)

    def subset(self, rows: np.ndarray) -> "ImageSet":
        """The images of the given rows: a boolean mask or positions."""
        positions = positions_of(rows, len(self))
        contiguous = len(positions) > 0 and np.array_equal(positions, np.arange(positions[0], positions[-1] + 1))
        # A run of rows stays a view of the file on disk; anything else is copied into memory.
        pixels = self.pixels[positions[0] : positions[-1] + 1] if contiguous else self.pixels[positions]
        table = self.table.iloc[positions].reset_index(drop=True)
        return dataclasses.replace(self, pixels=pixels, table=table)

    def __repr__(self) -> str:
        splits = ", ".join(f"{n} {split}" for split in SPLITS if (n := int((self._column("split") == split).sum())))
        out = f"; {len(self.left_out)} scans left out, see .left_out" if len(self.left_out) else ""
        shape = " x ".join(str(n) for n in self.pixels.shape[1:])
        return f"ImageSet of {len(self)} images of {shape} ({splits or 'no splits'}){out}"


def image_set_of(cut: Cut, task: Task = GGO_SEVERITY) -> ImageSet:
    """Make an ImageSet of one scan, to predict on it.

    Args:
        cut: of the scan, as recipe.cut(scan) gives it.
        task: what is graded. Where involvement decides it and the scan's truth is known, so is its label.
    """
    scan = cut.scan.whole()
    label = None if scan.truth is None or task.bands is None else task.label_from_involvement(scan.truth.involvement)
    table = pd.DataFrame(
        {"name": [scan.name], "patient": [scan.name], "label": [label], "split": [None], "slices": [cut.slices]}
    ).assign(notes=" ".join(cut.notes))
    table["label"] = table["label"].astype("Int64")
    return ImageSet(cut.image()[None], table, cut.recipe, task=task)
