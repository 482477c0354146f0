"""A procedural chest CT with ground-glass opacity, whose lungs, lesions and grade are known exactly."""

from dataclasses import asdict

import numpy as np

from ggo_lab.errors import check_choice
from ggo_lab.phantom.anatomy import Anatomy, build_anatomy
from ggo_lab.phantom.body import body_back_mm
from ggo_lab.phantom.choices import (
    check_number,
    check_one,
    checked_names,
    checked_seed,
    checked_shape,
    choose_involvement,
)
from ggo_lab.phantom.grid import Grid
from ggo_lab.phantom.lesions import DISTRIBUTIONS, PATTERNS, Lesions, opacify, place_lesions, sample_disease
from ggo_lab.phantom.lobes import LOBES, draw_fissures, lobe_of
from ggo_lab.phantom.mediastinum import heart_border_mm
from ggo_lab.phantom.parenchyma import add_dependent_atelectasis, add_emphysema, draw_nodules, parenchyma
from ggo_lab.phantom.patient import CONFOUNDERS, Patient, body_width_mm, lung_width_mm, sample_patient, seen_box, widen
from ggo_lab.phantom.scanner import KERNELS, as_grey, blur_by_motion, draw_couch, expose, sample_scanner
from ggo_lab.phantom.vessels import LungTrees, draw_bronchogram, draw_trees, grow_trees
from ggo_lab.scan import Scan, Truth

__all__ = ["make_phantom"]

_MOTION_REACH_MM = 32.0  # how far from the heart's border its beat is felt


def make_phantom(
    grade: int | str | None = None,
    involvement: float | None = None,
    seed: int = 0,
    shape: tuple[int, int, int] = (64, 256, 256),
    *,
    patient_seed: int | None = None,
    sex: str | None = None,
    age_years: int | None = None,
    inspiration: float | None = None,
    lung_volume_l: float | None = None,
    arms: str | None = None,
    contrast_hu: float | None = None,
    confounders: tuple[str, ...] | str | None = None,
    distribution: str | None = None,
    patterns: tuple[str, ...] | str | None = None,
    slice_mm: float | None = None,
    kernel: str | None = None,
    dose: float | None = None,
    noise_hu: float | None = None,
    field_of_view_mm: float | None = None,
    padded: bool | None = None,
    quality: str = "hu",
    world: str = "people",
) -> Scan:
    """Make one chest CT with its truth.

    Every seed is another patient, scanner and disease; the same seed gives the same scan in every process. The anatomy
    and the noise are drawn before and apart from the disease, so they tell nothing about the grade. Whatever is left
    out is drawn from the seed; giving one choice changes no other.

    A second scan of the same patient: keep `patient_seed` and `shape`, and give another seed. Anatomy and the places
    where the disease sits stay; how far it has got, the scanner and the noise are drawn anew.

    The truth's lungs are all that lies inside the pleura: tissue, lesions, and vessels up to 3.6 mm radius. Airways,
    and the wider vessels of the hilum, are no part of them.

    Args:
        grade: 1..4, or mild to critical; the involvement is then drawn inside the grade's band. Left out together with
            involvement, it is drawn with the shares of the paper's training set.
        involvement: lesion volume / lung volume, 0..1, met to within a voxel. 0 gives a scan without lesions.
        seed: any whole number from 0 that 63 bits hold.
        shape: voxels (Z, Y, X); the lungs are always seen whole, so fewer voxels are larger ones.
        patient_seed: seed of the patient alone; the same as `seed` when left out.
        sex: "female" or "male".
        age_years: 18 to 100; it shows in the aorta, the marrow and the ribs' cartilage.
        inspiration: how deep the breath was that the patient held, 0.5 (shallow) to 1 (full). A shallow one leaves a
            smaller lung, and a denser one: it holds less air and the same tissue.
        lung_volume_l: at that breath, 1.5 to 7.5 litres, met to about 15%.
        arms: "up" (out of the scan) or "down" (beside the chest, which widens the field of view).
        contrast_hu: what contrast medium adds to the aorta, 0 (none) to 350 HU.
        confounders: any of "emphysema", "dependent_atelectasis", "effusion", "motion", "nodules"; () for none. They
            belong to no lesion mask.
        distribution: "single" focus, "multifocal" or "diffuse".
        patterns: any of "crazy_paving", "consolidation", "air_bronchogram", "subpleural_bands", "reversed_halo"; () for
            plain ground glass. Left out, they are drawn, more of them the larger the involvement.
        slice_mm: thickness of a slice, 0.5 to 10 mm; thinner than the distance between slices leaves gaps. Left out,
            slices touch in most scans and are thin in the others.
        kernel: "smooth", "standard" or "sharp".
        dose: relative to a routine scan, 0.1 to 2; less dose is more noise.
        noise_hu: standard deviation of the noise in the middle of the chest, 0 to 100 HU, whatever the dose.
        field_of_view_mm: width of the picture, up to 600 mm. One narrower than the body cuts off its sides, never the
            lungs. The pixel size is this width over the number of columns.
        padded: whether the corners outside the circular field of view hold padding.
        quality: "hu", or "jpg": the values went through 8-bit grey, window [-1000, 400] HU, as in a COV19-CT-DB folder.
        world: "people", or "wide": the body, the breath, the diaphragm and the field of view are drawn from ranges
            wider than people's, and healthy lung is as uneven as real ones are, to train networks that must stand real
            scans. Of what is given above, `sex`, `age_years`, `lung_volume_l`, `contrast_hu` and `confounders` then
            hold for the body.

    Returns:
        the scan, with truth.masks "airways", "vessels", "left_lung", "right_lung", one for each lobe
        ("right_upper_lobe", "right_middle_lobe", "right_lower_lobe", "left_upper_lobe", "left_lower_lobe"), "ggo" and
        "consolidation"; truth.drawn also holds the involvement of each lung and lobe.

    Raises:
        ChoiceError: a value out of range, or a grade that contradicts the involvement.

    >>> scan = make_phantom(grade=2, seed=3, shape=(16, 64, 64))
    >>> scan.shape, 0.25 < scan.truth.involvement <= 0.5
    ((16, 64, 64), True)
    """
    shape, seed = checked_shape(shape), checked_seed("seed", seed)
    patient_seed = seed if patient_seed is None else checked_seed("patient_seed", patient_seed)
    check_one("sex", sex, ("female", "male"))
    check_one("arms", arms, ("up", "down"))
    check_one("distribution", distribution, DISTRIBUTIONS)
    check_one("kernel", kernel, KERNELS)
    check_one("padded", padded, (True, False))
    check_choice("quality", quality, ("hu", "jpg"))
    check_choice("world", world, ("people", "wide"))
    check_number("age_years", age_years, 18, 100, "years")
    check_number("inspiration", inspiration, 0.5, 1, "of a full breath")
    check_number("lung_volume_l", lung_volume_l, 1.5, 7.5, "litres")
    check_number("contrast_hu", contrast_hu, 0, 350, "HU")
    check_number("slice_mm", slice_mm, 0.5, 10, "mm")
    check_number("dose", dose, 0.1, 2, "of a routine dose")
    check_number("noise_hu", noise_hu, 0, 100, "HU")
    confounders = checked_names("confounders", confounders, CONFOUNDERS)
    patterns = checked_names("patterns", patterns, PATTERNS)
    target = choose_involvement(grade, involvement, np.random.default_rng([seed, 0]))

    patient = sample_patient(
        np.random.default_rng([patient_seed, 1]),
        sex=sex,
        age_years=age_years,
        inspiration=inspiration,
        lung_volume_l=lung_volume_l,
        arms=arms,
        contrast_hu=contrast_hu,
        confounders=confounders,
    )
    if world == "wide":
        patient = widen(patient, np.random.default_rng([patient_seed, 11]))
    scanner = sample_scanner(
        np.random.default_rng([seed, 2]), slice_mm, kernel, dose, noise_hu, padded, "motion" in patient.confounders
    )
    check_number("field_of_view_mm", field_of_view_mm, lung_width_mm(patient), 600, "mm, for the lungs of this patient")
    if field_of_view_mm is None:
        field_of_view_mm = max(patient.field_share * body_width_mm(patient), lung_width_mm(patient))
    disease_rng = np.random.default_rng([patient_seed, 6])
    disease = sample_disease(disease_rng, target, distribution, patterns)

    grid = Grid.over(seen_box(patient, field_of_view_mm), shape, scanner.slice_mm)
    anatomy = build_anatomy(patient, grid, np.random.default_rng([patient_seed, 3]))
    trees = grow_trees(patient, anatomy, grid, np.random.default_rng([patient_seed, 4]))
    left, right = (side & ~trees.airways & ~trees.hilum for side in (anatomy.left, anatomy.right))
    lungs = left | right
    box = anatomy.lung_box
    z, y, x = grid.mesh()
    lobes = lobe_of(patient, x[..., box[2]], y[:, box[1]], z[box[0]])
    lesions = place_lesions(patient, anatomy, grid, lungs, lobes, disease, target, disease_rng)

    _fill_lungs(patient, anatomy, trees, lesions, grid, patient_seed, "air_bronchogram" in disease.patterns)
    draw_couch(anatomy.hu, grid, body_back_mm(patient), scanner)
    if scanner.motion_mm:
        blur_by_motion(anatomy.hu, grid, heart_border_mm(patient), _MOTION_REACH_MM, scanner.motion_mm)
    stored = expose(anatomy.hu, grid, scanner, np.random.default_rng([seed, 7]))

    masks = {"airways": trees.airways, "vessels": trees.vessel_mask(grid) & lungs}
    masks |= {"left_lung": left, "right_lung": right}
    masks |= _lobe_masks(lobes, left, right, box)
    masks |= {"ggo": lesions.mask & ~lesions.consolidation, "consolidation": lesions.consolidation}
    reached = int(lesions.mask.sum()) / int(lungs.sum())
    drawn = {**asdict(patient), **asdict(scanner), "slice_mm": grid.slice_mm, "field_of_view_mm": field_of_view_mm}
    drawn |= asdict(disease) if reached else {"distribution": "none", "patterns": ()}
    drawn["involvement_by_part"] = {
        part: round(int((lesions.mask & masks[part]).sum()) / max(1, int(masks[part].sum())), 4)
        for part in ("left_lung", "right_lung", *LOBES)
    }
    truth = Truth(lungs, lesions.mask, reached, masks, drawn)
    name = f"phantom-{seed}" if patient_seed == seed else f"phantom-{patient_seed}-{seed}"
    notes: tuple[str, ...] = ()
    if quality == "jpg":
        stored = as_grey(stored)
        notes = ("The HU are an estimate: they went through 8-bit grey, window -1000 to 400 HU.",)
    return Scan(stored, grid.spacing, name, is_hu=quality == "hu", truth=truth, notes=notes)


def _fill_lungs(
    patient: Patient,
    anatomy: Anatomy,
    trees: LungTrees,
    lesions: Lesions,
    grid: Grid,
    patient_seed: int,
    bronchogram: bool,
) -> None:
    """Draw all that lies inside the lungs into the anatomy's HU, in place: tissue, disease, fissures, trees."""
    hu, box = anatomy.hu, anatomy.lung_box
    tissue = parenchyma(patient, anatomy, grid, np.random.default_rng([patient_seed, 5]))
    if "emphysema" in patient.confounders:
        add_emphysema(tissue, patient, anatomy, grid, np.random.default_rng([patient_seed, 8]))
    if "dependent_atelectasis" in patient.confounders:
        add_dependent_atelectasis(tissue, patient, anatomy, grid, np.random.default_rng([patient_seed, 9]))
    opacify(tissue, lesions)
    hu[box] += anatomy.pleura[box] * (tissue - hu[box])
    draw_fissures(hu, patient, grid, anatomy.pleura)
    draw_trees(hu, trees, anatomy.pleura, patient)
    if bronchogram:
        draw_bronchogram(hu, trees, lesions.consolidation, grid)
    if "nodules" in patient.confounders:
        draw_nodules(hu, anatomy, grid, np.random.default_rng([patient_seed, 10]))


def _lobe_masks(lobes: np.ndarray, left: np.ndarray, right: np.ndarray, box: tuple) -> dict[str, np.ndarray]:
    """One bool mask (Z, Y, X) for each lobe; together they are both lungs.

    Near the midline a voxel of one lung may lie on the other side of x = 0: its own lung decides, the height the rest.
    """
    low = (lobes == 2) | (lobes == 4)
    masks = {}
    for name in LOBES:
        lung = (left if name.startswith("left") else right)[box]
        chosen = lung & (low if name.endswith("lower_lobe") else ~low)
        if name == "right_middle_lobe":
            chosen &= lobes == 1
        elif name == "right_upper_lobe":
            chosen &= lobes != 1
        masks[name] = np.zeros(left.shape, bool)
        masks[name][box] = chosen
    return masks
