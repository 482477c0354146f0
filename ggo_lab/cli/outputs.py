"""What a command prints and writes, and how it ends."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ggo_lab.errors import ChoiceError, printable
from ggo_lab.storage import Kind, check_output, home_filled_in

# Exit codes: what was asked for is done; a part of it could not be done; nothing was done, for the reason printed.
DONE, PARTLY, REFUSED, INTERRUPTED = 0, 1, 2, 130


def say(text: object) -> None:
    """Print a text, whatever names from files it holds and whatever the terminal can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    lines = "\n".join(printable(line) for line in str(text).split("\n"))
    print(lines.encode(encoding, "backslashreplace").decode(encoding))


@dataclass(frozen=True)
class Output:
    """A file that a command will write, checked before the work begins."""

    path: Path
    force: bool

    @classmethod
    def checked(cls, text: str, kind: Kind | None, inputs: Iterable[str | Path], force: bool) -> Output:
        """Refuse a place where something else would be lost: see `check_output`."""
        return cls(check_output(text, kind, inputs, force), force)

    def write(self, write: Callable[[Path], object]) -> None:
        """Let a function of the library write the file; with --force beside it first, as it would refuse the place."""
        if not self.force or not self.path.exists():
            write(self.path)
            return
        with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".unfinished-") as folder:
            write(Path(folder) / self.path.name)
            os.replace(Path(folder) / self.path.name, os.path.realpath(self.path))


def check_different(outputs: dict[str, str | None]) -> None:
    """Raise ChoiceError where two outputs, by flag, are one file."""
    flag_of: dict[str, str] = {}
    for flag, text in outputs.items():
        if text is not None and (other := flag_of.setdefault(os.path.realpath(home_filled_in(text)), flag)) != flag:
            raise ChoiceError(f"{text}: both {other} and {flag} would be written there; give two names.", text)
