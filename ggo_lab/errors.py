"""The one family of errors: each says what was found, what was expected and what to do."""

import math
from collections.abc import Iterable
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, TypeVar

Choice = TypeVar("Choice")
_LONGEST = 200  # characters of a wrong value that a message repeats
_NO_SINGLE_VALUE = object()


def printable(text: str) -> str:
    """Return a text of a file, or its name, as one that can be printed and stored, with \ufffd for what cannot.

    Names of files may hold bytes that are no UTF-8, which Python keeps as surrogates, and control characters, which a
    terminal obeys.
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def few(names: Iterable[object]) -> str:
    """Return the first names of a list for a sentence: a damaged table may have thousands, of any length."""
    texts = [str(name) for name in names]
    shown = ", ".join(text if len(text) <= 40 else f"{text[:40]}..." for text in texts[:12])
    return f"{shown} and {len(texts) - 12} more" if len(texts) > 12 else shown or "none"


class GgoLabError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        subject: the path or the value that the message is about, so that a program can act on it.
    """

    def __init__(self, message: str, subject: object = None):
        """Keep the message as one line that can be printed: names from files may hold anything, line breaks too."""
        super().__init__(printable(message))
        self.subject = subject

    def __reduce__(self) -> tuple[type["GgoLabError"], tuple[str, object]]:
        # joblib sends errors between processes; the default would lose `subject`.
        return type(self), (str(self), self.subject)


class ScanError(GgoLabError):
    """A file, folder or array that cannot be used as a CT scan."""


class CohortError(GgoLabError):
    """A table of scans that cannot be trusted as it stands: unknown columns, leaking splits, nothing to read."""


class ModelError(GgoLabError):
    """A model or model file that does not fit: unknown backbone, damaged file, wrong image shape."""


class ChoiceError(GgoLabError, ValueError):
    """An argument outside its allowed values."""


def check_choice(name: str, value: object, choices: Iterable[Choice]) -> Choice:
    """Return the one of choices that a value is equal to, so that numpy's become Python's own.

    Raises:
        ChoiceError: there is none.
    """
    choices, given = list(choices), plain(value)
    try:
        return choices[choices.index(given)]
    except (TypeError, ValueError):  # TypeError: a missing value of pandas, which is neither equal nor unequal
        listed = ", ".join(repr(choice) for choice in choices)
        raise ChoiceError(f"{name}={shown(value)} is not known; choose one of {listed}.", value) from None


def check_whole(name: str, value: object, least: int = 0, most: int = 2**63 - 1) -> int:
    """Return a whole number as Python's own, whoever made it.

    Args:
        name: of the argument, for the message.
        value: as it was given: an int, or one of numpy, torch or pandas.
        least: the smallest that is allowed.
        most: the largest.

    Raises:
        ChoiceError: another kind of value, or one out of range.
    """
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, Integral) or not least <= int(number) <= most:
        to = f"to {most}" if most < 2**63 - 1 else "on"
        raise ChoiceError(f"{name}={shown(value)}: give a whole number from {least} {to}.", value)
    return int(number)


def plain(value: Any) -> Any:
    """Return a single number or word as Python's own; numpy, torch and pandas hand out theirs.

    What holds several values, or none, becomes an object that no setting takes.
    """
    if isinstance(value, str):
        return str(value)
    if not hasattr(value, "dtype"):
        return value
    try:
        if value.ndim or getattr(value, "mask", False):
            return _NO_SINGLE_VALUE
        value = value.item()
        return float(value) if hasattr(value, "dtype") else value  # numpy's longest numbers give themselves
    except (AttributeError, RuntimeError, TypeError):  # such as a tensor without content
        return _NO_SINGLE_VALUE


def as_number(value: object) -> float:
    """Return a number as Python's own float, whoever made it; nan for what is none."""
    number = plain(value)
    if isinstance(number, bool) or not isinstance(number, Real | Decimal):
        return math.nan
    try:
        return float(number)
    except (OverflowError, ValueError):  # too large, or a Decimal that signals that it is none
        return math.nan


def shown(value: object) -> str:
    """Return a wrong value as a message repeats it: not too long, and never an error of its own."""
    try:
        text = repr(value)
    except Exception:  # such as of a number with more digits than Python writes out
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
