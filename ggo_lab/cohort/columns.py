"""Columns of tables as people call them: case, spaces and the usual synonyms do not matter, near misses are named."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from ggo_lab.cohort.findings import Finding, about
from ggo_lab.errors import CohortError

# What a table of one's own may call its columns, by their name here.
OWN_COLUMNS = {
    "path": ("file", "filename", "filepath", "image", "imagepath", "scan", "scanpath", "folder", "dicom", "nifti"),
    "name": ("scanname", "scanid", "study", "studyid", "studyname", "examid", "accession"),
    "patient": (
        *("patientid", "patientname", "patientnr", "patientno", "patientnumber", "patientcode", "patients", "pid"),
        *("pat", "patid", "ptid", "mrn", "medicalrecordnumber"),
        *("subject", "subjectid", "subjectno", "subjectname", "participant", "participantid", "person", "personid"),
    ),
    "grade": ("grades", "severity", "category", "class", "diagnosis", "grading", "severitygrade", "ctcategory"),
    "label": ("labels",),
    "split": ("splits", "set", "subset", "partition", "datasplit", "dataset"),
}
_SPLITS = {
    **dict.fromkeys(("train", "training", "trn", "tr"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "validate", "dev", "tuning"), "validation"),
    **dict.fromkeys(("test", "testing", "tst", "holdout"), "test"),
}
_ENDING = re.compile(r"(?<=....)(id|no|nr|number|name|code)$")  # of words that name who or what something is
_ALIKE = 0.8  # of difflib's ratio: one or two letters that are wrong, absent or exchanged in a word of seven


def plain(text: object) -> str:
    """Return a name as it is compared: lower case, letters and digits only."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", str(text)).casefold())


def is_text(column: object) -> bool:
    """Whether a column holds names or paths, whose zeros must stay: patient 007."""
    known = {"path", "name", "patient", *OWN_COLUMNS["path"], *OWN_COLUMNS["name"], *OWN_COLUMNS["patient"]}
    return plain(column) in known


def renamed(table: pd.DataFrame, wanted: Mapping[str, Sequence[str]], path: Path) -> tuple[pd.DataFrame, list[Finding]]:
    """Give the columns of a table the names used here.

    Args:
        table: as it was read.
        wanted: each column's name here, and its synonyms in plain letters.
        path: of the table, for messages.

    Returns:
        The table, and what was found out about its columns.

    Raises:
        CohortError: two columns for one meaning that differ, or one whose name is nearly that of an absent column.
    """
    findings, rest = [], [column for column in table.columns if column not in wanted]
    names: dict[str, str] = {}
    for name, synonyms in wanted.items():
        called = [column for column in rest if plain(column) in (plain(name), *synonyms)]
        if name in table:
            findings += about(called, "look", "columns", f"Columns are not read, for there is one called {name}.")
        elif called:
            if any(not table[column].astype("string").equals(table[called[0]].astype("string")) for column in called):
                raise CohortError(
                    f"{path}: columns {called} could each be {name!r}, and they differ; call the right one {name}.",
                    called,
                )
            names[called[0]] = name
            findings.append(Finding("fine", "columns", f"Column {called[0]!r} is read as {name}."))
    rest = [column for column in rest if column not in names]
    for name, synonyms in wanted.items():
        if name in table or name in names.values():
            continue
        near = [c for c in rest if _is_near(plain(c), (plain(name), *synonyms))]
        if near:
            raise CohortError(
                f"{path}: column {near[0]!r} looks like {name!r}, which is absent; call it {name}, or something else.",
                near[0],
            )
    return table.rename(columns=names), findings


def one_spelling(patients: pd.Series) -> tuple[pd.Series, list[Finding]]:
    """Give every person one spelling: case and spaces tell nobody apart.

    Returns:
        The patients, each as first written, and a finding that names those who were written in several ways.
    """
    text = patients.astype("string").map(lambda name: " ".join(name.split()), na_action="ignore")
    key = text.map(lambda name: unicodedata.normalize("NFKC", name).casefold(), na_action="ignore")
    ways = text.groupby(key).agg(lambda names: list(dict.fromkeys(names)))
    several = [" = ".join(names) for names in ways if len(names) > 1]
    what = "Patients are written in more than one way; they count as one person."
    return key.map(ways.map(lambda names: names[0])).astype("string"), about(several, "look", "patients", what)


def known_splits(splits: pd.Series) -> pd.Series:
    """Return splits by their names here; what is none stays as it is, to be refused."""
    return splits.map(lambda written: _SPLITS.get(plain(written), written), na_action="ignore")


def _is_near(column: str, names: Sequence[str]) -> bool:
    """Whether a column is a misspelt one of these: patiendid is, patientage is not."""
    column, roots = _ENDING.sub("", column), {_ENDING.sub("", name) for name in names}
    alike = [root for root in roots if abs(len(root) - len(column)) <= 1 and len(root) > 3]
    return bool(get_close_matches(column, alike, 1, _ALIKE))
