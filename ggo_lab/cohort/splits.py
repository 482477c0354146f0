"""Train, validation and test: their names, and how a table of scans gives them out."""

from typing import Self

import numpy as np
import pandas as pd

SPLITS = ("train", "validation", "test")


class Splits:
    """What Cohort and ImageSet share: a row for each scan, and the parts of the three splits.

    Attributes:
        table: has the columns `name` and `split` ("train", "validation", "test"; missing where there is none).
    """

    table: pd.DataFrame

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

    def _of_split(self, split: str) -> Self:
        return self.subset((self.table["split"] == split).to_numpy(bool, na_value=False))
