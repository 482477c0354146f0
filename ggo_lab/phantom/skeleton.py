"""The bones of the chest: vertebrae, ribs with their cartilage, sternum, clavicles, shoulder blades."""

from collections.abc import Iterable

import numpy as np

from ggo_lab.phantom.body import lung_centre
from ggo_lab.phantom.grid import Grid
from ggo_lab.phantom.patient import CHEST_BOXINESS, Patient
from ggo_lab.phantom.shapes import curve, superellipse
from ggo_lab.phantom.stamps import paint, stamp, stamp_shell

CORTEX_HU = 750.0
# Marrow at 58 years, and by what share of itself it thins in a year: from memory, about 2 of 185 HU in the spine.
SPINE_MARROW_HU, RIB_MARROW_HU = 185.0, 90.0
_MEAN_AGE, _THINNER_A_YEAR = 58, 0.011
_CARTILAGE_HU, _HARDER_A_YEAR_HU = 85.0, 2.0  # cartilage of the ribs takes up calcium
_CORTEX_MM = 1.2
_Balls = tuple[np.ndarray, np.ndarray]  # centres (N, 3) as (x, y, z) and radii (N,), mm


def draw_bones(patient: Patient, grid: Grid, hu: np.ndarray, arm_bones: np.ndarray | None) -> None:
    """Draw vertebrae, ribs with cartilage, sternum, clavicles and scapulae: a cortex around marrow.

    Args:
        patient: who is drawn.
        grid: the voxels that are drawn.
        hu: float32 (Z, Y, X), HU, changed in place.
        arm_bones: course of the bones of arms beside the chest, (N, 3) as (x, y, z), mm.
    """
    bones = [_vertebral_bodies(patient), _vertebral_arches(patient), _sternum(patient), *_shoulder_blades(patient)]
    if arm_bones is not None:
        bones.append(_strands(arm_bones, 10.5 * patient.scale))
    cartilage = []
    for number in range(1, 11):
        (rib, rib_radii), (gristle, gristle_radii) = _rib(patient, number)
        for side in (-1, 1):
            mirror = (side, 1, 1)
            bones.append((rib * mirror, rib_radii))
            cartilage.append((gristle * mirror, gristle_radii))
    points, radii = (np.concatenate(parts) for parts in zip(*cartilage, strict=True))
    paint(hu, stamp(grid, points, radii), _CARTILAGE_HU + _HARDER_A_YEAR_HU * max(0, patient.age_years - _MEAN_AGE))
    points, radii = (np.concatenate(parts) for parts in zip(*bones, strict=True))
    bone, marrow = stamp_shell(grid, points, radii, _CORTEX_MM)
    paint(hu, bone, CORTEX_HU)
    paint(hu, marrow, _marrow_hu(patient, grid, marrow.voxels))
    z = np.arange(-25, patient.lung_height_mm * 1.1 + 20, 2.0)
    x, y = patient.spine(z)
    canal = np.stack([x, y + 24.5 * patient.scale, z], axis=1)
    paint(hu, stamp(grid, canal, np.full(len(z), 7.5 * patient.scale)), 22.0)


def _marrow_hu(patient: Patient, grid: Grid, index: np.ndarray) -> np.ndarray:
    """Attenuation of marrow at flat voxel positions, HU: the spine carries weight and holds more trabeculae."""
    _, y, x = np.unravel_index(index, grid.shape)
    x, y = grid.axis(2)[x], grid.axis(1)[y]
    spine = (np.abs(x) < 30 * patient.scale) & (y > 0)
    younger = 1 - _THINNER_A_YEAR * (patient.age_years - _MEAN_AGE)
    return (younger * np.where(spine, SPINE_MARROW_HU, RIB_MARROW_HU)).astype(np.float32)


def _strands(points: np.ndarray, radius: np.ndarray | float) -> _Balls:
    points = points.reshape(-1, 3)
    return points, np.broadcast_to(radius, len(points)).astype(float)


def _vertebra_levels(patient: Patient) -> np.ndarray:
    """Heights of the vertebrae's centres, mm."""
    spacing = 22.5 * patient.scale
    return np.arange(-1.5, (patient.lung_height_mm * 1.1 + 20) / spacing) * spacing


def _vertebral_bodies(patient: Patient) -> _Balls:
    spacing = 22.5 * patient.scale
    z = (_vertebra_levels(patient)[:, None] + np.linspace(-0.31, 0.31, 7) * spacing).ravel()
    x, y = patient.spine(z)
    size = (0.8 + 0.2 * np.clip(1 - z / patient.lung_height_mm, 0, 1.1)) * patient.scale
    points = [np.stack([x + shift * size, y + 1.0, z], axis=1) for shift in (-5.5, 5.5)]
    return np.concatenate(points), np.tile(14.5 * size - 1.0, 2)


def _at_heights(points: np.ndarray, lifts: Iterable[float]) -> np.ndarray:
    """Copies of points (N, 3), one lifted by each of lifts, mm."""
    return np.concatenate([points + np.array([0, 0, lift]) for lift in lifts])


def _vertebral_arches(patient: Patient) -> _Balls:
    size = patient.scale
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    ring = np.stack([11 * np.cos(angle), 24.5 + 11 * np.sin(angle), 0 * angle], axis=1)
    ring = _at_heights(ring, (-4, -1, 2, 5))
    t = np.linspace(0, 1, 12)
    spinous = np.stack([0 * t, 36 + 13 * t, -2 - 18 * t], axis=1)
    spinous = _at_heights(spinous, (-3, 0, 3))
    transverse = [np.stack([side * (13 + 20 * t), 23 + 12 * t, 2 + 0 * t], axis=1) for side in (-1, 1)]
    shape = np.concatenate([ring, spinous, *transverse]) * size
    radius = np.concatenate(
        [np.full(len(ring), 2.6), np.full(len(spinous), 2.8), np.tile(4.4 - 0.4 * np.cos(3 * np.pi * t), 2)]
    )
    levels = _vertebra_levels(patient)
    x, y = patient.spine(levels)
    points = shape[None] + np.stack([x, y, levels], axis=1)[:, None]
    return points.reshape(-1, 3), np.tile(radius * size, len(levels))


def _wall_point(patient: Patient, angle: np.ndarray, z: np.ndarray, outside_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Point (|x|, y) outside the chest's inner wall; angle 0 is the back of the lung, pi its front."""
    width, front, back = patient.section(z)
    across, along = width - lung_centre(width) + outside_mm, (back - front) / 2 + outside_mm
    reach = 1 / superellipse(np.sin(angle), np.cos(angle), CHEST_BOXINESS)
    x = lung_centre(width) + across * reach * np.abs(np.sin(angle))
    return x, (front + back) / 2 + along * reach * np.cos(angle)


def _rib(patient: Patient, number: int) -> tuple[_Balls, _Balls]:
    """One left rib (points, radii) and its cartilage (points, radii); number 1 is the highest."""
    size, height = patient.scale, patient.lung_height_mm
    start_z = height * (1.005 - 0.092 * (number - 1))
    drop = height * (0.10 + 0.05 * min(number, 5)) * (1 if number < 8 else 0.85)
    end = np.pi * (0.80 if number < 7 else 0.80 - 0.07 * (number - 6))
    angle = np.linspace(0.0, end, 90)
    z = start_z - drop * np.sin(angle / 2) ** 2 * 1.05
    x, y = _wall_point(patient, angle, z, 5.0 * size)
    _, spine_y = patient.spine(np.array(start_z))
    t = np.linspace(0, 1, 24)[:-1, None]
    head = np.array([[17 * size, float(spine_y) + 14 * size, start_z + 3]])
    knee = np.array([[x[0] * 0.72, y[0] + 2, start_z + 1]])
    neck = (1 - t) ** 2 * head + 2 * t * (1 - t) * knee + t**2 * np.array([[x[0], y[0], z[0]]])
    line = np.concatenate([neck, np.stack([x, y, z], axis=1)])
    tall = _at_heights(line, size * np.array([-3.0, 0.0, 3.0]))
    rib = _strands(tall, (3.9 if number > 1 else 3.4) * size)

    rise = size * np.interp(number, (1, 3, 7, 10), (-4, 6, 45, 60))
    goal_z = z[-1] + rise
    goal = np.array([16 * size, sternum_back(patient, goal_z), goal_z])
    if number > 7:
        goal[0] *= 2.6
    gristle_angle = np.linspace(end, np.pi * 0.93, 12)
    gx, gy = _wall_point(patient, gristle_angle, np.full(12, z[-1]), 6.0 * size)
    bend = np.linspace(0, 1, 12)[:, None] ** 1.5
    cartilage = (1 - bend) * np.stack([gx, gy, np.full(12, z[-1])], axis=1) + bend * goal
    cartilage = _at_heights(curve(np.c_[cartilage, np.full(12, 5.0 * size)], 2.0)[0], (-2, 2))
    return rib, (cartilage, np.full(len(cartilage), 4.6 * size))


def sternum_back(patient: Patient, z: np.ndarray | float) -> np.ndarray:
    """Where the sternum's back lies at heights z: y, mm."""
    _, front, back = patient.section(z)
    return (front + back) / 2 - 0.86 * (back - front) / 2 - 9 * patient.scale


def _sternum(patient: Patient) -> _Balls:
    z = np.arange(0.40 * patient.lung_height_mm, 0.90 * patient.lung_height_mm, 2.5)
    u = z / patient.lung_height_mm
    half = np.interp(u, (0.40, 0.46, 0.7, 0.76, 0.90), (5, 15, 13, 19, 24)) * patient.scale
    across = np.linspace(-1, 1, 13)
    x = half[:, None] * across
    y = np.broadcast_to(sternum_back(patient, z)[:, None] + 2.5 * across**2, x.shape)
    points = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=2)
    return _strands(points, 5.2 * patient.scale)


def _shoulder_blades(patient: Patient) -> list[_Balls]:
    size, height = patient.scale, patient.lung_height_mm
    parts = []
    z = np.arange(0.52 * height, 1.02 * height, 2.4)
    t = (z - z[0]) / (z[-1] - z[0])
    inner, outer = (74 - 14 * t) * size, (80 + 38 * t) * size
    across = np.linspace(0, 1, 28)
    x = inner[:, None] + (outer - inner)[:, None] * across
    width, front, back = (part[:, None] for part in patient.section(np.minimum(z, 0.8 * height)))
    reach = np.clip((x - lung_centre(width)) / (0.55 * width + 26 * size), 0, 0.97)
    y = (front + back) / 2 + ((back - front) / 2 + 15 * size) * np.sqrt(1 - reach * reach)
    blade = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=2)
    radius = np.where(across > 0.86, 4.6, np.where(across < 0.1, 2.6, 1.6)) * size
    ridge_t = np.linspace(0, 1, 40)
    row = blade[int(0.72 * len(z))]
    ridge = np.stack(
        [
            np.interp(ridge_t, across, row[:, 0]),
            np.interp(ridge_t, across, row[:, 1]) + 12 * ridge_t * size,
            row[0, 2] + 10 * ridge_t,
        ],
        axis=1,
    )
    collar = curve(patient.place(((20, -74, 236, 6), (60, -62, 246, 5.5), (110, -30, 262, 6), (150, 10, 270, 6))))[0]
    for side in (-1, 1):
        mirror = (side, 1, 1)
        parts.append((blade.reshape(-1, 3) * mirror, np.tile(radius, len(z))))
        parts.append(_strands(ridge * mirror, 4.0 * size))
        parts.append(_strands(collar * mirror, 5.5 * size))
    return parts
