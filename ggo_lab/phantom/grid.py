"""The lattice of voxels that sees the patient, smooth fields on it, and thin structures stamped into it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

AIR_HU = -1000.0
COARSE_MM = 5.0  # step on which smooth shapes are computed before they are interpolated onto the voxels
_NOISE_GAIN = 3.0  # B-splines average the lattice's random values: this restores their sd
_KERNEL_CHUNK = 1_500_000  # voxels visited at once while stamping: about 30 MB of scratch memory


class Stamp(NamedTuple):
    """Sparse picture of thin structures: which voxels they touch and how much of each they fill."""

    index: np.ndarray  # flat voxel positions, int64
    coverage: np.ndarray  # filled share of the voxel, 0..1, float32


def _catmull_rom(t: np.ndarray) -> tuple:
    """Weights of four neighbours, at t between the inner two: passes through the values, keeps edges crisp."""
    return (
        -0.5 * t + t**2 - 0.5 * t**3,
        1 - 2.5 * t**2 + 1.5 * t**3,
        0.5 * t + 2 * t**2 - 1.5 * t**3,
        -0.5 * t**2 + 0.5 * t**3,
    )


def _b_spline(t: np.ndarray) -> tuple:
    """Weights of four neighbours, at t between the inner two: rounder, so that noise shows no lattice."""
    return (1 - t) ** 3 / 6, (4 - 6 * t**2 + 3 * t**3) / 6, (1 + 3 * t + 3 * t**2 - 3 * t**3) / 6, t**3 / 6


@dataclass(frozen=True)
class Grid:
    """A lattice of voxels in the patient's millimetres.

    Attributes:
        shape: number of voxels (Z, Y, X).
        spacing: distance between voxel centres (z, y, x), mm.
        origin: centre of voxel (0, 0, 0) as (z, y, x), mm.
        region: corners ((z, y, x), (z, y, x)) of the part of the patient that the lattice was laid over, mm.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    region: tuple[tuple[float, float, float], tuple[float, float, float]]

    @classmethod
    def over(cls, region: tuple, shape: tuple[int, int, int]) -> "Grid":
        """Lay that many voxels over a region so that all of it is seen; pixels are square."""
        low, high = np.asarray(region)
        size = high - low
        pixel = max(size[1] / shape[1], size[2] / shape[2])
        spacing = np.array([size[0] / shape[0], pixel, pixel])
        origin = (low + high) / 2 - spacing * (np.asarray(shape) - 1) / 2
        return cls(tuple(shape), tuple(map(float, spacing)), tuple(map(float, origin)), region)

    @classmethod
    def coarse(cls, region: tuple, step_mm: float = COARSE_MM) -> "Grid":
        """Lay points step_mm apart over a region, with two to spare on every side, whatever the scan's voxels are."""
        low, high = np.asarray(region)
        shape = np.ceil((high - low) / step_mm).astype(int) + 5
        origin = low - 2 * step_mm
        return cls(tuple(map(int, shape)), (step_mm,) * 3, tuple(map(float, origin)), region)

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
        return tuple(slices)

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
        Returns: float32, the box's shape.
        """
        box = box or tuple(slice(0, n) for n in self.shape)
        wanted = [self.axis(a)[box[a]] for a in range(3)]
        # An axis that shrinks goes first: less is left to do on the others.
        order = (0, 2, 1) if len(wanted[0]) <= field.shape[0] else (2, 1, 0)
        for a in order:
            field = _interpolate(field, (wanted[a] - coarse.origin[a]) / coarse.spacing[a], a, weigh)
        return field

    def stamp(self, points: np.ndarray, radii: np.ndarray) -> Stamp:
        """Draw balls, which strung closely together make tubes and plates, with the partial volume of each voxel.

        Thick slices are drawn as several thin ones and averaged, as the scanner does. A ball thinner than a pixel
        keeps its cross-section: it becomes fainter, not wider.

        Args:
            points: (N, 3) centres as (x, y, z), mm.
            radii: (N,) mm.
        """
        thin = max(1, round(self.spacing[0] / 1.7))  # thin slices per slice
        steps = np.array([self.spacing[0] / thin, self.spacing[1], self.spacing[2]])
        first = np.array([self.origin[0] - (thin - 1) / 2 * steps[0], self.origin[1], self.origin[2]])
        shape = np.array([self.shape[0] * thin, self.shape[1], self.shape[2]])
        canvas = np.zeros(int(shape.prod()), np.uint8)

        place = (np.asarray(points, np.float64)[:, ::-1] - first) / steps
        reach = np.ceil(np.asarray(radii)[:, None] / steps + 0.5).astype(int)
        inside = ((place + reach >= 0) & (place - reach <= shape - 1)).all(axis=1)
        place, reach, radii = place[inside], reach[inside], np.asarray(radii, np.float32)[inside]
        kind = reach @ (10_000, 100, 1)
        for code in np.flatnonzero(np.bincount(kind)):
            members = np.flatnonzero(kind == code)
            size = reach[members[0]]
            count = max(1, _KERNEL_CHUNK // int(np.prod(2 * size + 1)))
            for start in range(0, len(members), count):
                chosen = members[start : start + count]
                _stamp_group(canvas, shape, steps, place[chosen], radii[chosen], size)

        slices = canvas.reshape(self.shape[0], thin, -1)
        total = slices[:, 0].astype(np.uint16)
        for i in range(1, thin):
            total += slices[:, i]
        total = total.ravel()
        index = np.flatnonzero(total > 0)
        return Stamp(index, total[index].astype(np.float32) / np.float32(255 * thin))


def _interpolate(field: np.ndarray, position: np.ndarray, axis: int, weigh: Callable) -> np.ndarray:
    # Weighted sums of four neighbours, element by element: unlike a matrix product, the same bits on every machine.
    position = np.clip(position, 1, field.shape[axis] - 2)  # beyond the lattice the outermost value holds
    base = np.minimum(position.astype(int), field.shape[axis] - 3)
    weights = weigh((position - base).astype(np.float32))
    if axis == 0:
        out = np.empty((len(base), *field.shape[1:]), np.float32)
        for i, k in enumerate(base):
            np.multiply(field[k - 1], weights[0][i], out=out[i])
            for shift in (0, 1, 2):
                out[i] += field[k + shift] * weights[shift + 1][i]
        return out
    counts = (len(base), field.shape[2]) if axis == 1 else (field.shape[1], len(base))
    out = np.empty((field.shape[0], *counts), np.float32)
    weights = [weight[:, None] if axis == 1 else weight for weight in weights]
    for plane, target in zip(field, out, strict=True):  # plane by plane stays in the processor's cache
        np.multiply(plane.take(base - 1, axis - 1), weights[0], out=target)
        for shift in (0, 1, 2):
            neighbour = plane.take(base + shift, axis - 1)
            neighbour *= weights[shift + 1]
            target += neighbour
    return out


def _stamp_group(canvas, shape, steps, place, radii, size) -> None:
    """Draw balls that reach equally many voxels into the flat uint8 canvas, keeping the larger coverage."""
    nearest = np.rint(place).astype(np.int64)
    squared, index, valid = np.float32(0), np.int64(0), True
    for axis in range(3):
        offsets = np.arange(-size[axis], size[axis] + 1)
        voxel = nearest[:, axis, None] + offsets
        distance = ((voxel - place[:, axis, None]) * steps[axis]).astype(np.float32)
        spread = [-1 if a == axis else 1 for a in range(3)]
        squared = squared + (distance**2).reshape(len(place), *spread)
        index = index * shape[axis] + voxel.reshape(len(place), *spread)
        valid = valid & ((voxel >= 0) & (voxel < shape[axis])).reshape(len(place), *spread)
    pixel = np.float32(steps[2])
    drawn = np.maximum(radii, pixel / 2)[:, None, None, None]
    strength = np.minimum(255 * radii**2 / (drawn.ravel() ** 2 + pixel**2 / 12), 255)[:, None, None, None]
    coverage = np.clip((drawn - np.sqrt(squared)) / pixel + 0.5, 0, 1) * strength
    seen = valid & (coverage >= 1)
    np.maximum.at(canvas, index[seen], coverage[seen].astype(np.uint8))


def smooth_noise(
    rng: np.random.Generator, grid: Grid, step_mm: float, box: tuple[slice, slice, slice] | None = None
) -> np.ndarray:
    """Random field without structure finer than about 2 step_mm, mean 0, sd about 1.

    It is drawn on a lattice fixed to the grid's region, so that the same patient has the same field at any resolution.

    Args:
        box: the part of the grid wanted; all of it when left out.
    Returns: float32, the box's shape.
    """
    lattice = Grid.coarse(grid.region, step_mm)
    values = rng.standard_normal(lattice.shape, np.float32)
    return grid.sample(lattice, values * np.float32(_NOISE_GAIN), box, _b_spline)


def paint(hu: np.ndarray, stamp: Stamp, value) -> None:
    """Mix value (HU; a number, or one for each voxel of the stamp) into hu where the stamp lies, in place."""
    flat = hu.reshape(-1)
    flat[stamp.index] += stamp.coverage * (value - flat[stamp.index])
