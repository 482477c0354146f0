"""What a detector says, and how it tells a finding from chance."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from sklearn.metrics import recall_score

from ggo_lab.grades import Grade

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
    """A mean recall beside what shuffled grades give."""

    recall: float  # mean over the grades that occur
    shuffled: float  # its mean when the grades are shuffled
    p: float  # share of shuffles, this one counted, that do as well

    def __str__(self) -> str:
        return f"{self.recall:.2f}, with shuffled grades {self.shuffled:.2f} (p = {self.p:.3f})"


def beside_chance(true: np.ndarray, said: np.ndarray, seed: int) -> Chance:
    """Hold answers against the true grades, and against the same grades shuffled (a permutation test).

    Args:
        true, said: int (N,), grade - 1.
        seed: of the shuffling.
    """
    found = float(recall_score(true, said, labels=np.unique(true), average="macro"))
    rng = np.random.default_rng(seed)
    right = np.array([said == grade.index for grade in Grade])[true]  # right[i, j]: said j would suit the grade of i
    weight = (1 / np.bincount(true, minlength=len(Grade)).clip(1))[true] / len(set(true))
    rows = np.arange(len(true))
    shuffled = np.array([weight @ right[rows, rng.permutation(len(true))] for _ in range(_SHUFFLES)])
    p = (1 + np.sum(shuffled >= found - 1e-9)) / (1 + _SHUFFLES)
    return Chance(found, float(shuffled.mean()), float(p))
