"""Cohorts of phantoms: every scan is made when it is opened."""

import json
from functools import partial

import numpy as np
import pandas as pd

from ggo_lab.cohort.table import Cohort
from ggo_lab.errors import CohortError
from ggo_lab.grades import Grade
from ggo_lab.phantom import make_phantom
from ggo_lab.scan import Scan
from ggo_lab.storage import code_fingerprint

# Share of each grade among the 460 training scans of arXiv:2303.16904 (132/123/166/39).
PAPER_GRADE_SHARES = {Grade.MILD: 0.29, Grade.MODERATE: 0.27, Grade.SEVERE: 0.36, Grade.CRITICAL: 0.08}
# The easiest phantom to call mild still shows something, and no phantom sits on a band's edge, where a voxel of
# rounding would change its grade.
_LEAST_INVOLVEMENT, _EDGE_MARGIN, _MOST_INVOLVEMENT = 0.03, 0.02, 0.92


def phantom_cohort(n: int = 120, seed: int = 0, shape: tuple[int, int, int] = (64, 256, 256)) -> Cohort:
    """Describe a cohort of phantoms, already split by patient; each scan is made when it is opened.

    Args:
        n: number of scans, one per patient; grades in the paper's shares (29/27/36/8%).
        seed: of everything. The same seed gives the same patients on any machine.
        shape: voxels (Z, Y, X) of each scan.
    Returns: a Cohort whose table also holds `involvement` (0..1, as asked for) and `phantom_seed`.
    """
    if n < 1:
        raise CohortError(f"n={n} scans make no cohort; ask for at least 1.", n)
    rng = np.random.default_rng(seed)
    shares = np.array(list(PAPER_GRADE_SHARES.values()))
    counts = np.floor(shares * n).astype(int)
    for index in np.argsort(counts - shares * n, kind="stable")[: n - counts.sum()]:
        counts[index] += 1  # the grades that lost most by rounding down
    grades = rng.permutation(np.repeat(list(PAPER_GRADE_SHARES), counts))
    involvement = [
        rng.uniform(max(low + _EDGE_MARGIN, _LEAST_INVOLVEMENT), min(high - _EDGE_MARGIN, _MOST_INVOLVEMENT))
        for low, high in (Grade(grade).band for grade in grades)
    ]
    table = pd.DataFrame(
        {
            "name": [f"phantom-{seed}-{i:04d}" for i in range(n)],
            "patient": [f"patient-{seed}-{i:04d}" for i in range(n)],
            "grade": grades,
            "split": pd.NA,
            "involvement": np.round(involvement, 4),
            "phantom_seed": [seed * 100_000 + i for i in range(n)],
        }
    )
    open_row, identify_row = partial(_make_row, shape=tuple(shape)), partial(_identify_phantom, shape=tuple(shape))
    return Cohort(table, open_row, identify_row).split_by_patient(seed=seed)


def _make_row(row: dict, shape: tuple[int, int, int]) -> Scan:
    return make_phantom(involvement=float(row["involvement"]), seed=int(row["phantom_seed"]), shape=shape)


def _identify_phantom(row: dict, shape: tuple[int, int, int]) -> str:
    return json.dumps([code_fingerprint("phantom"), int(row["phantom_seed"]), float(row["involvement"]), shape])
