"""COV19-CT-DB, the data of the AI-MIA severity challenges: its folders and tables in, predictions out."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from ggo_lab.cohort.columns import renamed
from ggo_lab.cohort.files import (
    cohort_of_files,
    existing_folder,
    files_in,
    no_other_errors,
    read_table,
    split_named_in,
    walk,
)
from ggo_lab.cohort.findings import Finding, about
from ggo_lab.cohort.splits import SPLITS
from ggo_lab.cohort.table import Cohort
from ggo_lab.errors import CohortError, check_choice
from ggo_lab.readers.pictures import PICTURE_SUFFIXES, natural
from ggo_lab.storage import NAME_LIST, check_output, write_text_whole
from ggo_lab.tasks import COVID_DETECTION, GGO_SEVERITY, Task

# Number of mild, moderate, severe and critical scans in the 2023 edition (arXiv:2303.16904).
_PUBLISHED_2023 = {"train": (132, 123, 166, 39), "validation": (31, 20, 45, 5)}
# As the archives hold them: blanks and underscores too many, or none.
_SCAN_FOLDER = re.compile(r"^\s*(?:test[\s_-]*)?ct[\s_-]*scan[\s_-]*(\d+)[\s_-]*$", re.IGNORECASE)
_DEEPEST = 4  # folders around the slices, where an archive was unpacked into one of its own name
_FOREIGN = "Folders hold pictures, and their names are not those of scans (ct_scan_N)."
_NO_PATIENTS = (
    "The set does not say which scans are of one person, so each counts as a patient of its own; "
    "check(contents=True) finds scans that are there twice."
)
_TABLE = re.compile(r"(train|val)[a-z]*_partition.*\.(csv|xlsx)$", re.IGNORECASE)


class NamedLabels(Protocol):
    """What is needed of Predictions, which a lower room makes."""

    @property
    def names(self) -> list[str]:
        """The scans, N of them."""

    @property
    def predicted(self) -> np.ndarray:
        """The label of the most probable class, int (N,)."""

    @property
    def task(self) -> Task:
        """What is graded."""


@no_other_errors
def cov19_ctdb(folder: str | Path, task: Task = GGO_SEVERITY) -> Cohort:
    """Read COV19-CT-DB as it unpacks, of either edition, whatever the folders around it.

    Scans are folders `ct_scan_N` (`test_ct_scan_N` in the 2022 test set) of numbered JPG slices. The innermost folder
    around them that begins with train, val or test says their split. Grades come from the 2023 edition's
    `ICASSP_severity_{train,validation}_partition.xlsx` or the 2022 edition's
    `{train,val}_partition_covid_categories.csv`, with the columns Name and Category (1..4), found at any depth.

    Args:
        folder: at any depth around the folders train and validation.
        task: GGO_SEVERITY, the severity challenge; or COVID_DETECTION, the detection challenge, whose labels are the
            folders `covid` and `non-covid`, without any table.

    Returns:
        A Cohort of the scans with a label, and of the test scans, whose labels the organisers keep. Names are split and
        folder, such as "train/ct_scan_7": the numbers begin anew in each split (for detection "train/covid/ct_scan_7").
        `findings` says what was left out (for severity scans without COVID-19, and those whose severity nobody graded),
        what is missing, what does not match.

    Raises:
        CohortError: no such folder, no scan or no table in it, or tables that contradict each other.
        ChoiceError: another task.
    """
    check_choice("task", task, (GGO_SEVERITY, COVID_DETECTION))
    root = existing_folder(folder)
    if task == COVID_DETECTION:
        return _detection(root)
    scans, findings = _scan_folders(root)
    tables = _partition_tables(root)
    rows, graded = [], set()
    for split, path in tables.items():
        grades, found = _read_partition(path)
        missing = [name for number, (name, _) in grades.items() if (split, number) not in scans]
        findings += found
        findings += about(missing, "wrong", "missing", f"Scans of {path.name} have no folder with slices.")
        findings += _against_published(path, split, [grade for _, grade in grades.values()])
        for number, (_, grade) in grades.items():
            if (split, number) in scans:
                graded.add((split, number))
                rows.append((scans[split, number], split, GGO_SEVERITY.label_of(grade)))
    ungraded = [path.relative_to(root) for key, path in scans.items() if key[0] != "test" and key not in graded]
    findings += about(ungraded, "look", "left out", "Scans of train or validation have no grade that can be used.")
    rows += [(path, split, pd.NA) for (split, _), path in scans.items() if split == "test"]
    if not rows:
        raise CohortError(
            f"{root}: {len(scans)} scan folders and {len(tables)} tables of grades, and nothing of them fits together; "
            "give the folder that holds the folders train and validation and the partition tables.",
            root,
        )
    named = [(f"{split}/{_scan_name(path)}", label, split, str(path)) for path, split, label in rows]
    return _cohort(named, findings, GGO_SEVERITY)


def _detection(root: Path) -> Cohort:
    """Every scan with COVID-19 or without, by its folder, and the test scans of the detection challenge."""
    found: dict[tuple, tuple] = {}
    tests: list[tuple[Path, tuple]] = []
    empty, doubled, placeless = [], [], []
    named, foreign = _named_like_scans(root)
    for path, number in named:
        inside = path.relative_to(root)
        parents, split = [part.lower() for part in inside.parts[:-1]], split_named_in(inside)
        kind = next((kind for part in reversed(parents) if (kind := _kind(part))), None)
        if split is None or (kind is None and split != "test"):
            placeless.append(inside)
        elif (slices := _folder_of_slices(path)) is None:
            empty.append(inside)
        elif kind is None:
            tests.append((inside, (f"test/{_scan_name(slices)}", pd.NA, split, str(slices))))
        elif (split, kind, number) in found:
            doubled.append(inside)
        else:
            name = f"{split}/{kind}/{_scan_name(slices)}"
            found[split, kind, number] = (name, COVID_DETECTION.label_of(kind), split, str(slices))
    # Where the test set has a folder of its own for each challenge, only one of them is of this one.
    mine = [inside for inside, _ in tests if "detection" in inside.parts]
    mine = mine or [inside for inside, _ in tests if "severity" not in inside.parts]
    others = [inside for inside, _ in tests if inside not in mine]
    rows = [row for inside, row in tests if inside in mine]
    if not found:
        raise CohortError(
            f"{root}: no scan folder in a folder 'covid' or 'non-covid' of a split; give the folder "
            "that holds train and validation.",
            root,
        )
    return _cohort(
        [*found.values(), *rows],
        [
            *about(others, "fine", "left out", "Scans are of the severity challenge's test set."),
            *about(foreign, "look", "left out", _FOREIGN),
            *about(empty, "wrong", "empty", "Scan folders hold no JPG slice."),
            *about(doubled, "wrong", "left out", "Folders repeat the number of another one of their kind and split."),
            *about(placeless, "wrong", "left out", "Scan folders lie in no folder covid or non-covid of a split."),
        ],
        COVID_DETECTION,
    )


def _kind(folder: str) -> str | None:
    """The class that a folder of the detection challenge stands for."""
    if folder.startswith("non"):
        return "non-covid"
    return "covid" if folder == "covid" else None


def _cohort(rows: list[tuple], findings: list[Finding], task: Task) -> Cohort:
    """Make the cohort of (name, label, split, path) a scan."""
    table = pd.DataFrame(rows, columns=["name", "label", "split", "path"])
    counts = ", ".join(f"{n} of {split}" for split in SPLITS if (n := int((table["split"] == split).sum())))
    return cohort_of_files(
        table,
        [
            Finding("fine", "found", f"{len(table)} scans: {counts}."),
            *findings,
            Finding("look", "patients", _NO_PATIENTS),
            Finding("look", "not HU", "The slices are 8-bit JPG: their HU are estimated from an assumed window."),
        ],
        task,
    )


def write_predictions(predictions: NamedLabels, folder: str | Path) -> list[Path]:
    """Write predictions as the AI-MIA severity challenges took them: one list of scan names a class.

    The files are called by the classes, mild.csv to critical.csv; a line is the name of a scan's folder, there
    is no header, and an empty list is an empty file. This is what participants' public code wrote for the 2022 and 2023
    challenges (rbturnbull/cov3d, ensemble-test.py; KieDani/Submission_2nd_Covid19_Competition, finalize_csvs.py).

    Args:
        predictions: of `predict`; `names` such as "test/ct_scan_7" (the last part is written). The class is the most
            probable one.
        folder: for one file a class.

    Returns:
        The paths, in the order of the labels.

    Raises:
        CohortError: names that end alike.
        ChoiceError: one of the files exists and is no list of names.
    """
    names = [Path(name).name for name in predictions.names]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise CohortError(
            f"{len(doubled)} scans end in the same name, such as {doubled[0]}; write the predictions of one split.",
            doubled,
        )
    paths = [check_output(Path(folder) / f"{called}.csv", NAME_LIST) for called in predictions.task.names]
    predicted = predictions.predicted
    for label, path in enumerate(paths):
        members = sorted((names[row] for row in np.flatnonzero(predicted == label)), key=natural)
        write_text_whole(path, "".join(f"{n}\n" for n in members), NAME_LIST)
    return paths


def _number(name: str) -> int | None:
    """The number of a scan's folder; None where the name is another's."""
    match = _SCAN_FOLDER.match(name)
    return int(match.group(1)) if match else None


def _partition_tables(root: Path) -> dict[str, Path]:
    """The table of grades of train and of validation; those whose split has none are absent."""
    found = defaultdict(list)
    for path in files_in(root):
        match = _TABLE.search(path.name)
        if match and not path.name.startswith("~$"):  # Excel's mark for a table that is open
            found["train" if match.group(1).lower() == "train" else "validation"].append(path)
    for split, paths in found.items():
        contents = {tuple(map(tuple, read_table(path).astype(str).to_numpy())) for path in paths}
        if len(contents) > 1:
            raise CohortError(
                f"{root}: {len(paths)} tables give grades for {split}, and they differ: "
                f"{', '.join(str(path.relative_to(root)) for path in paths)}. Give the folder of one edition.",
                paths,
            )
    return {split: found[split][0] for split in ("train", "validation") if split in found}


def _scan_folders(root: Path) -> tuple[dict[tuple[str, int], Path], list[Finding]]:
    """The folders with slices by split and number, and what was found out about the others."""
    scans, healthy, detection, empty, doubled, placeless = {}, [], [], [], [], []
    named, foreign = _named_like_scans(root)
    for path, number in named:
        inside = path.relative_to(root)
        parents = [part.lower() for part in inside.parts[:-1]]
        split = split_named_in(inside)
        if any(part.startswith("non") for part in parents):
            healthy.append(inside)
        elif "detection" in parents:
            detection.append(inside)
        elif split is None:
            placeless.append(inside)
        elif (slices := _folder_of_slices(path)) is None:
            empty.append(inside)
        elif (split, number) in scans:
            doubled.append(inside)
        else:
            scans[split, number] = slices
    return scans, [
        *about(healthy, "fine", "left out", "Scans are without COVID-19."),
        *about(detection, "fine", "left out", "Scans are of the detection challenge's test set."),
        *about(empty, "wrong", "empty", "Scan folders hold no JPG slice."),
        *about(doubled, "wrong", "left out", "Folders repeat the number of another one of their split."),
        *about(foreign, "look", "left out", _FOREIGN),
        *about(placeless, "wrong", "left out", "Scan folders lie in no folder that begins with train, val or test."),
    ]


def _named_like_scans(root: Path) -> tuple[list[tuple[Path, int]], list[Path]]:
    """The folders with a scan's name, with its number, none of which is entered; and others that hold pictures."""
    named, foreign = [], []
    for folder, folders, files in walk(root):
        numbers = {name: number for name in folders if (number := _number(name)) is not None}
        named += [(folder / name, numbers[name]) for name in sorted(numbers, key=natural)]
        if folder != root and any(file.name.lower().endswith(PICTURE_SUFFIXES) for file in files):
            foreign.append(folder.relative_to(root))
        folders[:] = [name for name in folders if name not in numbers]
    return named, foreign


def _folder_of_slices(path: Path, deepest: int = _DEEPEST) -> Path | None:
    """The folder itself, or the one folder in it where an archive was unpacked one level too deep."""
    try:
        inside = [p for p in path.iterdir() if not p.name.startswith((".", "__MACOSX"))]
    except OSError:  # a folder that may not be opened holds no slice for us, and is named so
        return None
    if any(file.name.lower().endswith(PICTURE_SUFFIXES) for file in inside):
        return path
    folders = [p for p in inside if p.is_dir()]
    return _folder_of_slices(folders[0], deepest - 1) if len(folders) == 1 and deepest else None


def _scan_name(path: Path) -> str:
    """The folder's ct_scan name, also where the slices lie some folders deeper."""
    around = (path, *path.parents[:_DEEPEST])
    return next((part.name.strip() for part in around if _SCAN_FOLDER.match(part.name)), path.name)


def _read_partition(path: Path) -> tuple[dict[int, tuple[str, int]], list[Finding]]:
    """Name and grade by the scan's number, and what is wrong with the table's rows."""
    table, renames = renamed(read_table(path), {"Name": ("scan", "scanname"), "Category": ("grade", "severity")}, path)
    if not {"Name", "Category"} <= set(table.columns):
        raise CohortError(f"{path}: needs the columns Name and Category, found {list(table.columns)}.", path)
    graded: dict[int, tuple[str, int]] = {}
    bad_names, bad_grades, torn = [], [], []
    grades = pd.to_numeric(table["Category"], errors="coerce")
    for name, category, grade in zip(table["Name"], table["Category"], grades, strict=True):
        name = "" if pd.isna(name) else str(name).strip()
        number = _number(name)
        if number is None:
            if name or not pd.isna(category):  # a wholly empty row is only how spreadsheets end
                bad_names.append(name or "(empty)")
        elif grade not in GGO_SEVERITY.numbers:
            bad_grades.append(f"{name}: {category}")
        elif graded.get(number, (name, int(grade)))[1] != grade:
            torn.append((number, name))
        else:
            graded[number] = (name, int(grade))
    for number, _ in torn:
        graded.pop(number, None)
    return graded, [
        *renames,
        *about(bad_names, "wrong", "does not match", f"Rows of {path.name} name no scan."),
        *about(
            bad_grades, "wrong", "does not match", f"Scans of {path.name} have a Category that is not 1 to 4: left out."
        ),
        *about(
            (name for _, name in torn), "wrong", "does not match", f"Scans of {path.name} have two grades: left out."
        ),
    ]


def _against_published(path: Path, split: str, grades: list[int]) -> list[Finding]:
    """Compare the counts with those of the paper, for the 2023 edition."""
    if not path.name.lower().startswith("icassp"):
        return []
    counts = tuple(grades.count(number) for number in GGO_SEVERITY.numbers)
    listed, published = ("/".join(map(str, n)) for n in (counts, _PUBLISHED_2023[split]))
    if listed == published:
        return [Finding("fine", "counts", f"{split}: {listed} graded scans, as published.")]
    words = f"{split}: {listed} graded scans (mild/moderate/severe/critical), and {published} were published."
    return [Finding("look", "does not match", words)]
