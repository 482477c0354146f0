"""No word of the glossary is used before the course has explained it, in the order in which the notebooks are read."""

import json
import re
from itertools import pairwise
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "notebooks"
# Words that everybody knows, or that a row explains more sharply than daily use does.
DAILY = {
    "state",
    "batch",
    "step",
    "layer",
    "control",
    "worker",
    "cache",
    "patch",
    "value",
    "key",
    "query",
    "risk",
}
DAILY |= {
    "hole",
    "protocol",
    "weight",
    "inference (in a report)",
    "extent",
    "recipe",
    "dicom",
    "nifti",
    "packing",
    "right",
    "loss",
    "image",
}


def reading_order() -> list[Path]:
    """The notebooks by their numbers; a number may be free while its notebook is being written."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def prose(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def words_of(text: str) -> set[str]:
    """The words that a notebook's table explains, each by itself: "recall, precision, F1" are three."""
    tables = re.findall(r"^## Words\n+\|.*\n\|.*\n((?:\|.*\n?)+)", text, re.M)
    rows = [row.strip("| ").split(" | ")[0] for table in tables for row in table.splitlines()]
    return {word.strip().lower() for row in rows for word in re.split(r"[,;]", row)}


def uses(word: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}s?(?![\w-])", text, re.I) is not None


def plain(text: str) -> str:
    """Prose without links, code, tables of notebooks, what is needed before, and titles of other notebooks."""
    text = re.sub(
        r"^\*\*Needed before.*?(?=\n\n|\Z)|^\*\*Next.*|^## The map of the course.*?(?=^## )",
        "",
        text,
        flags=re.M | re.S,
    )
    return re.sub(r"\[[^\]]*\]\([^)]*\)|`[^`]*`|```.*?```", "", text, flags=re.S)


def test_each_notebook_ends_with_a_link_to_the_next():
    order = reading_order()
    for path, following in pairwise(order):
        links = re.findall(r"\*\*Next\*\*: \[(.*?)\]\(([\w.]+\.ipynb)\)", prose(path))
        assert [target for _, target in links] == [following.name], f"{path.name} does not lead to {following.name}"
        assert links[0][0].startswith(following.name[:2]), "a link to a notebook begins with its number"


def test_numbers_of_notebooks_in_prose_are_of_notebooks_that_exist():
    numbers = {path.name[:2] for path in reading_order()}
    for path in reading_order():
        assert set(re.findall(r"\bnotebooks?\s+(\d\d)\b", prose(path), re.I)) <= numbers, path.name
        for title, target in re.findall(r"\[(\d\d)[^\]]*\]\((\d\d)_\w+\.ipynb", prose(path)):
            assert title == target, f"{path.name}: a link says {title} and leads to {target}"


def test_no_word_is_used_before_it_is_explained():
    known: set[str] = set()
    every = {word for path in FOLDER.glob("*.ipynb") for word in words_of(prose(path))} - DAILY
    faults = []
    for path in reading_order():
        text = prose(path)
        bold = {match.lower() for match in re.findall(r"\*\*([^*\n]+?)\*\*", text)}
        known |= words_of(text) | {word for word in every if any(uses(word, each) for each in bold)}
        faults += [f"{path.name[:2]}: {word}" for word in sorted(every - known) if uses(word, plain(text))]
    assert not faults, f"used before they are explained: {', '.join(faults)}"
