"""Checks of exercises: an answer is right, or a sentence says what is wrong with it."""

from collections.abc import Callable
from functools import wraps

RIGHT = "Right."
_SHORTEST_TEXT = 40  # characters; less is no sentence


def exercise(wrong: Callable[[object], str | None]) -> Callable[[object], str]:
    """Make the check of an exercise from a function that says what is wrong with an answer, or None.

    An answer not yet given (`...`) does not reach the function, and one that makes it fail is told so: a learner
    should never meet the traceback of a check.

    >>> @exercise
    ... def check(answer):
    ...     if answer != 4:
    ...         return "Count the grades again."
    >>> check(...), check(5), check(4)
    ('Write your answer in place of the dots.', 'Count the grades again.', 'Right.')
    """

    @wraps(wrong)
    def check(answer: object) -> str:
        if answer is ...:
            return "Write your answer in place of the dots."
        try:
            said = wrong(answer)
        except Exception as error:
            return f"The check could not use this answer. {type(error).__name__}: {error}"
        return RIGHT if said is None else said

    return check


@exercise
def check_text(answer: object) -> str | None:
    """Check the answer to an open question, which has no single right one: it must be a sentence or two."""
    if not isinstance(answer, str) or len(answer.strip()) < _SHORTEST_TEXT:
        return "Write a sentence or two, in quotation marks."
    return None
