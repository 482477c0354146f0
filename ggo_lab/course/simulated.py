"""A network whose calibration is known, because it is made up: what a lesson on probabilities can check against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from ggo_lab.evaluation import Predictions


def simulated(n: int, overconfidence: float = 1.0, seed: int = 0) -> Predictions:
    """Make up the predictions of a network whose overconfidence is known.

    The true grade of each patient is drawn from the probabilities, so they are calibrated by construction; then they
    are raised to a power, which multiplies the logits and changes no answer.

    Args:
        n: scans.
        overconfidence: the power; 1 is perfectly calibrated.
        seed: of the patients.

    Returns:
        Predictions of the paper's four grades.
    """
    from ggo_lab.evaluation import Predictions  # it imports torch, for which most notebooks should not wait

    rng = np.random.default_rng(seed)
    severity = 4 * rng.beta(1.6, 2.4, n) - 0.5
    honest = np.exp(-1.2 * (severity[:, None] - np.arange(4)) ** 2)
    honest /= honest.sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > honest.cumsum(axis=1)[:, :3]).sum(axis=1)
    shown = honest**overconfidence
    table = pd.DataFrame({"name": [f"{seed}-{i}" for i in range(n)], "label": labels})
    return Predictions(
        table, shown / shown.sum(axis=1, keepdims=True), made_by=f"simulated, overconfident x {overconfidence:g}"
    )
