"""Thin structures as strings of balls, stamped into the voxels with their partial volume: vessels, airways, bones."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ggo_lab.phantom.grid import Grid

_THIN_MM = 1.7  # slices are averaged from thin ones of about this thickness
_CHUNK = 250_000  # voxels visited at once: what stays in the processor's cache
# Depth below a shell's surface is kept in 8 bits, in steps of 1/32 pixel, from half a pixel outside to 7 inside.
_DEPTH_STEPS, _OUTSIDE = 32, 16
_Encode = Callable[[np.ndarray, np.ndarray], None]  # see _Canvas


class Stamp(NamedTuple):
    """Sparse picture of thin structures: which voxels they touch and how much of each they fill."""

    voxels: np.ndarray  # their flat positions, int64
    coverage: np.ndarray  # filled share of the voxel, 0..1, float32


def stamp(grid: Grid, points: np.ndarray, radii: np.ndarray) -> Stamp:
    """Draw balls, which strung closely together make tubes and plates, with the partial volume of each voxel.

    Thick slices are drawn as several thin ones and averaged, as the scanner does. A ball thinner than a pixel
    keeps its cross-section: it becomes fainter, not wider.

    Args:
        grid: the voxels that are drawn.
        points: (N, 3) centres as (x, y, z), mm.
        radii: (N,) mm.
    """
    pixel = np.float32(grid.spacing[2])

    def encode(distance: np.ndarray, radii: np.ndarray) -> None:
        drawn = np.maximum(radii, pixel / 2)
        strength = np.minimum(255 * radii**2 / (drawn**2 + pixel**2 / 12), 255)
        distance /= pixel
        np.subtract(drawn / pixel + np.float32(0.5), distance, out=distance)
        np.clip(distance, 0, 1, out=distance)
        distance *= strength

    canvas = _Canvas(grid, points, radii, encode)
    index, (coverage,) = canvas.average(np.arange(256, dtype=np.float32) / np.float32(255))
    return Stamp(index, coverage)


def stamp_shell(grid: Grid, points: np.ndarray, radii: np.ndarray, shell_mm: float) -> tuple[Stamp, Stamp]:
    """Draw balls with a shell: the whole, and what lies deeper than the shell.

    Args:
        grid: the voxels that are drawn.
        points: as in stamp.
        radii: as in stamp.
        shell_mm: thickness of the shell, mm.
    """
    pixel = np.float32(grid.spacing[2])

    def encode(distance: np.ndarray, radii: np.ndarray) -> None:
        np.subtract(radii, distance, out=distance)
        distance *= _DEPTH_STEPS / pixel
        distance += _OUTSIDE
        np.clip(distance, 0, 255, out=distance)

    canvas = _Canvas(grid, points, radii, encode)
    depth = (np.arange(256, dtype=np.float32) - _OUTSIDE) / _DEPTH_STEPS  # pixels
    whole, inner = (np.clip(depth - below / pixel + np.float32(0.5), 0, 1) for below in (0.0, shell_mm))
    index, (outside, inside) = canvas.average(whole, inner)
    deep = inside > 0
    return Stamp(index, outside), Stamp(index[deep], inside[deep])


def paint(hu: np.ndarray, stamp: Stamp, value: np.ndarray | float) -> None:
    """Mix value (HU; a number, or one for each voxel of the stamp) into hu where the stamp lies, in place."""
    flat = hu.reshape(-1)
    flat[stamp.voxels] += stamp.coverage * (value - flat[stamp.voxels])


class _Canvas:
    """Thin slices in 8 bits with a margin on every side, so that no ball needs cutting at the border.

    Args:
        encode: turns distances (cells, N) from the centres of N balls, mm, in place into levels 0..255, given their
            radii (N,), mm: below 1 from half a pixel outside a ball. Where balls meet the larger level stays.
    """

    def __init__(self, grid: Grid, points: np.ndarray, radii: np.ndarray, encode: _Encode):
        self.grid = grid
        self.thin = max(1, round(grid.spacing[0] / _THIN_MM))  # thin slices per slice
        steps = np.array([grid.spacing[0] / self.thin, grid.spacing[1], grid.spacing[2]])
        first = np.array([grid.origin[0] - (self.thin - 1) / 2 * steps[0], grid.origin[1], grid.origin[2]])
        shape = np.array([grid.shape[0] * self.thin, grid.shape[1], grid.shape[2]])
        place = (np.asarray(points, np.float64)[:, ::-1] - first) / steps
        reach = np.ceil(np.asarray(radii)[:, None] / steps + 0.5).astype(int)
        touches = ((place + reach >= 0) & (place - reach <= shape - 1)).all(axis=1)
        place, reach, radii = place[touches], reach[touches], np.asarray(radii, np.float32)[touches]
        self.margin = 2 * reach.max(axis=0, initial=1)
        self.levels = np.zeros(shape + 2 * self.margin, np.uint8)
        place += self.margin
        kind = reach @ (10_000, 100, 1)
        for code in np.flatnonzero(np.bincount(kind)):
            members = np.flatnonzero(kind == code)
            size = reach[members[0]]
            count = max(1, _CHUNK // int(np.prod(2 * size + 1)))
            for start in range(0, len(members), count):
                chosen = members[start : start + count]
                self._draw(place[chosen], radii[chosen], size, steps, encode)

    def _draw(self, place: np.ndarray, radii: np.ndarray, size: np.ndarray, steps: np.ndarray, encode: _Encode) -> None:
        """Draw balls that reach equally many voxels."""
        nearest = np.rint(place).astype(np.int64)
        pixel = steps[2]
        offsets = [np.arange(-n, n + 1) for n in size]
        # Of the box around a ball most cells lie outside it, wherever in its voxel the centre lies: leave them out.
        z, y, x = ((np.maximum(np.abs(offsets[a]) - 0.5, 0) * steps[a]) ** 2 for a in range(3))
        outermost = max(radii.max(), pixel / 2) + 0.51 * pixel
        z, y, x = np.nonzero(z[:, None, None] + y[:, None] + x < outermost**2)
        squared = [
            ((nearest[:, a] - place[:, a] + offsets[a][:, None]) * steps[a]).astype(np.float32) ** 2 for a in range(3)
        ]
        level = squared[0].take(z, 0)
        level += squared[1].take(y, 0)
        level += squared[2].take(x, 0)
        np.sqrt(level, out=level)
        encode(level, radii)
        level = level.astype(np.uint8)
        strides = np.array([self.levels.shape[1] * self.levels.shape[2], self.levels.shape[2], 1])
        cells = np.stack([offsets[0][z], offsets[1][y], offsets[2][x]], 1) @ strides
        where = cells[:, None] + nearest @ strides
        touched = np.flatnonzero(level > 0)
        np.maximum.at(self.levels.reshape(-1), where.reshape(-1)[touched], level.reshape(-1)[touched])

    def average(self, *tables: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Average each slice's thin slices.

        Args:
            *tables: (256,) float32, what each level stands for.

        Returns:
            flat positions of the voxels on the grid that anything touches, and for each table the average there.
        """
        grid, thin = self.grid, self.thin
        step = grid.spacing[0] / thin
        offsets = np.arange(-8 * thin, 9 * thin)  # of thin slices from a slice's first, enough for any overlap
        distance_mm = np.abs(offsets - (thin - 1) / 2) * step
        offsets = offsets[distance_mm <= max(grid.slice_mm / 2 - 0.01 * step, distance_mm.min() + 1e-6)]
        inner = self.levels[:, self.margin[1] : -self.margin[1], self.margin[2] : -self.margin[2]]
        last = grid.shape[0] * thin - 1
        rows = self.margin[0] + np.clip(thin * np.arange(grid.shape[0])[:, None] + offsets, 0, last)
        touched = inner[rows[:, 0]]
        for column in rows.T[1:]:
            np.maximum(touched, inner[column], out=touched)
        index = np.flatnonzero(touched > 0)
        z, rest = np.divmod(index, grid.shape[1] * grid.shape[2])
        y, x = np.divmod(rest, grid.shape[2])
        flat, across = self.levels.reshape(-1), self.levels.shape[2]
        base = (y + self.margin[1]) * across + x + self.margin[2]
        plane = self.levels.shape[1] * across
        sums = [np.zeros(len(index), np.float32) for _ in tables]
        for column in rows.T:
            level = flat[base + column[z] * plane]
            for total, table in zip(sums, tables, strict=True):
                total += table[level]
        return index, [total / np.float32(len(offsets)) for total in sums]
