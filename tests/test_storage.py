"""Writing files: whole, checked before the work, never over an input, never over a file of another kind."""

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import ggo_lab as gl
from ggo_lab.course.challenge import new_challenge, reveal
from ggo_lab.page import scan_page
from ggo_lab.storage import MODEL_FILE, NAME_LIST, NIFTI, WEB_PAGE, check_output, write_text_whole, write_whole

SMALL = (8, 32, 32)
COURSE = Path(__file__).parents[1] / "notebooks"
PAGE = "<!DOCTYPE html>\n<title>a page</title>"


@pytest.fixture
def scan_file(tmp_path):
    return gl.write_nifti(gl.make_phantom(grade=2, seed=1, shape=SMALL), tmp_path / "scan.nii.gz")


def ways_to(file):
    """Other paths to the same file: roundabout, a link, a link to a link, a hard link, a linked folder."""
    folder = file.parent
    (folder / "inner").mkdir()
    (folder / "soft").symlink_to(file)
    (folder / "softer").symlink_to(folder / "soft")
    os.link(file, folder / "hard")
    (folder / "door").symlink_to(folder, target_is_directory=True)
    return [file, folder / "inner" / ".." / file.name, folder / "soft", folder / "softer", folder / "hard",
            folder / "door" / file.name, Path(os.path.relpath(file))]  # fmt: skip


def test_no_output_is_an_input_by_whatever_way(scan_file):
    for way in ways_to(scan_file):
        with pytest.raises(gl.ChoiceError, match="no input is ever overwritten"):
            check_output(way, None, [scan_file], force=True)
        with pytest.raises(gl.ChoiceError, match="no input is ever overwritten"):
            check_output(scan_file, NIFTI, [way])


def test_a_file_in_a_folder_that_is_read_is_an_input(tmp_path):
    series = tmp_path / "series"
    series.mkdir()
    (series / "1.html").write_bytes(b"\0" * 128 + b"DICM")
    (series / "page.html").write_text(PAGE)
    with pytest.raises(gl.ChoiceError, match="no input is ever overwritten"):
        check_output(series / "1.html", WEB_PAGE, [series], force=True)
    (tmp_path / "link.html").symlink_to(series / "1.html")
    with pytest.raises(gl.ChoiceError, match="no input is ever overwritten"):
        check_output(tmp_path / "link.html", WEB_PAGE, [series], force=True)
    assert check_output(series / "page.html", WEB_PAGE, [series]) == series / "page.html"


@pytest.mark.parametrize("kind", [WEB_PAGE, MODEL_FILE, NIFTI, NAME_LIST], ids=lambda kind: kind.name)
def test_a_file_of_another_kind_is_kept(tmp_path, kind):
    path = tmp_path / f"file{kind.suffixes[0]}"
    for content in (b"path,grade\n1.nii,2\n", b"\0\1\2\3" * 100, b'{"a": 1, "b": 2}', b"PK\3\4;", b"\x1f\x8bbroken\0"):
        path.write_bytes(content)
        with pytest.raises(gl.ChoiceError, match=f"is not {kind.name}"):
            check_output(path, kind)
        with pytest.raises(gl.ChoiceError, match=f"is not {kind.name}"):
            write_whole(path, lambda file: file.write(b"new"), kind)
        assert path.read_bytes() == content
        assert check_output(path, kind, force=True) == path
    path.write_bytes(b"")
    assert check_output(path, kind) == path, "an empty file is nobody's loss"


def test_its_own_kind_is_replaced(tmp_path, scan_file):
    write_text_whole(tmp_path / "p.html", PAGE, WEB_PAGE)
    write_text_whole(tmp_path / "p.html", PAGE + "2", WEB_PAGE)
    assert (tmp_path / "p.html").read_text() == PAGE + "2"
    for name in ("a.nii", "a.nii.gz"):
        for grade in (1, 2):
            gl.write_nifti(gl.make_phantom(grade=grade, seed=1, shape=SMALL), tmp_path / name)


def test_a_suffix_of_another_kind_is_refused(tmp_path):
    for kind, names in {WEB_PAGE: ["p.nii.gz", "p.safetensors"], MODEL_FILE: ["cohort.csv", "m.pt"]}.items():
        for name in names:
            with pytest.raises(gl.ChoiceError, match=f"the name of {kind.name} ends in"):
                check_output(tmp_path / name, kind)
    assert check_output(tmp_path / "m", MODEL_FILE) == tmp_path / "m"


def test_a_place_that_cannot_be_written_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.html").mkdir()
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "ring").symlink_to(tmp_path / "ring2")
    (tmp_path / "ring2").symlink_to(tmp_path / "ring")
    places = [tmp_path / "file" / "p.html", tmp_path / "folder.html", tmp_path / "pipe.html", "/proc/p.html"]
    places += [tmp_path / ("x" * 300 + ".html"), tmp_path / "nul\0.html", tmp_path / "ring" / "p.html"]
    for place in places:
        with pytest.raises(gl.GgoLabError):
            check_output(place, WEB_PAGE)
    assert check_output(tmp_path / "new" / "deep" / "p.html", WEB_PAGE)
    assert not (tmp_path / "new").exists(), "checking leaves nothing behind"


def test_names_that_no_disk_holds_are_refused_before_any_folder_is_made(tmp_path):
    """Where the folder is not there yet, the system does not look at the name in it."""
    for place in ("new/" + "x" * 300, "x" * 300 + "/new/p", "new/" + "ü" * 200, "y/" * 3000 + "p", "new/" * 1100 + "p"):
        for write in (lambda path: check_output(path, WEB_PAGE), lambda path: write_text_whole(path, PAGE, WEB_PAGE)):
            with pytest.raises(gl.GgoLabError, match="name too long"):
                write(tmp_path / place)
            assert not list(tmp_path.iterdir())


TAKES_A_PATH = {
    "load_model": gl.load_model,
    "read_scan": gl.read_scan,
    "read_cohort": gl.read_cohort,
    "from_folder": gl.Cohort.from_folder,
    "cov19_ctdb": gl.cov19_ctdb,
    "mosmed": gl.mosmed,
    "stoic": gl.cohort.stoic,
    "covid_ct_md": gl.cohort.covid_ct_md,
    "weights": lambda path: gl.build_backbone("squeezenet1_0", weights=path),
    "write_as_mosmed": lambda path: gl.cohort.write_as_mosmed(gl.phantom_cohort(4, shape=SMALL), path, progress=False),
    "glossary": gl.course.glossary,
    "write_exercises": lambda path: gl.course.write_exercises(COURSE, path),
    "write_exercises from": lambda path: gl.course.write_exercises(path, "out"),
    "write_site": lambda path: gl.course.write_site(path, "out"),
    "new_challenge": new_challenge,
    "reveal": reveal,
}


@pytest.mark.parametrize("name", ["x" * 300, "a/" + "x" * 300 + "/b", "nul\0l"])
@pytest.mark.parametrize("call", TAKES_A_PATH.values(), ids=TAKES_A_PATH)
def test_whatever_takes_a_path_refuses_a_name_that_no_system_takes_in_one_sentence(call, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(gl.GgoLabError):
        call(name)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_place_however_deep_is_written(tmp_path):
    place = tmp_path / ("x/" * 1010) / "p.html"
    write_text_whole(check_output(place, WEB_PAGE), PAGE, WEB_PAGE)
    assert place.read_text() == PAGE
    place = tmp_path / "x"  # pytest's own way of clearing up calls itself for each folder
    subprocess.run(["rm", "-r", str(place)], check=True)


def test_folders_made_for_nothing_are_taken_away(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(ZeroDivisionError):
        write_whole(tmp_path / "there" / "new" / "deep" / "p.html", lambda file: 1 / 0)
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "big disk").mkdir()
    (tmp_path / "p.html").symlink_to(tmp_path / "big disk" / "p.html")
    write_text_whole(tmp_path / "p.html", PAGE, WEB_PAGE)
    assert (tmp_path / "p.html").is_symlink() and (tmp_path / "big disk" / "p.html").read_text() == PAGE


def test_the_library_does_not_overwrite_what_it_read(tmp_path, scan_file):
    before = scan_file.read_bytes()
    scan = gl.read_scan(scan_file)
    (tmp_path / "other.nii.gz").symlink_to(scan_file)
    os.link(scan_file, tmp_path / "page.html")
    for write in (
        lambda: gl.write_nifti(scan, scan_file),
        lambda: gl.write_nifti(scan.renamed("another"), tmp_path / "other.nii.gz"),
        lambda: scan_page(scan, tmp_path / "page.html"),
        lambda: gl.SliceViewer(scan).to_html(scan_file),
        lambda: gl.SliceViewer(scan).to_html(tmp_path / "page.html"),
    ):
        with pytest.raises(gl.ChoiceError):
            write()
    assert scan_file.read_bytes() == before


def test_lists_of_names_replace_no_table(tmp_path):
    predictions = SimpleNamespace(names=["a", "b"], predicted=np.arange(2), task=gl.GGO_SEVERITY)
    table = tmp_path / "critical.csv"
    table.write_text("path,grade\n")
    with pytest.raises(gl.ChoiceError, match="not a list of names"):
        gl.cohort.write_predictions(predictions, tmp_path)
    assert list(tmp_path.iterdir()) == [table], "nothing was written before the refusal"
    table.unlink()
    assert gl.cohort.write_predictions(predictions, tmp_path) == gl.cohort.write_predictions(predictions, tmp_path)


def test_a_name_that_is_no_utf8_is_written_as_numbers(tmp_path):
    write_text_whole(tmp_path / "p.html", PAGE + os.fsdecode(b"\xff"), WEB_PAGE)
    assert (tmp_path / "p.html").read_text(encoding="utf-8").endswith(r"\udcff")
