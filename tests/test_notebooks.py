"""What must hold for every notebook without running it (running them is nbval's part, see the Makefile)."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

import ggo_lab as gl
from ggo_lab.course.fork import setup_cell

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
    assert setups == {setup_cell()}
    assert len([line for line in setup_cell().splitlines() if line.strip()]) <= 8


def test_no_lesson_asks_for_another_arithmetic_than_everybody_gets(notebook):
    assert not any(re.search(r"speed=.plain", cell.source) for cell in code_cells(notebook))


def test_code_cells_hold_one_idea(notebook):
    for cell in code_cells(notebook):
        code = re.sub(r"^ *gl\.caption\(.*?\)$", "", cell.source, flags=re.M | re.S)  # words, not code
        lines = [line for line in code.splitlines() if line.strip()]
        assert len(lines) <= LONGEST_CELL or cell.source.startswith("# extra:"), cell.source[:80]


DRAWS = re.compile(
    r"\bplt\.(subplots|figure|plot|hist|imshow|semilog[xy]|loglog|fill_between)\(|\bgl\.(plots\.)?plot_\w+\("
)


def captions(cell):
    """Number, caption and alternative text of each figure that a cell shows."""
    for node in ast.walk(ast.parse(cell.source.removeprefix("%%solution\n"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "gl.caption":
            (alt,) = node.keywords
            assert alt.arg == "alt"
            yield [ast.literal_eval(each) for each in (*node.args, alt.value)]


def test_figures_are_numbered_and_have_captions_and_words_for_who_does_not_see_them(notebook):
    shown = []
    for cell in code_cells(notebook):
        found = list(captions(cell))
        hidden = "solution" in cell.metadata.get("tags", [])
        assert found or hidden or not DRAWS.search(cell.source), f"a figure without gl.caption:\n{cell.source[:200]}"
        shown += found
    assert [number for number, _, _ in shown] == list(range(1, len(shown) + 1))
    for _, text, alt in shown:
        assert 20 <= len(text) <= 160 and text[-1] == "." and alt[-1] == "."
        assert len(alt) >= 50 and alt != text, f"says less than one sees: {alt}"


def test_code_is_never_far_from_prose(notebook):
    kinds = "".join("c" if cell.cell_type == "code" else "m" for cell in notebook.cells)
    assert "cccc" not in kinds, "four code cells in a row without a word between"


def test_ends_with_takeaways_exercises_and_a_link(notebook):
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "## Take away" in prose and "## Exercises" in prose
    assert len(re.findall(r"^### Exercise \d", prose, re.M)) >= 2
    last = notebook.cells[-1].source
    assert re.search(r"\*\*Next", last)


def test_checks_that_give_answers_away_are_folded(notebook):
    checks = [cell for cell in code_cells(notebook) if "@gl.exercise" in cell.source or "check_1 =" in cell.source]
    assert checks and all(cell.metadata.get("jupyter", {}).get("source_hidden") for cell in checks)


def test_every_exercise_has_a_hidden_solution_that_its_check_accepts(notebook):
    exercises = len(re.findall(r"^### Exercise \d", "\n".join(c.source for c in notebook.cells), re.M))
    solutions = [cell for cell in code_cells(notebook) if "solution" in cell.metadata.get("tags", [])]
    assert len(solutions) == exercises
    for cell in solutions:
        assert cell.metadata.jupyter.source_hidden is True
        assert cell.source.startswith("%%solution\n# Solution"), (
            "running all cells would overwrite the learner's answer"
        )
        shown = re.search(r"assert check_(\d)\(answer_\1\) == gl\.(RIGHT|NOTED) != check_\1\(", cell.source)
        assert shown, "nothing shows that the check takes the solution and refuses a wrong answer"


def test_every_check_says_which_kind_of_answer_it_takes(notebook):
    checks = next(cell.source for cell in code_cells(notebook) if "checks of the exercises" in cell.source)
    assert checks.count("@gl.exercise(gives=") == checks.count("@gl.exercise") == checks.count("\ndef check_")


def test_a_cell_run_twice_makes_no_folder_twice(notebook):
    for cell in code_cells(notebook):
        assert not re.search(r"\.mkdir\((?!.*exist_ok=True)", cell.source), cell.source


def test_what_a_lesson_hands_on_lies_beside_it_with_a_link(notebook):
    for cell in code_cells(notebook):
        kept = re.findall(r"(?:\.to_html|gl\.save_model)\((?!(?:\w+, )?(?:folder /|Path\(folder))", cell.source)
        if kept:  # and not only written to be compared
            assert cell.source.count('Path("results") /') >= len(kept) and "FileLink(" in cell.source, cell.source


def test_the_first_notebook_and_readme_say_how_a_cell_is_run():
    for text in (READ["00_start_here.ipynb"].cells[2].source, (FOLDER.parent / "README.md").read_text("utf-8")):
        assert "press Shift + Enter: it runs" in text


def test_a_readers_own_path_is_viewed_measured_and_graded_with_a_word_on_what_that_is_worth():
    cells = READ["20_your_own_scans.ipynb"].cells
    asks = next(i for i, cell in enumerate(cells) if cell.source.startswith("my_scans = ["))
    assert "gl.SliceViewer(own[" in cells[asks].source
    assert "gl.predict(model, image)" in cells[asks + 2].source and "gl.ggo_fraction(scan" in cells[asks + 2].source
    assert "its grade is worth\nnothing" in cells[asks + 3].source


def test_links_to_files_resolve(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#]+)\)", cell.source):
                if not re.match(r"https?://", target):
                    assert (FOLDER / target).exists(), f"a link leads nowhere: {target}"


def test_code_parses_and_keeps_to_public_names(notebook):
    for cell in code_cells(notebook)[1:]:
        for node in ast.walk(ast.parse(cell.source.removeprefix("%%solution\n"))):
            if isinstance(node, ast.Attribute):
                assert not (node.attr.startswith("_") and not node.attr.startswith("__")), f"private: {node.attr}"


def test_every_name_of_the_package_exists(notebook):
    for cell in code_cells(notebook)[1:]:
        for node in ast.walk(ast.parse(cell.source.removeprefix("%%solution\n"))):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"gl\.\w+(\.\w+)?", name := ast.unparse(node)):
                owner, _, last = name.rpartition(".")
                room = owner.removeprefix("gl").removeprefix(".")
                if not room:
                    assert hasattr(gl, last), name
                elif room in gl._ROOMS:
                    assert hasattr(getattr(gl, room), last), name
