"""When a network should not answer alone: abstention by confidence, and sets of classes with a stated coverage."""

import html
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ggo_lab.errors import ChoiceError, CohortError, as_number, shown
from ggo_lab.evaluation.calibration import check_apart
from ggo_lab.evaluation.intervals import Interval, wilson
from ggo_lab.evaluation.predictions import Predictions, known_of


def risk_coverage(predictions: Predictions) -> pd.DataFrame:
    """Say how often a network errs if it answers only where it is sure (El-Yaniv & Wiener 2010).

    Args:
        predictions: those of known label count.

    Returns:
        A row a threshold of confidence, the strictest first; threshold (scans at least as sure are answered),
        answered (scans), coverage (their share), risk (share of errors among them), low and high (Wilson's 95%
        interval of the risk).

    Raises:
        CohortError: no scan of known label.
    """
    judged = known_of(predictions)
    confidence = judged.probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    errors = np.cumsum((judged.predicted != judged.labels)[order])
    confidence = confidence[order]
    last = np.flatnonzero(np.diff(confidence, append=-np.inf))  # scans equally sure are answered together
    answered = last + 1
    ends = np.array([wilson(int(k), int(n)) for k, n in zip(errors[last], answered, strict=True)])
    return pd.DataFrame(
        {
            "threshold": confidence[last],
            "answered": answered,
            "coverage": answered / len(judged),
            "risk": errors[last] / answered,
            "low": ends[:, 0],
            "high": ends[:, 1],
        }
    )


@dataclass(frozen=True, eq=False)
class PredictionSets:
    """For every scan a set of classes that holds the true one with a stated probability.

    Attributes:
        predictions: those that the sets were made from.
        sets: bool (N, K): which classes belong to each scan's set; a set may be empty.
        stated: the coverage that was asked for.
        threshold: the least probability that brings a class into a set.
        learnt_from: scans of the validation split.
    """

    predictions: Predictions
    sets: np.ndarray
    stated: float
    threshold: float
    learnt_from: int

    @property
    def covered(self) -> tuple[int, int]:
        """How many sets hold the true class, and of how many scans of known label."""
        known = self.predictions.labels >= 0
        held = self.sets[np.flatnonzero(known), self.predictions.labels[known]]
        return int(held.sum()), int(known.sum())

    @property
    def mean_size(self) -> float:
        """Classes in a set, on average: 1 would be a plain answer, all of them say nothing."""
        return float(self.sets.sum(axis=1).mean())

    def to_frame(self) -> pd.DataFrame:
        """Return a row a scan: name, true label (0..K-1) and its set in words."""
        said = [", ".join(np.array(self.predictions.task.names)[row]) or "none" for row in self.sets]
        return self.predictions.to_frame()[["name", "label"]].assign(set=said)

    @property
    def sentence(self) -> str:
        """Stated and found coverage, the size of the sets, and what they rest on."""
        task = self.predictions.task
        said = (
            f"Sets of {self.mean_size:.1f} {task.nouns} on average, made to hold the true {task.noun} of "
            f"{self.stated:.0%} of new scans; learnt from {self.learnt_from} validation scans."
        )
        right, n = self.covered
        if n:
            said += f" Here {right} of {n} do ({right / n:.0%}, 95% interval {Interval(*wilson(right, n))})."
        if self.threshold == 0:
            said += " Nothing less than all classes keeps this promise, so every set holds everything."
        return said

    def __repr__(self) -> str:
        return self.sentence

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self.sentence)}</p>"


def conformal_sets(predictions: Predictions, validation: Predictions, coverage: float = 0.9) -> PredictionSets:
    """Give every scan a set of classes that holds the true one with the stated probability (split conformal).

    A class belongs to the set if its probability is no stranger than those that the true classes of the validation
    split got (Vovk et al. 2005; Sadinle, Lei & Wasserman 2019). It needs no calibrated network, only that the scans
    judged come from where the validation scans come from. The promise is for scans on the whole, not for each class.
    A network whose state was chosen on the validation split does a little worse on new scans than the sets assume.

    Args:
        predictions: scans to make sets for.
        validation: the same network's predictions for scans of known label, of other patients.
        coverage: the share of sets that shall hold the true class, above 0 and below 1.

    Raises:
        ChoiceError: a coverage outside 0..1.
        CohortError: a patient in both, no scan of known label to learn from, or none to make a set for.
    """
    stated = as_number(coverage)
    if not 0 < stated < 1:
        raise ChoiceError(
            f"coverage={shown(coverage)} must lie between 0 and 1, such as 0.9 for nine of ten scans.", coverage
        )
    if len(predictions) == 0:
        raise CohortError("There is no scan to make a set for; is the split empty?")
    check_apart(predictions, validation)
    learnt = known_of(validation)
    n = len(learnt)
    of_true = np.sort(learnt.probabilities[np.arange(n), learnt.labels])[::-1]
    # The new scan is as likely to take any of n + 1 places among these: so many must be let in.
    rank = math.ceil(round((n + 1) * stated, 9))  # rounded, for 0.9 * 10 is a little more than 9
    threshold = float(of_true[rank - 1]) if rank <= n else 0.0
    return PredictionSets(predictions, predictions.probabilities >= threshold, stated, threshold, n)
