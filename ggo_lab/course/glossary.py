"""The glossary of the course, gathered from the tables of words in its notebooks: it can never differ from them."""

import re
from pathlib import Path

from ggo_lab.course.files import course_files, read_notebook
from ggo_lab.errors import ChoiceError

_TABLE = re.compile(r"^## Words\n+\| word \| meaning \|\n\|---\|---\|\n((?:\|.*\|(?:\n|$))+)", re.M)
_HEAD = """# Glossary

Every word that a notebook explains, and where it does. Written by `ggo-lab glossary > docs/glossary.md`.

| word | meaning | explained in |
|---|---|---|
"""


def glossary(notebooks: str | Path) -> str:
    """Gather the words of all notebooks into one table in Markdown, sorted, each with a link to its notebook.

    A word that two notebooks explain alike stands once, with the first of them.

    Args:
        notebooks: the folder of the course; links are relative to a folder beside it, such as docs/.

    Raises:
        ChoiceError: no table of words in any notebook of the folder, or a file that is no notebook.
    """
    rows: dict[tuple[str, str], tuple[str, str]] = {}
    for file in course_files(notebooks):
        for cell in read_notebook(file)["cells"]:
            for table in _TABLE.findall("".join(cell["source"]) if cell["cell_type"] == "markdown" else ""):
                for row in table.splitlines():
                    word, meaning = row.strip("| ").split(" | ", 1)
                    rows.setdefault((word.lower(), meaning), (word, file.name))
    if not rows:
        raise ChoiceError(f"{notebooks}: no notebook with a table of words; give the course's folder.", notebooks)
    lines = [
        f"| **{word}** | {meaning} | [{name[:2]}](../notebooks/{name}) |"
        for (_, meaning), (word, name) in sorted(rows.items())
    ]
    return _HEAD + "\n".join(lines) + "\n"
