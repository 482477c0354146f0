"""A fork of the course: where its links lead, Colab's among them, is said once in pyproject.toml."""

import re
import tomllib
from pathlib import Path

from ggo_lab.errors import ChoiceError
from ggo_lab.storage import write_text_whole


def link_to_fork(root: str | Path, repository: str) -> list[Path]:
    """Let every link to the course's repository lead to another one, so that Colab opens and installs the fork.

    Args:
        root: the folder of pyproject.toml, whose `Repository` is the one place that names the repository.
        repository: "owner/name" on GitHub.
    Returns: the files that were changed: pyproject.toml, README.md and notebooks.
    Raises:
        ChoiceError: no owner/name, or a folder without a pyproject.toml that names a repository on GitHub.

    >>> link_to_fork(".", "my-university/ggo_lab")  # doctest: +SKIP
    """
    root = Path(root)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ChoiceError(f"{repository!r} is no repository; give owner/name, as in my-university/ggo_lab.", repository)
    try:
        home = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
        (old,) = re.findall(r"^https://github\.com/([\w.-]+/[\w.-]+)$", home)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ChoiceError(f"{root}: no pyproject.toml of the course ({error}); give its folder.", root) from error
    changed = []
    for file in [root / "pyproject.toml", root / "README.md", *sorted((root / "notebooks").glob("*.ipynb"))]:
        text = file.read_text(encoding="utf-8")
        new = re.sub(
            rf"(github\.com/|colab\.research\.google\.com/github/){re.escape(old)}\b", rf"\g<1>{repository}", text
        )
        if new != text:
            write_text_whole(file, new)
            changed.append(file)
    return changed
