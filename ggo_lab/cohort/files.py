"""Cohorts of files: a table of your own, or whatever lies in a folder."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from zipfile import BadZipFile

import pandas as pd

from ggo_lab.cohort.findings import Finding, Findings, about
from ggo_lab.cohort.table import Cohort
from ggo_lab.errors import CohortError
from ggo_lab.readers import read_scan
from ggo_lab.readers.dicom import is_dicom
from ggo_lab.readers.dicom_headers import read_frames
from ggo_lab.readers.metaimage import METAIMAGE_SUFFIXES
from ggo_lab.readers.nifti import NIFTI_SUFFIXES
from ggo_lab.readers.nrrd import NRRD_SUFFIXES
from ggo_lab.readers.pictures import PICTURE_SUFFIXES
from ggo_lab.scan import Scan

_VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *METAIMAGE_SUFFIXES, *NRRD_SUFFIXES)
_NO_SCAN = re.compile(r"(^|[^a-z])(masks?|labels?|seg|segmentations?)([^a-z]|$)")
_SPLIT_WORDS = {"train": "train", "val": "validation", "test": "test"}
_DICOM_INDEX = "DICOMDIR"  # a table of contents on discs; bears DICOM's mark and holds no picture


def read_cohort(csv: str | Path) -> Cohort:
    """Read a cohort from a table of your own.

    Args:
        csv: a CSV file (comma, semicolon or tab) or an Excel file with the columns `path` (of a file or folder that
            read_scan opens; relative to the table's folder) and, where known, `name` (default: the path), `patient`
            (default: the name), `grade` (1..4) and `split`. Further columns are kept.
    Returns: a Cohort whose findings name the scans that do not exist; without a `split` column, call
        `split_by_patient` next.
    Raises:
        CohortError: no such file, no `path` column, no row, or none of the named scans exists.
    """
    csv = Path(csv).expanduser()
    table = read_table(csv)
    if "path" not in table:
        raise CohortError(f"{csv}: no column 'path'; found {list(table.columns)}.", csv)
    if table["path"].isna().any() or table.empty:
        raise CohortError(f"{csv}: {int(table['path'].isna().sum())} of {len(table)} rows have a path missing.", csv)
    table["name"] = table["name"] if "name" in table else table["path"]
    table["patient"] = table["patient"] if "patient" in table else table["name"]
    table["path"] = [str((csv.parent / path).resolve()) for path in table["path"]]
    missing = [path for path in table["path"] if not Path(path).exists()]
    if len(missing) == len(table):
        raise CohortError(
            f"{csv}: none of its {len(table)} scans exists; the first is looked for at {missing[0]}.", csv
        )
    found = Finding("fine", "found", f"{len(table) - len(missing)} of {csv.name}'s {len(table)} scans.")
    return cohort_of_files(table, [found, *about(missing, "wrong", "missing", "Scans do not exist.")])


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
    table["split"] = [split_named_in(path.relative_to(root)) for path in scans]
    files = [path.relative_to(root) for path in left_out]
    findings = [
        Finding("fine", "found", f"{len(scans)} scans."),
        patients,
        *about(files, "look", "left out", "Files are no scans, by their names."),
    ]
    torn = table.dropna(subset="split").groupby("patient")["split"].nunique()
    if (torn > 1).any():
        raise CohortError(
            f"{root}: the same patient lies in folders of two splits: {torn.index[torn > 1].tolist()[:5]}. Move the "
            "scans of one person into one of them.",
            root,
        )
    return cohort_of_files(table, findings)


def cohort_of_files(table: pd.DataFrame, findings: list[Finding]) -> Cohort:
    """Make a cohort whose column `path` tells read_scan where each scan is; patient defaults to name."""
    for column, default in (("patient", table["name"]), ("grade", pd.NA), ("split", pd.NA)):
        if column not in table:
            table[column] = default
    return Cohort(table, _read_row, _identify_path, Findings(findings))


def existing_folder(folder: str | Path) -> Path:
    """Give the folder's absolute path; CohortError where there is none."""
    folder = Path(folder).expanduser().absolute()
    if not folder.is_dir():
        raise CohortError(f"{folder}: no such folder; check the spelling and the current folder.", folder)
    return folder


def read_table(path: Path) -> pd.DataFrame:
    """Read a table from CSV (the header tells the separator) or from the first sheet of an Excel file.

    Returns: names, patients and paths as text, so that patient 007 keeps its zeros.
    Raises:
        CohortError: no such file, or not a table.
    """
    text = dict.fromkeys(("path", "name", "patient", "Name"), "string")
    try:
        if path.suffix.lower() in (".xlsx", ".xlsm"):
            table = pd.read_excel(path, dtype=text)
        else:
            with path.open(encoding="utf-8-sig") as file:
                header = file.readline()
            separator = max(",;\t", key=header.count)
            table = pd.read_csv(path, sep=separator, dtype=text, encoding="utf-8-sig", skipinitialspace=True)
    except FileNotFoundError:
        raise CohortError(
            f"{path}: no such file; give a CSV with the columns path, grade, patient, split.", path
        ) from None
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise CohortError(
            f"{path}: not a readable table ({error}); save it as plain comma-separated text.", path
        ) from None
    return table.rename(columns=lambda column: str(column).strip())


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

    Yields: a folder, the names of its folders (drop those that shall not be entered), and its files.
    """
    seen = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link to where we have been
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(folder), folders, [Path(folder, name) for name in sorted(names) if not name.startswith(".")]


def files_in(root: Path) -> Iterator[Path]:
    """Give every file in a folder, at any depth."""
    for _, _, files in walk(root):
        yield from files


def _scans_and_others(root: Path) -> Iterator[tuple[Path, bool]]:
    """Every scan, and every file that belongs to none."""
    for folder, folders, files in walk(root):
        volumes = [f for f in files if f.name.lower().endswith(_VOLUME_SUFFIXES) and not _is_mask(f, root)]
        others = [f for f in files if not f.name.lower().endswith(_VOLUME_SUFFIXES)]
        dicom = [f for f in others if f.name != _DICOM_INDEX and _bears_dicom_mark(f)]
        if dicom:
            folders.clear()  # read_scan takes all that lies beneath
        slices = dicom + [f for f in others if f.name.lower().endswith(PICTURE_SUFFIXES)]
        if slices:
            yield folder, True
        yield from ((volume, True) for volume in volumes)
        headers = {f.stem for f in volumes if f.suffix.lower() in (".mhd", ".nhdr")}
        voxels = [f for f in others if f.stem in headers]  # the other half of a header's volume
        rest = {*files} - {*volumes, *slices, *voxels}
        yield from ((file, False) for file in files if file in rest)


def _is_mask(file: Path, root: Path) -> bool:
    return bool(_NO_SCAN.search(str(file.relative_to(root)).lower()))


def _bears_dicom_mark(file: Path) -> bool:
    try:
        return is_dicom(file)
    except OSError:  # a file that may not be read is no slice; it is named among those left out
        return False


def _patients(scans: list[Path], names: list[str]) -> tuple[list[str], Finding]:
    """The patient of each scan: DICOM's ID where every DICOM scan has one and they are not all the same."""
    ids = [_dicom_patient(path) for path in scans]
    told = {patient for patient in ids if patient}
    if len(told) < 2:
        return names, Finding(
            "look", "patients", "The files do not tell patients apart: each scan counts as a patient of its own."
        )
    unknown = [name for name, patient in zip(names, ids, strict=True) if not patient]
    patients = [patient or name for name, patient in zip(names, ids, strict=True)]
    words = f"{len(told)} patients by DICOM's patient ID"
    words += f"; {len(unknown)} scans without one count as patients of their own." if unknown else "."
    return patients, Finding("look" if unknown else "fine", "patients", words, tuple(unknown))


def _dicom_patient(path: Path) -> str | None:
    """The patient ID in the first DICOM file that lies directly in a folder; None where there is none."""
    if not path.is_dir():
        return None
    first = next((f for f in sorted(path.iterdir()) if f.is_file() and _bears_dicom_mark(f)), None)
    if first is None:
        return None
    frames = read_frames(first)  # none in a damaged file, which prepare will name
    return frames[0].patient or None if frames else None


def _read_row(row: dict) -> Scan:
    return read_scan(row["path"])


def _identify_path(row: dict) -> str:
    """A file's or folder's path, sizes and times of change."""
    path = Path(row["path"])
    entries = sorted(_stats(path)) if path.is_dir() else [(path.name, *_size_and_time(path))]
    return json.dumps([str(path), entries])


def _stats(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of every file at any depth, with one look at each."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _stats(Path(entry.path))
            else:
                found = entry.stat()
                yield entry.path, found.st_size, found.st_mtime_ns


def _size_and_time(path: Path) -> tuple[int, int]:
    """Size and time of change; a file that is absent has none, and reading it will say so."""
    try:
        found = path.stat()
    except OSError:
        return -1, -1
    return found.st_size, found.st_mtime_ns
