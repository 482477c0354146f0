"""What a plain threshold on Hounsfield units would say: the baseline that a network must beat."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ggo_lab.cohort import Cohort
from ggo_lab.cohort.splits import check_patients_apart
from ggo_lab.errors import ChoiceError, CohortError
from ggo_lab.evaluation.predictions import Predictions
from ggo_lab.images import ImageSet

# Of scikit-learn's penalty on the standardised model; it keeps the slope finite where the classes do not overlap.
_C = 100.0


def ggo_baseline(
    fractions: Mapping[str, float], train: Cohort | ImageSet, judged: Cohort | ImageSet, made_by: str = "HU fraction"
) -> Predictions:
    """Grade scans by the hazy share of their lungs alone, with thresholds learnt from the train split.

    An ordinal logistic model with one slope (proportional odds, McCullagh 1980): each threshold asks every scan "is it
    graded higher than this?", and the answers differ by an offset only.

    Args:
        fractions: ggo_fraction(scan, lungs).total by the scan's name, 0..1.
        train: scans to learn from; those of unknown label teach nothing.
        judged: scans to predict for.
        made_by: the name of the predictions.

    Returns:
        Predictions, to be evaluated or to stand beside a network: evaluate(predictions, {"HU fraction": these}).

    Raises:
        CohortError: a scan without a fraction, a patient in both, or fewer than two known classes to learn from.
        ChoiceError: a task of three or more classes without an order, which no thresholds can tell apart.

    >>> fractions = {row["name"]: ggo_fraction(scan, lungs).total for ...}  # doctest: +SKIP
    """
    task = train.task
    if not task.ordered and len(task) > 2:
        raise ChoiceError(f"Thresholds need classes in an order, and {', '.join(task.names)} have none.", task)
    check_patients_apart({"the scans learnt from": train.patients, "the scans judged": judged.patients})
    known = train.table[train.table["label"].notna()]
    if known["label"].nunique() < 2:
        raise CohortError(
            f"The train split holds {known['label'].nunique()} known classes; a threshold lies between two.", len(known)
        )
    learnt, label = _fractions_of(known, fractions), known["label"].to_numpy(int)
    higher = label[:, None] > np.arange(len(task) - 1)  # (N, K - 1)
    asked = np.flatnonzero(higher.any(axis=0) & ~higher.all(axis=0))  # the others have one answer for all
    scale = StandardScaler().fit(learnt[:, None])
    model = LogisticRegression(C=_C, fit_intercept=False, max_iter=1000)
    which = np.repeat(np.eye(len(asked)), len(learnt), axis=0)
    rows = np.tile(scale.transform(learnt[:, None]), (len(asked), 1))
    model.fit(np.column_stack([rows, which]), higher[:, asked].T.ravel())
    places = scale.transform(_fractions_of(judged.table, fractions)[:, None])
    above = np.tile(higher.all(axis=0).astype(float), (len(places), 1))  # the chance of a higher class
    above[:, asked] = expit(places * model.coef_[0, 0] + model.coef_[0, 1:])
    edges = np.column_stack([np.ones(len(places)), above, np.zeros(len(places))])
    # Fewer scans lie above a higher threshold, so with one slope the offsets fall and no difference is negative.
    return Predictions(judged.table, -np.diff(edges), task, made_by)


def _fractions_of(table: pd.DataFrame, fractions: Mapping[str, float]) -> np.ndarray:
    absent = [name for name in table["name"] if not 0 <= fractions.get(name, np.nan) <= 1]
    if absent:
        raise CohortError(
            f"{len(absent)} scans have no fraction from 0 to 1, such as {absent[0]}; give "
            "ggo_fraction(scan, lungs).total for each.",
            absent,
        )
    return table["name"].map(dict(fractions)).to_numpy(float)
