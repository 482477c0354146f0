"""What a detector says, and how it tells a finding from chance."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.metrics import recall_score

from ggo_lab.errors import check_whole

ALARM = 0.01  # of clean images, the share in which a probe may cry wolf
_SHUFFLES = 999


@dataclass(frozen=True)
class Verdict:
    """The answer of a detector.

    Attributes:
        caught: whether the mistake was found.
        sentence: what was measured, and what it means.
    """

    caught: bool
    sentence: str

    def __str__(self) -> str:
        return f"{'CAUGHT' if self.caught else 'nothing found'}: {self.sentence}"


class Chance(NamedTuple):
    """A mean recall beside what shuffled labels give."""

    recall: float  # mean over the classes that occur
    shuffled: float  # its mean when the labels are shuffled
    p: float  # share of shuffles, this one counted, that do as well

    def __str__(self) -> str:
        return f"{self.recall:.2f}, with shuffled labels {self.shuffled:.2f} (p = {self.p:.3f})"


def beside_chance(true: np.ndarray, said: np.ndarray, seed: int) -> Chance:
    """Hold answers against the true labels, and against the same labels shuffled (a permutation test).

    Args:
        true: int (N,), labels.
        said: int (N,), labels.
        seed: of the shuffling.
    """
    found = float(recall_score(true, said, labels=np.unique(true), average="macro"))
    rng = np.random.default_rng(check_whole("seed", seed))
    right = true[:, None] == said  # right[i, j]: what was said of j would suit the label of i
    weight = (1 / np.bincount(true).clip(1))[true] / len(set(true))
    rows = np.arange(len(true))
    shuffled = np.array([weight @ right[rows, rng.permutation(len(true))] for _ in range(_SHUFFLES)])
    p = (1 + np.sum(shuffled >= found - 1e-9)) / (1 + _SHUFFLES)
    return Chance(found, float(shuffled.mean()), float(p))
