"""Cohorts of files: a table of your own, or whatever lies in a folder."""

import functools
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec

import pandas as pd

from ggo_lab.cohort.columns import OWN_COLUMNS, known_splits, one_spelling, renamed
from ggo_lab.cohort.findings import Finding, Findings, about
from ggo_lab.cohort.splits import SPLITS, shared_patients
from ggo_lab.cohort.table import Cohort
from ggo_lab.cohort.table_files import read_table
from ggo_lab.errors import ChoiceError, CohortError, GgoLabError, few, printable
from ggo_lab.readers import VOLUME_SUFFIXES, OpenedScan, open_scan, read_scan
from ggo_lab.readers.dicom import is_dicom
from ggo_lab.readers.dicom_headers import read_frames
from ggo_lab.readers.dicom_values import Unreadable
from ggo_lab.readers.pictures import PICTURE_SUFFIXES
from ggo_lab.scan import Scan
from ggo_lab.storage import home_filled_in
from ggo_lab.tasks import GGO_SEVERITY, Task

_NO_SCAN = re.compile(r"(^|[^a-z])(masks?|labels?|seg|segmentations?)([^a-z]|$)")
_LEAST_SLICES = 3  # of a folder of pictures that holds other folders, too
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_PAIRS = (".hdr", ".img")
Given = ParamSpec("Given")
_SPLIT_WORDS = {"train": "train", "val": "validation", "test": "test"}
_DICOM_INDEX = "DICOMDIR"  # a table of contents on discs; bears DICOM's mark and holds no picture


def no_other_errors(loader: Callable[Given, Cohort]) -> Callable[Given, Cohort]:
    """Make what a loader meets in a folder end in a cohort or a CohortError."""

    @functools.wraps(loader)
    def loading(*args: Given.args, **kwargs: Given.kwargs) -> Cohort:
        try:
            return loader(*args, **kwargs)
        except (CohortError, ChoiceError):
            raise
        except GgoLabError as error:
            raise CohortError(str(error), error.subject) from error
        except OSError as error:
            raise CohortError(
                f"{error.filename or args[0]}: cannot be opened ({error.strerror or error}); check that you may read "
                "it and that the disk is there.",
                error.filename,
            ) from error

    return loading


@no_other_errors
def read_cohort(csv: str | Path, task: Task = GGO_SEVERITY) -> Cohort:
    """Read a cohort from a table of your own.

    Args:
        csv: a CSV file (comma, semicolon or tab) or an Excel file with the columns `path` (of a file or folder that
            read_scan opens; relative to the table's folder) and, where known, `name` (default: the path), `patient`
            (default: the name), `grade` (as people write it: a name of the task or the data set's own number) or
            `label` (0..K-1), and `split`. Case, spaces and usual synonyms (PatientID, subject, severity, set) do not
            matter. Further columns are kept.
        task: what is graded.

    Returns:
        A Cohort whose findings name the scans that do not exist, and how columns were read; without a `split` column,
        call `split_by_patient` next.

    Raises:
        CohortError: no such file, no `path` column, no row, a grade that the task does not have, columns that cannot be
            told apart, or none of the named scans exists.
    """
    csv = home_filled_in(csv)
    table = read_table(csv)
    encoding = table.attrs.get("encoding")
    table, findings = renamed(table, OWN_COLUMNS, csv)
    if "path" not in table:
        raise CohortError(f"{csv}: no column 'path'; found {few(table.columns)}.", csv)
    if table.empty:
        raise CohortError(f"{csv}: has no rows; give one row a scan.", csv)
    if table["path"].isna().any():
        raise CohortError(f"{csv}: {int(table['path'].isna().sum())} of {len(table)} rows have a path missing.", csv)
    table["name"] = table["name"] if "name" in table else table["path"]
    if "patient" in table:
        table["patient"], found = one_spelling(table["patient"].fillna(table["name"]))
        findings += found
    else:
        others = few(column for column in table.columns if column not in OWN_COLUMNS)
        what = f"No column tells the patients, so each scan counts as one of its own; further columns: {others}."
        findings.append(Finding("look", "patients", what))
        table["patient"] = table["name"]
    if "split" in table:
        table["split"] = known_splits(table["split"])
    table = _labelled(table, task, csv)
    table["path"] = [_found_at(csv.parent, path) for path in table["path"]]
    missing = [path for path in table["path"] if not os.path.exists(path)]
    if len(missing) == len(table):
        raise CohortError(
            f"{csv}: none of its {len(table)} scans exists; the first is looked for at {missing[0]}.", csv
        )
    findings.append(Finding("fine", "found", f"{len(table) - len(missing)} of {csv.name}'s {len(table)} scans."))
    findings += about(missing, "wrong", "missing", "Scans do not exist.")
    if encoding == "cp1252":
        what = f"{csv.name} is not UTF-8 and was read as Windows-1252; check names with letters beyond a to z."
        findings.append(Finding("look", "encoding", what))
    return cohort_of_files(table, findings, task)


def _found_at(folder: Path, path: str) -> str:
    """The absolute path of a scan in a table; a path that no system takes stays as it is, and does not exist."""
    if "\0" in path:
        return printable(path)
    for written in (path, path.replace("\\", "/")):  # as Windows writes it
        if os.path.exists(found := os.path.abspath(folder / home_filled_in(written))):
            return found
    return os.path.abspath(folder / path)


def _labelled(table: pd.DataFrame, task: Task, csv: Path) -> pd.DataFrame:
    """Turn the column `grade`, as people write it, into labels."""
    if "grade" not in table:
        return table
    if "label" in table:
        raise CohortError(f"{csv}: has both columns 'grade' and 'label'; keep the one that holds the truth.", csv)
    try:
        labels = [pd.NA if pd.isna(written) else task.label_of(written) for written in table["grade"]]
    except ChoiceError as error:
        raise CohortError(f"{csv}: column 'grade': {error} Empty means unknown.", error.subject) from None
    return table.drop(columns="grade").assign(label=pd.array(labels, "Int64"))


@no_other_errors
def cohort_from_folder(folder: str | Path) -> Cohort:
    """See Cohort.from_folder."""
    root = existing_folder(folder)
    scans: list[Path] = []
    left_out: list[Path] = []
    for path, is_scan in _scans_and_others(root):
        (scans if is_scan else left_out).append(path)
    if not scans:
        raise CohortError(
            f"{root}: no scan among its {len(left_out)} files; give a folder with NIfTI, MetaImage or NRRD files, or "
            "with folders of DICOM, JPG or PNG slices.",
            root,
        )
    names = [str(path.relative_to(root)) if path != root else root.name for path in scans]
    table = pd.DataFrame({"name": names, "path": [str(path) for path in scans]})
    table["patient"], patients = _patients(scans, names)
    # A file's own name is no folder: train/test_004.nii.gz belongs to train.
    table["split"] = [split_named_in((path if path.is_dir() else path.parent).relative_to(root)) for path in scans]
    files = [path.relative_to(root) for path in left_out]
    findings = [
        Finding("fine", "found", f"{len(scans)} scans."),
        patients,
        *_about_left_out(files),
    ]
    if torn := shared_patients({split: table.loc[table["split"] == split, "patient"] for split in SPLITS}):
        raise CohortError(
            f"{root}: the same patient lies in folders of two splits: {torn[:5]}. Move the scans of one person into "
            "one of them.",
            root,
        )
    return cohort_of_files(table, findings)


def _about_left_out(files: list[Path]) -> list[Finding]:
    """What to do with files that are no scans, by their names."""
    packed = [file for file in files if file.name.lower().endswith(_ARCHIVES)]
    pairs = [file for file in files if file.name.lower().endswith(_PAIRS)]
    rest = [file for file in files if file not in {*packed, *pairs}]
    return [
        *about(packed, "look", "left out", "Archives: unpack them, and what is in them is found."),
        *about(pairs, "look", "left out", "Halves of Analyze or NIfTI pairs: convert each pair to one .nii.gz file."),
        *about(rest, "look", "left out", "Files are no scans, by their names or by what lies beside them."),
    ]


def cohort_of_files(table: pd.DataFrame, findings: list[Finding], task: Task = GGO_SEVERITY) -> Cohort:
    """Make a cohort whose column `path` tells read_scan where each scan is; patient defaults to name."""
    for column, default in (("patient", table["name"]), ("label", pd.NA), ("split", pd.NA)):
        if column not in table:
            table[column] = default
    # Bytes that are no UTF-8 can neither be printed nor stored in a table.
    odd = table["path"] != table["path"].map(printable)
    if odd.any():
        what = "Names of files or folders are not UTF-8, as in old archives: left out. Rename them, such as by convmv."
        findings = [*findings, *about(table.loc[odd, "path"], "wrong", "left out", what)]
        table = table[~odd].reset_index(drop=True)
    if table.empty:
        raise CohortError("No scan has a name in UTF-8: rename the files or folders, such as by convmv.")
    return Cohort(table, _read_row, _identify_path, Findings(findings), task, _open_row)


def existing_folder(folder: str | Path) -> Path:
    """Give the folder's absolute path; CohortError where there is none."""
    folder = home_filled_in(folder).absolute()
    if not folder.is_dir():
        raise CohortError(f"{folder}: no such folder; check the spelling and the current folder.", folder)
    return folder


def split_named_in(path: Path) -> str | None:
    """Give the split that a path's folders speak of, the innermost first: "validation_cov19d/covid" -> validation.

    >>> split_named_in(Path("Val/covid/ct_scan_3")), split_named_in(Path("latest/ct_scan_3"))
    ('validation', None)
    """
    for part in reversed(path.parts):
        found = re.search(r"(^|[^a-z])(train|val|test)", part.lower())
        if found:
            return _SPLIT_WORDS[found.group(2)]
    return None


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Go through a folder, links to other disks included, in order of names, without what is hidden.

    Yields:
        A folder, the names of its folders (drop those that shall not be entered), and its files.
    """
    visited = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in visited:  # a link to where we have been
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), folders, [Path(folder, name) for name in sorted(names) if not name.startswith(".")]


def files_in(root: Path) -> Iterator[Path]:
    """Give every file in a folder, at any depth."""
    for _, _, files in walk(root):
        yield from files


def _scans_and_others(root: Path) -> Iterator[tuple[Path, bool]]:
    """Every scan, and every file that belongs to none."""
    for folder, folders, files in walk(root):
        volumes = [f for f in files if f.name.lower().endswith(VOLUME_SUFFIXES) and not _is_mask(f, root)]
        pictures = [f for f in files if f.name.lower().endswith(PICTURE_SUFFIXES)]
        others = [f for f in files if not f.name.lower().endswith((*VOLUME_SUFFIXES, *PICTURE_SUFFIXES))]
        dicom = [f for f in others if f.name.upper() != _DICOM_INDEX and bears_dicom_mark(f)]
        if dicom:
            folders.clear()  # read_scan takes all that lies beneath
        # A picture or two beside volumes or above folders of slices is an illustration.
        if volumes or (folders and len(pictures) < _LEAST_SLICES):
            pictures = []
        slices = dicom or pictures
        if slices:
            yield folder, True
        yield from ((volume, True) for volume in volumes)
        headers = {f.stem for f in volumes if f.suffix.lower() in (".mhd", ".nhdr")}
        voxels = [f for f in others if f.stem in headers]  # the other half of a header's volume
        rest = {*files} - {*volumes, *slices, *voxels}
        yield from ((file, False) for file in files if file in rest)


def _is_mask(file: Path, root: Path) -> bool:
    return bool(_NO_SCAN.search(str(file.relative_to(root)).lower()))


def bears_dicom_mark(file: Path) -> bool:
    """Whether a file can be opened and holds DICOM."""
    try:
        return file.is_file() and is_dicom(file)
    except OSError:  # a file that may not be read is no slice; it is named among those left out
        return False


def _patients(scans: list[Path], names: list[str]) -> tuple[list[str], Finding]:
    """The patient of each scan: DICOM's ID where every DICOM scan has one and they are not all the same."""
    ids = [_dicom_patient(path) for path in scans]
    known = {patient for patient in ids if patient}
    if len(known) < 2:
        return names, Finding(
            "look", "patients", "The files do not tell patients apart: each scan counts as a patient of its own."
        )
    unknown = [name for name, patient in zip(names, ids, strict=True) if not patient]
    patients = [patient or name for name, patient in zip(names, ids, strict=True)]
    words = f"{len(known)} patients by DICOM's patient ID"
    words += f"; {len(unknown)} scans without one count as patients of their own." if unknown else "."
    return patients, Finding("look" if unknown else "fine", "patients", words, tuple(unknown))


def _dicom_patient(path: Path) -> str | None:
    """The patient ID in the first DICOM file that lies directly in a folder; None where there is none."""
    if not path.is_dir():
        return None
    files = (f for f in sorted(path.iterdir()) if not f.name.lower().endswith(PICTURE_SUFFIXES))
    first = next((f for f in files if bears_dicom_mark(f)), None)
    if first is None:
        return None
    try:
        return read_frames(first)[0].patient or None
    except (Unreadable, OSError):  # which prepare will name
        return None


def _read_row(row: dict) -> Scan:
    return read_scan(row["path"])


def _open_row(row: dict) -> OpenedScan:
    return open_scan(row["path"])


def _identify_path(row: dict) -> str:
    """A file's or folder's path, sizes and times of change."""
    path = Path(row["path"])
    entries = sorted(_stats(path, set())) if os.path.isdir(path) else [(path.name, *_size_and_time(path))]
    return json.dumps([str(path), entries])


def _stats(folder: Path, visited: set[str]) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of every file at any depth, with one look at each; no folder is entered twice."""
    if (real := os.path.realpath(folder)) in visited:
        return
    visited.add(real)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _stats(Path(entry.path), visited)
            else:
                yield entry.path, *_size_and_time(entry)


def _size_and_time(file: Path | os.DirEntry[str]) -> tuple[int, int]:
    """Size and time of change; a file that is absent has none, and reading it will say so."""
    try:
        found = file.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
