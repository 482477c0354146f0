"""The one family of errors: each says what was found, what was expected and what to do."""

from collections.abc import Iterable


class GgoLabError(Exception):
    """Base of every error this package raises on purpose.

    Attributes:
        subject: the path or the value that the message is about, so that a program can act on it.
    """

    def __init__(self, message: str, subject: object = None):
        super().__init__(message)
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


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ChoiceError unless value is one of choices."""
    choices = list(choices)
    if value not in choices:
        listed = ", ".join(repr(choice) for choice in choices)
        raise ChoiceError(f"{name}={value!r} is not known; choose one of {listed}.", value)
