"""Which scans of a report to look at: lists by right and wrong, by class, and by how sure the network was."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ggo_lab.evaluation import Predictions


def lists(predictions: Predictions) -> dict[str, np.ndarray]:
    """Name -> rows of the lists one may look through; those without a scan are left out.

    Wrong answers come the surest first, for these are the dangerous ones; the rest in the order of the predictions.
    """
    true, predicted, task = predictions.labels, predictions.predicted, predictions.task
    known, off = true >= 0, np.abs(predicted - true)
    surest_first = np.argsort(-confidence(predictions), kind="stable")
    chosen = {
        "all": np.ones(len(true), bool),
        "right": known & (off == 0),
        "wrong": known & (off > 0),
        "more than one grade off": known & (off > 1) & task.ordered,
        **{f"true {name}": true == label for label, name in enumerate(task.names)},
        **{f"predicted {name}": predicted == label for label, name in enumerate(task.names)},
    }
    rows = {
        key: surest_first[mask[surest_first]] if key in ("wrong", "more than one grade off") else np.flatnonzero(mask)
        for key, mask in chosen.items()
    }
    return {key: found for key, found in rows.items() if len(found)}


def confidence(predictions: Predictions) -> np.ndarray:
    """The probability of the predicted class, float (N,)."""
    return predictions.probabilities.max(axis=1)


def true_label(predictions: Predictions, row: int) -> int | None:
    """The true label of a row, None where it is not known."""
    label = int(predictions.labels[row])
    return None if label < 0 else label


def line(predictions: Predictions, row: int) -> str:
    """One scan as a line of the list."""
    shares = predictions.probabilities[row]
    predicted, true, names = int(shares.argmax()), true_label(predictions, row), predictions.task.names
    sign = "·" if true is None else "✓" if true == predicted else "✗"
    was = "" if true is None or true == predicted else f" (true {names[true]})"
    return f"{sign} {predictions.names[row]}: {names[predicted]} {shares.max():.0%}{was}"
