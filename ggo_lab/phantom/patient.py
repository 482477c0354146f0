"""The patient: sex, size, shape, and what was drawn for the lungs, mediastinum and blood.

Coordinates are the patient's millimetres: x grows from the patient's right to left with 0 in the midline, y from front
to back with 0 half-way through the chest, z from feet to head with 0 at the lowest point of the lungs. The tables below
describe one reference chest (lungs 260 mm high, 234 mm wide, 176 mm deep); every patient is a deformation of it.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator

_REFERENCE_VOLUME_L = 3.70  # lungs without airways, as drawn from these tables
REFERENCE_HEIGHT_MM, REFERENCE_DEPTH_MM, _REFERENCE_WIDTH_MM = 260.0, 88.0, 117.0  # the last two are half sizes
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
_WALL = PchipInterpolator(_SECTIONS[0], _SECTIONS[1:], axis=1)
# Centre of the vertebral bodies, y in mm, at shares of the lungs' height.
_SPINE = PchipInterpolator((-0.3, 0.0, 0.25, 0.5, 0.75, 0.95, 1.15), (52, 60, 62, 61, 50, 26, 4))
CHEST_BOXINESS = 0.08  # of a chest section, see shapes.superellipse
# What is no ground-glass disease, and how often a patient shows it: common shares in adults who are scanned.
CONFOUNDERS = {
    "emphysema": 0.12,
    "dependent_atelectasis": 0.25,
    "effusion": 0.06,
    "motion": 0.15,
    "nodules": 0.10,
}
_LUNG_MARGIN_MM = 12.0
_FIELD_SHARES = (0.9, 1.12)
_ARMS_DOWN = 0.08  # share of patients too ill to lift their arms
_CONTRAST = 0.15  # share of scans with contrast medium
_SHALLOWEST = 0.55  # of a full breath: about what stays after breathing out, and as little as the short of breath hold


@dataclass(frozen=True)
class Patient:
    """One patient's body, as drawn by sample_patient.

    Attributes:
        sex: "female" or "male".
        scale: body size relative to the reference chest.
        age_years: it widens the aorta and hardens its wall, thins the marrow, and hardens the ribs' cartilage.
        inspiration: how deep the breath was, as a share of a full one, 0..1.
        lung_volume_l: lung volume aimed at, at this breath, litres.
        lung_height_mm: from the deepest recess to the higher apex, mm.
        half_width_mm, half_depth_mm: of the chest's inside, at its widest, mm.
        fat_mm, breast_mm, muscle_mm: thickness of the fat under the skin, of the breasts (0: none) and of the
            chest's muscles, mm.
        dome_mm, dome_drop_mm: height of the right diaphragm, and how much lower the left one stands, mm.
        dome_steepness: how steeply the diaphragm falls at its rim, as a multiple of a parabola's exponent: the higher,
            the thinner and deeper the recess behind and beside it.
        heart_scale, heart_tilt: size of the heart relative to the body, and its lean (1: usual).
        spine_sway_mm: sideways bow of the spine, mm.
        lung_hu, gradient_hu: median attenuation of the parenchyma and its rise from front to back, HU.
        blood_hu, contrast_hu: attenuation of blood, and what contrast medium adds in the aorta (0: none), HU.
        arms: "up" (beside the head, out of the scan) or "down" (beside the chest).
        field_share: width of the picture, as a share of what holds the whole body.
        fissure_turn: phase of the fissures' undulation, radians.
        confounders: what looks like disease and is none, or changes the lungs besides it; names in CONFOUNDERS.
        uneven: by what share of its air healthy lung strays from place to place, standard deviation.
        pleural_layer: share of air that healthy lung lacks at the pleura.
    """

    sex: str
    age_years: int
    inspiration: float
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
    contrast_hu: float
    arms: str
    field_share: float
    fissure_turn: float
    confounders: tuple[str, ...]
    dome_steepness: float = 1.0
    uneven: float = 0.0
    pleural_layer: float = 0.0

    def place(self, knots: ArrayLike) -> np.ndarray:
        """Move reference (x, y, z, radius) rows, mm, to where this patient has them."""
        return np.asarray(knots, float) * (
            self.scale,
            self.half_depth_mm / REFERENCE_DEPTH_MM,
            self.lung_height_mm / REFERENCE_HEIGHT_MM,
            self.scale,
        )

    def section(self, z: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inner chest wall at heights z: half width, front and back, mm, float32."""
        width, front, back = _WALL(np.clip(np.asarray(z) / self.lung_height_mm, _SECTIONS[0, 0], _SECTIONS[0, -1]))
        deep = self.half_depth_mm / REFERENCE_DEPTH_MM
        return tuple(
            part.astype(np.float32)
            for part in (width * self.half_width_mm / _REFERENCE_WIDTH_MM, front * deep, back * deep)
        )

    def spine(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centre (x, y) of the vertebral bodies at heights z, mm, float32."""
        u = np.asarray(z) / self.lung_height_mm
        back = _SPINE(np.clip(u, -0.3, 1.15))
        y = back * self.half_depth_mm / REFERENCE_DEPTH_MM
        return (self.spine_sway_mm * np.sin(np.pi * u)).astype(np.float32), y.astype(np.float32)


def sample_patient(
    rng: np.random.Generator,
    sex: str | None = None,
    age_years: int | None = None,
    inspiration: float | None = None,
    lung_volume_l: float | None = None,
    arms: str | None = None,
    contrast_hu: float | None = None,
    confounders: tuple[str, ...] | None = None,
) -> Patient:
    """Draw one adult; what is given is kept, and the same random numbers decide the rest.

    Supine lung volume at full inspiration is 4.07 +- 1.19 L; the other ranges are common radiological ones. What a
    shallow breath leaves out is air, not tissue: the lung is smaller and as much denser.
    """
    later = rng.spawn(1)[0]  # what was added last, drawn apart from what others rest on
    drawn_age = int(np.clip(later.normal(58, 16), 20, 92))
    drawn_inspiration = float(1 - (1 - _SHALLOWEST) * later.random() ** 1.5)
    inspiration = drawn_inspiration if inspiration is None else float(inspiration)
    drawn_sex = "female" if rng.random() < 0.5 else "male"
    sex = sex or drawn_sex
    scale = float(np.clip((1.02 if sex == "male" else 0.93) + rng.normal(0, 0.045), 0.82, 1.15))
    volume = float(np.clip((4.45 if sex == "male" else 3.65) + rng.normal(0, 1.1), 2.0, 6.8))
    volume = max(volume * inspiration, 1.7) if lung_volume_l is None else float(lung_volume_l)
    slender = rng.normal(0, 0.05)
    # The chest's cross-section follows the body, the lungs' height then gives the volume.
    stretch = (volume / _REFERENCE_VOLUME_L / scale**3) ** (1 / 3)
    width = _REFERENCE_WIDTH_MM * scale * stretch**0.55 * (1 - slender)
    depth = REFERENCE_DEPTH_MM * scale * stretch**0.85 * (1 + rng.normal(0, 0.05))
    height = (
        REFERENCE_HEIGHT_MM
        * (volume / _REFERENCE_VOLUME_L)
        / ((width / _REFERENCE_WIDTH_MM) * (depth / REFERENCE_DEPTH_MM))
    )
    breast = rng.uniform(8, 34)
    drawn_arms = "down" if rng.random() < _ARMS_DOWN else "up"
    enhanced, enhancement = rng.random() < _CONTRAST, float(rng.uniform(120, 260))
    present = rng.random(len(CONFOUNDERS)) < list(CONFOUNDERS.values())
    drawn_confounders = tuple(name for name, here in zip(CONFOUNDERS, present, strict=True) if here)
    return Patient(
        sex=sex,
        age_years=drawn_age if age_years is None else int(age_years),
        inspiration=inspiration,
        scale=scale,
        lung_volume_l=volume,
        lung_height_mm=float(np.clip(height, 150, 330)),
        half_width_mm=float(width),
        half_depth_mm=float(depth),
        fat_mm=float(np.clip(rng.gamma(3.0, 4.2) + (4 if sex == "female" else 2), 4, 38)),
        breast_mm=float(breast) if sex == "female" else 0.0,
        muscle_mm=float((9 if sex == "male" else 6.5) + rng.normal(0, 1.2)),
        dome_mm=float(height * rng.uniform(0.26, 0.34)),
        dome_drop_mm=float(rng.uniform(6, 20)),
        heart_scale=float(np.clip(rng.normal(1.0, 0.07), 0.85, 1.2)),
        heart_tilt=float(rng.normal(1.0, 0.12)),
        spine_sway_mm=float(rng.normal(0, 3)),
        lung_hu=float(-1000 + rng.normal(122, 15) / inspiration),
        gradient_hu=float(rng.uniform(12, 57) / inspiration),
        blood_hu=float(rng.uniform(36, 52)),
        contrast_hu=float(contrast_hu) if contrast_hu is not None else (enhancement if enhanced else 0.0),
        arms=arms or drawn_arms,
        field_share=float(later.uniform(*_FIELD_SHARES)),
        fissure_turn=float(rng.uniform(0, 2 * np.pi)),
        confounders=drawn_confounders if confounders is None else tuple(confounders),
    )


def widen(patient: Patient, rng: np.random.Generator) -> Patient:
    """Draw a patient's body anew, from ranges wider than people's: what a network should take for no surprise.

    After SynthSeg (Billot et al. 2023, Medical Image Analysis 86:102789): a network that has seen more variety than
    there is finds the real thing ordinary. Sex, age, lung volume, contrast and confounders stay.
    """
    inspiration = float(rng.uniform(0.42, 1.0))
    return replace(
        patient,
        inspiration=inspiration,
        half_depth_mm=patient.half_depth_mm * float(rng.uniform(0.95, 1.3)),
        fat_mm=float(rng.uniform(2, 20) if rng.random() < 0.6 else rng.uniform(20, 50)),
        muscle_mm=float(rng.uniform(3, 12)),
        dome_mm=patient.lung_height_mm * float(rng.uniform(0.22, 0.5)),
        dome_drop_mm=float(rng.uniform(-10, 35)),
        dome_steepness=float(rng.uniform(1.0, 2.6)),
        heart_scale=float(rng.uniform(0.8, 1.45)),
        heart_tilt=float(rng.normal(1.0, 0.25)),
        spine_sway_mm=float(rng.normal(0, 7)),
        lung_hu=float(-1000 + rng.uniform(80, 150) / inspiration),
        gradient_hu=float(rng.uniform(5, 70) / inspiration),
        arms="down" if rng.random() < 0.25 else "up",
        field_share=float(rng.uniform(0.75, 1.35)),
        # Of real lungs more in free breathing (benchmarks/phantom_realism.py).
        uneven=float(rng.uniform(0, 0.02 + 0.1 * (1 - inspiration))),
        pleural_layer=float(rng.uniform(0, 0.14)),
    )


def body_width_mm(patient: Patient) -> float:
    """Width of a picture that holds the whole body, with its arms where they lie beside it, mm."""
    around = patient.half_width_mm + 30 * patient.scale + patient.fat_mm + 14
    if patient.arms == "down":
        around += 62 * patient.scale
    return 2 * around


def lung_width_mm(patient: Patient) -> float:
    """Width of the narrowest picture that holds both lungs, mm."""
    return 2 * (patient.half_width_mm + _LUNG_MARGIN_MM)


def seen_box(patient: Patient, field_of_view_mm: float) -> tuple[tuple, tuple]:
    """Corners (z, y, x) in mm of what the scan shows: the lungs' height with a margin, and a square of that width."""
    around, middle = field_of_view_mm / 2, 12.0
    top = patient.lung_height_mm * 1.035 + 8
    return (-14.0, middle - around, -around), (top, middle + around, around)
