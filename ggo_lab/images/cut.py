"""The part of a scan that a network sees: chosen slices, one square of them, and the way back onto the scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from PIL import Image

from ggo_lab.errors import ChoiceError
from ggo_lab.scan import Scan, Window, as_window

if TYPE_CHECKING:
    from ggo_lab.images.recipe import Recipe


class Planes(Protocol):
    """A scan whose slices are read when they are asked for; a Scan is one that has them all."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels (Z, Y, X)."""

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres (z, y, x), mm."""

    def grey(self, slices: Sequence[int], shown: Window) -> list[np.ndarray]:
        """Return these axial slices through a window, uint8 (Y, X) each."""

    def whole(self) -> Scan:
        """Return the whole scan."""


class Square(NamedTuple):
    """A square of a slice, in pixels; it may reach over the slice's edges."""

    top: int
    left: int
    side: int


@dataclass(frozen=True, eq=False)
class Cut:
    """The part of a scan that an image shows, computed once; `Recipe.cut` makes it.

    Attributes:
        scan: that was cut.
        recipe: by which.
        slices: indices into axis 0 of the scan, from feet to head, one for each channel of the image.
        square: of each slice.
        lungs: bool (Z, Y, X), where the recipe needs them or they were given; else None.
        notes: what is implausible about lungs that were found for it, one sentence each.
    """

    scan: Planes
    recipe: Recipe
    slices: tuple[int, ...]
    square: Square
    lungs: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def image(self) -> np.ndarray:
        """Return the image, uint8 (C, H, W): C chosen slices, H = W = recipe.size, grey by the recipe's window.

        What lies outside a slice is black: one that is not square keeps its proportions, so that anatomy is not
        stretched.
        """
        top, left, side = self.square
        rows, to_rows = _overlap(top, side, self.scan.shape[1])
        columns, to_columns = _overlap(left, side, self.scan.shape[2])
        size = self.recipe.size
        image = np.empty((len(self.slices), size, size), np.uint8)
        for channel, grey in enumerate(self.scan.grey(self.slices, as_window(self.recipe.window))):
            square = grey
            if grey.shape != (side, side):
                square = np.zeros((side, side), np.uint8)
                square[to_rows, to_columns] = grey[rows, columns]
            # Pillow's bilinear filter averages over the area when it shrinks.
            image[channel] = np.asarray(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))
        return image

    def lay(self, heat: np.ndarray) -> dict[int, np.ndarray]:
        """Lay a map that was computed on the image back onto the scan's slices.

        Args:
            heat: float (C, H, W), a map for each slice, or (H, W), one for all of them.

        Returns:
            Maps float32 (Y, X) by axial slice, as SliceViewer and plot_slice take them; 0 where the image did not look.
            Of a slice that stands twice in a very short scan the hotter place counts.

        Raises:
            ChoiceError: maps of another shape.
        """
        heat = np.asarray(heat, np.float32)
        if heat.ndim == 2:
            return dict.fromkeys(self.slices, self._laid(heat))
        if heat.ndim != 3 or len(heat) != len(self.slices):
            raise ChoiceError(
                f"heat of shape {heat.shape} fits no image of {len(self.slices)} slices: give (H, W) for all of them, "
                f"or ({len(self.slices)}, H, W).",
                heat.shape,
            )
        laid: dict[int, np.ndarray] = {}
        for z, plane in zip(self.slices, map(self._laid, heat), strict=True):
            laid[z] = np.maximum(laid[z], plane) if z in laid else plane
        return laid

    def _laid(self, heat: np.ndarray) -> np.ndarray:
        top, left, side = self.square
        laid = np.zeros(self.scan.shape[1:], np.float32)
        square = np.asarray(Image.fromarray(heat).resize((side, side), Image.Resampling.BILINEAR))
        rows, from_rows = _overlap(top, side, laid.shape[0])
        columns, from_columns = _overlap(left, side, laid.shape[1])
        laid[rows, columns] = square[from_rows, from_columns]
        return laid


def _overlap(start: int, side: int, length: int) -> tuple[slice, slice]:
    """Where [start, start + side) meets [0, length): as a slice of the latter and of the former."""
    low, high = max(start, 0), min(start + side, length)
    return slice(low, high), slice(low - start, high - start)
