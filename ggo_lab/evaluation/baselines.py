"""What a plain threshold on Hounsfield units would say: the baseline that a network must beat."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ggo_lab.cohort import Cohort
from ggo_lab.errors import CohortError
from ggo_lab.evaluation.predictions import Predictions
from ggo_lab.grades import Grade
from ggo_lab.images import ImageSet

_THRESHOLDS = len(Grade) - 1
# Of scikit-learn's penalty on the standardised model; it keeps the slope finite where the grades do not overlap.
_C = 100.0


def ggo_baseline(
    fractions: Mapping[str, float], train: Cohort | ImageSet, judged: Cohort | ImageSet, made_by: str = "HU fraction"
) -> Predictions:
    """Grade scans by the hazy share of their lungs alone, with thresholds learnt from the train split.

    An ordinal logistic model with one slope (proportional odds, McCullagh 1980): each threshold asks every scan "is it
    graded higher than this?", and the three answers differ by an offset only.

    Args:
        fractions: ggo_fraction(scan, lungs).total by the scan's name, 0..1.
        train: scans to learn from; those of unknown grade teach nothing.
        judged: scans to predict for.
    Returns: predictions, to be evaluated or to stand beside a network: evaluate(predictions, {"HU fraction": these}).
    Raises:
        CohortError: a scan without a fraction, a patient in both, or fewer than two known grades to learn from.

    >>> fractions = {row["name"]: ggo_fraction(scan, lungs).total for ...}  # doctest: +SKIP
    """
    if shared := sorted(set(train.table["patient"]) & set(judged.table["patient"])):
        raise CohortError(
            f"{len(shared)} patients are both learnt from and judged, such as {shared[0]}; give the train split and "
            "another one.",
            shared,
        )
    known = train.table[train.table["grade"].notna()]
    if known["grade"].nunique() < 2:
        raise CohortError(
            f"The train split holds {known['grade'].nunique()} known grades; a threshold lies between two.", len(known)
        )
    learnt, index = _fractions_of(known, fractions), known["grade"].to_numpy(int) - 1
    higher = index[:, None] > np.arange(_THRESHOLDS)  # (N, 3)
    asked = np.flatnonzero(higher.any(axis=0) & ~higher.all(axis=0))  # the others have one answer for all
    scale = StandardScaler().fit(learnt[:, None])
    model = LogisticRegression(C=_C, fit_intercept=False, max_iter=1000)
    which = np.repeat(np.eye(len(asked)), len(learnt), axis=0)
    rows = np.tile(scale.transform(learnt[:, None]), (len(asked), 1))
    model.fit(np.column_stack([rows, which]), higher[:, asked].T.ravel())
    places = scale.transform(_fractions_of(judged.table, fractions)[:, None])
    above = np.tile(higher.all(axis=0).astype(float), (len(places), 1))  # the chance of a higher grade
    above[:, asked] = expit(places * model.coef_[0, 0] + model.coef_[0, 1:])
    edges = np.column_stack([np.ones(len(places)), above, np.zeros(len(places))])
    grades = judged.table["grade"].fillna(0).to_numpy(np.int64) - 1
    # Fewer scans lie above a higher threshold, so with one slope the offsets fall and no difference is negative.
    return Predictions(judged.names, judged.table["patient"].tolist(), grades, -np.diff(edges), made_by)


def _fractions_of(table: pd.DataFrame, fractions: Mapping[str, float]) -> np.ndarray:
    absent = [name for name in table["name"] if not 0 <= fractions.get(name, np.nan) <= 1]
    if absent:
        raise CohortError(
            f"{len(absent)} scans have no fraction from 0 to 1, such as {absent[0]}; give "
            "ggo_fraction(scan, lungs).total for each.",
            absent,
        )
    return table["name"].map(dict(fractions)).to_numpy(float)
