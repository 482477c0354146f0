"""The lung tissue before disease, and what changes it without being ground-glass disease."""

import numpy as np

from ggo_lab.phantom.anatomy import Anatomy
from ggo_lab.phantom.grid import Grid, smooth_noise
from ggo_lab.phantom.patient import Patient
from ggo_lab.phantom.stamps import paint, stamp
from ggo_lab.phantom.steady import exp

_TEXTURE_HU = 13.7  # of what is too fine to be drawn: acini, the smallest vessels
_EMPHYSEMA_HU = -985.0
_CALCIUM_HU = 700.0
_AIRLESS_HU = 40.0
_PATCHES_MM = (12.0, 30.0)  # between points of the fields by which healthy lung strays; patches are twice as large
_LAYER_MM = 5.0  # the layer at the pleura with less air fades over this


def parenchyma(patient: Patient, anatomy: Anatomy, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Attenuation of healthy lung tissue: a rise from front to back, steeper at the bases, and fine texture.

    In the wide world its air also strays from place to place, and there is less of it at the pleura.

    Returns:
        float32, the shape of anatomy.lung_box, HU.
    """
    z, y, _ = anatomy.coarse.mesh()
    u, back = z / patient.lung_height_mm, y / patient.half_depth_mm
    slope = patient.gradient_hu * (1.55 - 1.1 * np.clip(u, 0, 1))
    dependent = 14 * exp(-(((1.05 - back) / 0.18) ** 2))  # the lowest centimetres lie compressed
    smooth = patient.lung_hu + 0.5 * slope * back + dependent + 8 * smooth_noise(rng, anatomy.coarse, 18.0)
    if patient.uneven or patient.pleural_layer:
        patches = sum(smooth_noise(rng, anatomy.coarse, step) for step in _PATCHES_MM) / np.sqrt(len(_PATCHES_MM))
        layer = exp(-((np.maximum(anatomy.depth_mm, 0) / _LAYER_MM) ** 2))
        air = (1 + patient.uneven * patches) * (1 - patient.pleural_layer * layer)
        smooth = _AIRLESS_HU - (_AIRLESS_HU - smooth) * air
    hu = grid.sample(anatomy.coarse, smooth.astype(np.float32), anatomy.lung_box)
    hu += _TEXTURE_HU * anatomy.noise(rng, grid, 2.5)
    return hu


def add_emphysema(
    tissue_hu: np.ndarray, patient: Patient, anatomy: Anatomy, grid: Grid, rng: np.random.Generator
) -> None:
    """Punch centrilobular holes into the tissue, more of them in the upper lobes, in place.

    Args:
        tissue_hu: float32, the lungs' box, HU.
        patient: who is drawn.
        anatomy: where the patient's parts lie.
        grid: the voxels that are drawn.
        rng: the source of chance.
    """
    box = anatomy.lung_box
    holes = anatomy.noise(rng, grid, 4.5)
    upward = np.clip(grid.axis(0)[box[0]] / patient.lung_height_mm, 0, 1)
    holes += (1.6 * upward - rng.uniform(1.7, 2.3)).astype(np.float32)[:, None, None]
    np.clip(holes / 0.35, 0, 1, out=holes)
    tissue_hu += holes * (np.float32(_EMPHYSEMA_HU) - tissue_hu)


def add_dependent_atelectasis(
    tissue_hu: np.ndarray, patient: Patient, anatomy: Anatomy, grid: Grid, rng: np.random.Generator
) -> None:
    """Compress the tissue along the pleura at the back, where a lying patient's lung rests, in place.

    Args:
        tissue_hu: float32, the lungs' box, HU.
        patient: who is drawn.
        anatomy: where the patient's parts lie.
        grid: the voxels that are drawn.
        rng: the source of chance.
    """
    z, y, _ = anatomy.coarse.mesh()
    u, back = z / patient.lung_height_mm, y / patient.half_depth_mm
    thick = rng.uniform(9, 16) * np.clip((back - 0.25) / 0.4, 0, 1) * np.clip((0.75 - u) / 0.4, 0, 1)
    thick = thick * np.clip(0.75 + 0.45 * smooth_noise(rng, anatomy.coarse, 16.0), 0, 1.4)
    share = np.clip((thick - np.maximum(anatomy.depth_mm, 0)) / 7, 0, 1) * rng.uniform(0.3, 0.5)
    share = grid.sample(anatomy.coarse, share.astype(np.float32), anatomy.lung_box)
    tissue_hu -= np.clip(share, 0, 1) * tissue_hu


def draw_nodules(hu: np.ndarray, anatomy: Anatomy, grid: Grid, rng: np.random.Generator) -> None:
    """Draw one to four calcified nodules, scars of old infections, in place.

    Args:
        hu: float32 (Z, Y, X), HU.
        anatomy: where the patient's parts lie.
        grid: the voxels that are drawn.
        rng: the source of chance.
    """
    count = int(rng.integers(1, 5))
    places = np.argwhere(anatomy.depth_mm > 6)
    chosen = places[rng.integers(0, len(places), count)]
    points = (np.asarray(anatomy.coarse.origin) + chosen * anatomy.coarse.spacing)[:, ::-1]
    paint(hu, stamp(grid, points, rng.uniform(2.0, 4.0, count)), _CALCIUM_HU)
