"""Ground-glass opacity: where it lies, how dense it is, and the patterns it takes."""

from dataclasses import dataclass

import numpy as np

from ggo_lab.phantom.anatomy import Anatomy
from ggo_lab.phantom.grid import Grid, smooth_noise, three
from ggo_lab.phantom.lobes import LOBES
from ggo_lab.phantom.patient import Patient
from ggo_lab.phantom.patterns import reversed_halo, septa, subpleural_bands
from ggo_lab.phantom.steady import exp, length

CONSOLIDATION_HU = 25.0
DISTRIBUTIONS = ("single", "multifocal", "diffuse")
# How often each pattern is seen at an involvement of 12, 37, 62 and 87%: rising with the disease, and over the grades
# of the paper's training set near the published 43% (crazy paving), 49% (mixed with consolidation), 35% (air
# bronchogram, of the consolidated), 53% (subpleural bands); the reversed halo is rare.
PATTERNS = {
    "crazy_paving": (0.24, 0.42, 0.56, 0.66),
    "consolidation": (0.30, 0.50, 0.62, 0.75),
    "air_bronchogram": (0.66, 0.70, 0.72, 0.75),
    "subpleural_bands": (0.42, 0.52, 0.60, 0.66),
    "reversed_halo": (0.04, 0.06, 0.06, 0.06),
}
_AT_INVOLVEMENT = (0.12, 0.37, 0.62, 0.87)
# How gladly each lobe is hit, in the order of LOBES; the lower lobes lead.
_LOBE_LIKING = (0.0, -0.15, 0.45, 0.05, 0.15)
_CLUSTERING, _CLUSTER_MM = 0.75, 36.0  # foci come in groups
# Some disease keeps to one level of the lungs at first: share of the patients, and how much the liking falls from that
# level to one lung's height away. It spreads: at this involvement nothing is left of it.
_ONE_LEVEL, _LEVEL_FALL, _LEVEL_LOST_AT = 0.45, (3.0, 10.0), 0.35
_FOCUS_FALL_MM = 18.0  # a single focus: distance from its middle over which the liking falls by 1
_CONSOLIDATED, _SEPTA_DENSITY, _BAND_DENSITY = 0.95, 0.24, 0.40  # share of the air replaced, or replaced besides
_BAND_LIKING, _HALO_LIKING = 0.8, 4.0
_HALO_RADIUS_MM, _HALO_MOST = (12.0, 18.0), 0.4  # and never more than this share of the lesions' volume


@dataclass(frozen=True)
class Disease:
    """What one patient's disease looks like.

    Attributes:
        distribution: "single" focus, "multifocal" or "diffuse".
        patterns: names in PATTERNS; plain ground glass without any.
        peripheral_preference, basal_preference, posterior_preference: how much the disease keeps to the chest wall,
            the bases and the back.
        left_preference: how much it prefers the left lung to the right.
        level, level_preference: height that the disease keeps to, as a share of the lungs' height, and how much.
        lesion_scale_mm, lobule_scale_mm: size of the foci and of the lobules that shape their border, mm.
        lobulation: how much lobules shape the border, 0.1 (smooth) to 0.4 (jagged).
        haze: share of the air that ground glass replaces, 0..1.
        softness: width of the border from healthy lung to full haze, relative.
        consolidation_share: of the lesion volume, 0..1, if it consolidates.
    """

    distribution: str
    patterns: tuple[str, ...]
    peripheral_preference: float
    basal_preference: float
    posterior_preference: float
    left_preference: float
    level: float
    level_preference: float
    lesion_scale_mm: float
    lobule_scale_mm: float
    lobulation: float
    haze: float
    softness: float
    consolidation_share: float


def sample_disease(
    rng: np.random.Generator,
    involvement: float,
    distribution: str | None = None,
    patterns: tuple[str, ...] | None = None,
) -> Disease:
    """Draw a disease; what is given is kept.

    The same random numbers serve every involvement, so a patient's disease grows without changing its character:
    a pattern that is seen early is seen later too.
    """
    later = rng.spawn(1)[0]  # what was added last, drawn apart from what others rest on
    level, kept = float(later.uniform(0.1, 0.7)), later.random() < _ONE_LEVEL
    fall = float(later.uniform(*_LEVEL_FALL)) * max(0.0, 1 - involvement / _LEVEL_LOST_AT)
    single = np.interp(involvement, (0.02, 0.10, 0.20), (0.08, 0.06, 0.0))
    diffuse = np.interp(involvement, (0.2, 0.45, 0.75, 0.95), (0.0, 0.2, 0.6, 0.9))
    chance = rng.random()
    drawn = "single" if chance < single else "diffuse" if chance > 1 - diffuse else "multifocal"
    chances = dict(zip(PATTERNS, rng.random(len(PATTERNS)), strict=True))
    drawn_patterns = [
        name for name, chance in chances.items() if chance < np.interp(involvement, _AT_INVOLVEMENT, PATTERNS[name])
    ]
    if "consolidation" not in drawn_patterns and "air_bronchogram" in drawn_patterns:
        drawn_patterns.remove("air_bronchogram")  # there is no bronchogram without airless lung around it
    return Disease(
        distribution=distribution or drawn,
        patterns=tuple(drawn_patterns) if patterns is None else tuple(patterns),
        peripheral_preference=float(np.clip(rng.normal(0.95, 0.8), -1.2, 2.6)),
        basal_preference=float(rng.normal(0.6, 0.3)),
        posterior_preference=float(rng.normal(0.7, 0.3)),
        left_preference=float(rng.normal(0, 0.2)),
        level=level,
        level_preference=fall if kept else 0.0,
        lesion_scale_mm=float(rng.uniform(11, 20)),
        lobule_scale_mm=float(rng.uniform(4.5, 7)),
        lobulation=float(rng.uniform(0.12, 0.30)),
        haze=float(np.clip(rng.normal(0.130, 0.025), 0.09, 0.25)),
        softness=float(rng.uniform(0.6, 1.4)),
        consolidation_share=float(rng.uniform(0.14, 0.28 + 0.12 * involvement)),
    )


@dataclass(frozen=True, eq=False)
class Lesions:
    """Disease of one patient, on the scan's grid.

    Attributes:
        mask: bool (Z, Y, X), ground glass and consolidation.
        consolidation: bool (Z, Y, X), part of mask.
        density: float32, the lungs' box: 0 in healthy lung, about 0.3 in ground glass, towards 1 in consolidation.
    """

    mask: np.ndarray
    consolidation: np.ndarray
    density: np.ndarray

    @classmethod
    def none(cls, anatomy: Anatomy, grid: Grid) -> "Lesions":
        """Healthy lungs."""
        box_shape = anatomy.pleura[anatomy.lung_box].shape
        return cls(np.zeros(grid.shape, bool), np.zeros(grid.shape, bool), np.zeros(box_shape, np.float32))


def place_lesions(
    patient: Patient,
    anatomy: Anatomy,
    grid: Grid,
    lungs: np.ndarray,
    lobes: np.ndarray,
    disease: Disease,
    involvement: float,
    rng: np.random.Generator,
) -> Lesions:
    """Choose where the lungs are diseased so that the lesions fill exactly the asked share of them.

    A field says how readily each place falls ill; the highest values, up to the asked volume, do.

    Args:
        patient: who is drawn.
        anatomy: where the patient's parts lie.
        grid: the voxels that are drawn.
        lungs: bool (Z, Y, X).
        lobes: uint8, the lungs' box, numbers in LOBES.
        disease: how it looks and where it lies.
        involvement: lesion volume / lung volume, 0..1, met to within a voxel.
        rng: the source of chance.
    """
    box = anatomy.lung_box
    lesions = Lesions.none(anatomy, grid)
    wanted = round(involvement * int(lungs.sum()))
    if wanted == 0:
        return lesions
    # Each part has its own random numbers: a pattern that joins later in the disease moves none of the others.
    streams = dict(zip(("liking", "texture", "septa", "bands", "halo"), rng.spawn(5), strict=True))
    field, likeliest = _liking(patient, anatomy, grid, lobes, disease, streams["liking"])
    texture = anatomy.noise(streams["texture"], grid, 6.0)
    bands = halo = None
    if "subpleural_bands" in disease.patterns:
        depth = grid.sample(anatomy.coarse, anatomy.depth_mm, box)
        bands = subpleural_bands(patient, anatomy, grid, depth, streams["bands"])
        field += _BAND_LIKING * bands
    if "reversed_halo" in disease.patterns:
        largest = (_HALO_MOST * wanted * float(np.prod(grid.spacing)) / 4.19) ** (1 / 3)
        radius = min(streams["halo"].uniform(*_HALO_RADIUS_MM), largest)
        halo = reversed_halo(grid, box, _highest(likeliest, anatomy, radius), radius)
        field += _HALO_LIKING * (halo[0] + halo[1])

    # Voxels that only touch the lungs are no part of them, but their share of lung falls ill with its neighbours.
    inside = np.flatnonzero(anatomy.pleura[box] > 0)
    in_lungs = lungs[box].reshape(-1)[inside]

    def here(share: np.ndarray) -> np.ndarray:
        return share.reshape(-1)[inside]

    values, texture = here(field), here(texture)
    order = np.argpartition(np.where(in_lungs, values, -np.inf), len(values) - wanted)
    ill = order[len(values) - wanted :]
    margin = values - values[ill].min()  # how far inside a lesion, in the field's units

    # Borders are soft: density starts from little and reaches its plateau a few millimetres inside.
    rise = np.clip(margin / (0.6 * disease.softness) + 0.2, 0, 1) + 1.8 * np.clip((margin - 0.6) / 1.5, 0, 1)
    glass = disease.haze * rise + 0.07 * texture
    glass = np.maximum(glass, 0.05) * np.clip(margin / (0.3 * disease.softness) + 0.5, 0, 1)
    within = np.clip(margin / 0.2, 0, 1)
    if "crazy_paving" in disease.patterns:
        glass += _SEPTA_DENSITY * within * here(septa(anatomy, grid, streams["septa"]))
    if bands is not None:
        glass += _BAND_DENSITY * within * here(bands)
    filled = np.zeros(len(values), np.float32)
    if "consolidation" in disease.patterns:
        filled = _solid_core(margin, texture, ill, round(disease.consolidation_share * wanted))
    if halo is not None:
        ring, core = here(halo[0]), here(halo[1])
        filled = np.maximum(filled * (1 - core), 0.8 * ring) * within
    glass += (_CONSOLIDATED - glass) * filled
    lesions.density.reshape(-1)[inside] = np.minimum(glass, _CONSOLIDATED)
    _mark(lesions.mask[box], inside[ill])
    _mark(lesions.consolidation[box], inside[(filled > 0.5) & in_lungs & (margin >= 0)])
    return lesions


def opacify(tissue_hu: np.ndarray, lesions: Lesions) -> None:
    """Raise the lung tissue's attenuation where lesions fill its air, in place.

    Args:
        tissue_hu: float32, the lungs' box, healthy tissue, HU.
        lesions: what was placed by place_lesions.
    """
    tissue_hu += lesions.density * (CONSOLIDATION_HU - tissue_hu)


def _solid_core(margin: np.ndarray, texture: np.ndarray, ill: np.ndarray, count: int) -> np.ndarray:
    """Consolidate about `count` of the lesions' voxels: the oldest, densest part lies deep inside. Share 0..1."""
    core = np.clip(margin, 0, 3.0) + 0.30 * texture
    last = len(ill) - max(count, 1)
    edge = np.partition(core[ill], last)[last]
    return np.clip((core - edge) / 0.9 + 0.5, 0, 1) * np.clip(margin / 0.15, 0, 1)


def _mark(region: np.ndarray, flat_index: np.ndarray) -> None:
    region[np.unravel_index(flat_index, region.shape)] = True


def _liking(
    patient: Patient,
    anatomy: Anatomy,
    grid: Grid,
    lobes: np.ndarray,
    disease: Disease,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """How readily each place falls ill: float32 on the lungs' box, and without lobes and lobules on the coarse lattice.

    Lower lobes have their own random field, so that lesions end at the oblique fissure as they do in patients.
    """
    coarse, box = anatomy.coarse, anatomy.lung_box
    z, y, x = coarse.mesh()
    u, back = z / patient.lung_height_mm, y / patient.half_depth_mm
    depth = np.maximum(anatomy.depth_mm, 0)
    # "Peripheral" means under the chest wall; the pleura that faces the heart does not count.
    outward = np.clip((length(x / patient.half_width_mm, back) - 0.35) / 0.3, 0, 1)
    place = disease.peripheral_preference * exp(-depth / 14) * outward
    place = place + disease.basal_preference * (0.5 - u) + disease.posterior_preference * back * 0.6
    place = place + disease.left_preference * np.sign(x) - disease.level_preference * np.abs(u - disease.level)
    place = place + _CLUSTERING * smooth_noise(rng, coarse, _CLUSTER_MM)
    upper, lower = (1.1 * smooth_noise(rng, coarse, disease.lesion_scale_mm) for _ in range(2))
    by_lobe = np.asarray(_LOBE_LIKING) + rng.normal(0, 0.25, len(LOBES))
    lobules = np.float32(disease.lobulation) * anatomy.noise(rng, grid, disease.lobule_scale_mm)
    if disease.distribution == "diffuse":
        place, by_lobe, lobules = 0.5 * place, 0.5 * by_lobe, 1.6 * lobules
    elif disease.distribution == "single":
        centre = _highest(place + upper, anatomy, 4.0)
        distance_mm = np.sqrt(sum((axis - c) ** 2 for axis, c in zip((z, y, x), centre, strict=True)))
        place, upper, lower = 0.25 * place - distance_mm / _FOCUS_FALL_MM, 0.4 * upper, 0.4 * lower

    field = grid.sample(coarse, (place + upper).astype(np.float32), box)
    below = grid.sample(coarse, (place + lower).astype(np.float32), box)
    in_lower = (lobes == LOBES.index("right_lower_lobe")) | (lobes == LOBES.index("left_lower_lobe"))
    np.copyto(field, below, where=in_lower)
    field += by_lobe.astype(np.float32)[lobes]
    field += lobules
    return field, place + upper


def _highest(field: np.ndarray, anatomy: Anatomy, depth_mm: float) -> tuple[float, float, float]:
    """Position (z, y, x) in mm of a field's highest value at least so deep in the lungs, or at their deepest point."""
    deep = anatomy.depth_mm >= min(depth_mm, float(anatomy.depth_mm.max()))
    best = np.unravel_index(np.argmax(np.where(deep, field, -np.inf)), field.shape)
    return three(o + s * i for o, s, i in zip(anatomy.coarse.origin, anatomy.coarse.spacing, best, strict=True))
