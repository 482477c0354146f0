"""The fissures that part the lungs into five lobes: surfaces z(x, y), a little different in every patient."""

import numpy as np

from ggo_lab.phantom.grid import Grid
from ggo_lab.phantom.patient import Patient
from ggo_lab.phantom.steady import cos, length, sin

LOBES = ("right_upper_lobe", "right_middle_lobe", "right_lower_lobe", "left_upper_lobe", "left_lower_lobe")
_FISSURE_HU = -100.0  # two layers of pleura with lung on both sides
_FISSURE_MM = 0.6


def lobe_of(patient: Patient, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Number in LOBES of positions in mm (broadcast together), uint8."""
    upper, middle, lower, left_upper, left_lower = np.arange(5, dtype=np.uint8)
    low = z < oblique_height(patient, x, y)
    right = np.where(low, lower, np.where(z < horizontal_height(patient, x, y), middle, upper))
    return np.where(x > 0, np.where(low, left_lower, left_upper), right)


def oblique_height(patient: Patient, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the oblique fissure lies, z in mm: the lower lobe is below."""
    back = y / patient.half_depth_mm
    lift = np.where(x > 0, 0.04, 0.0)
    rise = 0.47 + lift + 0.32 * back + 0.05 * back**2
    return patient.lung_height_mm * rise - 0.12 * (np.abs(x) - 55) + _bow(patient, x, y)


def horizontal_height(patient: Patient, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Where the right lung's horizontal fissure lies, z in mm; meaningless elsewhere."""
    return patient.lung_height_mm * 0.50 - 0.05 * (np.abs(x) - 60) + 0.06 * y - 0.7 * _bow(patient, x, y)


def _bow(patient: Patient, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The fissures' gentle undulation, mm."""
    turn = patient.fissure_turn
    wave = sin(x / 38 + turn) * cos(y / 45 + 2 * turn) + 0.5 * cos(x / 24 - 3 * turn)
    return 5.0 * patient.scale * wave


def draw_fissures(hu: np.ndarray, patient: Patient, grid: Grid, pleura: np.ndarray) -> None:
    """Draw the thin double pleura between the lobes, in place.

    Args:
        hu: float32 (Z, Y, X), HU.
        patient: who is drawn.
        grid: the voxels that are drawn.
        pleura: share of each voxel inside the lungs.
    """
    y, x = grid.axis(1)[:, None], grid.axis(2)[None, :]
    oblique, horizontal = oblique_height(patient, x, y), horizontal_height(patient, x, y)
    _draw_sheet(hu, grid, pleura, oblique)
    _draw_sheet(hu, grid, pleura, np.where((x < 0) & (horizontal > oblique), horizontal, np.nan))


def _draw_sheet(hu: np.ndarray, grid: Grid, pleura: np.ndarray, height: np.ndarray) -> None:
    """Draw a thin sheet given by its height z(y, x), mm, nan where it is absent: what each slice's slab holds of it."""
    pixel = grid.spacing[1]
    slope = length(*np.gradient(height, pixel))
    row, column = np.nonzero(np.isfinite(slope))
    height, slope = height[row, column], slope[row, column]
    # No fissure is seen, or complete, all the way.
    visible = np.clip(0.6 + 0.5 * sin(row * pixel / 23) * cos(column * pixel / 31 + 1), 0.15, 1)
    tall = _FISSURE_MM * np.sqrt(1 + slope**2)  # the sheet along z
    slab = length(grid.slice_mm, slope * pixel)
    nearest = np.rint((height - grid.origin[0]) / grid.spacing[0]).astype(int)
    reach = int(np.ceil((slab + tall).max() / 2 / grid.spacing[0]))
    for z in (nearest + step for step in range(-reach, reach + 1)):
        distance_mm = np.abs(grid.origin[0] + grid.spacing[0] * z - height)
        share = np.clip((slab + tall) / 2 - distance_mm, 0, np.minimum(slab, tall)) / slab
        in_slice = (share > 0) & (z >= 0) & (z < grid.shape[0])
        place = z[in_slice], row[in_slice], column[in_slice]
        share = (share[in_slice] * visible[in_slice] * (pleura[place] > 0.99)).astype(np.float32)
        hu[place] += share * (_FISSURE_HU - hu[place])
