"""From a scan to the one small image a 2-D network sees, and back onto the scan's slices."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.lungs import segment_lungs
from ggo_lab.scan import Scan, window


@dataclass(frozen=True)
class Recipe:
    """How a scan becomes an image of shape (slices, size, size).

    The paper (arXiv:2303.16904) is Recipe(where="middle").
    """

    slices: int = 3  # channels of the image; networks pretrained on colour photographs want 3
    where: str = (
        "spread"  # "middle": neighbours at the scan's middle; "spread": even over the scan; "lungs": over the lungs
    )
    clip_hu: tuple[float, float] = (-1000.0, 400.0)  # black and white, HU; the paper's choice
    size: int = 224  # rows and columns of the image; what most ImageNet networks were trained at
    crop: str = "none"  # "none": the whole slice; "lungs": the square around the lungs

    def __post_init__(self) -> None:
        check_choice("where", self.where, ("middle", "spread", "lungs"))
        check_choice("crop", self.crop, ("none", "lungs"))
        object.__setattr__(self, "clip_hu", tuple(float(edge) for edge in self.clip_hu))
        if len(self.clip_hu) != 2 or not self.clip_hu[0] < self.clip_hu[1]:
            raise ChoiceError(
                f"clip_hu={self.clip_hu} is not (black, white) in HU, such as (-1000, 400).", self.clip_hu
            )
        if self.slices < 1 or self.size < 8:
            raise ChoiceError(f"slices={self.slices}, size={self.size}: at least 1 slice and 8 pixels are needed.")

    @property
    def needs_lungs(self) -> bool:
        """Whether the lungs must be found first, which costs more than all the rest."""
        return self.where == "lungs" or self.crop == "lungs"

    def to_dict(self) -> dict:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Recipe":
        """The inverse of to_dict."""
        return cls(**values)


def choose_slices(scan: Scan, recipe: Recipe, lungs: np.ndarray | None = None) -> tuple[int, ...]:
    """Choose the slices of the image, before anything is resampled.

    Args:
        lungs: bool (Z, Y, X), found here if the recipe needs them and they are not given.
    Returns: `recipe.slices` indices into axis 0, from feet to head; in a very short scan a slice may repeat.
    """
    first, end = 0, scan.shape[0]
    if recipe.where == "lungs":
        lungs = segment_lungs(scan) if lungs is None else lungs
        with_lung = np.flatnonzero(lungs.any(axis=(1, 2)))
        first, end = with_lung[0], with_lung[-1] + 1
    if recipe.where == "middle":
        chosen = (end - recipe.slices) // 2 + np.arange(recipe.slices)
    else:
        # The centres of equal parts: 3 slices stand at 1/6, 3/6 and 5/6 of the way up.
        chosen = np.floor(first + (end - first) * (np.arange(recipe.slices) + 0.5) / recipe.slices)
    return tuple(int(z) for z in np.clip(chosen, 0, scan.shape[0] - 1))


def scan_to_image(
    scan: Scan, recipe: Recipe, lungs: np.ndarray | None = None, slices: tuple[int, ...] | None = None
) -> np.ndarray:
    """Make the image of a scan.

    Args:
        lungs: bool (Z, Y, X), found here if the recipe needs them and they are not given.
        slices: indices to use instead of those that choose_slices gives.
    Returns: uint8 (C, H, W), C = recipe.slices, H = W = recipe.size; 0 = clip_hu[0] and below, 255 = clip_hu[1] and
        above. A slice that is not square is laid on a black square, so that anatomy is not stretched.
    """
    if recipe.needs_lungs and lungs is None:
        lungs = segment_lungs(scan)
    chosen = choose_slices(scan, recipe, lungs) if slices is None else slices
    black, white = recipe.clip_hu
    frame = _frame(scan, recipe, lungs)
    image = np.empty((len(chosen), recipe.size, recipe.size), np.uint8)
    for channel, z in enumerate(chosen):
        grey = window(_cut(scan, z, frame), (black + white) / 2, white - black)
        image[channel] = _resize(grey, recipe.size)
    return image


def image_to_scan_grid(heat: np.ndarray, scan: Scan, recipe: Recipe, lungs: np.ndarray | None = None) -> np.ndarray:
    """Lay a map that was computed on the image back onto the scan's slices.

    Args:
        heat: float (H, W) on the image of this scan and recipe.
    Returns: float32 (Y, X); 0 where the image did not look.
    """
    top, left, side = _frame(scan, recipe, lungs)
    laid = np.zeros(scan.shape[1:], np.float32)
    square = np.asarray(Image.fromarray(np.asarray(heat, np.float32)).resize((side, side), Image.Resampling.BILINEAR))
    (rows, from_rows), (columns, from_columns) = _overlap(top, side, laid.shape[0]), _overlap(left, side, laid.shape[1])
    laid[rows, columns] = square[from_rows, from_columns]
    return laid


def _frame(scan: Scan, recipe: Recipe, lungs: np.ndarray | None) -> tuple[int, int, int]:
    """Top, left and side, in pixels, of the square of a slice that the image shows; it may reach over the edges."""
    if recipe.crop == "lungs":
        lungs = segment_lungs(scan) if lungs is None else lungs
        rows, columns = (np.flatnonzero(lungs.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        margin = 5.0 / scan.spacing[2]  # 5 mm of chest wall around the lungs, so that the pleura stays visible
        top, bottom = rows[0] - margin, rows[-1] + 1 + margin
        left, right = columns[0] - margin, columns[-1] + 1 + margin
    else:
        top, left, (bottom, right) = 0.0, 0.0, scan.shape[1:]
    side = int(np.ceil(max(bottom - top, right - left)))
    return round((top + bottom - side) / 2), round((left + right - side) / 2), side


def _overlap(start: int, side: int, length: int) -> tuple[slice, slice]:
    """Where [start, start + side) meets [0, length): as a slice of the latter and of the former."""
    low, high = max(start, 0), min(start + side, length)
    return slice(low, high), slice(low - start, high - start)


def _cut(scan: Scan, z: int, frame: tuple[int, int, int]) -> np.ndarray:
    """Cut the frame's square out of a slice; what lies outside is as dark as the scan's darkest voxel."""
    top, left, side = frame
    (rows, to_rows), (columns, to_columns) = (
        _overlap(start, side, length) for start, length in zip((top, left), scan.shape[1:], strict=True)
    )
    seen = scan.hu[z, rows, columns]
    if seen.shape == (side, side):
        return seen
    square = np.full((side, side), scan.hu.min(), np.int16)
    square[to_rows, to_columns] = seen
    return square


def _resize(grey: np.ndarray, size: int) -> np.ndarray:
    """Resize uint8 (H, W) to (size, size); Pillow's bilinear filter averages over the area when it shrinks."""
    return np.asarray(Image.fromarray(grey).resize((size, size), Image.Resampling.BILINEAR))
