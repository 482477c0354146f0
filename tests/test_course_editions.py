"""The student edition: nothing but the solutions is gone, and it runs as far as a student who has answered nothing."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from ggo_lab import ChoiceError
from ggo_lab.cli import main
from ggo_lab.course import write_exercises
from ggo_lab.course.kernels import notebook_client

COURSE = Path(__file__).parents[1] / "notebooks"


@pytest.fixture(scope="module")
def edition(tmp_path_factory):
    return write_exercises(COURSE, tmp_path_factory.mktemp("class") / "out")


def is_solution(cell):
    return "solution" in cell.metadata.get("tags", [])


def test_only_solutions_are_gone(edition):
    assert [file.name for file in edition] == sorted(file.name for file in COURSE.glob("*.ipynb"))
    for file in edition:
        whole, student = (nbformat.read(path, as_version=4) for path in (COURSE / file.name, file))
        assert student.cells == [cell for cell in whole.cells if not is_solution(cell)]
        assert len(student.cells) < len(whole.cells) and student.metadata == whole.metadata
        assert "%%solution" not in file.read_text(encoding="utf-8")
    assert (edition[0].parents[1] / "data" / "README.md").exists()


def test_no_later_cell_needs_what_a_solution_defines(edition):
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", edition[0].parent]
    checked = subprocess.run(command, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout


def test_it_runs(edition):
    file = next(file for file in edition if file.name.startswith("01_"))
    notebook = nbformat.read(file, as_version=4)
    notebook_client(notebook, file.parent, cell_seconds=120).execute()
    said = [
        out.data["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code" and "check_1(answer_1)" in cell.source
        for out in cell.outputs
    ]
    assert said == ["… Write your answer in place of the dots."]


def test_what_cannot_be_written_is_said(tmp_path, capsys):
    with pytest.raises(ChoiceError, match="no notebook"):
        write_exercises(tmp_path, tmp_path / "out")
    (tmp_path / "01_broken.ipynb").write_text("{}")
    with pytest.raises(ChoiceError, match="not a Jupyter notebook"):
        write_exercises(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["exercises", str(tmp_path), "--notebooks", str(COURSE)]) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert main(["exercises", str(tmp_path / "class"), "--notebooks", str(COURSE)]) == 0
    assert json.loads(next((tmp_path / "class" / "notebooks").glob("00*")).read_text(encoding="utf-8"))["cells"]
