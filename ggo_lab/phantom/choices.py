"""What a caller may choose about a phantom, checked: errors say what was given and what is possible."""

import operator
from collections.abc import Iterable
from numbers import Real

import numpy as np

from ggo_lab.errors import ChoiceError, check_choice, check_whole
from ggo_lab.tasks import GGO_SEVERITY

# Share of each grade, mild to critical, among the 460 training scans of arXiv:2303.16904 (132/123/166/39).
PAPER_GRADE_SHARES = (0.29, 0.27, 0.36, 0.08)
_EDGE_MARGIN = 0.02  # involvement drawn for a grade keeps this far from the band's edges
_LEAST_INVOLVEMENT = 0.03
_MOST_INVOLVEMENT = 0.95
_SMALLEST_SHAPE = (8, 32, 32)


def checked_shape(shape: Iterable[int]) -> tuple[int, int, int]:
    """Three counts of voxels, as plain ints."""
    try:
        checked = tuple(operator.index(n) for n in shape)
    except TypeError:
        checked = ()
    if len(checked) != 3 or any(n < least for n, least in zip(checked, _SMALLEST_SHAPE, strict=False)):
        raise ChoiceError(
            f"shape={shape!r} is not three counts of voxels (Z, Y, X) of at least {_SMALLEST_SHAPE}; "
            "the default is (64, 256, 256).",
            shape,
        )
    return checked


def checked_seed(name: str, seed: object) -> int:
    """A whole number from 0, as plain int."""
    return check_whole(name, seed)


def check_number(name: str, value: object, low: float, high: float, unit: str) -> None:
    """Raise ChoiceError unless value is None or a number from low to high."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= float(value) <= high:
        raise ChoiceError(
            f"{name}={value!r} is not a number from {low:g} to {high:g} {unit}; leave it out to have it drawn.", value
        )


def check_one(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise ChoiceError unless value is None or one of choices."""
    if value is not None:
        check_choice(name, value, choices)


def checked_names(name: str, value: str | Iterable[str] | None, choices: Iterable[str]) -> tuple[str, ...] | None:
    """A tuple of names, each one of choices; one name alone will do, and None is kept."""
    if value is None:
        return None
    names = (value,) if isinstance(value, str) else tuple(value)
    for one_name in names:
        check_choice(name, one_name, choices)
    return names


def choose_involvement(grade: int | str | None, involvement: float | None, rng: np.random.Generator) -> float:
    """The involvement asked for, or one drawn inside the grade's band; ChoiceError where the two contradict."""
    label = None if grade is None else _label_of(grade)
    if involvement is not None:
        if not isinstance(involvement, Real):
            raise ChoiceError(
                f"involvement={involvement!r} is not a number; give 0.3 for 30% of the lungs.", involvement
            )
        wanted = GGO_SEVERITY.label_from_involvement(float(involvement))
        if label is not None and wanted != label:
            found = "no lesion" if wanted is None else GGO_SEVERITY.names[wanted]
            raise ChoiceError(
                f"grade={grade!r} and involvement={involvement} contradict each other: that involvement is {found}. "
                "Give one of the two.",
                (grade, involvement),
            )
        return float(involvement)
    drawn = int(rng.choice(len(GGO_SEVERITY), p=PAPER_GRADE_SHARES))
    low, high = GGO_SEVERITY.band(drawn if label is None else label)
    return float(rng.uniform(max(low + _EDGE_MARGIN, _LEAST_INVOLVEMENT), min(high - _EDGE_MARGIN, _MOST_INVOLVEMENT)))


def _label_of(grade: int | str) -> int:
    try:
        return GGO_SEVERITY.label_of(grade)
    except ChoiceError:
        raise ChoiceError(
            f"grade={grade!r} is not known; give 1 (mild) to 4 (critical), a name, or leave it out.", grade
        ) from None
