"""`~` is the user's home in every path: read, written, in a table, in the environment, on a terminal."""

import os
import shutil
from pathlib import Path

import pytest

import ggo_lab as gl
from ggo_lab.cli import main
from ggo_lab.course import glossary, write_exercises
from ggo_lab.course.challenge import new_challenge
from ggo_lab.page import scan_page
from ggo_lab.storage import cache_folder, check_output

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder; the test runs in another one, where no folder called ~ may appear."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    yield tmp_path / "home"
    assert not list((tmp_path / "here").iterdir())


@pytest.fixture
def scan():
    return gl.make_phantom(grade=2, seed=1, shape=(8, 32, 32))


@pytest.mark.parametrize("kind", [str, Path])
def test_scans_pages_and_tables(home, scan, kind):
    assert gl.write_nifti(scan, kind("~/s.nii.gz")) == home / "s.nii.gz"
    assert gl.read_scan(kind("~/s.nii.gz")).shape == (8, 32, 32)
    assert scan_page(scan, kind("~/p.html")) == home / "p.html"
    assert gl.SliceViewer(scan).to_html(kind("~/v.html")) == home / "v.html"
    (home / "c.csv").write_text("path,name,grade\ns.nii.gz,a,2\n~/s.nii.gz,b,2\n")
    cohort = gl.read_cohort(kind("~/c.csv"))
    assert set(cohort.table["path"]) == {str(home / "s.nii.gz")} and not list(cohort.findings.of("wrong"))
    assert len(gl.Cohort.from_folder(kind("~"))) == 1


@pytest.mark.parametrize("variable", ["GGO_LAB_CACHE", "XDG_CACHE_HOME"])
def test_the_cache(home, monkeypatch, variable):
    monkeypatch.delenv("GGO_LAB_CACHE", raising=False)
    monkeypatch.setenv(variable, "~/kept")
    images = [gl.prepare(gl.phantom_cohort(1, shape=(8, 32, 32)), gl.Recipe(size=16), progress=False) for _ in "ab"]
    assert (images[0].pixels == images[1].pixels).all()
    assert cache_folder().is_relative_to(home / "kept") and len(list(cache_folder().glob("images/*.npz"))) == 1


def test_what_the_course_reads_and_writes(home):
    shutil.copytree(NOTEBOOKS, home / "course" / "notebooks", ignore=shutil.ignore_patterns("[1-9]*"))
    assert glossary("~/course/notebooks") == glossary(home / "course" / "notebooks")
    assert write_exercises("~/course/notebooks", "~/class") and (home / "class").is_dir()
    assert new_challenge("~/final", 20).is_relative_to(home / "final")


def test_an_input_is_an_input_however_it_is_written(home, capsys):
    (home / "c.csv").write_text("path,grade\ns.nii.gz,2\n")
    for source in ("~/c.csv", str(home / "c.csv"), Path("~/c.csv")):
        for output in ("~/c.csv", home / "c.csv", "~/../home/c.csv"):
            with pytest.raises(gl.ChoiceError, match="no input is ever overwritten"):
                check_output(output, None, [source])
    for outputs in (["~/m", str(home / "m")], [str(home / "m"), "~/m"]):
        line = ["grade", "~/s.nii.gz", "--model", "~/m.safetensors", "--csv", outputs[0], "--json", outputs[1]]
        assert main(line) == 2 and "give two names" in capsys.readouterr().err


def test_a_user_that_is_not_known_is_a_folder_of_that_name():
    assert os.path.expanduser("~nobody-of-this-name/x") == "~nobody-of-this-name/x"
    with pytest.raises(gl.ScanError, match="no such file or folder"):
        gl.read_scan("~nobody-of-this-name/x.nii")
