"""What must hold for every notebook without running it (running them is nbval's part, see the Makefile)."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
READ = {path.name: nbformat.read(path, as_version=4) for path in NOTEBOOKS}
LONGEST_CELL = 25  # lines; a longer one is not one idea


@pytest.fixture(params=READ, ids=lambda name: name.removesuffix(".ipynb"))
def notebook(request):
    return READ[request.param]


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_notebooks_and_the_first_is_the_start():
    assert NOTEBOOKS and NOTEBOOKS[0].name == "00_start_here.ipynb"
    assert all(re.fullmatch(r"\d\d_[a-z0-9_]+\.ipynb", path.name) for path in NOTEBOOKS)


def test_valid_and_with_a_kernel(notebook):
    nbformat.validate(notebook)
    # Without it JupyterLab covers the page with a dialog that asks for a kernel.
    assert notebook.metadata.kernelspec.name == "python3"


def test_stripped(notebook):
    for cell in code_cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None, f"run and saved with outputs:\n{cell.source[:80]}"


def test_begins_with_title_promise_needs_and_time(notebook):
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    for part in ("You will be able to", "Needed before", "Time"):
        assert f"**{part}" in first.source, f"the first cell does not say: {part}"


def test_the_setup_cell_is_the_same_everywhere_and_short():
    setups = {code_cells(notebook)[0].source for notebook in READ.values()}
    assert len(setups) == 1
    assert len([line for line in setups.pop().splitlines() if line.strip()]) <= 8


def test_code_cells_hold_one_idea(notebook):
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= LONGEST_CELL or cell.source.startswith("# extra:"), cell.source[:80]


def test_code_is_never_far_from_prose(notebook):
    kinds = "".join("c" if cell.cell_type == "code" else "m" for cell in notebook.cells)
    assert "cccc" not in kinds, "four code cells in a row without a word between"


def test_ends_with_takeaways_exercises_and_a_link(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "## Take away" in prose and "## Exercises" in prose
    assert len(re.findall(r"^### Exercise \d", prose, re.M)) >= 2
    last = notebook.cells[-1].source
    assert re.search(r"\*\*Next", last)


def test_every_exercise_has_a_hidden_solution_that_its_check_accepts(notebook):
    exercises = len(re.findall(r"^### Exercise \d", "\n".join(c.source for c in notebook.cells), re.M))
    solutions = [cell for cell in code_cells(notebook) if "solution" in cell.metadata.get("tags", [])]
    assert len(solutions) == exercises
    for cell in solutions:
        assert cell.metadata.jupyter.source_hidden is True
        shown = re.search(r"assert check_(\d)\(answer_\1\) == gl\.RIGHT != check_\1\(", cell.source)
        assert shown, "nothing shows that the check takes the solution and refuses a wrong answer"


def test_links_to_files_resolve(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
                if not re.match(r"https?://", target):
                    assert (FOLDER / target).exists(), f"a link leads nowhere: {target}"


def test_code_parses_and_keeps_to_public_names(notebook):
    for cell in code_cells(notebook)[1:]:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Attribute):
                assert not (node.attr.startswith("_") and not node.attr.startswith("__")), f"private: {node.attr}"
