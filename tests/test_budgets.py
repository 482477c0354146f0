"""The budget of notebooks: one that is over it fails the run, and no other notebook."""

import subprocess
import sys
from pathlib import Path

import nbformat.v4 as v4
import pytest

RUN = """
import sys, pytest
from tests import budgets
budgets.SECONDS = float(sys.argv[1])
given = ["-q", "-p", "tests.budgets", "-p", "no:cacheprovider", "--nbval-lax", "--rootdir", sys.argv[2], *sys.argv[2:]]
sys.exit(pytest.main(given))
"""


def run(folder: Path, seconds: float, *more: str) -> subprocess.CompletedProcess:
    for name in ("a", "b"):
        notebook = v4.new_notebook(cells=[v4.new_code_cell("sum(range(1000))"), v4.new_code_cell("2")])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        (folder / f"{name}.ipynb").write_text(v4.writes(notebook), encoding="utf-8")
    command = [sys.executable, "-c", RUN, str(seconds), str(folder), *more]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)


@pytest.mark.parametrize("workers", [(), ("-n", "2", "--dist", "loadfile")], ids=["alone", "two workers"])
def test_what_is_over_budget_fails_the_run_and_not_its_neighbour(tmp_path, workers):
    done = run(tmp_path, 0.0, *workers)
    assert done.returncode == 1, done.stdout
    assert "4 passed" in done.stdout and "failed" not in done.stdout and "error" not in done.stdout
    assert done.stdout.count("OVER BUDGET: a.ipynb took") == done.stdout.count("OVER BUDGET: b.ipynb took") == 1


def test_what_is_within_it_passes(tmp_path):
    done = run(tmp_path, 600.0)
    assert done.returncode == 0 and "OVER BUDGET" not in done.stdout, done.stdout
