"""A scan on a lattice of about 3 mm, where shapes are decided quickly, and the way back to its voxels."""

from dataclasses import dataclass

import numpy as np

from ggo_lab.scan import Scan

_STEP_MM = 3.0  # fine enough for the trachea's wall and the gap between the lungs, 100 times fewer voxels
_FRAME_ABOVE_HU = -900  # a frame of air is no frame
_LEAST_FRAME = 0.02  # share of the voxels that a frame's value fills


@dataclass(frozen=True, eq=False)
class Coarse:
    """A scan whose voxels are averaged in blocks.

    Attributes:
        hu: float32 (z, y, x), HU; where there is nothing but padding, water.
        outside: bool (z, y, x), mostly padding.
        spacing: distance between block centres (z, y, x), mm.
        factors: voxels in a block along each axis.
        shape: the scan's, (Z, Y, X).
    """

    hu: np.ndarray
    outside: np.ndarray
    spacing: tuple[float, float, float]
    factors: tuple[int, int, int]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, scan: Scan) -> "Coarse":
        """Average a scan's voxels in blocks of about 3 mm; slices thicker than that stay as they are."""
        z, y, x = (max(1, round(_STEP_MM / step)) for step in scan.spacing)
        factors, spacing = (z, y, x), (z * scan.spacing[0], y * scan.spacing[1], x * scan.spacing[2])
        padding = scan.padding | framed(scan)
        if not padding.any():
            hu = _average(scan.hu, factors)
            return cls(hu, np.zeros(hu.shape, bool), spacing, factors, scan.shape)
        hu = _average(np.where(padding, np.int16(0), scan.hu), factors)  # padding is no air
        return cls(hu, _average(padding, factors) > 0.5, spacing, factors, scan.shape)

    def shrink(self, mask: np.ndarray) -> np.ndarray:
        """Bring a bool mask from the scan's voxels here: blocks of which it fills at least half."""
        return _average(mask, self.factors) >= 0.5

    def enlarge(self, mask: np.ndarray) -> np.ndarray:
        """Bring a bool mask from here to the scan's voxels, its outline interpolated, so that it shows no blocks."""
        if self.factors == (1, 1, 1):
            return mask.copy()
        field = mask.astype(np.float32)
        large = np.zeros(self.shape, bool)
        for z, plane in enumerate(large):
            np.greater(self.spread(field, z), 0.5, out=plane)
        return large

    def spread(self, field: np.ndarray, z: int) -> np.ndarray:
        """Bring a float32 (z, y, x) field from here to the voxels (Y, X) of one of the scan's slices, interpolated."""
        (low, high, weight), rows, columns = (
            _neighbours(n, factor, count)
            for n, factor, count in zip(self.shape, self.factors, field.shape, strict=True)
        )
        plane = field[low[z]] + weight[z] * (field[high[z]] - field[low[z]])
        return _interpolate(_interpolate(plane, rows, axis=0), columns, axis=1)


def framed(scan: Scan) -> np.ndarray:
    """Mark a frame or corners of one value that is denser than air, such as 0, as some exports lay around the picture.

    Args:
        scan: where it is looked for.

    Returns:
        bool (Z, Y, X).
    """
    corners = np.stack([scan.hu[:, y, x] for y in (0, -1) for x in (0, -1)])
    value = int(np.median(corners))
    alike = scan.hu == value if value > _FRAME_ABOVE_HU and np.mean(corners == value) > 0.7 else None
    if alike is None or alike.mean() < _LEAST_FRAME:
        return np.zeros(scan.shape, bool)
    reached = np.zeros_like(alike)
    for axis in (1, 2):  # from each edge of the picture, as far as the value goes on
        reached |= np.logical_and.accumulate(alike, axis=axis)
        reached |= np.flip(np.logical_and.accumulate(np.flip(alike, axis), axis=axis), axis)
    return reached


def _average(values: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Average blocks of voxels, float32; the last block of an axis holds what is left."""
    for axis in (0, 1, 2):
        factor, count = factors[axis], values.shape[axis]
        if factor == 1:
            continue
        blocks = -(-count // factor)
        total = np.zeros((*values.shape[:axis], blocks, *values.shape[axis + 1 :]), np.float32)
        for first in range(factor):  # strided sums: several times faster than a mean over a reshaped axis
            part = values[(slice(None),) * axis + (slice(first, None, factor),)]
            total[(slice(None),) * axis + (slice(part.shape[axis]),)] += part
        held = np.full(blocks, factor, np.float32)
        held[-1] = count - factor * (blocks - 1)
        total /= held.reshape([-1 if a == axis else 1 for a in range(3)])
        values = total
    return values.astype(np.float32, copy=False)


def _neighbours(count: int, factor: int, blocks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each of count voxels, the two blocks whose centres it lies between, and the weight of the second."""
    place = np.clip((np.arange(count) + 0.5) / factor - 0.5, 0, blocks - 1)
    low = place.astype(int)
    return low, np.minimum(low + 1, blocks - 1), (place - low).astype(np.float32)


def _interpolate(plane: np.ndarray, neighbours: tuple[np.ndarray, np.ndarray, np.ndarray], axis: int) -> np.ndarray:
    low, high, weight = neighbours
    first = plane.take(low, axis)
    return first + (weight[:, None] if axis == 0 else weight) * (plane.take(high, axis) - first)
