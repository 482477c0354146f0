"""The lattice of voxels that sees the patient, and smooth fields on it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

AIR_HU = -1000.0
COARSE_MM = 5.0  # step on which smooth shapes are computed before they are interpolated onto the voxels
_NOISE_GAIN = 3.0  # B-splines average the lattice's random values: this restores their sd


def _catmull_rom(t: np.ndarray) -> tuple:
    """Weights of four neighbours, at t between the inner two: passes through the values, keeps edges crisp."""
    square = t * t
    cube = square * t
    return (
        -0.5 * t + square - 0.5 * cube,
        1 - 2.5 * square + 1.5 * cube,
        0.5 * t + 2 * square - 1.5 * cube,
        -0.5 * square + 0.5 * cube,
    )


def _b_spline(t: np.ndarray) -> tuple:
    """Weights of four neighbours, at t between the inner two: rounder, so that noise shows no lattice."""
    square, rest = t * t, 1 - t
    cube = square * t
    return rest * rest * rest / 6, (4 - 6 * square + 3 * cube) / 6, (1 + 3 * t + 3 * square - 3 * cube) / 6, cube / 6


@dataclass(frozen=True)
class Grid:
    """A lattice of voxels in the patient's millimetres.

    Attributes:
        shape: number of voxels (Z, Y, X).
        spacing: distance between voxel centres (z, y, x), mm.
        origin: centre of voxel (0, 0, 0) as (z, y, x), mm.
        slice_mm: thickness of the slab that a slice averages; less than the distance leaves gaps, more overlaps.
        region: corners ((z, y, x), (z, y, x)) of the part of the patient that the lattice was laid over, mm.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    slice_mm: float
    region: tuple[tuple[float, float, float], tuple[float, float, float]]

    @classmethod
    def over(cls, region: tuple, shape: tuple[int, int, int], slice_mm: float | None = None) -> "Grid":
        """Lay that many voxels over a region so that all of it is seen; pixels are square, slices touch by default."""
        low, high = np.asarray(region)
        size = high - low
        pixel = max(size[1] / shape[1], size[2] / shape[2])
        spacing = np.array([size[0] / shape[0], pixel, pixel])
        origin = (low + high) / 2 - spacing * (np.asarray(shape) - 1) / 2
        thickness = float(spacing[0]) if slice_mm is None else slice_mm
        return cls(shape, three(spacing), three(origin), thickness, region)

    @classmethod
    def coarse(cls, region: tuple, step_mm: float = COARSE_MM) -> "Grid":
        """Lay points step_mm apart over a region, with two to spare on every side, whatever the scan's voxels are."""
        low, high = np.asarray(region)
        z, y, x = (int(n) + 5 for n in np.ceil((high - low) / step_mm))
        return cls((z, y, x), (step_mm,) * 3, three(low - 2 * step_mm), step_mm, region)

    def axis(self, which: int) -> np.ndarray:
        """Positions of the voxel centres along one axis (0 = z, 1 = y, 2 = x), mm, float32."""
        return (self.origin[which] + self.spacing[which] * np.arange(self.shape[which])).astype(np.float32)

    def mesh(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions (z, y, x) in mm, shaped to broadcast to the whole grid."""
        return self.axis(0)[:, None, None], self.axis(1)[None, :, None], self.axis(2)[None, None, :]

    def box(self, low_mm: tuple, high_mm: tuple) -> tuple[slice, slice, slice]:
        """Slices of the voxels whose centres lie between two corners (z, y, x) in mm."""
        slices = []
        for low, high, start, step, count in zip(low_mm, high_mm, self.origin, self.spacing, self.shape, strict=True):
            first = int(np.clip(np.floor((low - start) / step), 0, count))
            last = int(np.clip(np.ceil((high - start) / step) + 1, first, count))
            slices.append(slice(first, last))
        z, y, x = slices
        return z, y, x

    def sample(
        self,
        coarse: "Grid",
        field: np.ndarray,
        box: tuple[slice, slice, slice] | None = None,
        weigh: Callable[[np.ndarray], tuple] = _catmull_rom,
    ) -> np.ndarray:
        """Interpolate a field from a coarse lattice onto these voxels, with continuous slope.

        Args:
            coarse: the lattice that field is given on.
            field: float32 on coarse.
            box: the part of this grid wanted; all of it when left out.
            weigh: weights of four neighbours; the default passes through the field's values.

        Returns:
            float32, the box's shape.
        """
        box = box or (slice(None), slice(None), slice(None))
        taps = []
        for a, part in enumerate(box):
            position = (self.axis(a)[part] - coarse.origin[a]) / coarse.spacing[a]
            first, weights = _taps(position, field.shape[a], weigh)
            # Only what the box needs of the lattice is interpolated.
            low, high = (int(first.min()), int(first.max()) + 4) if len(first) else (0, 0)
            field = field[(slice(None),) * a + (slice(low, high),)]
            taps.append((first - low, weights))
        # An axis that shrinks goes first: less is left to do on the others.
        order = (0, 2, 1) if len(taps[0][0]) <= coarse.shape[0] else (2, 1, 0)
        for a in order:
            field = _interpolate(field, *taps[a], a)
        return field


def three(values: Iterable) -> tuple[float, float, float]:
    """Three numbers as plain floats."""
    z, y, x = (float(value) for value in values)
    return z, y, x


def _taps(position: np.ndarray, count: int, weigh: Callable) -> tuple[np.ndarray, tuple]:
    """The first of the four neighbours of each position on an axis of so many points, and their weights."""
    position = np.clip(position, 1, count - 2)  # beyond the lattice the outermost value holds
    base = np.minimum(position.astype(int), count - 3)
    return base - 1, weigh((position - base).astype(np.float32))


def _interpolate(field: np.ndarray, first: np.ndarray, weights: tuple, axis: int) -> np.ndarray:
    # Weighted sums of four neighbours, element by element: unlike a matrix product, the same bits on every machine.
    if axis == 2:  # as rows, which lie together in memory
        planes, rows, _ = field.shape
        lines = np.ascontiguousarray(field.reshape(planes * rows, -1).T)
        return np.ascontiguousarray(_along_first(lines, first, weights).T).reshape(planes, rows, -1)
    if axis == 0:
        return _along_first(field, first, weights)
    out = np.empty((field.shape[0], len(first), field.shape[2]), np.float32)
    neighbour = np.empty(out.shape[1:], np.float32)
    columns = [weight[:, None] for weight in weights]
    for plane, target in zip(field, out, strict=True):  # plane by plane stays in the processor's cache
        for tap, weight in enumerate(columns):
            into = neighbour if tap else target
            plane.take(first + tap, 0, out=into, mode="clip")  # clip: no copy to check the bounds first
            into *= weight
            if tap:
                target += neighbour
    return out


def _along_first(field: np.ndarray, first: np.ndarray, weights: tuple) -> np.ndarray:
    out = np.empty((len(first), *field.shape[1:]), np.float32)
    factors = [weight.reshape(-1, *(1,) * (field.ndim - 1)) for weight in weights]
    # Positions between the same points of the lattice are done together.
    begins = np.flatnonzero(np.diff(first, prepend=-1))
    for begin, end in pairwise([*begins, len(first)]):
        k, target = first[begin], out[begin:end]
        np.multiply(field[k], factors[0][begin:end], out=target)
        for tap in (1, 2, 3):
            target += field[k + tap] * factors[tap][begin:end]
    return out


def smooth_noise(
    rng: np.random.Generator,
    grid: Grid,
    step_mm: float,
    box: tuple[slice, slice, slice] | None = None,
    region: tuple | None = None,
) -> np.ndarray:
    """Random field without structure finer than about 2 step_mm, mean 0, sd about 1.

    It is drawn on a lattice fixed to a region in mm, so that the same patient has the same field at any resolution.

    Args:
        rng: the source of chance.
        grid: the voxels that are drawn.
        step_mm: distance between points, mm.
        box: the part of the grid wanted; all of it when left out.
        region: corners ((z, y, x), (z, y, x)) around that part, mm, the same at any resolution; the grid's own when
            left out.

    Returns:
        float32, the box's shape.
    """
    lattice = Grid.coarse(region or grid.region, step_mm)
    values = rng.standard_normal(lattice.shape, np.float32)
    return grid.sample(lattice, values * np.float32(_NOISE_GAIN), box, _b_spline)
