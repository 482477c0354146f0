"""What the setup cell of a notebook does: figures of one style, short errors, solutions that overwrite nothing."""

import re
import time
from types import TracebackType

from IPython import get_ipython
from IPython.core.interactiveshell import InteractiveShell

from ggo_lab.course.figures import show_figures_so
from ggo_lab.errors import GgoLabError
from ggo_lab.plots import use_style

_LONG_SECONDS = 10  # from which on a cell says how long it took
_QUICK = {"caption", "count_parameters", "reading", "wilson"}  # never what a long cell waited for


def start_lesson() -> None:
    """Prepare a notebook of the course.

    Figures take the course's style, and suit light and dark pages. An error of this package ends in its one sentence
    (`%tb` shows the traceback).
    A cell that begins with `%%solution` runs apart, so that running all cells overwrites no answer of the learner.
    A long cell ends in a line that says what it did and how long it took: running all cells scrolls past its progress.
    """
    shell = get_ipython()
    if shell is not None:
        show_figures_so(shell)
        shell.set_custom_exc((GgoLabError,), _one_sentence)
        shell.register_magic_function(_solution, "cell", "solution")
        _Clock.of(shell)
    use_style()


def _one_sentence(
    shell: InteractiveShell,
    kind: type[BaseException],
    error: BaseException,
    trace: TracebackType,
    tb_offset: int | None = None,
) -> None:
    shell.showtraceback((kind, error, trace), exception_only=True)


def _solution(line: str, cell: str) -> None:
    """Run a cell on copies of the notebook's names: it may read all of them and changes none."""
    shell = get_ipython()
    exec(compile(shell.transform_cell(cell), "<solution>", "exec"), dict(shell.user_ns))


class _Clock:
    """Says at the end of a long cell what it did and how long it took."""

    def __init__(self) -> None:
        self.begun = time.monotonic()

    @classmethod
    def of(cls, shell: InteractiveShell) -> None:
        """Watch a shell's cells; a shell is watched once, however often the setup cell is run."""
        if not any(isinstance(getattr(callback, "__self__", None), cls) for callback in _after_cells(shell)):
            clock = cls()
            shell.events.register("pre_run_cell", clock.begin)
            shell.events.register("post_run_cell", clock.end)

    def begin(self, info: object) -> None:
        """Note when a cell begins."""
        self.begun = time.monotonic()

    def end(self, result: object) -> None:
        """Print the line, where a cell that ran to its end took long."""
        seconds, cell = time.monotonic() - self.begun, getattr(getattr(result, "info", None), "raw_cell", None) or ""
        if seconds >= _LONG_SECONDS and getattr(result, "success", False):
            print(f"Done in {seconds:.0f} s{_what(cell)}.")


def _after_cells(shell: InteractiveShell) -> list[object]:
    return list(shell.events.callbacks["post_run_cell"])


def _what(cell: str) -> str:
    """Name the functions of this package that a cell calls and that may take long."""
    called = [name for name in dict.fromkeys(re.findall(r"\bgl\.([a-z]\w*)\(", cell)) if name not in _QUICK]
    return f": {', '.join(called)}" if called else ""
