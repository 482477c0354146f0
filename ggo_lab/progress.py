"""A bar of progress that leaves nothing behind, also in a notebook that is saved and opened again the next day."""

import sys
from typing import Any

from tqdm import tqdm


class _Bar(tqdm):
    """A bar that is taken away also where it was drawn before its delay was over, which tqdm forgets."""

    def display(self, *args: Any, **kwargs: Any) -> bool:
        self.delay = 0
        return bool(super().display(*args, **kwargs))


def bar(total: int, what: str, *, delay: float = 0, disable: bool = False, unit: str = "it") -> tqdm:
    """Return a bar of text, which is taken away when it is done.

    It is text in notebooks, too, not the widget of tqdm's own: a widget's output stays in the file, and where no kernel
    knows it any more JupyterLab writes "model not found" there.

    Args:
        total: how much there is to do.
        what: the bar's title.
        delay: seconds; what takes no longer shows nothing.
        disable: show nothing at all.
        unit: of what is counted.

    >>> with bar(3, "scans", delay=2) as done:
    ...     done.update(3)
    """
    # What goes to a notebook's stderr stands on red, as errors do.
    to = sys.stdout if _in_notebook() else sys.stderr
    return _Bar(None, what, total, unit=unit, delay=delay, leave=False, disable=disable, file=to)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython() if ipython else None, "kernel")
