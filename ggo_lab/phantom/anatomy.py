"""The healthy patient: size and shape, body wall, bones, mediastinum, lungs and upper abdomen.

Coordinates are the patient's millimetres: x grows from the patient's right to left with 0 in the midline, y from front
to back with 0 half-way through the chest, z from feet to head with 0 at the lowest point of the lungs. The tables below
describe one reference chest (lungs 260 mm high, 234 mm wide, 176 mm deep); every patient is a deformation of it.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.interpolate import PchipInterpolator

from ggo_lab.phantom.scanner import AIR_HU, COARSE_MM, Grid, Stamp, smooth_noise

FAT_HU = -100.0
MUSCLE_HU = 48.0
LIVER_HU = 58.0
SPLEEN_HU = 50.0
CORTEX_HU = 750.0
MARROW_HU = 190.0

_REFERENCE_VOLUME_L = 3.75  # lungs without airways, as drawn from these tables
_REFERENCE_HEIGHT_MM, _REFERENCE_DEPTH_MM, _REFERENCE_WIDTH_MM = 260.0, 88.0, 117.0  # the last two are half sizes
# Height as a share of the lungs' height, then the inner chest wall there: half width, front and back, mm.
_SECTIONS = np.array(
    [
        (-0.20, 113, -80, 60),
        (0.00, 117, -84, 63),
        (0.12, 117, -86, 72),
        (0.22, 116, -88, 80),
        (0.31, 115, -88, 84),
        (0.40, 113, -88, 87),
        (0.49, 110, -88, 88),
        (0.58, 108, -83, 84),
        (0.68, 104, -76, 75),
        (0.77, 97, -67, 64),
        (0.86, 84, -48, 51),
        (0.94, 66, -27, 36),
        (1.00, 46, -14, 22),
        (1.10, 40, -12, 18),
    ]
).T
_ROUNDNESS = 2.3  # exponent of the superellipse of a chest section: 2 is an ellipse, more is boxier
_SPINE_BEHIND_MM = 27.0  # centre of the vertebral bodies in front of the hindmost lung


@dataclass(frozen=True)
class Patient:
    """One patient's body, as drawn by sample_patient.

    Attributes:
        sex: "female" or "male".
        scale: body size relative to the reference chest.
        lung_volume_l: lung volume aimed at, litres.
        lung_height_mm: from the deepest recess to the higher apex, mm.
        half_width_mm, half_depth_mm: of the chest's inside, at its widest, mm.
        fat_mm, breast_mm, muscle_mm: thickness of the fat under the skin, of the breasts (0: none) and of the
            chest's muscles, mm.
        dome_mm, dome_drop_mm: height of the right diaphragm, and how much lower the left one stands, mm.
        heart_scale, heart_tilt: size of the heart relative to the body, and its lean (1: usual).
        spine_sway_mm: sideways bow of the spine, mm.
        lung_hu, gradient_hu: median attenuation of the parenchyma and its rise from front to back, HU.
        blood_hu: attenuation of blood, HU.
    """

    sex: str
    scale: float
    lung_volume_l: float
    lung_height_mm: float
    half_width_mm: float
    half_depth_mm: float
    fat_mm: float
    breast_mm: float
    muscle_mm: float
    dome_mm: float
    dome_drop_mm: float
    heart_scale: float
    heart_tilt: float
    spine_sway_mm: float
    lung_hu: float
    gradient_hu: float
    blood_hu: float

    def place(self, knots) -> np.ndarray:
        """Move reference (x, y, z, radius) rows, mm, to where this patient has them."""
        return np.asarray(knots, float) * (
            self.scale,
            self.half_depth_mm / _REFERENCE_DEPTH_MM,
            self.lung_height_mm / _REFERENCE_HEIGHT_MM,
            self.scale,
        )

    def section(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inner chest wall at heights z: half width, front and back, mm."""
        width, front, back = PchipInterpolator(_SECTIONS[0], _SECTIONS[1:], axis=1)(
            np.clip(np.asarray(z) / self.lung_height_mm, _SECTIONS[0, 0], _SECTIONS[0, -1])
        )
        deep = self.half_depth_mm / _REFERENCE_DEPTH_MM
        return width * self.half_width_mm / _REFERENCE_WIDTH_MM, front * deep, back * deep

    def spine(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre (x, y) of the vertebral bodies at heights z, mm."""
        u = np.asarray(z) / self.lung_height_mm
        knots = (-0.3, 0.0, 0.25, 0.5, 0.75, 0.95, 1.15)
        back = PchipInterpolator(knots, (52, 60, 62, 61, 50, 26, 4))(np.clip(u, -0.3, 1.15))
        y = back * self.half_depth_mm / _REFERENCE_DEPTH_MM
        return self.spine_sway_mm * np.sin(np.pi * u), y


def sample_patient(rng: np.random.Generator) -> Patient:
    """Draw one adult. Supine lung volume 4.07 +- 1.19 L; the other ranges are common radiological ones."""
    sex = "female" if rng.random() < 0.5 else "male"
    scale = float(np.clip(rng.normal(1.02 if sex == "male" else 0.93, 0.045), 0.82, 1.15))
    volume = float(np.clip(rng.normal(4.45 if sex == "male" else 3.65, 1.1), 2.0, 6.8))
    slender = rng.normal(0, 0.05)
    # The chest's cross-section follows the body, the lungs' height then gives the volume.
    stretch = (volume / _REFERENCE_VOLUME_L / scale**3) ** (1 / 3)
    width = _REFERENCE_WIDTH_MM * scale * stretch**0.55 * (1 - slender)
    depth = _REFERENCE_DEPTH_MM * scale * stretch**0.85 * (1 + rng.normal(0, 0.05))
    height = (
        _REFERENCE_HEIGHT_MM
        * (volume / _REFERENCE_VOLUME_L)
        / ((width / _REFERENCE_WIDTH_MM) * (depth / _REFERENCE_DEPTH_MM))
    )
    return Patient(
        sex=sex,
        scale=scale,
        lung_volume_l=volume,
        lung_height_mm=float(np.clip(height, 185, 330)),
        half_width_mm=float(width),
        half_depth_mm=float(depth),
        fat_mm=float(np.clip(rng.gamma(3.0, 4.2) + (4 if sex == "female" else 2), 4, 38)),
        breast_mm=float(rng.uniform(8, 34)) if sex == "female" else 0.0,
        muscle_mm=float(rng.normal(9 if sex == "male" else 6.5, 1.2)),
        dome_mm=float(height * rng.uniform(0.26, 0.34)),
        dome_drop_mm=float(rng.uniform(6, 20)),
        heart_scale=float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.2)),
        heart_tilt=float(rng.normal(1.0, 0.12)),
        spine_sway_mm=float(rng.normal(0, 3)),
        lung_hu=float(rng.normal(-858, 20)),
        gradient_hu=float(rng.uniform(12, 57)),
        blood_hu=float(rng.uniform(36, 52)),
    )


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The healthy chest on a grid, before the lungs' inner structures.

    Attributes:
        hu: float32 (Z, Y, X), HU; lungs hold fat until they are filled.
        pleura: float32 (Z, Y, X), share of each voxel inside the lungs, 0..1.
        left, right: bool (Z, Y, X), voxels at least half inside each lung.
        lung_box: slices of the smallest box around both lungs.
        coarse: the lattice for smooth fields.
        depth_mm: float32 on coarse, distance from the pleura, positive inside the lungs, mm.
    """

    hu: np.ndarray
    pleura: np.ndarray
    left: np.ndarray
    right: np.ndarray
    lung_box: tuple[slice, slice, slice]
    coarse: Grid
    depth_mm: np.ndarray

    def in_lungs(self, points: np.ndarray) -> np.ndarray:
        """Tell for points (N, 3) as (x, y, z), mm, whether they lie inside the lungs, to the coarse lattice's step."""
        place = np.rint((points[:, ::-1] - self.coarse.origin) / self.coarse.spacing).astype(int)
        inside = ((place >= 0) & (place < self.coarse.shape)).all(axis=1)
        inside[inside] = self.depth_mm[tuple(place[inside].T)] > 0
        return inside


def body_box(patient: Patient) -> tuple[tuple, tuple]:
    """Corners (z, y, x) in mm of what the scan shows: lungs with a margin, the body's full width below the arms."""
    around = patient.half_width_mm + 30 * patient.scale + patient.fat_mm + 14
    middle = 12.0
    top = patient.lung_height_mm * 1.035 + 8
    return (-14.0, middle - around, -around), (top, middle + around, around)


def body_back_mm(patient: Patient) -> float:
    """Return y of the hindmost skin, mm."""
    return float(_skin_back(patient, np.linspace(0, patient.lung_height_mm, 20)).max())


def smooth_min(a, b, blend_mm: float) -> np.ndarray:
    """Smaller of two distances, with the edge where they meet rounded over blend_mm."""
    overlap = np.maximum(blend_mm - np.abs(a - b), 0)
    return np.minimum(a, b) - overlap**2 / (4 * blend_mm)


def smooth_max(a, b, blend_mm: float) -> np.ndarray:
    """Larger of two distances: two solids joined, with a fillet of about blend_mm."""
    return -smooth_min(-a, -b, blend_mm)


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


def paint(hu: np.ndarray, stamp: Stamp, value) -> None:
    """Mix value (HU; a number, or one for each voxel of the stamp) into hu where the stamp lies, in place."""
    flat = hu.reshape(-1)
    flat[stamp.index] += stamp.coverage * (value - flat[stamp.index])


def build_anatomy(patient: Patient, grid: Grid, rng: np.random.Generator) -> Anatomy:
    """Draw everything but the lungs' inside."""
    coarse = Grid.coarse(grid.region)
    chest = _chest(patient, coarse)
    skin = _skin(patient, coarse)
    heart = _heart(patient, coarse)
    mediastinum = _mediastinum(patient, coarse, heart, rng)
    dome = _above_diaphragm(patient, coarse)
    depth = smooth_min(smooth_min(chest, -mediastinum, 9.0), dome, 7.0)
    depth = (depth + 0.5 * smooth_noise(rng, coarse, 16.0)).astype(np.float32)

    hu = np.full(grid.shape, AIR_HU, np.float32)
    fill = _Filler(hu, grid, coarse)
    fill(skin, 35.0)
    fill(skin - 2.0, FAT_HU + 6 * smooth_noise(rng, coarse, 10.0))
    fill(_muscles(patient, coarse, chest, skin, rng), MUSCLE_HU)
    fill(smooth_min(chest, skin - 4, 4.0), FAT_HU + 4)
    _fill_abdomen(patient, coarse, fill, smooth_min(chest, -dome, 6.0), rng)
    fill(heart, patient.blood_hu)
    _draw_vessels(patient, grid, hu)
    _draw_bones(patient, grid, hu, rng)

    pleura = grid.sample(coarse, depth)
    side = _split_sides(patient, grid, pleura)
    _sharpen(pleura, grid)
    left = pleura >= 0.5
    right = left & ~side
    left &= side
    z, y, x = np.nonzero(depth > -COARSE_MM)
    corners = [
        [coarse.origin[a] + COARSE_MM * float(edge) for a, edge in enumerate((pick(z), pick(y), pick(x)))]
        for pick in (np.min, np.max)
    ]
    return Anatomy(hu, pleura, left, right, grid.box(*corners), coarse, depth)


class _Filler:
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
        _sharpen(share, self.grid)
        if isinstance(value, np.ndarray):
            value = self.grid.sample(self.coarse, value.astype(np.float32), box)
        region = self.hu[box]
        region += share * (value - region)


def _sharpen(distance: np.ndarray, grid: Grid) -> None:
    """Turn distance inside a surface (mm) into the share of the voxel inside it, in place."""
    distance *= np.float32(1 / grid.spacing[1])
    distance += np.float32(0.5)
    np.clip(distance, 0, 1, out=distance)


def _superellipse(across, along, exponent: float) -> np.ndarray:
    return (np.abs(across) ** exponent + np.abs(along) ** exponent) ** (1 / exponent)


def _lung_centre(half_width):
    return 0.45 * half_width


def _chest(patient: Patient, coarse: Grid) -> np.ndarray:
    """Distance inside the inner chest wall, mm: in each section two superellipses, one around each lung."""
    z, y, x = coarse.mesh()
    width, front, back = patient.section(z)
    across = np.abs(x) - _lung_centre(width)
    across_radius = np.where(across > 0, width - _lung_centre(width), 0.75 * width)
    along, along_radius = y - (front + back) / 2, (back - front) / 2
    share = np.maximum(_superellipse(across / across_radius, along / along_radius, _ROUNDNESS), 1e-3)
    distance = np.hypot(across, along) * (1 / share - 1)
    top = (patient.lung_height_mm - z) * 0.9
    return smooth_min(np.minimum(distance, 60), np.broadcast_to(top, distance.shape), 16.0).astype(np.float32)


def _skin(patient: Patient, coarse: Grid) -> np.ndarray:
    """Distance inside the skin, mm."""
    z, y, x = coarse.mesh()
    u = z / patient.lung_height_mm
    size, fat, deep = patient.scale, patient.fat_mm, patient.half_depth_mm / _REFERENCE_DEPTH_MM
    bulk = PchipInterpolator((-0.2, 0.2, 0.55, 0.75, 0.9, 1.1), (20, 23, 27, 33, 52, 78))(np.clip(u, -0.2, 1.1))
    width = patient.half_width_mm + bulk * size * (0.8 + patient.muscle_mm / 40) + fat * 0.75
    heights = (-0.2, 0.2, 0.5, 0.68, 0.77, 0.86, 0.95, 1.1)
    front = PchipInterpolator(heights, (-104, -106, -106, -101, -95, -86, -74, -56))(np.clip(u, -0.2, 1.1))
    front, back = front * deep - fat * 0.65, _skin_back(patient, z)
    along, along_radius = y - (front + back) / 2, (back - front) / 2
    share = np.maximum(_superellipse(x / width, along / along_radius, 2.5), 1e-3)
    distance = np.hypot(x, along) * (1 / share - 1)
    furrow = 3 * np.exp(-((x / 14) ** 2)) * (y > 0)  # over the spine
    breast = np.exp(-(((np.abs(x) - 72 * size) / 40) ** 2) - ((u - 0.42) / 0.17) ** 2) * (y < 0)
    return (np.minimum(distance, 80) - furrow + patient.breast_mm * breast).astype(np.float32)


def _skin_back(patient: Patient, z: np.ndarray) -> np.ndarray:
    """Where the back's skin lies at heights z, mm: behind muscles and fat, and behind the spinous processes."""
    heights = (-0.2, 0.2, 0.5, 0.68, 0.77, 0.86, 0.95, 1.1)
    back = PchipInterpolator(heights, (100, 108, 112, 108, 103, 96, 88, 78))(
        np.clip(z / patient.lung_height_mm, -0.2, 1.1)
    )
    flesh = back * patient.half_depth_mm / _REFERENCE_DEPTH_MM + patient.fat_mm * 0.55
    return np.maximum(flesh, patient.spine(z)[1] + 58 * patient.scale)


def _mediastinum(patient: Patient, coarse: Grid, heart: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Distance inside what separates the lungs: spine, heart and great vessels with their fat, mm."""
    z, y, x = coarse.mesh()
    spine_x, spine_y = patient.spine(z)
    behind = y - spine_y
    body = 20 * patient.scale - np.hypot(x - spine_x, behind)
    ribs = (17 * patient.scale + 0.75 * behind - np.abs(x - spine_x)) * 0.8
    joined = np.maximum(body, np.where(behind > 0, ribs, -60))
    # Fat gathers on the heart in the corners it leaves: towards the apex and above the diaphragm.
    fat = 2.5 + 2.5 * smooth_noise(rng, coarse, 20.0)
    fat = np.clip(fat, 1.0, 7.0) + 6 * np.clip((patient.dome_mm + 12 - z) / 30, 0, 1) * (y < 10)
    joined = smooth_max(joined, heart + fat, 14.0)
    sternum = _sternum_y(patient, z) + 9 * patient.scale
    wedge = (15 * np.exp(-np.abs(y - sternum) / 11) - np.abs(x - 3)) * patient.scale * 0.7
    joined = smooth_max(joined, wedge, 8.0)

    reach = 80 * patient.scale
    near = coarse.box((-1e4, -reach, -reach), (1e4, 1e4, reach))
    part = joined[near]
    z, y, x = z[near[0]], y[:, near[1]], x[:, :, near[2]]
    for knots, margin in _MEDIASTINAL:
        placed = patient.place(knots)
        for start, end in pairwise(placed):
            part = smooth_max(part, _capsule(x, y, z, start, end, margin), 14.0)
    joined[near] = part
    return joined.astype(np.float32)


def _capsule(x, y, z, start: np.ndarray, end: np.ndarray, margin: float) -> np.ndarray:
    """Distance inside a tapered tube from start to end (x, y, z, radius), widened by margin, mm."""
    direction = (end - start)[:3]
    length = float(direction @ direction)
    t = ((x - start[0]) * direction[0] + (y - start[1]) * direction[1] + (z - start[2]) * direction[2]) / length
    t = np.clip(t, 0, 1)
    dx, dy, dz = (offset - start[a] - t * direction[a] for a, offset in enumerate((x, y, z)))
    return start[3] + t * (end[3] - start[3]) + margin - np.sqrt(dx * dx + dy * dy + dz * dz)


def _heart(patient: Patient, coarse: Grid) -> np.ndarray:
    """Distance inside the heart: ventricles leaning left, right atrium, left atrium, mm."""
    z, y, x = coarse.mesh()
    inside = np.float32(-100)
    tilt = patient.heart_tilt
    parts = (
        # centre x, y, z; half lengths; the long axis' direction
        ((24, -34, 86), (58, 39, 40), (0.80, -0.38 * tilt, -0.46 * tilt)),
        ((-6, -38, 92), (40, 36, 40), (0.80, -0.30, -0.50)),
        ((2, 2, 112), (37, 23, 26), (1.0, 0.0, 0.0)),
    )
    for centre, half, axis in parts:
        cx, cy, cz, _ = patient.place((*centre, 0))
        axis = np.asarray(axis) / np.linalg.norm(axis)
        side = np.cross(axis, (0, 0, 1.0))
        side /= np.linalg.norm(side)
        up = np.cross(side, axis)
        dx, dy, dz = x - cx, y - cy, z - cz
        radii = np.asarray(half) * patient.scale * patient.heart_scale
        share = np.sqrt(
            sum(
                ((dx * e[0] + dy * e[1] + dz * e[2]) / radius) ** 2
                for e, radius in zip((axis, side, up), radii, strict=True)
            )
        )
        share = np.maximum(share, 1e-3)
        distance = np.sqrt(dx * dx + dy * dy + dz * dz) * (1 / share - 1)
        inside = smooth_max(inside, np.minimum(distance, 40), 12.0)
    return inside


def _diaphragm_height(patient: Patient, x, y, z) -> np.ndarray:
    width, front, back = patient.section(np.asarray(0.12 * patient.lung_height_mm))
    crest = front + 0.36 * (back - front)
    backward = np.clip((y - crest) / (back - crest), 0, 1.3)
    forward = np.clip((crest - y) / (crest - front), 0, 1.3)
    sideways = np.clip((np.abs(x) - _lung_centre(width)) / (0.55 * width), -0.8, 1.2)
    fall = 1.0 * backward**2.0 + 0.22 * forward**2 + 0.6 * np.abs(sideways) ** 2.4 * (sideways > 0)
    fall = fall + 0.12 * sideways**2 * (sideways < 0)
    left = 1 / (1 + np.exp(-x / 12))
    return (patient.dome_mm - patient.dome_drop_mm * left) * (1 - fall)


def _above_diaphragm(patient: Patient, coarse: Grid) -> np.ndarray:
    z, y, x = coarse.mesh()
    return ((z - _diaphragm_height(patient, x, y, z)) * 0.8).astype(np.float32)


def _split_sides(patient: Patient, grid: Grid, depth: np.ndarray) -> np.ndarray:
    """Part the lungs in front of the heart, where only a thin sheet lies between them; return which side is left."""
    z, y, x = grid.mesh()
    u = z / patient.lung_height_mm
    centre = (4 + 10 * np.clip(0.55 - u, 0, 0.5)) * patient.scale + 0 * y
    half = (1.6 + 9 * np.clip((u - 0.66) / 0.3, 0, 1) + 12 * np.clip((0.45 - u) / 0.3, 0, 1)) * patient.scale
    middle = grid.box((-1e4, -1e4, -45), (1e4, 1e4, 60))
    columns = middle[2]
    np.minimum(depth[:, :, columns], np.abs(x[:, :, columns] - centre) - half, out=depth[:, :, columns])
    return x > centre


def _muscles(patient: Patient, coarse: Grid, chest, skin, rng: np.random.Generator) -> np.ndarray:
    """Distance inside the muscles of the chest wall, mm."""
    z, y, x = coarse.mesh()
    u, size = z / patient.lung_height_mm, patient.muscle_mm / 8
    aside = np.abs(x)
    pectoral = 15 * np.exp(-(((aside - 75) / 38) ** 2) - ((u - 0.78) / 0.2) ** 2) * (y < 0)
    lateral = 10 * np.exp(-(((u - 0.5) / 0.35) ** 2)) * np.clip((aside - 60) / 50, 0, 1) * np.clip((y + 30) / 40, 0, 1)
    erector = 30 * np.exp(-(((aside - 24) / 24) ** 4)) * (y > 20)
    shoulder = 70 * np.clip((u - 0.78) / 0.25, 0, 1) * np.clip((aside - 30) / 50, 0, 1)
    back = 16 * np.exp(-(((u - 0.72) / 0.22) ** 2)) * (y > 10)
    thickness = 8 + size * (pectoral + lateral + erector + shoulder + back)
    uneven = 1.5 * smooth_noise(rng, coarse, 11.0)
    return smooth_min(chest + thickness + uneven, skin - 3 - 0.45 * patient.fat_mm + uneven, 5.0).astype(np.float32)


def _fill_abdomen(patient: Patient, coarse: Grid, fill: _Filler, abdomen, rng: np.random.Generator) -> None:
    """Draw liver, spleen, stomach with its bubble of air, under the diaphragm."""
    z, y, x = coarse.mesh()
    size, floor = patient.scale, patient.dome_mm - patient.dome_drop_mm
    fill(abdomen + 3, MUSCLE_HU)  # the diaphragm itself
    fill(abdomen, FAT_HU)
    liver = smooth_min(abdomen - 1, (42 * size - x - 0.45 * y) * 0.85, 12.0)
    liver = smooth_min(liver, np.hypot(x, y - patient.spine(z)[1]) - 30 * size, 8.0)
    fill(liver, LIVER_HU + 2 * smooth_noise(rng, coarse, 9.0))

    def ellipsoid(centre, half):
        offsets = [(axis - c * size) / (h * size) for axis, c, h in zip((x, y, z), centre, half, strict=True)]
        return (1 - np.sqrt(sum(o**2 for o in offsets))) * min(half) * size

    under = floor / size
    spleen = smooth_min(abdomen - 2, ellipsoid((82, 40, under - 52), (27, 38, 46)), 6.0)
    fill(spleen, SPLEEN_HU)
    bulge = rng.uniform(0.75, 1.1)
    centre = (rng.uniform(50, 64), rng.uniform(-26, -8), under - 36 * bulge)
    stomach = ellipsoid(centre, (42 * bulge, 46 * bulge, 36 * bulge)) + 4 * smooth_noise(rng, coarse, 18.0)
    stomach = smooth_min(abdomen - 4, stomach, 6.0)
    fill(stomach, MUSCLE_HU)
    fill(stomach - 4, 14 + 7 * smooth_noise(rng, coarse, 9.0))
    fill(smooth_min(stomach - 4, np.broadcast_to(rng.uniform(-40, -10) - y, stomach.shape), 1.0), AIR_HU)


# Reference knots (x, y, z, radius) in mm of the great vessels and of what else runs through the mediastinum.
_AORTA = (
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
    (3, -18, 275, 6), (4, 6, 222, 6), (5, 22, 180, 6), (6, 27, 150, 6.5), (8, 28, 110, 7), (14, 20, 66, 7),
)  # fmt: skip
_MEDIASTINAL = (
    (_AORTA[:8], 4.0),
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


def _draw_vessels(patient: Patient, grid: Grid, hu: np.ndarray) -> None:
    """Draw great vessels and oesophagus."""
    lines = [curve(patient.place(knots)) for knots in (_AORTA, *_PULMONARY, *_VENOUS, *_BRANCHES)]
    points, radii = (np.concatenate(parts) for parts in zip(*lines, strict=True))
    paint(hu, grid.stamp(points, radii), patient.blood_hu)
    points, radii = curve(patient.place(_OESOPHAGUS))
    paint(hu, grid.stamp(points, radii), 38.0)


def _draw_bones(patient: Patient, grid: Grid, hu: np.ndarray, rng: np.random.Generator) -> None:
    """Draw vertebrae, ribs with cartilage, sternum, clavicles and scapulae: a cortex around marrow."""
    bones = [_vertebral_bodies(patient), _vertebral_arches(patient), _sternum(patient), *_shoulder_blades(patient)]
    cartilage = []
    for number in range(1, 11):
        for side in (-1, 1):
            rib, gristle = _rib(patient, number, side)
            bones.append(rib)
            cartilage.append(gristle)
    points, radii = (np.concatenate(parts) for parts in zip(*cartilage, strict=True))
    paint(hu, grid.stamp(points, radii), 85.0)
    points, radii, cortex = (np.concatenate(parts) for parts in zip(*bones, strict=True))
    paint(hu, grid.stamp(points, radii), CORTEX_HU)
    inner = radii > cortex + 0.4
    paint(hu, grid.stamp(points[inner], (radii - cortex)[inner]), MARROW_HU)
    z = np.arange(-25, patient.lung_height_mm * 1.1 + 20, 2.0)
    x, y = patient.spine(z)
    canal = np.stack([x, y + 24.5 * patient.scale, z], axis=1)
    paint(hu, grid.stamp(canal, np.full(len(z), 7.5 * patient.scale)), 22.0)


def _strands(points: np.ndarray, radius, cortex: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points = points.reshape(-1, 3)
    return points, np.broadcast_to(radius, len(points)).astype(float), np.full(len(points), cortex)


def _vertebra_levels(patient: Patient) -> np.ndarray:
    """Heights of the vertebrae's centres, mm."""
    spacing = 22.5 * patient.scale
    return np.arange(-1.5, (patient.lung_height_mm * 1.1 + 20) / spacing) * spacing


def _vertebral_bodies(patient: Patient):
    spacing = 22.5 * patient.scale
    z = (_vertebra_levels(patient)[:, None] + np.linspace(-0.31, 0.31, 7) * spacing).ravel()
    x, y = patient.spine(z)
    size = (0.8 + 0.2 * np.clip(1 - z / patient.lung_height_mm, 0, 1.1)) * patient.scale
    points = [np.stack([x + shift * size, y + 1.0, z], axis=1) for shift in (-5.5, 5.5)]
    return np.concatenate(points), np.tile(14.5 * size - 1.0, 2), np.full(2 * len(z), 1.3)


def _at_heights(points: np.ndarray, lifts) -> np.ndarray:
    """Copies of points (N, 3), one lifted by each of lifts, mm."""
    return np.concatenate([points + np.array([0, 0, lift]) for lift in lifts])


def _vertebral_arches(patient: Patient):
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
    return points.reshape(-1, 3), np.tile(radius * size, len(levels)), np.full(len(levels) * len(radius), 1.2)


def _wall_point(patient: Patient, angle: np.ndarray, z: np.ndarray, outside_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Point (|x|, y) outside the chest's inner wall; angle 0 is the back of the lung, pi its front."""
    width, front, back = patient.section(z)
    across, along = width - _lung_centre(width) + outside_mm, (back - front) / 2 + outside_mm
    power = 2 / _ROUNDNESS
    x = _lung_centre(width) + across * np.abs(np.sin(angle)) ** power
    return x, (front + back) / 2 + along * np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power


def _rib(patient: Patient, number: int, side: int):
    """One rib (points, radii, cortex) and its cartilage (points, radii); number 1 is the highest."""
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
    tall[:, 0] *= side
    rib = _strands(tall, (3.9 if number > 1 else 3.4) * size, 1.1)

    rise = size * np.interp(number, (1, 3, 7, 10), (-4, 6, 45, 60))
    goal_z = z[-1] + rise
    goal = np.array([16 * size, _sternum_y(patient, goal_z), goal_z])
    if number > 7:
        goal[0] *= 2.6
    gristle_angle = np.linspace(end, np.pi * 0.93, 12)
    gx, gy = _wall_point(patient, gristle_angle, np.full(12, z[-1]), 6.0 * size)
    bend = np.linspace(0, 1, 12)[:, None] ** 1.5
    cartilage = (1 - bend) * np.stack([gx, gy, np.full(12, z[-1])], axis=1) + bend * goal
    cartilage = np.concatenate([curve(np.c_[cartilage, np.full(12, 5.0 * size)], 2.0)[0] + (0, 0, k) for k in (-2, 2)])
    cartilage[:, 0] *= side
    return rib, (cartilage, np.full(len(cartilage), 4.6 * size))


def _sternum_y(patient: Patient, z) -> float:
    _, front, back = patient.section(z)
    return (front + back) / 2 - 0.86 * (back - front) / 2 - 9 * patient.scale


def _sternum(patient: Patient):
    z = np.arange(0.40 * patient.lung_height_mm, 0.90 * patient.lung_height_mm, 2.5)
    u = z / patient.lung_height_mm
    half = np.interp(u, (0.40, 0.46, 0.7, 0.76, 0.90), (5, 15, 13, 19, 24)) * patient.scale
    across = np.linspace(-1, 1, 13)
    x = half[:, None] * across
    y = np.broadcast_to(_sternum_y(patient, z)[:, None] + 2.5 * across**2, x.shape)
    points = np.stack([x, y, np.broadcast_to(z[:, None], x.shape)], axis=2)
    return _strands(points, 5.2 * patient.scale, 1.1)


def _shoulder_blades(patient: Patient):
    size, height = patient.scale, patient.lung_height_mm
    parts = []
    z = np.arange(0.52 * height, 1.02 * height, 2.4)
    t = (z - z[0]) / (z[-1] - z[0])
    inner, outer = (74 - 14 * t) * size, (80 + 38 * t) * size
    across = np.linspace(0, 1, 28)
    x = inner[:, None] + (outer - inner)[:, None] * across
    width, front, back = (part[:, None] for part in patient.section(np.minimum(z, 0.8 * height)))
    reach = np.clip((x - _lung_centre(width)) / (0.55 * width + 26 * size), 0, 0.97)
    y = (front + back) / 2 + ((back - front) / 2 + 15 * size) * (1 - reach**_ROUNDNESS) ** (1 / _ROUNDNESS)
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
        parts.append((blade.reshape(-1, 3) * mirror, np.tile(radius, len(z)), np.full(blade.shape[0] * 28, 1.0)))
        parts.append(_strands(ridge * mirror, 4.0 * size, 1.1))
        parts.append(_strands(collar * mirror, 5.5 * size, 1.3))
    return parts
