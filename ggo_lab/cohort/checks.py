"""The checks a teacher makes before a network sees a cohort: who is in it twice, what is wrong, what is rare."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from ggo_lab.cohort.findings import Finding, about
from ggo_lab.cohort.parallel import for_each
from ggo_lab.cohort.splits import SPLITS, shared_patients
from ggo_lab.errors import GgoLabError
from ggo_lab.scan import Scan
from ggo_lab.tasks import Task

# With fewer scans of a class than this, one more or less right moves its recall by more than 10 points.
_FEW = 10


class Content(NamedTuple):
    """What opening a scan told.

    Attributes:
        digest: equal for equal voxels.
        blank: how many of its `slices` show nothing, every voxel being the same.
        problem: why it cannot be read, else None.
    """

    digest: str | None
    blank: int
    slices: int
    problem: str | None


def check_table(table: pd.DataFrame, task: Task) -> Iterator[Finding]:
    """Check what a cohort's table tells, without opening a file."""
    yield from _patients(table)
    yield from _labels(table, task)
    yield from _counts(table, task)


def check_contents(
    table: pd.DataFrame, task: Task, open_row: Callable[[dict], Scan], jobs: int | None, progress: bool
) -> Iterator[Finding]:
    """Open every scan and check what it holds."""
    rows = [(open_row, row) for row in table.to_dict("records")]
    contents = list(for_each(_look_into, rows, "scans", jobs, progress))
    names = table["name"].tolist()
    unread = [f"{name}: {content.problem}" for name, content in zip(names, contents, strict=True) if content.problem]
    yield from about(unread, "wrong", "cannot be read", "Scans cannot be read.")
    if not unread:
        yield Finding("fine", "cannot be read", f"All {len(names)} scans can be read.")
    yield from _blanks(names, contents)
    yield from _doubles(table, contents)


def _patients(table: pd.DataFrame) -> Iterator[Finding]:
    torn = shared_patients({split: table.loc[(table["split"] == split).fillna(False), "patient"] for split in SPLITS})
    patients = table["patient"].nunique()
    if torn:
        what = "Patients are in more than one split: a network would be tested on people it has seen."
        yield from about(torn, "wrong", "patients", f"{what} Use split_by_patient.")
    elif patients == len(table):
        yield Finding(
            "look",
            "patients",
            f"Each of the {len(table)} scans has a patient of its own. If some are of one person, give them the same "
            "patient, or the test is a memory exercise.",
        )
    else:
        yield Finding("fine", "patients", f"{len(table)} scans of {patients} patients, each in one split only.")


def _labels(table: pd.DataFrame, task: Task) -> Iterator[Finding]:
    label = table["label"]
    classes = ", ".join(f"{number} ({name})" for number, name in enumerate(task.names))
    wrong = table.loc[label.notna() & ~label.isin(range(len(task))), "name"].tolist()
    yield from about(wrong, "wrong", "labels", f"Scans have a label that is none of {classes}.")
    unknown = table.loc[label.isna(), "name"].tolist()
    learning = table.loc[label.isna() & table["split"].isin(["train", "validation"]), "name"].tolist()
    yield from about(
        learning,
        "look",
        "labels",
        "Scans of train or validation have no label: networks can neither learn from them nor be chosen by them. "
        "Leave them out with cohort.subset(cohort.labels >= 0).",
    )
    if unknown and not learning:
        yield Finding("fine", "labels", f"{len(unknown)} scans have no label, none of them in train or validation.")
    elif not unknown and not wrong:
        yield Finding("fine", "labels", f"All {len(table)} scans have a label: {', '.join(task.names)}.")


def _counts(table: pd.DataFrame, task: Task) -> Iterator[Finding]:
    """Per split: the classes that are rare or absent, and what always giving the commonest one would score."""
    split_of = table["split"].fillna("no split")
    for split in [s for s in (*SPLITS, "no split") if (split_of == s).any()]:
        labels = table.loc[split_of == split, "label"].dropna()
        labels = labels[labels.isin(range(len(task)))]
        if labels.empty:
            continue
        counts = {name: int((labels == label).sum()) for label, name in enumerate(task.names)}
        listed = ", ".join(f"{n} {name}" for name, n in counts.items())
        words = [f"{split}: {listed}."]
        if absent := [name for name, n in counts.items() if n == 0]:
            words.append(f"No scan is {' or '.join(absent)}: nothing can be said about that.")
        if few := [f"{name} by {100 / n:.0f}" for name, n in counts.items() if 0 < n < _FEW]:
            words.append(f"One scan more right moves the recall of {', of '.join(few)} points.")
        commonest, most = max(counts.items(), key=lambda item: item[1])
        share = most / len(labels)
        # Always the same class: its recall is 1 and its precision its share, so its F1 is 2 share / (1 + share), and
        # that of the others is 0; classes without a scan do not count.
        floor = 2 * share / (1 + share) / sum(n > 0 for n in counts.values())
        words.append(f"Always answering {commonest} scores macro-F1 {floor:.2f} here.")
        yield Finding("look" if few or absent else "fine", "class counts", " ".join(words))


def _look_into(open_row: Callable[[dict], Scan], row: dict) -> Content:
    try:
        scan = open_row(row)
    except GgoLabError as error:
        return Content(None, 0, 0, str(error))
    flat = scan.hu.reshape(len(scan.hu), -1)
    blank = int(np.sum(flat.min(axis=1) == flat.max(axis=1)))
    digest = hashlib.sha256(repr(scan.shape).encode())
    digest.update(np.ascontiguousarray(scan.hu).data.cast("B"))
    return Content(digest.hexdigest(), blank, len(flat), None)


def _blanks(names: list[str], contents: list[Content]) -> Iterator[Finding]:
    empty = [name for name, c in zip(names, contents, strict=True) if c.slices and c.blank == c.slices]
    partly = [
        f"{name}: {c.blank} of {c.slices}" for name, c in zip(names, contents, strict=True) if 0 < c.blank < c.slices
    ]
    yield from about(empty, "wrong", "empty scans", "Scans show nothing in any slice.")
    yield from about(partly, "look", "empty slices", "Scans have slices that show nothing.")
    if not empty and not partly:
        yield Finding("fine", "empty scans", "No scan has a slice that shows nothing.")


def _doubles(table: pd.DataFrame, contents: list[Content]) -> Iterator[Finding]:
    """Scans with the same voxels: in two splits they leak, with two labels one is wrong, else they count twice."""
    same = defaultdict(list)
    for position, content in enumerate(contents):
        if content.digest is not None:
            same[content.digest].append(position)
    groups = [table.iloc[positions] for positions in same.values() if len(positions) > 1]
    if not groups:
        yield Finding("fine", "same content", "No two scans hold the same voxels.")
    kinds: dict[str, list[str]] = {"in two splits": [], "with two labels": [], "under two patients": [], "twice": []}
    for group in groups:
        if group["split"].nunique() > 1:
            kind = "in two splits"
        elif group["label"].nunique() > 1:
            kind = "with two labels"
        else:
            kind = "under two patients" if group["patient"].nunique() > 1 else "twice"
        kinds[kind].append(" = ".join(group["name"]))
    advice = {
        "in two splits": "the test would ask for what was learnt. Keep one of each.",
        "with two labels": "one label must be wrong. Ask who read the scans.",
        "under two patients": "they are one person. Give them the same patient, or keep one of each.",
        "twice": "they would count twice. Keep one of each.",
    }
    for kind, names in kinds.items():
        status = "look" if kind == "twice" else "wrong"
        yield from about(names, status, "same content", f"Groups with the same voxels stand {kind}: {advice[kind]}")
