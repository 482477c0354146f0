"""What lies between the lungs: heart, great vessels, windpipe, oesophagus, and the fat around them."""

from itertools import pairwise

import numpy as np

from ggo_lab.phantom.grid import Grid, smooth_noise
from ggo_lab.phantom.patient import REFERENCE_HEIGHT_MM, Patient
from ggo_lab.phantom.shapes import capsule, curve, smooth_max
from ggo_lab.phantom.skeleton import sternum_back
from ggo_lab.phantom.stamps import paint, stamp
from ggo_lab.phantom.steady import exp, length

# Reference knots (x, y, z, radius) in mm of the great vessels and of what else runs through the mediastinum.
AORTA = (
    (4, -26, 122, 13), (-10, -38, 146, 15), (-13, -38, 172, 15), (-6, -28, 192, 14), (6, -8, 203, 13.5),
    (17, 12, 199, 13), (23, 28, 184, 12.5), (22, 36, 160, 12), (20, 34, 110, 11.5), (12, 32, 60, 11),
    (5, 28, 0, 10.5), (3, 26, -25, 10.5),
)  # fmt: skip
_PULMONARY = (
    ((20, -44, 128, 14), (20, -34, 148, 13.5), (22, -16, 162, 13), (32, 2, 166, 11), (44, 14, 160, 9)),
    ((20, -18, 160, 12), (4, -8, 156, 11), (-20, -4, 153, 10.5), (-40, 4, 148, 9)),
)
_VENOUS = (
    ((-25, -24, 214, 8), (-27, -22, 180, 8.5), (-27, -20, 150, 9.5), (-27, -24, 120, 12)),
    ((42, -28, 244, 6), (20, -36, 226, 6.5), (-8, -36, 216, 7), (-24, -25, 208, 8)),
    ((-34, -20, 262, 6), (-30, -26, 236, 7), (-25, -24, 212, 8)),
    ((-22, -6, 98, 12), (-24, 2, 70, 11.5), (-20, 10, 20, 11), (-18, 12, -25, 11)),
)
_BRANCHES = (
    ((-4, -26, 200, 6.5), (-8, -26, 222, 6), (-18, -22, 244, 5), (-26, -18, 275, 4)),
    ((5, -14, 204, 4.5), (10, -18, 225, 4), (16, -18, 250, 3.5), (20, -18, 280, 3.5)),
    ((14, 4, 204, 5), (22, 0, 224, 4.7), (30, -6, 248, 4.5), (48, -16, 268, 4)),
)
TRACHEA = ((0, -34, 285, 8.5), (0, -26, 262, 8.5), (-1, -12, 222, 8.8), (-2, 4, 184, 8.8), (-1, 10, 167, 8.8))
BRONCHI = {
    "right": ((-1, 10, 168, 8), (-13, 13, 158, 7), (-24, 15, 150, 6.6), (-36, 17, 140, 5.6)),
    "left": ((-1, 10, 168, 7.6), (12, 14, 158, 6.4), (28, 19, 148, 6), (44, 22, 139, 5.2)),
}
_OESOPHAGUS = (
    (3, -18, 275, 6), (4, 6, 222, 6), (5, 22, 180, 6), (5, 25, 150, 6.5), (2, 24, 110, 6.5), (9, 13, 66, 6.5),
)  # fmt: skip
_WIDER_A_YEAR = 0.004  # how much the aorta's radius grows with age, relative; from memory 0.12 mm of 33 a year
_MEAN_AGE, _FIRST_PLAQUE_AGE, _YEARS_A_PLAQUE = 58, 52, 4
_PLAQUE_MM, _PLAQUE_HU = (1.2, 2.4), 650.0
_HEART_REGION = ((-40.0, -150.0, -130.0), (240.0, 80.0, 150.0))  # corners (z, y, x) of what it may reach, mm
_FAR_MM = 60.0
_LEFT_WALL_MM, _THIN_WALL_MM = 11.0, 4.0  # of the left ventricle, and of the other chambers with their fat
_MEDIASTINAL = (
    (AORTA[:8], 4.0),
    (((21, 34, 140, 12), (12, 32, 60, 11), (4, 28, -10, 11)), 1.0),
    (((0, -16, 200, 14), (2, -10, 165, 20), (4, -12, 130, 24)), 0.0),
    (((20, -40, 126, 16), (21, -24, 160, 15), (36, 6, 164, 10)), 3.0),
    (_PULMONARY[1][1:], 3.0),
    (_VENOUS[0], 3.0),
    (((-34, -14, 268, 14), (-24, -22, 220, 12)), 6.0),
    (((34, -12, 268, 14), (16, -22, 220, 14)), 6.0),
    (TRACHEA[1:], 4.0),
    (BRONCHI["right"][:3], 2.5),
    (BRONCHI["left"][:3], 2.5),
    (((0, 20, 175, 12), (5, 27, 110, 12), (12, 20, 60, 12)), 0.0),
    (((-22, -6, 98, 12), (-24, 2, 70, 11.5)), 2.0),
)


def mediastinum_surface(patient: Patient, coarse: Grid, heart: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distance inside what separates the lungs: spine, heart and great vessels with their fat, mm."""
    z, y, x = coarse.mesh()
    spine_x, spine_y = patient.spine(z)
    behind = y - spine_y
    body = 20 * patient.scale - length(x - spine_x, behind)
    ribs = (17 * patient.scale + 0.75 * behind - np.abs(x - spine_x)) * 0.8
    joined = np.maximum(body, np.where(behind > 0, ribs, -60))
    # Fat gathers on the heart in the corners it leaves: towards the apex and above the diaphragm.
    fat = 2.5 + 2.5 * smooth_noise(rng, coarse, 20.0)
    fat = np.clip(fat, 1.0, 7.0) + 6 * np.clip((patient.dome_mm + 12 - z) / 30, 0, 1) * (y < 10)
    joined = smooth_max(joined, heart + fat, 14.0)
    sternum = sternum_back(patient, z) + 9 * patient.scale
    wedge = (15 * exp(-np.abs(y - sternum) / 11) - np.abs(x - 3)) * patient.scale * 0.7
    joined = smooth_max(joined, wedge, 8.0)

    reach = 80 * patient.scale
    near = coarse.box((-1e4, -reach, -reach), (1e4, 1e4, reach))
    part = joined[near]
    z, y, x = z[near[0]], y[:, near[1]], x[:, :, near[2]]
    for knots, margin in _MEDIASTINAL:
        placed = patient.place(knots)
        for start, end in pairwise(placed):
            part = smooth_max(part, capsule(x, y, z, start, end, margin), 14.0)
    joined[near] = part
    return joined.astype(np.float32)


def heart_surfaces(patient: Patient, coarse: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Distance inside the heart, ventricles leaning left above the atria, and inside its chambers, mm."""
    box = coarse.box(*_HEART_REGION)
    z, y, x = (axis[part] for axis, part in zip(coarse.mesh(), _open(box), strict=True))
    surfaces = []
    tilt = patient.heart_tilt
    # A long chest stretches the heart with it, though less.
    stretch = float(np.sqrt(patient.lung_height_mm / REFERENCE_HEIGHT_MM / patient.scale))
    parts = (
        # centre x, y, z; half lengths; the long axis' direction
        ((24, -34, 86), (58, 39, 40), (0.80, -0.38 * tilt, -0.46 * tilt)),
        ((-6, -38, 92), (40, 36, 40), (0.80, -0.30, -0.50)),
        ((2, 2, 112), (37, 23, 26), (1.0, 0.0, 0.0)),
    )
    for centre, half, axis in parts:
        cx, cy, cz, _ = patient.place((*centre, 0)).tolist()
        axis = np.asarray(axis) / np.linalg.norm(axis)
        side = np.cross(axis, (0, 0, 1.0))
        side /= np.linalg.norm(side)
        up = np.cross(side, axis)
        dx, dy, dz = x - cx, y - cy, z - cz
        radii = np.asarray(half) * patient.scale * patient.heart_scale * (1, 1, stretch)
        share = np.sqrt(
            sum(
                ((dx * e[0] + dy * e[1] + dz * e[2]) / radius) ** 2
                for e, radius in zip(np.stack([axis, side, up]).tolist(), radii.tolist(), strict=True)
            )
        )
        share = np.maximum(share, 1e-3)
        distance = np.sqrt(dx * dx + dy * dy + dz * dz) * (1 / share - 1)
        surfaces.append(np.minimum(distance, 40))
    ventricles, right, atrium = surfaces
    whole = smooth_max(smooth_max(ventricles, right, 14.0), atrium, 14.0)
    # Fat fills the groove that the coronary vessels run in, between the ventricles and the atria.
    gx, gy, gz, _ = patient.place((2, -12, 106, 0)).tolist()
    plane = 0.80 * (x - gx) - 0.38 * (y - gy) - 0.46 * (z - gz)
    groove = 9 * exp(-((plane / 6) ** 2))
    left = ventricles - _LEFT_WALL_MM * patient.scale
    chambers = np.maximum(left, np.minimum(right - _THIN_WALL_MM, -2 - ventricles))
    chambers = np.maximum(chambers, np.minimum(atrium - _THIN_WALL_MM, -2 - ventricles))
    heart, blood = (np.full(coarse.shape, -_FAR_MM, np.float32) for _ in range(2))
    heart[box] = np.maximum(whole - groove, -_FAR_MM)
    blood[box] = np.maximum(np.minimum(chambers, whole - groove - _THIN_WALL_MM), -_FAR_MM)
    return heart, blood


def _open(box: tuple[slice, slice, slice]) -> tuple:
    """Index for each of a mesh's three arrays, which are long on one axis only."""
    return tuple(tuple(part if a == axis else slice(None) for a in range(3)) for axis, part in enumerate(box))


def draw_great_vessels(patient: Patient, grid: Grid, hu: np.ndarray, rng: np.random.Generator) -> None:
    """Draw great vessels, the plaques in an old aorta's wall, and the oesophagus."""
    older = 1 + _WIDER_A_YEAR * (patient.age_years - _MEAN_AGE)
    aorta = curve(patient.place(AORTA) * (1, 1, 1, older))
    lines = [aorta, *(curve(patient.place(knots)) for knots in (*_PULMONARY, *_VENOUS, *_BRANCHES))]
    points, radii = (np.concatenate(parts) for parts in zip(*lines, strict=True))
    paint(hu, stamp(grid, points, radii), patient.blood_hu + patient.contrast_hu)
    plaques = max(0, patient.age_years - _FIRST_PLAQUE_AGE) // _YEARS_A_PLAQUE
    if plaques:
        points, radii = aorta
        chosen = rng.integers(len(points) // 4, len(points), plaques)  # from the arch on downwards
        outward = rng.standard_normal((plaques, 3))
        outward *= (radii[chosen] / np.linalg.norm(outward, axis=1))[:, None]
        paint(hu, stamp(grid, points[chosen] + outward, rng.uniform(*_PLAQUE_MM, plaques)), _PLAQUE_HU)
    points, radii = curve(patient.place(_OESOPHAGUS))
    paint(hu, stamp(grid, points, radii), 38.0)


def heart_border_mm(patient: Patient) -> tuple[float, float, float]:
    """Where the heart meets the left lung, (x, y, z), mm."""
    x, y, z, _ = patient.place((62, -36, 92, 0))
    return float(x), float(y), float(z)
