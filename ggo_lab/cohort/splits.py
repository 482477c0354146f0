"""Train, validation and test: their names, and how a table of scans gives them out."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from numbers import Complex, Real
from typing import Self

import numpy as np
import pandas as pd

from ggo_lab.errors import CohortError, few, shown
from ggo_lab.tasks import Task

SPLITS = ("train", "validation", "test")


class Splits:
    """What Cohort, ImageSet and Predictions share: a row for each scan, and the parts of the three splits.

    Attributes:
        table: has the columns `name`, `patient`, `label` (0..K-1, missing where unknown) and `split` ("train",
            "validation", "test"; missing where there is none).
        task: what the labels mean.
    """

    table: pd.DataFrame
    task: Task

    def subset(self, rows: np.ndarray) -> Self:
        """The same of the given rows alone: a boolean mask or positions."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.table)

    @property
    def names(self) -> list[str]:
        """The scans' names, in the table's order."""
        return self.table["name"].tolist()

    @property
    def patients(self) -> list[str]:
        """The patient of each scan."""
        return self.table["patient"].tolist()

    @property
    def labels(self) -> np.ndarray:
        """The true label of each scan, int64 (N,); -1 where it is unknown.

        Raises:
            CohortError: the table was given labels that the task does not have.
        """
        return checked_labels(self.table, self.task).fillna(-1).to_numpy(np.int64)

    @property
    def train(self) -> Self:
        """The scans that networks learn from."""
        return self._of_split("train")

    @property
    def validation(self) -> Self:
        """The scans that choose when to stop and which state to keep."""
        return self._of_split("validation")

    @property
    def test(self) -> Self:
        """The scans that are looked at once, at the end."""
        return self._of_split("test")

    def _column(self, name: str) -> pd.Series:
        """A column of the table, empty where somebody took it away: what shows a table must not fail."""
        return self.table[name] if name in self.table else pd.Series(pd.NA, self.table.index, object)

    def _of_split(self, split: str) -> Self:
        return self.subset((self.table["split"] == split).to_numpy(bool, na_value=False))


def positions_of(rows: np.ndarray, n: int) -> np.ndarray:
    """Return the positions that a boolean mask or a list of positions chooses among n rows.

    Raises:
        CohortError: a mask of another length, or positions that are not there.
    """
    try:
        return np.atleast_1d(np.arange(n)[rows])
    except (IndexError, TypeError, ValueError):
        raise CohortError(
            f"rows={shown(rows)} do not choose among {n} scans: give a mask of {n} True and False, or positions from 0 "
            f"to {n - 1}.",
            rows,
        ) from None


def checked_labels(table: pd.DataFrame, task: Task) -> pd.Series:
    """Return a table's labels as Int64, missing where unknown.

    Raises:
        CohortError: no column `label`, or values that are no label of the task. Nothing is rounded or cut off.
    """
    if "label" not in table:
        raise CohortError(f"The table has no column 'label'; it has {few(table.columns)}.", table.columns)
    given = table["label"]
    complex_ = given.map(lambda value: isinstance(value, Complex) and not isinstance(value, Real)).astype(bool)
    labels = pd.to_numeric(given.mask(complex_), errors="coerce")
    wrong = given.notna() & ~labels.isin(range(len(task)))
    if wrong.any():
        found = sorted({f"{v:g}" if isinstance(v, float) else str(v) for v in given[wrong]})
        classes = ", ".join(f"{label} ({name})" for label, name in enumerate(task.names))
        raise CohortError(
            f"label holds {', '.join(found[:5])}; it must be {classes}, or empty where unknown. What people "
            "write becomes a label by task.label_of.",
            found,
        )
    return labels.astype("Int64")


def shared_patients(groups: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the patients who are in more than one of the groups, sorted."""
    found = [set(one) & set(other) for one, other in combinations(map(set, groups.values()), 2)]
    return sorted(set().union(*found))


def check_patients_apart(groups: Mapping[str, Iterable[str]]) -> None:
    """Refuse groups of scans that share a patient: what has seen a person cannot be judged on the same one.

    Args:
        groups: the patients of each group, by what the message calls it.

    Raises:
        CohortError: a patient in more than one group.
    """
    if shared := shared_patients(groups):
        n = f"{len(shared)} patients are" if len(shared) > 1 else "1 patient is"
        raise CohortError(
            f"{n} in more than one of {', '.join(groups)}, such as {shared[0]}: a network would be judged on people it "
            "has seen. Use split_by_patient, and give scans of other patients.",
            shared,
        )
