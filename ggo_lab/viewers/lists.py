"""Which scans of a report to look at: lists by right and wrong, by grade, and by how sure the network was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ggo_lab.grades import Grade

if TYPE_CHECKING:
    from ggo_lab.evaluation import Predictions


def lists(predictions: Predictions) -> dict[str, np.ndarray]:
    """Name -> rows of the lists one may look through; those without a scan are left out.

    Wrong answers come the surest first, for these are the dangerous ones; the rest in the order of the predictions.
    """
    true, predicted = predictions.indices, predictions.probabilities.argmax(axis=1)
    known, off = true >= 0, np.abs(predicted - true)
    surest_first = np.argsort(-confidence(predictions), kind="stable")
    chosen = {
        "all": np.ones(len(true), bool),
        "right": known & (off == 0),
        "wrong": known & (off > 0),
        "more than one grade off": known & (off > 1),
        **{f"true {grade.label}": true == grade.index for grade in Grade},
        **{f"predicted {grade.label}": predicted == grade.index for grade in Grade},
    }
    rows = {
        key: surest_first[mask[surest_first]] if key in ("wrong", "more than one grade off") else np.flatnonzero(mask)
        for key, mask in chosen.items()
    }
    return {key: found for key, found in rows.items() if len(found)}


def confidence(predictions: Predictions) -> np.ndarray:
    """The probability of the predicted grade, float (N,)."""
    return predictions.probabilities.max(axis=1)


def true_grade(predictions: Predictions, row: int) -> Grade | None:
    """The true grade of a row, None where it is not known."""
    index = int(predictions.indices[row])
    return None if index < 0 else Grade(index + 1)


def line(predictions: Predictions, row: int) -> str:
    """One scan as a line of the list."""
    shares = predictions.probabilities[row]
    predicted, true = Grade(int(shares.argmax()) + 1), true_grade(predictions, row)
    sign = "·" if true is None else "✓" if true == predicted else "✗"
    was = "" if true in (None, predicted) else f" (true {true.label})"
    return f"{sign} {predictions.names[row]}: {predicted.label} {shares.max():.0%}{was}"
