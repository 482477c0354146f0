"""A procedural chest CT with ground-glass opacity, whose lungs, lesions and grade are known exactly."""

import operator
from dataclasses import asdict
from numbers import Real

import numpy as np

from ggo_lab.errors import ChoiceError
from ggo_lab.grades import Grade, grade_of
from ggo_lab.phantom.anatomy import build_anatomy
from ggo_lab.phantom.body import body_back_mm
from ggo_lab.phantom.grid import Grid
from ggo_lab.phantom.lesions import opacify, place_lesions
from ggo_lab.phantom.patient import body_box, sample_patient
from ggo_lab.phantom.scanner import draw_couch, expose, sample_scanner
from ggo_lab.phantom.vessels import draw_fissures, draw_trees, grow_trees, parenchyma
from ggo_lab.scan import Scan, Truth

__all__ = ["make_phantom"]

# Shares of mild, moderate, severe and critical scans in the paper's training set (132/123/166/39 of 460).
_GRADE_SHARES = (0.29, 0.27, 0.36, 0.08)
_EDGE_MARGIN = 0.02  # involvement drawn for a grade keeps this far from the band's edges
_LEAST_INVOLVEMENT = 0.03
_MOST_INVOLVEMENT = 0.95
_SMALLEST_SHAPE = (8, 32, 32)


def make_phantom(
    grade: int | None = None,
    involvement: float | None = None,
    seed: int = 0,
    shape: tuple[int, int, int] = (64, 256, 256),
) -> Scan:
    """Make one chest CT with its truth.

    Every seed is another patient, scanner and disease; the same seed gives the same scan in every process. The anatomy
    and the noise are drawn before and apart from the disease, so they tell nothing about the grade.

    The truth's lungs are all that lies inside the pleura: tissue, lesions, and vessels up to 3.6 mm radius. Airways,
    and the wider vessels of the hilum, are no part of them.

    Args:
        grade: 1..4; the involvement is then drawn inside the grade's band. Left out together with involvement, it is
            drawn with the shares of the paper's training set.
        involvement: lesion volume / lung volume, 0..1, met to within a voxel. 0 gives a scan without lesions.
        seed: any whole number from 0.
        shape: voxels (Z, Y, X); the patient is always seen whole, so fewer voxels are larger ones.
    Returns: the scan, with truth.masks "airways", "vessels", "left_lung", "right_lung", "consolidation".
    Raises:
        ChoiceError: a value out of range, or a grade that contradicts the involvement.

    >>> scan = make_phantom(grade=2, seed=3, shape=(16, 64, 64))
    >>> scan.shape, scan.truth.grade
    ((16, 64, 64), <Grade.MODERATE: 2>)
    """
    shape = _checked_shape(shape)
    seed = _checked_seed(seed)
    target = _choose_involvement(grade, involvement, np.random.default_rng([seed, 0]))
    patient = sample_patient(np.random.default_rng([seed, 1]))
    scanner = sample_scanner(np.random.default_rng([seed, 2]))
    grid = Grid.over(body_box(patient), shape)

    anatomy = build_anatomy(patient, grid, np.random.default_rng([seed, 3]))
    trees = grow_trees(patient, anatomy, grid, np.random.default_rng([seed, 4]))
    left, right = (side & ~trees.airways & ~trees.hilum for side in (anatomy.left, anatomy.right))
    lungs = left | right
    tissue = parenchyma(patient, anatomy, grid, np.random.default_rng([seed, 5]))
    lesions = place_lesions(patient, anatomy, grid, lungs, target, np.random.default_rng([seed, 6]))
    opacify(tissue, lesions)

    hu = anatomy.hu
    box = anatomy.lung_box
    hu[box] += anatomy.pleura[box] * (tissue - hu[box])
    draw_fissures(hu, patient, anatomy, grid)
    draw_trees(hu, trees, anatomy.pleura, patient)
    draw_couch(hu, grid, body_back_mm(patient), scanner)
    stored = expose(hu, grid, scanner, np.random.default_rng([seed, 7]))

    vessels = np.zeros(shape, bool)
    vessels.reshape(-1)[trees.vessels.index[trees.vessels.coverage > 0.5]] = True
    reached = int(lesions.mask.sum()) / int(lungs.sum())
    truth = Truth(
        lungs=lungs,
        lesions=lesions.mask,
        involvement=reached,
        grade=grade_of(reached),
        masks={
            "airways": trees.airways,
            "vessels": vessels & lungs,
            "left_lung": left,
            "right_lung": right,
            "consolidation": lesions.consolidation,
        },
        drawn={**asdict(patient), **asdict(scanner), **lesions.drawn},
    )
    return Scan(hu=stored, spacing=grid.spacing, name=f"phantom-{seed}", truth=truth)


def _checked_shape(shape) -> tuple[int, int, int]:
    try:
        checked = tuple(operator.index(n) for n in shape)
    except TypeError:
        checked = ()
    if len(checked) != 3 or any(n < least for n, least in zip(checked, _SMALLEST_SHAPE, strict=False)):
        raise ChoiceError(
            f"shape={shape!r} is not three counts of voxels (Z, Y, X) of at least {_SMALLEST_SHAPE}; "
            "the default is (64, 256, 256).",
            shape,
        )
    return checked


def _checked_seed(seed) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ChoiceError(f"seed={seed!r} is not a whole number from 0; give for example seed=7.", seed)
    return int(seed)


def _choose_involvement(grade: int | None, involvement: float | None, rng: np.random.Generator) -> float:
    if grade is not None and grade not in list(Grade):
        raise ChoiceError(f"grade={grade!r} is not known; give 1 (mild) to 4 (critical), or leave it out.", grade)
    if involvement is not None:
        if not isinstance(involvement, Real):
            raise ChoiceError(
                f"involvement={involvement!r} is not a number; give 0.3 for 30% of the lungs.", involvement
            )
        wanted = grade_of(involvement)
        if grade is not None and wanted != grade:
            found = "no lesion" if wanted is None else f"grade {int(wanted)}, {wanted.label}"
            raise ChoiceError(
                f"grade={int(grade)} and involvement={involvement} contradict each other: that involvement is {found}. "
                "Give one of the two.",
                (grade, involvement),
            )
        return float(involvement)
    drawn = Grade(int(rng.choice(len(Grade), p=_GRADE_SHARES)) + 1)
    low, high = (drawn if grade is None else Grade(grade)).band
    return float(rng.uniform(max(low + _EDGE_MARGIN, _LEAST_INVOLVEMENT), min(high - _EDGE_MARGIN, _MOST_INVOLVEMENT)))
