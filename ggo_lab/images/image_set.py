"""The images of a cohort, or of one scan, in one array beside their table."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ggo_lab.cohort.splits import SPLITS, Splits
from ggo_lab.errors import CohortError
from ggo_lab.images.recipe import Recipe, choose_slices, scan_to_image
from ggo_lab.lungs import segment_lungs
from ggo_lab.scan import Scan


@dataclass(frozen=True, eq=False)
class ImageSet(Splits):
    """The images of a cohort.

    Attributes:
        pixels: uint8 (N, C, H, W).
        table: N rows: name, patient, grade (1..4, missing where unknown), split, slices (the chosen indices).
        recipe: how they were made.
        left_out: name and reason of each scan of the cohort that could not be used.
    """

    pixels: np.ndarray
    table: pd.DataFrame
    recipe: Recipe
    left_out: pd.DataFrame = dataclasses.field(default_factory=lambda: pd.DataFrame(columns=["name", "reason"]))

    def __post_init__(self) -> None:
        if self.pixels.ndim != 4 or self.pixels.dtype != np.uint8 or len(self.pixels) != len(self.table):
            raise CohortError(
                f"An ImageSet needs uint8 pixels (N, C, H, W) and N rows; found {self.pixels.dtype} "
                f"{self.pixels.shape} and {len(self.table)} rows."
            )

    @property
    def patients(self) -> list[str]:
        """The patient of each scan."""
        return self.table["patient"].tolist()

    @property
    def indices(self) -> np.ndarray:
        """int64 (N,): grade - 1, as networks count; -1 where the grade is unknown."""
        return self.table["grade"].fillna(0).to_numpy(np.int64) - 1

    def subset(self, rows: np.ndarray) -> "ImageSet":
        """The images of the given rows: a boolean mask or positions."""
        positions = np.arange(len(self))[rows]
        contiguous = len(positions) > 0 and np.array_equal(positions, np.arange(positions[0], positions[-1] + 1))
        # A run of rows stays a view of the file on disk; anything else is copied into memory.
        pixels = self.pixels[positions[0] : positions[-1] + 1] if contiguous else self.pixels[positions]
        return ImageSet(pixels, self.table.iloc[positions].reset_index(drop=True), self.recipe, self.left_out)

    def __repr__(self) -> str:
        splits = ", ".join(f"{n} {split}" for split in SPLITS if (n := int((self.table["split"] == split).sum())))
        out = f"; {len(self.left_out)} scans left out, see .left_out" if len(self.left_out) else ""
        shape = " x ".join(str(n) for n in self.pixels.shape[1:])
        return f"ImageSet of {len(self)} images of {shape} ({splits or 'no splits'}){out}"


def image_set_of(scan: Scan, recipe: Recipe, lungs: np.ndarray | None = None) -> ImageSet:
    """Make an ImageSet of one scan, to predict on it; its grade is that of its truth, or unknown.

    Args:
        lungs: bool (Z, Y, X), found here if the recipe needs them and they are not given.
    """
    lungs = segment_lungs(scan) if recipe.needs_lungs and lungs is None else lungs
    slices = choose_slices(scan, recipe, lungs)
    grade = None if scan.truth is None else scan.truth.grade
    table = pd.DataFrame(
        {"name": [scan.name], "patient": [scan.name], "grade": [grade], "split": [None], "slices": [slices]}
    )
    table["grade"] = table["grade"].astype("Int64")
    return ImageSet(scan_to_image(scan, recipe, lungs, slices)[None], table, recipe)
