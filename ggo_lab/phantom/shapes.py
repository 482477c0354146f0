"""Solids as distances inside their surface, mm: how they join, and how they fill the scan."""

import numpy as np
from scipy.interpolate import PchipInterpolator

from ggo_lab.phantom.grid import COARSE_MM, Grid


def smooth_min(a, b, blend_mm: float) -> np.ndarray:
    """Smaller of two distances, with the edge where they meet rounded over blend_mm."""
    overlap = np.maximum(blend_mm - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap**2 / (4 * blend_mm)


def smooth_max(a, b, blend_mm: float) -> np.ndarray:
    """Larger of two distances: two solids joined, with a fillet of about blend_mm."""
    return -smooth_min(-a, -b, blend_mm)


def superellipse(across, along, exponent: float) -> np.ndarray:
    return (np.abs(across) ** exponent + np.abs(along) ** exponent) ** (1 / exponent)


def capsule(x, y, z, start: np.ndarray, end: np.ndarray, margin: float) -> np.ndarray:
    """Distance inside a tapered tube from start to end (x, y, z, radius), widened by margin, mm."""
    direction = (end - start)[:3]
    length = float(direction @ direction)
    t = ((x - start[0]) * direction[0] + (y - start[1]) * direction[1] + (z - start[2]) * direction[2]) / length
    t = np.clip(t, 0, 1)
    dx, dy, dz = (offset - start[a] - t * direction[a] for a, offset in enumerate((x, y, z)))
    return start[3] + t * (end[3] - start[3]) + margin - np.sqrt(dx * dx + dy * dy + dz * dz)


def curve(knots: np.ndarray, step_mm: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Lead a smooth line through knots.

    Args:
        knots: (K, 4) rows of x, y, z, radius, mm.
    Returns: points (N, 3) about step_mm apart, and radii (N,), mm.
    """
    knots = np.asarray(knots, float)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1))])
    dense = PchipInterpolator(along, knots)(np.linspace(0, along[-1], max(2, int(along[-1] / step_mm) + 1)))
    return dense[:, :3], dense[:, 3]


class Filler:
    """Fills solids, given as distance inside their surface on the coarse lattice, with attenuation."""

    def __init__(self, hu: np.ndarray, grid: Grid, coarse: Grid):
        self.hu, self.grid, self.coarse = hu, grid, coarse

    def __call__(self, inside_mm: np.ndarray, value) -> None:
        """Mix value (HU; a number, or float32 on the coarse lattice) into hu inside a surface, in place."""
        solid = inside_mm > -COARSE_MM
        extent = [np.flatnonzero(solid.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
        if any(len(found) == 0 for found in extent):
            return
        low = [self.coarse.origin[a] + COARSE_MM * (found[0] - 1) for a, found in enumerate(extent)]
        high = [self.coarse.origin[a] + COARSE_MM * (found[-1] + 1) for a, found in enumerate(extent)]
        box = self.grid.box(low, high)
        share = self.grid.sample(self.coarse, np.asarray(inside_mm, np.float32), box)
        sharpen(share, self.grid)
        if isinstance(value, np.ndarray):
            value = self.grid.sample(self.coarse, value.astype(np.float32), box)
        region = self.hu[box]
        region += share * (value - region)


def sharpen(distance: np.ndarray, grid: Grid) -> None:
    """Turn distance inside a surface (mm) into the share of the voxel inside it, in place."""
    distance *= np.float32(1 / grid.spacing[1])
    distance += np.float32(0.5)
    np.clip(distance, 0, 1, out=distance)
