"""How far probabilities can be believed: reliability, calibration error beside its value by chance, temperature."""

import html
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ggo_lab.cohort.splits import check_patients_apart
from ggo_lab.errors import ChoiceError, CohortError, check_whole
from ggo_lab.evaluation.intervals import CONFIDENCE, check_draws
from ggo_lab.evaluation.predictions import Predictions, known_of

# Where a temperature is searched; beyond, probabilities are all but 0 or 1, or all equal. An estimate this near an end
# is none: the search would go on.
_TEMPERATURES, _NEAR_THE_END = (0.05, 100.0), 1.02
_LEAST_RISE = 1e-6  # of the loss, from its minimum to an end of the range
_LEAST = 1e-12  # probability; a network that says 0 does not mean minus infinity


@dataclass(frozen=True, eq=False)
class Reliability:
    """Whether a network is right as often as it says.

    Attributes:
        table: a row a bin of confidence (the highest probability) that holds scans; low and high edge, scans,
            confidence (mean), right (share), and the band (band_low, band_high) that holds the share in 95 of 100
            splits if the network is perfectly calibrated.
        error: the expected calibration error, 0..1: the gap between confidence and share right, averaged over scans.
        by_chance: what this error is on average for a perfectly calibrated network of the same confidences.
        chance_high: what it stays below for such a network in 95 of 100 splits.
        made_by: what made the predictions.
        classes: how many the task has.
    """

    table: pd.DataFrame
    error: float
    by_chance: float
    chance_high: float
    made_by: str
    classes: int

    @property
    def sentence(self) -> str:
        """What the error means, beside its value by chance."""
        verdict = (
            "so the probabilities are not calibrated"
            if self.error > self.chance_high
            else "so nothing shows that they are off, which on few scans says little"
        )
        return (
            f"{self.made_by}: expected calibration error {self.error:.3f}; a perfectly calibrated network with these "
            f"confidences would show {self.by_chance:.3f} by chance, and up to {self.chance_high:.3f} in 95 of 100 "
            f"splits, {verdict}."
        )

    def __repr__(self) -> str:
        return f"{self.table.round(3).to_string(index=False)}\n\n{self.sentence}"

    def _repr_html_(self) -> str:
        return f"{self.table.round(3).to_html(index=False)}<p>{html.escape(self.sentence)}</p>"


def reliability(predictions: Predictions, bins: int = 10, draws: int = 2000, seed: int = 0) -> Reliability:
    """Hold how sure a network was against how often it was right, in equal bins of confidence (Guo et al. 2017).

    With few scans in a bin even a perfect network misses the diagonal, and the calibration error is never 0: both are
    shown beside what chance makes of them, from draws in which every scan is right with the probability it was given.

    Args:
        predictions: those of known label count.
        bins: equal parts of 0..1.
        draws: of chance.
        seed: of these.

    Raises:
        ChoiceError: fewer than 2 bins or 1 draw.
        CohortError: no scan of known label.
    """
    bins = check_whole("bins", bins, 2, 1000)  # one could not show how confidence and success go together
    draws = check_draws(draws)
    judged = known_of(predictions)
    confidence = judged.probabilities.max(axis=1)
    right = judged.predicted == judged.labels
    # Bins (low, high]: 1 belongs to the last, as in torchmetrics and in Guo et al.
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    member = np.eye(bins)[place]  # (N, bins)
    scans = member.sum(axis=0)
    drawn = np.random.default_rng(check_whole("seed", seed)).random((draws, len(judged))) < confidence
    chance = drawn @ member  # (draws, bins), how many would be right
    expected = confidence @ member
    held = scans > 0
    low, high = np.quantile(chance[:, held], ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2), axis=0) / scans[held]
    table = pd.DataFrame(
        {
            "low": np.arange(bins)[held] / bins,
            "high": np.arange(1, bins + 1)[held] / bins,
            "scans": scans[held].astype(int),
            "confidence": expected[held] / scans[held],
            "right": (right @ member)[held] / scans[held],
            "band_low": low,
            "band_high": high,
        }
    )
    by_chance = np.abs(chance - expected).sum(axis=1) / len(judged)
    error = float(np.abs(right @ member - expected).sum() / len(judged))
    chance_high = float(np.quantile(by_chance, CONFIDENCE))
    return Reliability(table, error, float(by_chance.mean()), chance_high, judged.made_by, len(judged.task))


def fit_temperature(validation: Predictions) -> float:
    """Find the temperature that makes a network's probabilities fit the validation split best (Guo et al. 2017).

    One number divides all logits: above 1 it makes a network less sure, below 1 surer; no predicted label changes.

    Args:
        validation: predictions for the validation split; fitted on the test split, it would judge itself.

    Returns:
        The temperature of least cross-entropy.

    Raises:
        CohortError: no scan of known label, or scans that set no temperature: where all are right, the surer the
            better, without end.
    """
    judged = known_of(validation)
    logits, rows = _logits(judged), np.arange(len(judged))

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, judged.labels].mean()

    temperature = float(np.exp(minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded").x))
    low, high = _TEMPERATURES
    surest, least_sure = loss(np.log(low)), loss(np.log(high))
    inside = low * _NEAR_THE_END < temperature < high / _NEAR_THE_END
    # Where the loss hardly rises on one side, as where all are right and certain, the search stops anywhere.
    if not inside or min(surest, least_sure) - loss(np.log(temperature)) < _LEAST_RISE:
        right = int((judged.predicted == judged.labels).sum())
        way = f"the {'surer' if surest < least_sure else 'less sure'}, the better, without end"
        if abs(surest - least_sure) < _LEAST_RISE:
            way = "every one fits as well"
        raise CohortError(
            f"The {len(judged)} scans of the validation split, of which {right} are right, set no temperature: {way}. "
            "Leave the probabilities as they are, or give a larger validation split.",
            temperature,
        )
    return temperature


def calibrate(predictions: Predictions, validation: Predictions) -> Predictions:
    """Give the predictions the temperature that fits the same network's predictions for the validation split.

    Returns:
        Predictions with the same labels and less wishful probabilities; the temperature stands in made_by.

    Raises:
        CohortError: a patient in both, or scans that set no temperature (see fit_temperature).
    """
    check_apart(predictions, validation)
    temperature = fit_temperature(validation)
    softened = softmax(_logits(predictions) / temperature, axis=1)
    return replace(predictions, probabilities=softened, made_by=f"{predictions.made_by}, temperature {temperature:.2f}")


def check_apart(predictions: Predictions, validation: Predictions) -> None:
    """Refuse a patient in both: what is fitted on a patient cannot be judged on the same one.

    Raises:
        CohortError: a patient in both.
        ChoiceError: predictions of different tasks.
    """
    check_patients_apart({"the scans judged": predictions.patients, "the validation split": validation.patients})
    if predictions.task != validation.task:
        raise ChoiceError(f"{predictions.task} and {validation.task} are different tasks.", validation.task)


def _logits(predictions: Predictions) -> np.ndarray:
    return np.log(np.maximum(predictions.probabilities, _LEAST))
