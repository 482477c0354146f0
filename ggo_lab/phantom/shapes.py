"""Solids as distances inside their surface, mm: how they join, and how they fill the scan."""

import numpy as np
from scipy.interpolate import PchipInterpolator

from ggo_lab.phantom.grid import COARSE_MM, Grid


def smooth_min(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Smaller of two distances, with the edge where they meet rounded over blend_mm."""
    return np.minimum(a, b) - _rounding(a, b, blend_mm)


def smooth_max(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    """Larger of two distances: two solids joined, with a fillet of about blend_mm."""
    return np.maximum(a, b) + _rounding(a, b, blend_mm)


def _rounding(a: np.ndarray, b: np.ndarray, blend_mm: float) -> np.ndarray:
    overlap = np.abs(a - b)
    np.subtract(blend_mm, overlap, out=overlap)
    np.maximum(overlap, 0, out=overlap)
    overlap *= overlap
    overlap *= 1 / (4 * blend_mm)
    return overlap


def superellipse(across: np.ndarray, along: np.ndarray, boxiness: float) -> np.ndarray:
    """Share of the way from the centre to the outline: an ellipse at boxiness 0, nearly a box at 1.

    Args:
        across: offsets from the centre in half axes.
        along: offsets from the centre in half axes.
        boxiness: 0 for an ellipse, 1 for nearly a box.
    """
    across, along = across * across, along * along
    return (1 - boxiness) * np.sqrt(across + along) + boxiness * np.sqrt(np.sqrt(across * across + along * along))


def capsule(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, start: np.ndarray, end: np.ndarray, margin: float
) -> np.ndarray:
    """Distance inside a tapered tube from start to end (x, y, z, radius), widened by margin, mm."""
    direction, length = (end - start)[:3].tolist(), float((end - start)[:3] @ (end - start)[:3])
    start, end = start.tolist(), end.tolist()  # plain floats keep the arrays float32
    t = ((x - start[0]) * direction[0] + (y - start[1]) * direction[1] + (z - start[2]) * direction[2]) / length
    t = np.clip(t, 0, 1)
    dx, dy, dz = (offset - start[a] - t * direction[a] for a, offset in enumerate((x, y, z)))
    return start[3] + t * (end[3] - start[3]) + margin - np.sqrt(dx * dx + dy * dy + dz * dz)


def curve(knots: np.ndarray, step_mm: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Lead a smooth line through knots.

    Args:
        knots: (K, 4) rows of x, y, z, radius, mm.
        step_mm: distance between points, mm.

    Returns:
        points (N, 3) about step_mm apart, and radii (N,), mm.
    """
    knots = np.asarray(knots, float)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1))])
    dense = PchipInterpolator(along, knots)(np.linspace(0, along[-1], max(2, int(along[-1] / step_mm) + 1)))
    return dense[:, :3], dense[:, 3]


class Filler:
    """Fills solids, given as distance inside their surface on the coarse lattice, with attenuation."""

    def __init__(self, hu: np.ndarray, grid: Grid, coarse: Grid):
        """Take what is filled.

        Args:
            hu: float32 (Z, Y, X), HU, changed in place.
            grid: its voxels.
            coarse: the lattice on which solids are given.
        """
        self.hu, self.grid, self.coarse = hu, grid, coarse

    def __call__(self, inside_mm: np.ndarray, *layers: tuple) -> None:
        """Mix layers into hu inside a surface, in place.

        Args:
            inside_mm: float on the coarse lattice, mm.
            *layers: pairs of a depth below the surface, mm, and what lies deeper: HU, a number, or float on the coarse
                lattice.
        """
        solid = inside_mm > -COARSE_MM
        extent = [np.flatnonzero(solid.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        if any(len(found) == 0 for found in extent):
            return
        low = [self.coarse.origin[a] + COARSE_MM * (found[0] - 1) for a, found in enumerate(extent)]
        high = [self.coarse.origin[a] + COARSE_MM * (found[-1] + 1) for a, found in enumerate(extent)]
        box = self.grid.box(tuple(low), tuple(high))
        share = self.grid.sample(self.coarse, in_voxels(inside_mm, self.coarse, self.grid), box)
        region = self.hu[box]
        for depth_mm, value in layers:
            part = share - np.float32(depth_mm / self.grid.spacing[1]) if depth_mm else share.copy()
            to_share(part)
            if isinstance(value, np.ndarray):
                value = self.grid.sample(self.coarse, value.astype(np.float32), box)
            part *= value - region
            region += part


def in_voxels(inside_mm: np.ndarray, coarse: Grid, grid: Grid) -> np.ndarray:
    """Measure distance inside a surface by the voxel's extent across that surface.

    Where the surface stands upright, that is a pixel; where it lies flat, as the dome of the diaphragm, it is the
    slice's thickness: the partial volume that averaging over the slice would give.

    Args:
        inside_mm: float (Z, Y, X) on coarse, mm.
        coarse: the lattice on which the solid is given.
        grid: the voxels that are drawn.

    Returns:
        float32 on coarse, voxels.
    """
    inside = np.asarray(inside_mm, np.float32)
    tilt = np.empty_like(inside)  # squared z part of the surface's normal
    tilt[1:-1] = inside[2:] - inside[:-2]
    tilt[0], tilt[-1] = tilt[1], tilt[-2]
    tilt *= np.float32(0.5 / coarse.spacing[0])
    np.minimum(np.multiply(tilt, tilt, out=tilt), 1, out=tilt)
    tilt *= np.float32(grid.slice_mm**2 - grid.spacing[1] ** 2)
    tilt += np.float32(grid.spacing[1] ** 2)
    return inside / np.sqrt(tilt)


def to_share(voxels: np.ndarray) -> None:
    """Turn distance inside a surface (voxels) into the share of the voxel inside it, in place."""
    voxels += np.float32(0.5)
    np.clip(voxels, 0, 1, out=voxels)
