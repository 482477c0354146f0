"""A cohort: a table of scans with labels, patients and splits, and the way to open a row."""

from collections.abc import Callable
from numbers import Integral
from pathlib import Path

import numpy as np
import pandas as pd

from ggo_lab.cohort.checks import check_contents, check_table
from ggo_lab.cohort.findings import Findings
from ggo_lab.cohort.splits import SPLITS, Splits, check_patients_apart, checked_labels, positions_of
from ggo_lab.errors import CohortError, as_number, check_whole, few, plain, shown
from ggo_lab.readers import OpenedScan
from ggo_lab.scan import Scan
from ggo_lab.tasks import GGO_SEVERITY, Task

_NO_LABEL = "no label of this task"  # in tables that were written into


class Cohort(Splits):
    """A table of scans, one row each, and the way to open a row.

    Args:
        table: columns `name` (unique), `patient`, `label` (0..K-1, missing where unknown) and `split` ("train",
            "validation", "test"; missing before `split_by_patient`), and whatever `open_row` needs.
        open_row: makes the Scan of a row, given as a dict.
        identify_row: gives text that changes whenever the row's scan would, without opening it.
        findings: what was found, left out and missing when the table was made.
        task: what is graded, and what the labels mean.
        peek_row: opens a row's scan without reading it, where that is possible, so that some slices can be read alone.

    Raises:
        CohortError: doubled names, labels that the task does not have, unknown splits, one patient in two splits.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        open_row: Callable[[dict], Scan],
        identify_row: Callable[[dict], str],
        findings: Findings = Findings(),
        task: Task = GGO_SEVERITY,
        peek_row: Callable[[dict], OpenedScan] | None = None,
    ):
        """Check the table and take it; see the class for the arguments."""
        self.task = task
        self.peek_row = peek_row
        self.table = _checked(table, task)
        self.open_row = open_row
        self.identify_row = identify_row
        self.findings = findings

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Cohort":
        """Take every readable scan in a folder, at any depth; no label is known.

        A volume file is a scan, and so is a folder that holds DICOM, JPG or PNG slices directly. Files that are no
        scans, or bear "mask", "label" or "seg" in their name, are left out, and `findings` names them.

        Args:
            folder: its parts called train, validation (or val) or test give the scans their split.

        Returns:
            A Cohort; names are paths inside the folder. DICOM's patient ID, where it tells scans apart, is the patient;
            else every scan counts as a patient of its own.

        Raises:
            CohortError: no such folder, or no scan in it.
        """
        from ggo_lab.cohort.files import cohort_from_folder  # that module builds on this class

        return cohort_from_folder(folder)

    def row(self, key: int | str) -> dict:
        """One row as a dict, by position or by name."""
        if isinstance(key, str):
            positions = np.flatnonzero(self.table["name"] == key)
            if len(positions) == 0:
                raise CohortError(f"No scan is named {key!r} in this cohort; its names begin {self.names[:3]}.", key)
            key = positions[0]
        elif (
            isinstance(place := plain(key), bool)
            or not isinstance(place, Integral)
            or not -len(self) <= int(place) < len(self)
        ):
            raise CohortError(f"Row {shown(key)} of a cohort with {len(self)} scans; give 0 to {len(self) - 1}.", key)
        return self.table.iloc[int(key)].to_dict()

    def scan(self, key: int | str) -> Scan:
        """Open one scan, by position or by name."""
        row = self.row(key)
        return self.open_row(row).renamed(row["name"])

    def subset(self, rows: np.ndarray) -> "Cohort":
        """The cohort of the given rows: a boolean mask or positions."""
        return self._with(self.table.iloc[positions_of(rows, len(self))])

    def _with(self, table: pd.DataFrame) -> "Cohort":
        return Cohort(table, self.open_row, self.identify_row, self.findings, self.task, self.peek_row)

    def counts(self) -> pd.DataFrame:
        """Count scans: a row a split, a column a class (and "unknown" where there are any)."""
        named = self._column("label").map(self._class_of)
        split = self._column("split").fillna("no split")
        counts = pd.crosstab(split, named)
        columns = [*self.task.names, *(name for name in ("unknown", _NO_LABEL) if name in counts)]
        rows = [s for s in (*SPLITS, "no split") if s in counts.index]
        return counts.reindex(index=rows, columns=columns, fill_value=0).rename_axis(index=None, columns=None)

    def _class_of(self, label: object) -> str:
        """Name a label; whatever was written into the table, this never fails."""
        if pd.isna(label):
            return "unknown"
        return self.task.names[int(label)] if label in range(len(self.task)) else _NO_LABEL  # type: ignore[call-overload]

    def graded_as(self, task: Task) -> "Cohort":
        """Return the same scans under a coarser task: mosmed(folder).graded_as(GGO_SEVERITY).

        Args:
            task: whose bands hold those of the present one.

        Returns:
            A new cohort; scans for which the task has no class have no label.

        Raises:
            ChoiceError: one of the tasks has no bands, or their bands cross.
        """
        label = self.table["label"].map(pd.Series(task.labels_from(self.task), dtype="Int64")).astype("Int64")
        return Cohort(
            self.table.assign(label=label), self.open_row, self.identify_row, self.findings, task, self.peek_row
        )

    def split_by_patient(self, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0) -> "Cohort":
        """Draw the splits anew, so that a patient is in one of them only.

        Args:
            fractions: shares of the patients for train, validation and test; they sum to 1.
            seed: of the shuffle.

        Returns:
            A new cohort. Patients are shuffled within their (highest) label, so that every split holds every class in
            about its share.
        """
        try:
            shares = np.array([as_number(share) for share in fractions])
        except TypeError:  # a single number
            shares = np.zeros(0)
        if len(shares) != 3 or not (shares >= 0).all() or not np.isclose(shares.sum(), 1.0):
            raise CohortError(
                f"fractions={shown(fractions)} are not three shares that sum to 1, such as (0.6, 0.2, 0.2)."
            )
        rng = np.random.default_rng(check_whole("seed", seed))
        highest = self.table.groupby("patient")["label"].max().astype("Int64").fillna(-1)
        split_of = {}
        # One long line of patients, class after class, dealt out by a low-discrepancy rule: each split takes a
        # patient whenever it is furthest behind its share.
        dealt = np.zeros(3)
        for label in sorted(highest.unique()):
            patients = highest.index[highest == label].to_numpy()
            for patient in rng.permutation(patients):
                choice = int(np.argmax(shares * (dealt.sum() + 1) - dealt))
                dealt[choice] += 1
                split_of[patient] = SPLITS[choice]
        return self._with(self.table.assign(split=self.table["patient"].map(split_of)))

    def check(self, contents: bool = False, jobs: int | None = None, progress: bool = True) -> Findings:
        """Make the checks a teacher would: patients, labels, rare classes; with `contents`, the scans themselves.

        Args:
            contents: also open every scan, to find those that cannot be read, show nothing, or are there twice (equal
                voxels, whatever the file's name and format). Takes as long as reading the cohort.
            jobs: processes that open scans (default: one per core).
            progress: show a bar while scans are opened.
        """
        findings = list(check_table(self.table, self.task))
        if contents:
            findings += check_contents(self.table, self.task, self.open_row, jobs, progress)
        return Findings(findings)

    def _title(self) -> str:
        open_points = len(self.findings) - len(self.findings.of("fine"))
        hint = f"; {open_points} things to look at in .findings" if open_points else ""
        return f"Cohort of {len(self)} scans of {self._column('patient').nunique()} patients{hint}"

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.counts()}"

    def _repr_html_(self) -> str:
        return f"<p>{self._title()}</p>{self.counts().to_html()}"


def _checked(table: pd.DataFrame, task: Task) -> pd.DataFrame:
    """Give the table plain types and refuse what would fool a learner later."""
    missing = [column for column in ("name", "patient", "label", "split") if column not in table]
    if missing:
        raise CohortError(f"The cohort's table lacks {missing}; it has {few(table.columns)}.", missing)
    table = table.reset_index(drop=True)
    for column in ("name", "patient", "split"):
        table[column] = table[column].astype("string")
    if table["name"].isna().any() or table["patient"].isna().any():
        raise CohortError("Some rows of the cohort's table have no name or no patient; fill them in.")
    doubled = table["name"][table["name"].duplicated()].unique().tolist()
    if doubled:
        raise CohortError(
            f"{len(doubled)} names stand in more than one row: {doubled[:5]}; names must differ.", doubled
        )
    table["label"] = checked_labels(table, task)
    unknown = sorted(set(table["split"].dropna()) - set(SPLITS))
    if unknown:
        raise CohortError(f"split holds {unknown[:5]}; it must be one of {list(SPLITS)} or empty.", unknown)
    check_patients_apart({split: table.loc[(table["split"] == split).fillna(False), "patient"] for split in SPLITS})
    return table
