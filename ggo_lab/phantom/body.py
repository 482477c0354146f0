"""The body around the lungs: chest wall, skin, fat, muscle, diaphragm, and the upper abdomen."""

import numpy as np
from scipy.interpolate import PchipInterpolator

from ggo_lab.phantom.grid import AIR_HU, Grid, smooth_noise
from ggo_lab.phantom.patient import CHEST_BOXINESS, REFERENCE_DEPTH_MM, Patient
from ggo_lab.phantom.shapes import Filler, capsule, smooth_min, superellipse
from ggo_lab.phantom.steady import exp, length, power

FAT_HU = -100.0
MUSCLE_HU = 48.0
LIVER_HU = 58.0
SPLEEN_HU = 50.0
SKIN_HU = 35.0
EFFUSION_HU = 10.0


def body_back_mm(patient: Patient) -> float:
    """Return y of the hindmost skin, mm."""
    return float(skin_back(patient, np.linspace(0, patient.lung_height_mm, 20)).max())


def lung_centre(half_width: np.ndarray) -> np.ndarray:
    """Distance of each lung's middle from the midline, where the chest is so wide, mm."""
    return 0.41 * half_width


def chest_wall(patient: Patient, coarse: Grid) -> np.ndarray:
    """Distance inside the inner chest wall, mm: in each section two superellipses, one around each lung."""
    z, y, x = coarse.mesh()
    width, front, back = patient.section(z)
    across = np.abs(x) - lung_centre(width)
    across_radius = np.where(across > 0, width - lung_centre(width), 0.75 * width)
    along, along_radius = y - (front + back) / 2, (back - front) / 2
    share = np.maximum(superellipse(across / across_radius, along / along_radius, CHEST_BOXINESS), 1e-3)
    distance = length(across, along) * (1 / share - 1)
    top = (patient.lung_height_mm - z) * 0.9
    return smooth_min(np.minimum(distance, 60), np.broadcast_to(top, distance.shape), 16.0).astype(np.float32)


def skin_surface(patient: Patient, coarse: Grid) -> np.ndarray:
    """Distance inside the skin, mm."""
    z, y, x = coarse.mesh()
    u = z / patient.lung_height_mm
    size, fat, deep = patient.scale, patient.fat_mm, patient.half_depth_mm / REFERENCE_DEPTH_MM
    bulk = PchipInterpolator((-0.2, 0.2, 0.55, 0.75, 0.9, 1.1), (20, 23, 27, 33, 52, 78))(np.clip(u, -0.2, 1.1))
    bulk = bulk.astype(np.float32)
    width = patient.half_width_mm + bulk * size * (0.8 + patient.muscle_mm / 40) + fat * 0.75
    heights = (-0.2, 0.2, 0.5, 0.68, 0.77, 0.86, 0.95, 1.1)
    front = PchipInterpolator(heights, (-104, -106, -106, -101, -95, -86, -74, -56))(np.clip(u, -0.2, 1.1))
    front, back = front.astype(np.float32) * deep - fat * 0.65, skin_back(patient, z)
    along, along_radius = y - (front + back) / 2, (back - front) / 2
    share = np.maximum(superellipse(x / width, along / along_radius, 0.3), 1e-3)
    distance = length(x, along) * (1 / share - 1)
    furrow = 3 * exp(-((x / 14) ** 2)) * (y > 0)  # over the spine
    breast = exp(-((((np.abs(x) - 80 * size) / 52) ** 2) ** 2) - ((u - 0.42) / 0.17) ** 2) * (y < 0)
    return (np.minimum(distance, 80) - furrow + 0.85 * patient.breast_mm * breast).astype(np.float32)


def skin_back(patient: Patient, z: np.ndarray) -> np.ndarray:
    """Where the back's skin lies at heights z, mm: behind muscles and fat, and behind the spinous processes."""
    heights = (-0.2, 0.2, 0.5, 0.68, 0.77, 0.86, 0.95, 1.1)
    back = PchipInterpolator(heights, (100, 108, 112, 108, 103, 96, 88, 78))(
        np.clip(z / patient.lung_height_mm, -0.2, 1.1)
    )
    flesh = back * patient.half_depth_mm / REFERENCE_DEPTH_MM + patient.fat_mm * 0.55
    return np.maximum(flesh.astype(np.float32), patient.spine(z)[1] + 58 * patient.scale)


def _diaphragm_height(patient: Patient, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    width, front, back = patient.section(np.asarray(0.12 * patient.lung_height_mm))
    crest = front + 0.36 * (back - front)
    backward = np.clip((y - crest) / (back - crest), 0, 1.3)
    forward = np.clip((crest - y) / (crest - front), 0, 1.3)
    sideways = np.clip((np.abs(x) - lung_centre(width)) / (0.55 * width), -0.8, 1.2)
    steep = 2 * patient.dome_steepness  # a flat dome that falls steeply leaves a thin, deep recess
    aside = power(np.abs(sideways), steep) * (0.7 + 0.3 * sideways) * (sideways > 0)
    fall = power(backward, steep) + 0.22 * forward**2 + 0.6 * aside
    fall = fall + 0.12 * sideways**2 * (sideways < 0)
    left = 1 / (1 + exp(-x / 12))
    return (patient.dome_mm - patient.dome_drop_mm * left) * (1 - fall)


def above_diaphragm(patient: Patient, coarse: Grid) -> np.ndarray:
    """Distance above the diaphragm's two domes, mm, float32 on coarse."""
    z, y, x = coarse.mesh()
    return ((z - _diaphragm_height(patient, x, y, z)) * 0.8).astype(np.float32)


def muscle_surface(
    patient: Patient, coarse: Grid, chest: np.ndarray, skin: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Distance inside the muscles of the chest wall, mm."""
    z, y, x = coarse.mesh()
    u, size = z / patient.lung_height_mm, patient.muscle_mm / 8
    aside = np.abs(x)
    pectoral = 15 * exp(-(((aside - 75) / 38) ** 2) - ((u - 0.78) / 0.2) ** 2) * (y < 0)
    lateral = 10 * exp(-(((u - 0.5) / 0.35) ** 2)) * np.clip((aside - 60) / 50, 0, 1) * np.clip((y + 30) / 40, 0, 1)
    erector = 30 * exp(-((((aside - 24) / 24) ** 2) ** 2)) * (y > 20)
    shoulder = 70 * np.clip((u - 0.78) / 0.25, 0, 1) * np.clip((aside - 30) / 50, 0, 1)
    back = 16 * exp(-(((u - 0.72) / 0.22) ** 2)) * (y > 10)
    thickness = 8 + size * (pectoral + lateral + erector + shoulder + back)
    uneven = 1.5 * smooth_noise(rng, coarse, 11.0)
    return smooth_min(chest + thickness + uneven, skin - 3 - 0.45 * patient.fat_mm + uneven, 5.0).astype(np.float32)


def fill_abdomen(patient: Patient, coarse: Grid, fill: Filler, abdomen: np.ndarray, rng: np.random.Generator) -> None:
    """Draw liver, spleen, stomach with its bubble of air, under the diaphragm."""
    z, y, x = coarse.mesh()
    size, floor = patient.scale, patient.dome_mm - patient.dome_drop_mm
    fill(abdomen + 3, (0, MUSCLE_HU), (3, FAT_HU))  # the diaphragm, with fat under it
    liver = smooth_min(abdomen - 1, (42 * size - x - 0.45 * y) * 0.85, 12.0)
    liver = smooth_min(liver, length(x, y - patient.spine(z)[1]) - 30 * size, 8.0)
    fill(liver, (0, LIVER_HU + 0.25 * patient.contrast_hu))

    def ellipsoid(centre: tuple[float, float, float], half: tuple[float, float, float]) -> np.ndarray:
        offsets = [(axis - c * size) / (h * size) for axis, c, h in zip((x, y, z), centre, half, strict=True)]
        return (1 - np.sqrt(sum(o**2 for o in offsets))) * min(half) * size

    under = floor / size
    spleen = smooth_min(abdomen - 2, ellipsoid((82, 40, under - 52), (27, 38, 46)), 6.0)
    fill(spleen, (0, SPLEEN_HU + 0.4 * patient.contrast_hu))
    bulge = rng.uniform(0.75, 1.1)
    centre = (rng.uniform(50, 64), rng.uniform(-26, -8), under - 36 * bulge)
    stomach = ellipsoid(centre, (42 * bulge, 46 * bulge, 36 * bulge)) + 4 * smooth_noise(rng, coarse, 18.0)
    stomach = smooth_min(abdomen - 4, stomach, 6.0)
    fill(stomach, (0, MUSCLE_HU), (4, 14 + 7 * smooth_noise(rng, coarse, 9.0)))
    fill(smooth_min(stomach - 4, np.broadcast_to(rng.uniform(-40, -10) - y, stomach.shape), 1.0), (0, AIR_HU))


def muscle_hu(coarse: Grid, chest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Attenuation of the chest wall's muscles on the coarse lattice, HU: layers with fat between and streaks within."""
    between = exp(-(((-chest - 12) / 2.5) ** 2))  # outside the ribs
    streaks = np.clip(1 - np.abs(smooth_noise(rng, coarse, 9.0)) / 0.35, 0, 1)
    return (MUSCLE_HU - 75 * between * np.clip(0.6 + streaks, 0, 1) - 45 * streaks).astype(np.float32)


def draw_arms(patient: Patient, coarse: Grid, fill: Filler) -> np.ndarray:
    """Draw upper arms beside the chest; return the course of both bones, (N, 3) as (x, y, z), mm."""
    z, y, x = coarse.mesh()
    outer, height = patient.half_width_mm + 23 * patient.scale + 0.75 * patient.fat_mm, patient.lung_height_mm
    thick = 32 * patient.scale + 0.45 * patient.fat_mm + 0.4 * patient.muscle_mm
    shoulder = np.array([outer + 0.4 * thick, 8.0, 0.93 * height, thick])
    elbow = np.array([outer + 1.0 * thick, 24.0, -40.0, 0.82 * thick])
    bones = []
    for side in (1, -1):
        start, end = (knot * (side, 1, 1, 1) for knot in (shoulder, elbow))
        arm = capsule(x, y, z, start, end, 0.0)
        rim = 2 + 0.45 * patient.fat_mm
        fill(arm, (0, SKIN_HU), (2, FAT_HU), (rim, MUSCLE_HU))
        bones.append(start[:3] + np.linspace(0, 1, 90)[:, None] * (end - start)[:3])
    return np.concatenate(bones)


def effusion_mm(patient: Patient, coarse: Grid, rng: np.random.Generator) -> np.ndarray:
    """Thickness of fluid between the chest wall and the lung, mm: at the back and the bases of one or both sides."""
    z, y, x = coarse.mesh()
    u, back = z / patient.lung_height_mm, y / patient.half_depth_mm
    left, right = rng.uniform(0.3, 1, 2)
    left, right = (0, right) if left < 0.5 and left < right else (left, 0 if right < 0.5 else right)
    side = np.where(x > 0, left, right)
    return rng.uniform(14, 28) * side * np.clip((back - 0.1) / 0.5, 0, 1) * np.clip((0.6 - u) / 0.4, 0, 1)
