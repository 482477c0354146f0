"""What others have put together to be read: real data, the readers' own test files, and the sixteen cases beside us."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

import ggo_lab as gl
from ggo_lab.page import scan_page
from ggo_lab.scan import check_hu

SHARED = Path(__file__).parents[2] / "shared"
LONGEST_S = 5.0  # of processor time: other programs may keep the machine busy
_OF_PROGRAMS = (".py", ".pyc", ".pyi", ".so")

pytestmark = pytest.mark.long


def read(path: Path) -> str:
    """How reading ends: "scan", "refused", or what must not be."""
    started = time.process_time()
    try:
        scan = gl.read_scan(path)
        if scan.is_hu:
            check_hu(scan.hu, path)
        ended = "scan"
    except gl.GgoLabError as error:
        ended = "refused" if str(error).count("\n") == 0 else f"several lines: {error}"
    except Exception as error:  # whatever it is, it is a fault of the readers
        ended = f"{type(error).__name__}: {error}"
    took = time.process_time() - started
    return ended if took <= LONGEST_S else f"{took:.1f} s"


@pytest.mark.parametrize(
    "folder",
    [SHARED / "data", Path(pydicom.__file__).parent / "data", Path(nibabel.__file__).parent],
    ids=["real scans", "pydicom's test files", "nibabel's test files"],
)
def test_every_file_ends_in_a_scan_or_in_one_sentence(folder):
    """Each file, and each folder that holds files, as someone may give it."""
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    files = [Path(place) / name for place, _, names in os.walk(folder) for name in names]
    files = [file for file in files if not file.name.endswith(_OF_PROGRAMS)]
    ended = {path: read(path) for path in [*files, *sorted({file.parent for file in files} - {folder})]}
    wrong = {str(path): how for path, how in ended.items() if how not in ("scan", "refused")}
    counts = {how: sum(each == how for each in ended.values()) for how in ("scan", "refused")}
    print(f"{folder}: {len(files)} files, {len(ended) - len(files)} folders, {counts}")
    assert not wrong and len(files) > 100
    assert counts["refused"] > 0 and (counts["scan"] > 0 or "nibabel" in folder.parts), "the test would see nothing"


# ---- the sixteen cases: make_cases.py writes them, with what is right of each ----------------------------------


@pytest.fixture(scope="module")
def cases(tmp_path_factory) -> Path:
    script = SHARED / "cases" / "make_cases.py"
    if not script.is_file():
        pytest.skip("no ../shared/cases beside the project")
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    return folder


CALLS = {
    "read_scan": gl.read_scan,
    "read_cohort": gl.read_cohort,
    "cov19_ctdb": gl.cov19_ctdb,
    "segment_lungs": lambda path: gl.segment_lungs(gl.read_scan(path)),
}


def all_found(patterns: list[str], text: str) -> bool:
    return all(re.search(pattern, text, re.I) for pattern in patterns)


def is_right_scan(scan: gl.Scan, right: dict, folder: Path) -> bool:
    notes = right.get("note", [])
    return (
        scan.shape == tuple(right["shape"])
        and np.allclose(scan.spacing, right.get("spacing_mm", scan.spacing), atol=1e-3)
        and abs(scan.voxel_ml / right.get("voxel_ml", scan.voxel_ml) - 1) < 1e-3
        and ("hu" not in right or any(np.array_equal(np.load(folder / name), scan.hu) for name in right["hu"]))
        and (not notes or any(all_found(notes, note) for note in scan.notes))
    )


def is_right_cohort(cohort: gl.Cohort, right: dict) -> bool:
    text = cohort.table.to_string() + " ".join(map(str, cohort.findings)) + " ".join(map(str, cohort.table["path"]))
    patients = list(cohort.table["patient"]) == right.get("patients", list(cohort.table["patient"]))
    return patients and all(name in text for name in right.get("scans", []) + right.get("tells_of", []))


def is_right(given: object, right: dict, folder: Path) -> bool:
    if isinstance(given, gl.GgoLabError) and "error" in right:
        of_kind = isinstance(given, getattr(gl, right["error"]["type"]))
        return of_kind and all_found(right["error"]["says"], str(given).replace(str(folder), ""))
    if isinstance(given, gl.Scan) and "scan" in right:
        return is_right_scan(given, right["scan"], folder)
    if isinstance(given, gl.Cohort) and "cohort" in right:
        return is_right_cohort(given, right["cohort"])
    return isinstance(given, str) and "page" in right and given.rstrip().endswith("</html>")


@pytest.mark.filterwarnings("ignore")
def test_the_sixteen_cases_come_out_right(cases, tmp_path):
    def page(path: Path) -> str:
        scan_page(gl.read_scan(path), tmp_path / "page.html")
        return (tmp_path / "page.html").read_text(encoding="utf-8")

    wrong = []
    folders = sorted(path.parent for path in cases.glob("*/expected.json"))
    for folder in folders:
        expected = json.loads((folder / "expected.json").read_text())
        given = folder / expected["input"]
        if not given.exists():  # a name that JSON cannot hold
            given = next(path for path in folder.iterdir() if path.name != "expected.json")
        try:
            answer = {**CALLS, "scan_page": page}[expected["call"]](given)
        except gl.GgoLabError as error:
            answer = error
        if not any(is_right(answer, right, folder) for right in expected["right"]):
            wrong.append(f"{folder.name}: {answer}")
    assert not wrong and len(folders) == 16
