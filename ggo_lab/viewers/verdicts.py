"""A prediction in words, and small pictures, as the panel of a PredictionViewer takes them."""

import numpy as np

from ggo_lab.tasks import GGO_SEVERITY, Task

_NUMBERS = ("", "one", "two", "three")


def sentence(probabilities: np.ndarray, true: int | None, task: Task = GGO_SEVERITY, unknown: str | None = None) -> str:
    """Return a prediction in words, beside the truth where it is known.

    Args:
        probabilities: (K,).
        true: the label, where it is known.
        task: what the K classes are.
        unknown: what to say where there is no true label.

    >>> sentence(np.array([0.1, 0.2, 0.61, 0.09]), 1, GGO_SEVERITY)
    'Predicted severe (61%), true moderate: one grade off.'
    """
    predicted = int(np.argmax(probabilities))
    said = f"Predicted {task.names[predicted]} ({probabilities[predicted]:.0%})"
    if true is None:
        return f"{said}; {unknown or f'the true {task.noun} is not known'}."
    off = abs(predicted - true)
    far = f"{_NUMBERS[off]} {task.noun if off == 1 else task.nouns} off" if task.ordered and off < 4 else "wrong"
    return f"{said}, true {task.names[true]}: {far if off else 'right'}."


def thumbnail(grey: np.ndarray) -> dict[str, object]:
    """Return a small picture, uint8 (H, W), as predictions.js draws it."""
    rows, columns = grey.shape
    return {"rows": rows, "columns": columns, "bytes": np.ascontiguousarray(grey).tobytes()}
