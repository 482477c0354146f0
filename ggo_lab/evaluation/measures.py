"""Measures of agreement between true and predicted grades, for many resamples of the same scans at once.

scikit-learn computes the same numbers one resample at a time; the tests hold the two together to 1e-9.
"""

import numpy as np

from ggo_lab.grades import Grade

_GRADES = len(Grade)
_AT_ONCE = 4_000_000  # weights held in memory while AUC is computed


def confusion(true: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Count scans by true and predicted grade.

    Args:
        true, predicted: int (N,), grade - 1.
        weights: (K, N), how often each scan counts in each resample.
    Returns: float64 (K, 4, 4), rows true, columns predicted.
    """
    cell = np.eye(_GRADES**2)[true * _GRADES + predicted]
    return (weights @ cell).reshape(-1, _GRADES, _GRADES)


def f1_of_grades(counts: np.ndarray) -> np.ndarray:
    """F1 of each grade, (K, 4): the harmonic mean of precision and recall; 0 where neither has a right scan."""
    right = np.diagonal(counts, axis1=1, axis2=2)
    return _ratio(2 * right, counts.sum(axis=1) + counts.sum(axis=2))


def macro_f1(counts: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Mean F1 over the grades that are present (bool (4,)), (K,): the challenge's score."""
    return f1_of_grades(counts)[:, present].mean(axis=1)


def accuracy(counts: np.ndarray) -> np.ndarray:
    """Share of scans graded right, (K,)."""
    return _ratio(np.trace(counts, axis1=1, axis2=2), counts.sum(axis=(1, 2)))


def matthews(counts: np.ndarray) -> np.ndarray:
    """Matthews correlation, (K,): 1 perfect, 0 no better than chance (Gorodkin 2004, for many classes)."""
    total, right = counts.sum(axis=(1, 2)), np.trace(counts, axis1=1, axis2=2)
    true, predicted = counts.sum(axis=2), counts.sum(axis=1)
    numerator = right * total - (true * predicted).sum(axis=1)
    spread = (total**2 - (true**2).sum(axis=1)) * (total**2 - (predicted**2).sum(axis=1))
    return _ratio(numerator, np.sqrt(np.maximum(spread, 0)))


def weighted_kappa(counts: np.ndarray) -> np.ndarray:
    """Cohen's kappa with quadratic weights, (K,): agreement beyond chance, large errors counting more (Cohen 1968)."""
    penalty = (np.arange(_GRADES)[:, None] - np.arange(_GRADES)) ** 2
    total = counts.sum(axis=(1, 2))
    expected = counts.sum(axis=2)[:, :, None] * counts.sum(axis=1)[:, None, :]
    disagreement = _ratio(total * (counts * penalty).sum(axis=(1, 2)), (expected * penalty).sum(axis=(1, 2)), np.nan)
    return 1 - disagreement


def mean_grade_error(counts: np.ndarray) -> np.ndarray:
    """Mean distance between true and predicted grade, (K,), grades."""
    distance = np.abs(np.arange(_GRADES)[:, None] - np.arange(_GRADES))
    return _ratio((counts * distance).sum(axis=(1, 2)), counts.sum(axis=(1, 2)))


def two_off(counts: np.ndarray) -> np.ndarray:
    """Share of scans that are two grades off or more, (K,)."""
    far = np.abs(np.arange(_GRADES)[:, None] - np.arange(_GRADES)) >= 2
    return _ratio(counts[:, far].sum(axis=1), counts.sum(axis=(1, 2)))


def mean_auc(true: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over the grades present of one-vs-rest AUC, (K,); nan where there is only one grade.

    The AUC of a grade is the chance that a scan of this grade gets a higher probability for it than a scan of another
    grade; ties count half.

    Args:
        true: int (N,). probabilities: (N, 4). weights: (K, N).
    """
    step = max(1, _AT_ONCE // max(1, len(true)))
    parts = [_auc_of_grades(true, probabilities, weights[k : k + step]) for k in range(0, len(weights), step)]
    areas = np.concatenate(parts)
    known = np.isfinite(areas)
    return np.divide(np.where(known, areas, 0).sum(axis=1), known.sum(axis=1), where=known.any(axis=1),
                     out=np.full(len(areas), np.nan))  # fmt: skip


LOWER_IS_BETTER = ("mean grade error", "two grades off")


def every_measure(
    true: np.ndarray, probabilities: np.ndarray, weights: np.ndarray, present: np.ndarray
) -> dict[str, np.ndarray]:
    """Every measure for every row of weights (K, N): dict of (K,), in the order of a report."""
    counts = confusion(true, probabilities.argmax(axis=1), weights)
    return {
        "macro-F1": macro_f1(counts, present),
        "accuracy": accuracy(counts),
        "MCC": matthews(counts),
        "AUC": mean_auc(true, probabilities, weights),
        "weighted kappa": weighted_kappa(counts),
        "mean grade error": mean_grade_error(counts),
        "two grades off": two_off(counts),
    }


def present(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Say which grades occur, bool (4,): the others are no part of macro-F1."""
    return np.bincount(np.concatenate([true, predicted]), minlength=_GRADES) > 0


def _auc_of_grades(true: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> np.ndarray:
    areas = np.full((len(weights), _GRADES), np.nan)
    for grade in range(_GRADES):
        order = np.argsort(probabilities[:, grade], kind="stable")
        scores, is_grade = probabilities[order, grade], true[order] == grade
        starts = np.flatnonzero(np.diff(scores, prepend=-np.inf))  # of each run of equal scores
        ordered = weights[:, order]
        positive = np.add.reduceat(ordered * is_grade, starts, axis=1)
        negative = np.add.reduceat(ordered * ~is_grade, starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        areas[:, grade] = _ratio((positive * (below + negative / 2)).sum(axis=1), pairs, np.nan)
    return areas


def _ratio(above: np.ndarray, below: np.ndarray, otherwise: float = 0.0) -> np.ndarray:
    return np.divide(above, below, out=np.full(np.shape(above), float(otherwise)), where=np.asarray(below) > 0)
