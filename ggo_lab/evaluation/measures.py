"""Measures of agreement between true and predicted labels, for many resamples of the same scans at once.

A further measure is one more entry of MEASURES: reports, their chance column, comparisons, pages and plots read it.
scikit-learn computes the same numbers one resample at a time; the tests hold the two together to 1e-9.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ggo_lab.tasks import Task

_AT_ONCE = 4_000_000  # weights held in memory while AUC is computed


class Resampled(NamedTuple):
    """What a measure is computed from: R resamples of N scans of K classes."""

    counts: np.ndarray  # float64 (R, K, K), scans by true (rows) and predicted class
    present: np.ndarray  # bool (K,), the classes that occur at all: the others are no part of a mean over classes
    true: np.ndarray  # int (N,), labels
    probabilities: np.ndarray  # float64 (N, K)
    weights: np.ndarray  # float64 (R, N), how often each scan counts in each resample


@dataclass(frozen=True)
class Measure:
    """One way to say in a number how well predictions agree with the truth.

    Attributes:
        name: the row of a report.
        compute: the value for every resample, (R,); nan where it is not defined.
        meaning: in a few words, for people.
        worst: its worst value; None for K - 1, the distance between the first and the last class.
        best: its best value. Where it lies below the worst, less is better.
        chance: its value for labels drawn at random in their true shares; None where compute gives it from the
            confusion matrix that such draws have on average.
        ordered: whether it needs a task whose classes are ordered.
    """

    name: str
    compute: Callable[[Resampled], np.ndarray]
    meaning: str
    worst: float | None = 0.0
    best: float = 1.0
    chance: float | None = None
    ordered: bool = False

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller value is a better one."""
        return self.worst is None or self.best < self.worst

    def ends(self, task: Task) -> tuple[float, float]:
        """Return the worst and the best value that it can have for a task."""
        return len(task) - 1.0 if self.worst is None else self.worst, self.best


def confusion(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray, classes: int) -> np.ndarray:
    """Count scans by true and predicted class.

    Args:
        true: int (N,), labels.
        predicted: int (N,), labels.
        weights: (R, N), how often each scan counts in each resample.
        classes: how many there are, K.

    Returns:
        float64 (R, K, K), rows true, columns predicted.
    """
    cell = np.eye(classes**2)[true * classes + predicted]
    return (weights @ cell).reshape(-1, classes, classes)


def f1_of_classes(counts: np.ndarray) -> np.ndarray:
    """Return F1 of each class, (R, K): the harmonic mean of precision and recall; 0 where neither has a right scan."""
    right = np.diagonal(counts, axis1=1, axis2=2)
    return _ratio(2 * right, counts.sum(axis=1) + counts.sum(axis=2))


def _macro_f1(of: Resampled) -> np.ndarray:
    return f1_of_classes(of.counts)[:, of.present].mean(axis=1)


def _accuracy(of: Resampled) -> np.ndarray:
    return _ratio(np.trace(of.counts, axis1=1, axis2=2), of.counts.sum(axis=(1, 2)))


def _matthews(of: Resampled) -> np.ndarray:
    """Gorodkin 2004, for many classes. 0 where all predictions are the same; not defined where all truths are."""
    total, right = of.counts.sum(axis=(1, 2)), np.trace(of.counts, axis1=1, axis2=2)
    true, predicted = of.counts.sum(axis=2), of.counts.sum(axis=1)
    numerator = right * total - (true * predicted).sum(axis=1)
    of_true, of_predicted = (total**2 - (part**2).sum(axis=1) for part in (true, predicted))
    return np.where(of_true > 0, _ratio(numerator, np.sqrt(np.maximum(of_true * of_predicted, 0))), np.nan)


def _mean_auc(of: Resampled) -> np.ndarray:
    """Mean over the classes present of one-vs-rest AUC; nan where there is only one class.

    The AUC of a class is the chance that a scan of it gets a higher probability for it than a scan of another one;
    ties count half.
    """
    step = max(1, _AT_ONCE // max(1, len(of.true)))
    parts = [_auc_of_classes(of, of.weights[k : k + step]) for k in range(0, len(of.weights), step)]
    areas = np.concatenate(parts)
    known = np.isfinite(areas)
    return _ratio(np.where(known, areas, 0).sum(axis=1), known.sum(axis=1), np.nan)


def _weighted_kappa(of: Resampled) -> np.ndarray:
    """Cohen 1968, with quadratic weights: large errors count more."""
    penalty, counts = _distances(of) ** 2, of.counts
    total = counts.sum(axis=(1, 2))
    expected = counts.sum(axis=2)[:, :, None] * counts.sum(axis=1)[:, None, :]
    disagreement = _ratio(total * (counts * penalty).sum(axis=(1, 2)), (expected * penalty).sum(axis=(1, 2)), np.nan)
    return 1 - disagreement


def _mean_error(of: Resampled) -> np.ndarray:
    return _ratio((of.counts * _distances(of)).sum(axis=(1, 2)), of.counts.sum(axis=(1, 2)))


def _two_off(of: Resampled) -> np.ndarray:
    return _ratio(of.counts[:, _distances(of) >= 2].sum(axis=1), of.counts.sum(axis=(1, 2)))


# In the order of a report.
MEASURES = (
    Measure("macro-F1", _macro_f1, "the mean over classes of F1: every class counts the same"),
    Measure("accuracy", _accuracy, "the share of scans that are right"),
    Measure("MCC", _matthews, "agreement beyond chance, 0 is none", worst=-1),
    Measure("AUC", _mean_auc, "how well probabilities order scans, 0.5 is chance", chance=0.5),
    Measure("weighted kappa", _weighted_kappa, "agreement that forgives near misses, 0 is chance", -1, ordered=True),
    Measure("mean grade error", _mean_error, "how many grades off on average", None, 0, ordered=True),
    Measure("two grades off", _two_off, "the share of scans two or more grades off", 1, 0, ordered=True),
)


def measures_of(task: Task) -> dict[str, Measure]:
    """Return the measures that have a meaning for a task, by name, in the order of a report."""
    return {measure.name: measure for measure in MEASURES if task.ordered or not measure.ordered}


def resampled(true: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, present: np.ndarray) -> Resampled:
    """Return what measures are computed from.

    Args:
        true: int (N,), labels.
        probabilities: float64 (N, K).
        weights: (R, N), how often each scan counts in each resample.
        present: bool (K,), the classes that occur (see present_in).
    """
    counts = confusion(true, probabilities.argmax(axis=1), weights, probabilities.shape[1])
    return Resampled(counts, present, true, probabilities, weights)


def from_counts(measure: Measure, counts: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Compute a measure from confusion matrices alone, (R,); AUC, which needs probabilities, cannot be.

    Args:
        measure: of MEASURES.
        counts: (R, K, K), rows true, columns predicted.
        present: bool (K,), the classes that occur.
    """
    classes = counts.shape[1]
    return measure.compute(
        Resampled(counts, present, np.zeros(0, int), np.zeros((0, classes)), np.zeros((len(counts), 0)))
    )


def by_chance(measure: Measure, totals: np.ndarray) -> float:
    """Return what drawing labels at random in their true shares scores.

    Args:
        measure: of MEASURES.
        totals: scans of each true class, (K,).
    """
    if measure.chance is not None:
        return measure.chance
    return float(from_counts(measure, (np.outer(totals, totals) / totals.sum())[None], totals > 0)[0])


def present_in(true: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Return which classes occur, bool (K,): the others are no part of macro-F1."""
    return np.bincount(np.concatenate([true, predicted]), minlength=classes) > 0


def _distances(of: Resampled) -> np.ndarray:
    """How many classes each prediction is off, (K, K)."""
    labels = np.arange(of.counts.shape[1])
    return np.abs(labels[:, None] - labels)


def _auc_of_classes(of: Resampled, weights: np.ndarray) -> np.ndarray:
    areas = np.full((len(weights), of.probabilities.shape[1]), np.nan)
    for label, shares in enumerate(of.probabilities.T):
        order = np.argsort(shares, kind="stable")
        scores, is_class = shares[order], of.true[order] == label
        starts = np.flatnonzero(np.diff(scores, prepend=-np.inf))  # of each run of equal scores
        ordered = weights[:, order]
        positive = np.add.reduceat(ordered * is_class, starts, axis=1)
        negative = np.add.reduceat(ordered * ~is_class, starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        areas[:, label] = _ratio((positive * (below + negative / 2)).sum(axis=1), pairs, np.nan)
    return areas


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), float(otherwise)), where=np.asarray(below) > 0)
