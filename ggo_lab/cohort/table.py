"""A cohort: a table of scans with grades, patients and splits, and the way to open a row."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from ggo_lab.cohort.checks import check_contents, check_table
from ggo_lab.cohort.findings import Findings
from ggo_lab.cohort.splits import SPLITS, Splits
from ggo_lab.errors import CohortError
from ggo_lab.grades import Grade
from ggo_lab.scan import Scan


class Cohort(Splits):
    """A table of scans, one row each, and the way to open a row.

    Args:
        table: columns `name` (unique), `patient`, `grade` (1..4, missing where unknown) and `split` ("train",
            "validation", "test"; missing before `split_by_patient`), and whatever `open_row` needs.
        open_row: makes the Scan of a row, given as a dict.
        identify_row: gives text that changes whenever the row's scan would, without opening it.
        findings: what was found, left out and missing when the table was made.
    Raises:
        CohortError: doubled names, grades outside 1..4, unknown splits, one patient in two splits.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        open_row: Callable[[dict], Scan],
        identify_row: Callable[[dict], str],
        findings: Findings = Findings(),
    ):
        self.table = _checked(table)
        self.open_row = open_row
        self.identify_row = identify_row
        self.findings = findings

    @classmethod
    def from_folder(cls, folder: str | Path) -> "Cohort":
        """Take every readable scan in a folder, at any depth; no grade is known.

        A volume file is a scan, and so is a folder that holds DICOM, JPG or PNG slices directly. Files that are no
        scans, or bear "mask", "label" or "seg" in their name, are left out, and `findings` names them.

        Args:
            folder: its parts called train, validation (or val) or test give the scans their split.
        Returns: a Cohort; names are paths inside the folder. DICOM's patient ID, where it tells scans apart, is the
            patient; else every scan counts as a patient of its own.
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
        elif not -len(self) <= key < len(self):
            raise CohortError(f"Row {key} of a cohort with {len(self)} scans; give 0 to {len(self) - 1}.", key)
        return self.table.iloc[key].to_dict()

    def scan(self, key: int | str) -> Scan:
        """Open one scan, by position or by name."""
        row = self.row(key)
        return self.open_row(row).renamed(row["name"])

    def subset(self, rows: np.ndarray) -> "Cohort":
        """The cohort of the given rows: a boolean mask or positions."""
        return self._with(self.table.iloc[np.arange(len(self))[rows]])

    def _with(self, table: pd.DataFrame) -> "Cohort":
        return Cohort(table, self.open_row, self.identify_row, self.findings)

    def counts(self) -> pd.DataFrame:
        """Number of scans: a row a split, a column a grade (and "unknown" where there are any)."""
        grade = self.table["grade"].map(lambda g: "unknown" if pd.isna(g) else Grade(g).label)
        split = self.table["split"].fillna("no split")
        counts = pd.crosstab(split, grade)
        columns = [*(g.label for g in Grade), *(["unknown"] if "unknown" in counts else [])]
        rows = [s for s in (*SPLITS, "no split") if s in counts.index]
        return counts.reindex(index=rows, columns=columns, fill_value=0).rename_axis(index=None, columns=None)

    def split_by_patient(self, fractions: tuple[float, float, float] = (0.6, 0.2, 0.2), seed: int = 0) -> "Cohort":
        """Draw the splits anew, so that a patient is in one of them only.

        Args:
            fractions: shares of the patients for train, validation and test; they sum to 1.
            seed: of the shuffle.
        Returns: a new cohort. Patients are shuffled within their (highest) grade, so that every split holds every
            grade in about its share.
        """
        if len(fractions) != 3 or min(fractions) < 0 or not np.isclose(sum(fractions), 1.0):
            raise CohortError(f"fractions={fractions} are not three shares that sum to 1, such as (0.6, 0.2, 0.2).")
        rng = np.random.default_rng(seed)
        highest = self.table.groupby("patient")["grade"].max().astype("Int64").fillna(0)
        split_of = {}
        # One long line of patients, grade after grade, dealt out by a low-discrepancy rule: each split takes a
        # patient whenever it is furthest behind its share.
        dealt = np.zeros(3)
        for grade in sorted(highest.unique()):
            patients = highest.index[highest == grade].to_numpy()
            for patient in rng.permutation(patients):
                choice = int(np.argmax(np.array(fractions) * (dealt.sum() + 1) - dealt))
                dealt[choice] += 1
                split_of[patient] = SPLITS[choice]
        return self._with(self.table.assign(split=self.table["patient"].map(split_of)))

    def check(self, contents: bool = False, jobs: int | None = None, progress: bool = True) -> Findings:
        """Make the checks a teacher would: patients, grades, rare classes; with `contents`, the scans themselves.

        Args:
            contents: also open every scan, to find those that cannot be read, show nothing, or are there twice (equal
                voxels, whatever the file's name and format). Takes as long as reading the cohort.
            jobs: processes that open scans (default: one per core).
            progress: show a bar while scans are opened.
        """
        findings = list(check_table(self.table))
        if contents:
            findings += check_contents(self.table, self.open_row, jobs, progress)
        return Findings(findings)

    def _title(self) -> str:
        open_points = len(self.findings) - len(self.findings.of("fine"))
        hint = f"; {open_points} things to look at in .findings" if open_points else ""
        return f"Cohort of {len(self)} scans of {self.table['patient'].nunique()} patients{hint}"

    def __repr__(self) -> str:
        return f"{self._title()}\n{self.counts()}"

    def _repr_html_(self) -> str:
        return f"<p>{self._title()}</p>{self.counts().to_html()}"


def _checked(table: pd.DataFrame) -> pd.DataFrame:
    """Give the table plain types and refuse what would fool a learner later."""
    missing = [column for column in ("name", "patient", "grade", "split") if column not in table]
    if missing:
        raise CohortError(f"The cohort's table lacks {missing}; it has {list(table.columns)}.", missing)
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
    grades = pd.to_numeric(table["grade"], errors="coerce")
    wrong = table["grade"].notna() & ~grades.isin([g.value for g in Grade])
    if wrong.any():
        found = sorted({str(value) for value in table.loc[wrong, "grade"]})
        raise CohortError(f"grade holds {found[:5]}; it must be 1, 2, 3, 4 or empty where unknown.", found)
    table["grade"] = grades.astype("Int64")
    unknown = sorted(set(table["split"].dropna()) - set(SPLITS))
    if unknown:
        raise CohortError(f"split holds {unknown[:5]}; it must be one of {list(SPLITS)} or empty.", unknown)
    splits_of = table.dropna(subset="split").groupby("patient")["split"].nunique()
    torn = splits_of.index[splits_of > 1].tolist()
    if torn:
        raise CohortError(
            f"{len(torn)} patients are in more than one split: {torn[:5]}. A network would be tested on people it has "
            "seen; use split_by_patient.",
            torn,
        )
    return table
