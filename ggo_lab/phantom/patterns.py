"""Patterns inside lesions, as shares 0..1 on the lungs' box: crazy paving, subpleural bands, the reversed halo."""

import numpy as np

from ggo_lab.phantom.anatomy import Anatomy
from ggo_lab.phantom.grid import Grid, smooth_noise
from ggo_lab.phantom.patient import Patient
from ggo_lab.phantom.steady import length, sin

_BAND_DEPTH_MM, _BAND_HALF_MM = 7.0, 2.2
_RING_SHARE = 0.30  # of the halo's radius that its dense ring takes


def septa(anatomy: Anatomy, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Thickened septa between and within the lobules: a net of thin curved walls, as crazy paving shows over haze."""
    # Where a random field passes zero it draws closed surfaces about one lattice step apart.
    net = anatomy.noise(rng, grid, 5.5)
    np.abs(net, out=net)
    np.clip(1 - net / 0.42, 0, 1, out=net)
    return net


def subpleural_bands(
    patient: Patient, anatomy: Anatomy, grid: Grid, depth_mm: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Curved bands that follow the chest wall a few millimetres below the pleura, behind and below.

    Args:
        patient: who is drawn.
        anatomy: where the patient's parts lie.
        grid: the voxels that are drawn.
        depth_mm: float32, the lungs' box: distance from the pleura, mm.
        rng: the source of chance.
    """
    coarse, box = anatomy.coarse, anatomy.lung_box
    z, y, x = coarse.mesh()
    u, back = z / patient.lung_height_mm, y / patient.half_depth_mm
    wall = np.clip((length(x / patient.half_width_mm, back) - 0.55) / 0.2, 0, 1)
    piece = np.clip(0.3 + 1.2 * smooth_noise(rng, coarse, 22.0), 0, 1)
    gate = wall * piece * np.clip((back + 0.1) / 0.3, 0, 1) * np.clip((0.8 - u) / 0.3, 0, 1)
    wander = _BAND_DEPTH_MM + 2.0 * smooth_noise(rng, coarse, 25.0)
    gate, wander = (grid.sample(coarse, field.astype(np.float32), box) for field in (gate, wander))
    across = np.abs(depth_mm - wander)
    np.clip((_BAND_HALF_MM - across) / 1.2 + 0.5, 0, 1, out=across)
    return across * np.clip(gate, 0, 1)


def reversed_halo(
    grid: Grid, box: tuple[slice, slice, slice], centre: tuple[float, float, float], radius_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """A focus that is hazy within and dense around: shares of its dense ring and of its hazy core.

    Args:
        grid: the voxels that are drawn.
        box: the part of the grid that is drawn.
        centre: (z, y, x), mm.
        radius_mm: of the focus, mm.
    """
    z, y, x = (axis[box[a]] for a, axis in enumerate(grid.axis(a) for a in range(3)))
    # A little uneven, for no lesion is a ball.
    angle = np.arctan2(y[:, None] - centre[1], x[None, :] - centre[2], dtype=np.float64)
    uneven = (1 + 0.12 * sin(2 * angle + centre[0]) + 0.08 * sin(3 * angle + centre[1])).astype(np.float32)
    squared_mm = (z[:, None, None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 + (x - centre[2]) ** 2
    inward = 1 - np.sqrt(squared_mm) / (np.float32(radius_mm) * uneven)  # 1 in the centre, 0 on the surface
    core = np.clip((inward - _RING_SHARE) / 0.08, 0, 1)
    return np.clip(inward / 0.08, 0, 1) * (1 - core), core
