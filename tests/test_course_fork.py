"""Forks: one command says where the course lives, and every notebook can then be opened and installed from there."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ggo_lab import ChoiceError
from ggo_lab.cli import main
from ggo_lab.course import link_to_fork
from ggo_lab.course.fork import setup_cell

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_notebook_opens_and_installs_the_fork_and_nothing_else_changes(copy, capsys):
    assert main(["fork", "my-university/ggo-course", "--root", str(copy)]) == 0
    assert "pyproject.toml" in capsys.readouterr().out
    project = tomllib.loads((copy / "pyproject.toml").read_text())["project"]
    assert project["urls"]["Repository"] == "https://github.com/my-university/ggo-course"
    for file in (copy / "notebooks").glob("*.ipynb"):
        new, old = (json.loads(path.read_text(encoding="utf-8")) for path in (file, ROOT / "notebooks" / file.name))
        home = "https://colab.research.google.com/github/my-university/ggo-course/blob/main/notebooks/"
        assert f"({home}{file.name})" in new["cells"][0]["source"][-1]
        setup = "".join(new["cells"][1]["source"])
        assert setup == setup_cell("my-university/ggo-course") != setup_cell()
        assert '%pip install -q "ggo_lab @ git+https://github.com/my-university/ggo-course"' in setup
        assert new["cells"][0]["source"][:-2] == [*old["cells"][0]["source"][:-1], old["cells"][0]["source"][-1] + "\n"]
        assert new["cells"][2:] == old["cells"][2:] and new["metadata"] == old["metadata"]


def test_a_fork_of_a_fork_names_the_new_one_alone(copy):
    link_to_fork(copy, "first/one")
    assert len(link_to_fork(copy, "second/two")) == 1 + len(list((copy / "notebooks").glob("*.ipynb")))
    for file in [copy / "pyproject.toml", *(copy / "notebooks").glob("*.ipynb")]:
        text = file.read_text(encoding="utf-8")
        assert "second/two" in text and "first/one" not in text
    assert link_to_fork(copy, "second/two") == []


def test_without_the_package_the_setup_cell_says_what_to_do_and_stops(tmp_path):
    code = setup_cell().replace("import ggo_lab", "import ggo_lab_that_is_absent")
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 1 and ran.stderr.count("\n") == 1 and "make lab" in ran.stderr


def test_what_is_no_repository_is_refused(copy, tmp_path):
    for wrong in ("https://github.com/a/b", "a", "a/b/c", "a b/c"):
        with pytest.raises(ChoiceError, match="give owner/name"):
            link_to_fork(copy, wrong)
    with pytest.raises(ChoiceError, match=r"no pyproject\.toml of the course"):
        link_to_fork(tmp_path / "notebooks", "a/b")
