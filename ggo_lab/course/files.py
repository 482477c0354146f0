"""The notebooks as files: JSON, read without Jupyter's packages, which the library does not need."""

import json
import os
from pathlib import Path

from ggo_lab.errors import ChoiceError
from ggo_lab.storage import home_filled_in, writing_to


def course_files(notebooks: str | Path) -> list[Path]:
    """The notebooks of a folder in their order; raises ChoiceError where there is none."""
    folder = home_filled_in(notebooks)
    # pathlib's glob raises where a name is longer than the system allows.
    files = sorted(folder.glob("*.ipynb")) if os.path.isdir(folder) else []
    if not files:
        raise ChoiceError(
            f"{notebooks}: no notebook (.ipynb) in it; give the course's folder, such as notebooks.", notebooks
        )
    return files


def new_folder(out: str | Path) -> Path:
    """Make a folder to write to; raises ChoiceError where it holds something."""
    out = home_filled_in(out)
    if os.path.exists(out) and (not out.is_dir() or any(out.iterdir())):
        raise ChoiceError(f"{out} is not an empty folder, and nothing is overwritten; give a new one.", out)
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
    return out


def read_notebook(file: Path) -> dict:
    """Read a notebook's content; every cell has a cell_type, a source and metadata.

    Raises:
        ChoiceError: the file is no notebook.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        for cell in content["cells"]:
            if not {"cell_type", "source", "metadata"} <= cell.keys():
                raise KeyError("a cell without type, source or metadata")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ChoiceError(f"{file}: not a Jupyter notebook ({error}); copy it again.", file) from error
    return content
