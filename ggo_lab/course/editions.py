"""Editions of the course: the same notebooks for a class, without their solutions."""

import json
import shutil
from pathlib import Path

from ggo_lab.course.files import course_files, new_folder, read_notebook
from ggo_lab.storage import home_filled_in


def write_exercises(notebooks: str | Path, out: str | Path) -> list[Path]:
    """Write the student edition: every notebook without the cells tagged "solution".

    Args:
        notebooks: the folder of the course, such as "notebooks".
        out: a folder that is new or empty. It gets the notebooks and, where the course has it, data/README.md, to which
            they link.

    Returns:
        The notebooks written, in their order.

    Raises:
        ChoiceError: no notebook in the folder, one that is no notebook, or a folder to write to that holds something.

    >>> write_exercises("notebooks", "for_my_class")  # doctest: +SKIP
    """
    editions = {file.name: _without_solutions(file) for file in course_files(notebooks)}
    out = new_folder(out)
    (out / "notebooks").mkdir()
    written = [out / "notebooks" / name for name in editions]
    for file, text in zip(written, editions.values(), strict=True):
        file.write_text(text, encoding="utf-8")
    data = home_filled_in(notebooks).resolve().parent / "data" / "README.md"
    if data.exists():
        (out / "data").mkdir()
        shutil.copyfile(data, out / "data" / "README.md")
    return written


def _without_solutions(file: Path) -> str:
    content = read_notebook(file)
    content["cells"] = [cell for cell in content["cells"] if "solution" not in cell["metadata"].get("tags", ())]
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
