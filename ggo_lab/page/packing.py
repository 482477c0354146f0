"""A scan made small enough for an e-mail, in the form that assets/volume.js unpacks."""

import base64
import zlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from ggo_lab.rendering import Heat, heat_levels
from ggo_lab.scan import Scan

# What keeps a page small enough for an e-mail: 64 x 256 x 256 voxels are kept whole (about 5 MB). Wider slices are
# reduced, and with more voxels the HU are rounded: both less than the noise of a scan (18-37 HU), and the page says so.
_MOST_COLUMNS = 256
_ROUNDING_HU = ((5_000_000, 1), (12_000_000, 4), (np.inf, 8))  # up to so many voxels, steps of so many HU


class Reduced:
    """A scan as small as a page can carry it."""

    def __init__(self, scan: Scan):
        slices, rows, columns = scan.shape
        factor = max(rows, columns) / _MOST_COLUMNS
        self.rows, self.columns = (
            (rows, columns) if factor <= 1 else (max(1, round(rows / factor)), max(1, round(columns / factor)))
        )
        self.shape = (slices, self.rows, self.columns)
        self.spacing = (scan.spacing[0], scan.spacing[1] * rows / self.rows, scan.spacing[2] * columns / self.columns)
        self.step = next(step for most, step in _ROUNDING_HU if slices * self.rows * self.columns <= most)
        self.hu = np.empty(self.shape, np.int16)  # in steps of self.step
        for z, part in enumerate(scan.hu):
            self.hu[z] = np.rint(self.smooth(part) / self.step)
        changes = []
        if factor > 1:
            changes.append(f"{self.rows} × {self.columns} of the scan's {rows} × {columns} pixels a slice")
        if self.step > 1:
            changes.append(f"HU in steps of {self.step}")
        self.footnote = (
            f"This page keeps {' and '.join(changes)}." if changes else "This page keeps every voxel exactly."
        )

    def smooth(self, picture: np.ndarray) -> np.ndarray:
        """A slice's values on the page's grid: the mean of what each pixel covers."""
        if picture.shape == (self.rows, self.columns):
            return picture
        resized = Image.fromarray(picture.astype(np.float32)).resize((self.columns, self.rows), Image.Resampling.BOX)
        return np.asarray(resized)

    def pick(self, mask: np.ndarray) -> np.ndarray:
        """A mask's voxels at the centres of the page's."""
        rows = ((np.arange(self.rows) + 0.5) * mask.shape[1] / self.rows).astype(int)
        columns = ((np.arange(self.columns) + 0.5) * mask.shape[2] / self.columns).astype(int)
        return mask[:, rows[:, None], columns]


def pack_hu(hu: np.ndarray) -> np.ndarray:
    """Code each voxel by its difference to the mean of its left and upper neighbours; volume.js undoes it.

    Args:
        hu: int16 (Z, Y, X).
    Returns: uint8, first all low bytes, then all high bytes, of the zigzag-coded differences: deflate packs the two
        apart much better, for the high ones are nearly all 0.
    """
    zigzag = np.empty(hu.shape, np.uint16)
    for z, part in enumerate(hu):
        value = part.astype(np.int32)
        guess = np.zeros_like(value)
        guess[1:, 1:] = (value[1:, :-1] + value[:-1, 1:]) >> 1
        guess[0, 1:] = value[0, :-1]
        guess[1:, 0] = value[:-1, 0]
        rest = (value - guess).astype(np.int16)  # wraps around, as does the Int16Array that takes it back
        zigzag[z] = ((rest << 1) ^ (rest >> 15)).view(np.uint16)
    return np.stack([zigzag & 255, zigzag >> 8]).astype(np.uint8)


def pack_heat(heat: Heat, small: Reduced) -> dict[str, object]:
    maps = heat if isinstance(heat, Mapping) else dict(enumerate(heat))
    levels = [heat_levels(small.smooth(np.nan_to_num(values))) for values in maps.values()]
    return {"slices": [int(z) for z in maps], "maps": deflate(np.array(levels, np.uint8))}


def deflate(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 6)).decode()
