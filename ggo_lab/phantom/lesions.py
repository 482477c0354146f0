"""Ground-glass opacity: where it lies, how dense it is, and where it has turned into consolidation."""

from dataclasses import dataclass

import numpy as np

from ggo_lab.phantom.anatomy import Anatomy
from ggo_lab.phantom.grid import Grid, smooth_noise
from ggo_lab.phantom.lobes import horizontal_fissure, oblique_fissure
from ggo_lab.phantom.patient import Patient

CONSOLIDATION_HU = 20.0
# How gladly each lobe is hit (right upper, middle, lower, left upper, lower); the lower lobes lead.
_LOBE_LIKING = (0.0, -0.15, 0.45, 0.0, 0.35)
_FISSURE_BLEND_MM = 10.0  # two steps of the coarse lattice, below which a jump would show its cells


@dataclass(frozen=True, eq=False)
class Lesions:
    """Disease of one patient.

    Attributes:
        mask: bool (Z, Y, X), ground glass and consolidation.
        consolidation: bool (Z, Y, X), part of mask.
        density: float32, the lungs' box: 0 in healthy lung, about 0.3 in ground glass, towards 1 in consolidation.
        drawn: what was chosen, with units in the keys.
    """

    mask: np.ndarray
    consolidation: np.ndarray
    density: np.ndarray
    drawn: dict[str, object]


def place_lesions(
    patient: Patient,
    anatomy: Anatomy,
    grid: Grid,
    lungs: np.ndarray,
    involvement: float,
    rng: np.random.Generator,
) -> Lesions:
    """Choose where the lungs are diseased so that the lesions fill exactly the asked share of them.

    A smooth field says how readily each place falls ill; the highest values, up to the asked volume, do.

    Args:
        lungs: bool (Z, Y, X).
        involvement: lesion volume / lung volume, 0..1, met to within a voxel.
    """
    box = anatomy.lung_box
    liking, drawn = _liking(patient, anatomy, grid, rng)
    patchy = smooth_noise(rng, grid, 8.0, box)
    firmness = float(rng.normal(0.0, 0.035))
    has_solid = rng.random() < 0.45 + 0.45 * involvement
    solid_share = float(rng.uniform(0.03, 0.10 + 0.20 * involvement)) if has_solid else 0.0

    mask, consolidation = np.zeros(grid.shape, bool), np.zeros(grid.shape, bool)
    density = np.zeros(liking.shape, np.float32)
    # Voxels that only touch the lungs are no part of them, but their share of lung falls ill with its neighbours.
    inside = np.flatnonzero(anatomy.pleura[box] > 0)
    in_lungs = lungs[box].reshape(-1)[inside]
    wanted = round(involvement * int(in_lungs.sum()))
    if wanted == 0:
        return Lesions(mask, consolidation, density, {"lesions": "none"})

    values, texture = liking.reshape(-1)[inside], patchy.reshape(-1)[inside]
    order = np.argpartition(np.where(in_lungs, values, -np.inf), len(values) - wanted)
    ill = order[len(values) - wanted :]
    margin = values - values[ill].min()  # how far inside a lesion, in the field's units

    # Borders are soft: density starts from little and reaches its plateau a few millimetres inside.
    glass = (0.26 + firmness) * np.clip(margin / 0.6 + 0.2, 0, 1) + 0.06 * texture
    glass = np.maximum(glass, 0.05) * np.clip(margin / 0.18 + 0.5, 0, 1)
    solid_count = round(solid_share * wanted)
    solid = np.zeros(len(values), bool)
    if solid_count:
        core = np.clip(margin, 0, 3.0) + 0.30 * texture  # the oldest, densest part lies deep inside
        edge = np.partition(core[ill], wanted - solid_count)[wanted - solid_count]
        filled = np.clip((core - edge) / 0.6 + 0.5, 0, 1) * np.clip(margin / 0.15, 0, 1)
        glass += (0.92 - glass) * filled
        solid = (filled > 0.5) & in_lungs
    density.reshape(-1)[inside] = glass
    _mark(mask[box], inside[ill])
    _mark(consolidation[box], inside[solid])
    return Lesions(mask, consolidation, density, drawn | {"consolidation_share_of_lesions": solid_share})


def _mark(region: np.ndarray, flat_index: np.ndarray) -> None:
    region[np.unravel_index(flat_index, region.shape)] = True


def opacify(tissue_hu: np.ndarray, lesions: Lesions) -> None:
    """Raise the lung tissue's attenuation where lesions fill its air, in place.

    Args:
        tissue_hu: float32, the lungs' box, healthy tissue, HU.
    """
    tissue_hu += lesions.density * (CONSOLIDATION_HU - tissue_hu)


def _liking(
    patient: Patient, anatomy: Anatomy, grid: Grid, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, float]]:
    """How readily each place falls ill, float32 (Z, Y, X), and what was drawn for it."""
    coarse = anatomy.coarse
    z, y, x = coarse.mesh()
    u, back = z / patient.lung_height_mm, y / patient.half_depth_mm
    depth = np.maximum(anatomy.depth_mm, 0)
    peripheral = float(np.clip(rng.normal(1.4, 0.6), -0.4, 2.6))
    basal, posterior = float(rng.normal(0.6, 0.3)), float(rng.normal(0.7, 0.3))
    lobes = np.asarray(_LOBE_LIKING) + rng.normal(0, 0.25, 5)
    # "Peripheral" means under the chest wall; the pleura that faces the heart does not count.
    outward = np.clip((np.hypot(x / patient.half_width_mm, back) - 0.35) / 0.3, 0, 1)
    liking = peripheral * np.exp(-depth / 14) * outward + basal * (0.5 - u) + posterior * back * 0.6
    liking = liking + _by_lobe(lobes, patient, x, y, z)
    blob, lobule = float(rng.uniform(11, 22)), float(rng.uniform(4.5, 7))
    liking = liking + 1.1 * smooth_noise(rng, coarse, blob)
    field = grid.sample(coarse, liking.astype(np.float32), anatomy.lung_box)
    field += 0.22 * smooth_noise(rng, grid, lobule, anatomy.lung_box)
    drawn = {
        "peripheral_preference": peripheral,
        "basal_preference": basal,
        "posterior_preference": posterior,
        "lesion_scale_mm": blob,
        "lobule_scale_mm": lobule,
    }
    return field, drawn


def _by_lobe(values: np.ndarray, patient: Patient, x, y, z) -> np.ndarray:
    """Spread one value for each lobe over the lungs, changing at the fissures within a few millimetres."""
    lower = np.clip(0.5 - oblique_fissure(patient, x, y, z) / _FISSURE_BLEND_MM, 0, 1)
    middle = np.clip(0.5 - horizontal_fissure(patient, x, y, z) / _FISSURE_BLEND_MM, 0, 1)
    right = lower * values[2] + (1 - lower) * (middle * values[1] + (1 - middle) * values[0])
    left = lower * values[4] + (1 - lower) * values[3]
    return np.where(x > 0, left, right)
