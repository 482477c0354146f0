"""The notebooks as files: JSON, read without Jupyter's packages, which the library does not need."""

import json
from pathlib import Path

from ggo_lab.errors import ChoiceError


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
