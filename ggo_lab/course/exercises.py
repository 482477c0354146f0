"""Checks of exercises: an answer is right, or a sentence says what is wrong with it.

A learner may write an answer in any form that a person would accept, and never meets the traceback of a check.
"""

import html
import math
import re
from collections.abc import Callable
from functools import wraps
from numbers import Real
from typing import Any

import numpy as np

from ggo_lab.errors import ChoiceError
from ggo_lab.tasks import Task

_FEWEST_LETTERS, _FEWEST_WORDS = 40, 6  # less is no sentence
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")

Gives = Any
Wrong = Callable[[object], str | None]


class Verdict(str):
    """What a check says: a sentence, with a sign and a colour where it is shown."""

    sign: str
    colour: str

    def __new__(cls, text: str, sign: str, colour: str) -> "Verdict":
        """Make the sentence; the colour is CSS."""
        verdict = super().__new__(cls, text)
        verdict.sign, verdict.colour = sign, colour
        return verdict

    def __repr__(self) -> str:
        return f"{self.sign} {self}"

    def _repr_html_(self) -> str:
        style = f"border-left: 4px solid {self.colour}; padding-left: 0.6em"
        return f'<div style="{style}"><b>{self.sign}</b> {html.escape(self)}</div>'


# Blue and orange, which colour-blind people tell apart, and a sign for everybody.
RIGHT = Verdict("Right.", "✓", "#0072b2")
NOTED = Verdict(
    "Noted. There is no single right answer: compare yours with the solution, or with a neighbour's.", "✎", "#0072b2"
)
_NOT_YET = Verdict("Write your answer in place of the dots.", "…", "#888888")


class _UnfitError(Exception):
    """An answer of a kind that cannot be checked; the message is for the learner."""


def exercise(wrong: Wrong | None = None, *, gives: Gives = None) -> Callable:
    """Make the check of an exercise from a function that says what is wrong with an answer, or None.

    An answer not yet given (`...`) does not reach the function, and none that is of another kind than the exercise
    asks for: the learner is told in words which kind is needed.

    Args:
        wrong: takes the answer; returns a sentence, or None if the answer is right.
        gives: the kind of answer, which `wrong` is handed in one form, however it was written: `float` (also as text),
            `int` (also 12.0), `bool` (also "yes"), `str`, `set`, `callable` (a function), `numpy.ndarray` (of
            numbers), a tuple of kinds, a Task (a label; written as its name or number), or a class. None: anything.

    >>> @exercise(gives=int)
    ... def check(answer):
    ...     if answer != 4:
    ...         return "Count the grades again."
    >>> check(...), check(5), check("4")
    (… Write your answer in place of the dots., ✗ Count the grades again., ✓ Right.)
    >>> check([1, 2, 3, 4])
    ✗ Give one number; this is a list of 4.
    """
    if wrong is None:
        return lambda wrong: exercise(wrong, gives=gives)

    @wraps(wrong)
    def check(answer: object) -> Verdict:
        if answer is ...:
            return _NOT_YET
        try:
            said = wrong(_taken(answer, gives))
            if said is not None and isinstance(gives, Task):
                said = _or_meant_label(answer, gives, wrong) or said
        except _UnfitError as unfit:
            said = str(unfit)
        except Exception:  # whatever an answer of no foreseen kind does to the check
            what = "what your function returns" if callable(answer) else f"this answer, {_described(answer)}"
            said = f"The check could not use {what}. Look again at what the exercise asks for."
        return RIGHT if said is None else Verdict(said, "✗", "#d55e00")

    return check


def check_text(answer: object) -> Verdict:
    """Check the answer to an open question, which has no single right one: it must be a sentence or two."""
    if answer is ...:
        return _NOT_YET
    words = set(re.findall(r"\w+", answer.lower())) if isinstance(answer, str) else set()
    if len(words) < _FEWEST_WORDS or len("".join(words)) < _FEWEST_LETTERS // 2 or len(str(answer)) < _FEWEST_LETTERS:
        return Verdict("Write a sentence or two, in quotation marks.", "✗", "#d55e00")
    return NOTED


def _taken(answer: object, gives: Gives) -> object:
    """Bring an answer into the form that the check expects.

    Raises:
        _UnfitError: it is of another kind.
    """
    if gives is None:
        return answer
    if isinstance(gives, Task):
        return _label(answer, gives)
    if isinstance(gives, tuple):
        return _several(answer, gives)
    if gives is callable:
        return _function(answer)
    known = {float: _number, int: _whole_number, bool: _yes_or_no, str: _text, set: _set, np.ndarray: _array}
    if gives in known:
        return known[gives](answer)
    if not isinstance(answer, gives):
        raise _UnfitError(f"Give a {gives.__name__}; this is {_described(answer)}.")
    return answer


def _number(answer: object) -> float | int:
    if isinstance(answer, bool | np.bool_):
        raise _UnfitError(f"Give one number, not {answer}.")
    if isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, int) for part in answer):
        raise _UnfitError(f"Write a decimal point, not a comma: {answer[0]}.{answer[1]}.")
    if isinstance(answer, str):
        return _number_in(answer.strip())
    if isinstance(answer, Real):
        value = answer
    else:
        try:
            array = np.asarray(answer.detach() if hasattr(answer, "detach") else answer)
        except Exception:
            array = np.empty(0, object)
        if array.size != 1 or array.dtype.kind not in "iuf":
            raise _UnfitError(f"Give one number; this is {_described(answer)}.")
        value = array.item()
    if not math.isfinite(value):
        raise _UnfitError(f"This is {value}, no number: was something divided by zero?")
    number = float(value)
    return round(number) if number.is_integer() else number


def _number_in(text: str) -> float | int:
    if re.fullmatch(r"[-+]?\d+,\d+", text):
        raise _UnfitError(f"Write a decimal point, not a comma: {text.replace(',', '.')}.")
    if re.fullmatch(r"\d+(\.\d+)?\s*%", text):
        raise _UnfitError(f"Give a share of 1: {float(text.rstrip('% ')) / 100:g} instead of {text}.")
    try:
        return _number(float(text))
    except ValueError:
        raise _UnfitError(f"Give one number; this is the text {text!r}.") from None


def _whole_number(answer: object) -> int:
    number = _number(answer)
    if not isinstance(number, int):
        raise _UnfitError(f"Give a whole number; this is {number:g}.")
    return number


def _yes_or_no(answer: object) -> bool:
    text = str(answer).strip().lower()
    if text not in _YES + _NO:
        raise _UnfitError("Answer with True or False.")
    return text in _YES


def _text(answer: object) -> str:
    if not isinstance(answer, str):
        raise _UnfitError(f"Give a name, in quotation marks; this is {_described(answer)}.")
    return answer.strip()


def _set(answer: object) -> set:
    if not isinstance(answer, set | frozenset | list | tuple):
        raise _UnfitError(f"Give a set, such as {{'one', 'two'}}; this is {_described(answer)}.")
    return set(answer)


def _array(answer: object) -> np.ndarray:
    try:
        array = np.asarray(answer)
    except Exception:
        array = np.empty(0, object)
    if array.ndim == 0 or array.dtype.kind not in "biuf":
        raise _UnfitError(f"Give an array of numbers; this is {_described(answer)}.")
    return array


def _several(answer: object, kinds: tuple) -> tuple:
    if isinstance(answer, str) or not hasattr(answer, "__len__") or len(answer) != len(kinds):
        raise _UnfitError(f"Give {len(kinds)} values, as in (1, 2); this is {_described(answer)}.")
    return tuple(_taken(part, kind) for part, kind in zip(answer, kinds, strict=True))  # type: ignore[call-overload]


def _function(answer: object) -> Callable:
    if not callable(answer):
        raise _UnfitError(f"Give a function: its name, without brackets. This is {_described(answer)}.")

    def called(*arguments: object) -> object:
        try:
            return answer(*arguments)
        except Exception as error:
            raise _UnfitError(f"Your function stops with {type(error).__name__}: {error}") from error

    return called


def _label(answer: object, task: Task) -> int:
    try:
        return task.label_of(answer)
    except ChoiceError as error:
        if isinstance(answer, str | Real | np.generic):
            raise _UnfitError(str(error)) from None
        raise _UnfitError(f"Give one {task.noun}, by name or number; this is {_described(answer)}.") from None


def _or_meant_label(answer: object, task: Task, wrong: Wrong) -> str | None:
    """Say so where a wrong number would be right if it were meant as a label, which counts from 0."""
    if isinstance(answer, Real) and answer in range(len(task)) and wrong(round(float(answer))) is None:
        number, name = task.numbers[task.label_of(answer)], task.names[task.label_of(answer)]
        return f"{task.noun.capitalize()} {number} is {name}. If you meant the label {answer}, write its name."
    return None


def _described(answer: object) -> str:
    """Say what an answer is, in words."""
    if answer is None:
        return "None, nothing (does a function of yours lack its return?)"
    if isinstance(answer, str):
        return f"the text {answer[:40]!r}"
    if callable(answer):
        return "a function, not what it returns"
    if hasattr(answer, "shape"):
        return f"an array of shape {tuple(answer.shape)}"
    kind = type(answer).__name__
    if isinstance(answer, list | tuple | set | dict):
        return f"a {kind} of {len(answer)}"
    return f"{answer}"[:40] if isinstance(answer, Real) else f"a {kind}"
