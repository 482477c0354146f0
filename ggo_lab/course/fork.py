"""Where the course lives: said once in pyproject.toml, and from there in every notebook."""

import json
import re
from pathlib import Path

from ggo_lab.course.files import course_files, read_notebook
from ggo_lab.errors import ChoiceError
from ggo_lab.storage import home_filled_in, write_text_whole

_SETUP = """# Setup, the same in every notebook.
import matplotlib.pyplot as plt
import numpy as np

try:
    import ggo_lab as gl
except ModuleNotFoundError:
{missing}
gl.start_lesson()"""
_SAY_WHAT_TO_DO = """\
    raise SystemExit("ggo_lab is not installed here: open the course by `make lab`; see README.md.") from None"""
_INSTALL = """\
    %pip install -q "ggo_lab @ git+https://github.com/{repository}"
    import ggo_lab as gl
"""
_BADGE = "**Without installing**: [open it in Colab]({address})."
_COLAB = "https://colab.research.google.com/github/{repository}/blob/main/notebooks/{name}"


def setup_cell(repository: str | None = None) -> str:
    """Return the first code cell of every notebook.

    Args:
        repository: "owner/name" on GitHub, from which a missing package is installed. None: it says what to do.
    """
    return _SETUP.format(missing=_INSTALL.format(repository=repository) if repository else _SAY_WHAT_TO_DO)


def link_to_fork(root: str | Path, repository: str) -> list[Path]:
    """Say in pyproject.toml and in every notebook where the course lives.

    Each notebook then has a link that opens it in Colab, where its setup cell installs the package from there.

    Args:
        root: the folder of pyproject.toml, whose `Repository` is the one place that names the repository.
        repository: "owner/name" on GitHub.

    Returns:
        The files that were changed: pyproject.toml and notebooks.

    Raises:
        ChoiceError: no owner/name, or a folder without the course's pyproject.toml or notebooks.

    >>> link_to_fork(".", "my-university/ggo_lab")  # doctest: +SKIP
    """
    root = home_filled_in(root)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ChoiceError(f"{repository!r} is no repository; give owner/name, as in my-university/ggo_lab.", repository)
    try:
        project = (root / "pyproject.toml").read_text(encoding="utf-8")
        if not re.search(r'^name = "ggo_lab"$', project, re.M) or "[project.urls]\n" not in project:
            raise ValueError("it is another project's")
    except (OSError, ValueError) as error:
        raise ChoiceError(f"{root}: no pyproject.toml of the course ({error}); give its folder.", root) from error
    without = re.sub(r"^Repository = .*\n", "", project, flags=re.M)
    home = f'[project.urls]\nRepository = "https://github.com/{repository}"\n'
    texts = {root / "pyproject.toml": without.replace("[project.urls]\n", home)}
    for file in course_files(root / "notebooks"):
        texts[file] = _linked(file, repository)
    changed = [file for file, text in texts.items() if text != file.read_text(encoding="utf-8")]
    for file in changed:
        write_text_whole(file, texts[file])
    return changed


def _linked(file: Path, repository: str) -> str:
    """Return a notebook's text with the link to Colab and the setup cell of a repository."""
    content = read_notebook(file)
    first, setup = content["cells"][0], next(cell for cell in content["cells"] if cell["cell_type"] == "code")
    title = re.sub(r"\n+\*\*Without installing\*\*: .*", "", "".join(first["source"]))
    badge = _BADGE.format(address=_COLAB.format(repository=repository, name=file.name))
    first["source"] = f"{title}\n\n{badge}".splitlines(keepends=True)
    setup["source"] = setup_cell(repository).splitlines(keepends=True)
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
