"""Forks: one command lets every link lead to another repository."""

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from ggo_lab import ChoiceError
from ggo_lab.cli import main
from ggo_lab.course import link_to_fork

ROOT = Path(__file__).parents[1]


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_link_leads_to_the_fork_and_nothing_else_changes(copy, capsys):
    old = tomllib.loads((copy / "pyproject.toml").read_text())["project"]["urls"]["Repository"].split(".com/")[1]
    assert main(["fork", "my-university/ggo-course", "--root", str(copy)]) == 0
    assert "pyproject.toml" in capsys.readouterr().out
    for file in [copy / "pyproject.toml", *(copy / "notebooks").glob("*.ipynb")]:
        text = file.read_text(encoding="utf-8")
        assert "my-university/ggo-course" in text and f"/{old}" not in text
        whole = (ROOT / file.relative_to(copy)).read_text(encoding="utf-8")
        assert text.replace("my-university/ggo-course", old) == whole
    assert re.search("colab[^)]*my-university", next((copy / "notebooks").glob("00*")).read_text(encoding="utf-8"))
    assert link_to_fork(copy, "my-university/ggo-course") == []


def test_what_is_no_repository_is_refused(copy, tmp_path):
    for wrong in ("https://github.com/a/b", "a", "a/b/c", "a b/c"):
        with pytest.raises(ChoiceError, match="give owner/name"):
            link_to_fork(copy, wrong)
    with pytest.raises(ChoiceError, match=r"no pyproject\.toml of the course"):
        link_to_fork(tmp_path / "notebooks", "a/b")
