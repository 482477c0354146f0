"""What is graded: the classes of a data set, their names, colours and numbers, once for the whole package."""

import math
import numbers as kinds
import re
from dataclasses import dataclass, field
from itertools import pairwise

from ggo_lab.errors import ChoiceError, plain

# Safe for the colour-blind (Okabe & Ito 2008), in the order in which a task that names no colours takes them.
_PALETTE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
_MOST_CLASSES = 100  # a task in a model file with more is damaged, or no task
_MOST_LETTERS = 60  # of a name, so that axes and tables stay readable
# Columns of the tables that also have a column for each class, or names that stand for no class.
_TAKEN = ("name", "patient", "split", "label", "predicted", "unknown", "slices")
_YES, _NO = ("yes", "y", "true"), ("no", "n", "false")
# Of two edges that should be one; far above the rounding of decimal fractions.
_SAME_EDGE = 1e-9


@dataclass(frozen=True)
class Task:
    """What is graded: K classes, whose labels inside the package are 0..K-1.

    Attributes:
        names: of the classes, in the order of their labels, as people read them.
        colours: one "#RRGGBB" a class, the same in every figure; chosen here if none are given. Two tasks that differ
            in colours only are equal.
        ordered: whether each class is more of the same than the one before, as severity is and a diagnosis is not.
            Only then do measures of distance (weighted kappa, how many classes off) and CORN have a meaning.
        bands: lower and upper involvement (lesion volume / lung volume, 0..1) of each class, or None where
            involvement does not decide. They follow each other up to 1. (0, 0) is the class of those without a lesion.
        numbers: how the data set itself counts the classes (1..4 in COV19-CT-DB); 0..K-1 if none are given.

    Raises:
        ChoiceError: fewer than two classes, names that are empty or alike, or parts that do not fit together.

    >>> GGO_SEVERITY.names[GGO_SEVERITY.label_of(2)], GGO_SEVERITY.label_from_involvement(0.3), len(GGO_SEVERITY)
    ('moderate', 1, 4)
    """

    names: tuple[str, ...]
    colours: tuple[str, ...] = field(default=(), compare=False)
    ordered: bool = False
    bands: tuple[tuple[float, float], ...] | None = None
    numbers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", _checked_names(self.names))
        object.__setattr__(self, "colours", _checked_colours(self.colours, len(self)))
        if not isinstance(self.ordered, bool):
            raise ChoiceError(f"ordered={self.ordered!r} of a task must be True or False.", self.ordered)
        object.__setattr__(self, "bands", _checked_bands(self.bands, len(self)))
        object.__setattr__(self, "numbers", _checked_numbers(self.numbers, self.names))

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"Task({', '.join(self.names)}{'; ordered' if self.ordered else ''})"

    @property
    def noun(self) -> str:
        """What people call one class of it: "grade" where classes are ordered, else "class"."""
        return "grade" if self.ordered else "class"

    @property
    def nouns(self) -> str:
        """The plural of `noun`."""
        return "grades" if self.ordered else "classes"

    @property
    def healthy(self) -> int | None:
        """The label of those without a lesion; None where the task has none for them."""
        return self.label_from_involvement(0.0) if self.bands else None

    def band(self, label: int) -> tuple[float, float]:
        """Return the lower and upper involvement of a class.

        Raises:
            ChoiceError: a task without bands.
        """
        return self._bands[label]

    @property
    def _bands(self) -> tuple[tuple[float, float], ...]:
        if self.bands is None:
            raise ChoiceError(
                f"Involvement does not decide between {', '.join(self.names)}: this task has no bands.", self
            )
        return self.bands

    def labels_from(self, finer: "Task") -> tuple[int | None, ...]:
        """Return the label that each class of a finer task has here: MosMedData's CT-2 is moderate.

        Args:
            finer: a task whose bands lie inside this one's.

        Returns:
            A label for each label of `finer`; None where this task has no class for it, such as those without a lesion.

        Raises:
            ChoiceError: a task without bands, or bands that cross.

        >>> GGO_SEVERITY.labels_from(MOSMED)
        (None, 0, 1, 2, 3)
        """
        found: list[int | None] = []
        for name, (low, high) in zip(finer.names, finer._bands, strict=True):
            label = self.label_from_involvement((low + high) / 2)
            if label is not None and not (self.band(label)[0] <= low and high <= self.band(label)[1]):
                raise ChoiceError(
                    f"{name} ({low:.0%} to {high:.0%} of the lungs) belongs to more than one {self.noun} of "
                    f"{', '.join(self.names)}.",
                    name,
                )
            found.append(label)
        return tuple(found)

    def label_from_involvement(self, involvement: float) -> int | None:
        """Return the label of an involvement.

        An edge between two bands belongs to the lower one; the highest band begins at its edge. The data sets write it
        so: <=25%, 25-50%, 50-75%, >=75%.

        Args:
            involvement: lesion volume / lung volume, 0..1.

        Returns:
            The label, or None for 0 where the task has no class of those without a lesion.

        Raises:
            ChoiceError: a value that is no fraction, or a task without bands.

        >>> [GGO_SEVERITY.label_from_involvement(x) for x in (0.0, 0.25, 0.26, 0.75)]
        [None, 0, 1, 3]
        >>> MOSMED.names[MOSMED.label_from_involvement(0.0)]
        'CT-0'
        """
        bands = self._bands
        if not 0.0 <= involvement <= 1.0:
            raise ChoiceError(
                f"involvement={involvement!r} is not a fraction of the lungs; give a value from 0 to 1 (0.3 for 30%).",
                involvement,
            )
        if involvement == 0.0:
            return bands.index((0.0, 0.0)) if (0.0, 0.0) in bands else None
        if involvement >= bands[-1][0]:
            return len(self) - 1
        return next(label for label, (_, high) in enumerate(bands) if involvement <= high)

    def label_of(self, written: object) -> int:
        """Return the label of a class as people write it.

        Args:
            written: a name (case, spaces and hyphens do not matter) or the data set's own number, also as text or as
                the float that a spreadsheet makes of it; for two classes also yes and no, or True and False.

        Raises:
            ChoiceError: anything else.

        >>> [GGO_SEVERITY.label_of(written) for written in ("Moderate", 2, "2", 2.0)]
        [1, 1, 1, 1]
        """
        text = str(written).strip() if isinstance(written, str | kinds.Real) or hasattr(written, "dtype") else ""
        word = _plain(text)
        if word in (names := [_plain(name) for name in self.names]):
            return names.index(word)
        if len(self) == 2 and word in (*_YES, *_NO):
            return self.numbers.index(max(self.numbers) if word in _YES else min(self.numbers))
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if number in self.numbers:
            return self.numbers.index(int(number))
        listed = ", ".join(f"{number} ({name})" for number, name in zip(self.numbers, self.names, strict=True))
        raise ChoiceError(f"{written!r} is no {self.noun} of this task; it has {listed}.", written)

    def to_dict(self) -> dict:
        """Return plain values, for JSON."""
        return {
            "names": list(self.names),
            "colours": list(self.colours),
            "ordered": self.ordered,
            "bands": None if self.bands is None else [list(band) for band in self.bands],
            "numbers": list(self.numbers),
        }

    @classmethod
    def from_dict(cls, values: object) -> "Task":
        """Return the task that to_dict wrote, trusting nothing: files come from anywhere.

        Raises:
            ChoiceError: anything that to_dict does not write.
        """
        if not isinstance(values, dict) or set(values) != {"names", "colours", "ordered", "bands", "numbers"}:
            raise ChoiceError("This is no task: it needs names, colours, ordered, bands and numbers, and no more.")
        return cls(values["names"], values["colours"], values["ordered"], values["bands"], values["numbers"])


def _plain(text: str) -> str:
    """Return a name as it is compared: lower case, letters and digits only."""
    return re.sub(r"[\W_]+", "", text.casefold())


def _sequence(what: str, value: object) -> tuple:
    if not isinstance(value, list | tuple):
        raise ChoiceError(f"{what}={value!r} of a task must be a tuple, one entry a class.", value)
    return tuple(value)


def _checked_names(given: object) -> tuple[str, ...]:
    names = tuple(map(plain, _sequence("names", given)))
    if not 2 <= len(names) <= _MOST_CLASSES:
        raise ChoiceError(f"A task has 2 to {_MOST_CLASSES} classes; {len(names)} names were given.", given)
    for name in names:
        if not isinstance(name, str) or not _plain(name) or len(name) > _MOST_LETTERS or not name.isprintable():
            raise ChoiceError(
                f"{str(name)[:80]!r} cannot name a class: give text of 1 to {_MOST_LETTERS} letters or digits.", name
            )
        if _plain(name) in _TAKEN:
            raise ChoiceError(f"{name!r} cannot name a class: tables have a column of that name.", name)
    names = tuple(name.strip() for name in names)
    if len({_plain(name) for name in names}) < len(names):
        raise ChoiceError(f"Names of a task's classes must differ, in more than case and hyphens: {names}.", names)
    return names


def _checked_colours(given: object, classes: int) -> tuple[str, ...]:
    colours = _sequence("colours", given)
    if not colours and classes <= len(_PALETTE):
        return _PALETTE[:classes]
    wrong = [c for c in colours if not isinstance(c, str) or not re.fullmatch(r"#[0-9A-Fa-f]{6}", c)]
    if wrong or len(colours) != classes:
        raise ChoiceError(
            f"A task of {classes} classes needs {classes} colours such as '#0072B2'; found {list(colours)[:10]!r}.",
            colours,
        )
    return colours


def _checked_bands(given: object, classes: int) -> tuple[tuple[float, float], ...] | None:
    if given is None:
        return None
    bands = tuple(tuple(map(plain, _sequence("bands", band))) for band in _sequence("bands", given))
    numeric = all(
        len(band) == 2 and all(isinstance(edge, int | float) and not isinstance(edge, bool) for edge in band)
        for band in bands
    )
    bands = tuple(tuple(map(float, band)) for band in bands) if numeric else ()
    # nan compares as false everywhere, so it is refused with the rest.
    rising = [low < high for low, high in bands]
    joined = [abs(low - high) < _SAME_EDGE for (_, high), (low, _) in pairwise(bands)]
    fits = bool(bands) and bands[0][0] == 0 and abs(bands[-1][1] - 1) < _SAME_EDGE and all(joined)
    if not fits or len(bands) != classes or not all(rising[1:]) or not (rising[0] or bands[0] == (0.0, 0.0)):
        raise ChoiceError(
            f"bands={given!r} must be {classes} pairs (low, high) of involvement that follow each other from 0 to 1, "
            "such as (0, 0.25), (0.25, 0.5), (0.5, 1); the first may be (0, 0), no lesion.",
            given,
        )
    return bands


def _checked_numbers(given: object, names: tuple[str, ...]) -> tuple[int, ...]:
    numbers = tuple(map(plain, _sequence("numbers", given))) or tuple(range(len(names)))
    whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
    if not whole or len(numbers) != len(names) or len(set(numbers)) < len(numbers):
        raise ChoiceError(f"numbers={given!r} must be {len(names)} whole numbers that differ, one a class.", given)
    for name, number in zip(names, numbers, strict=True):
        if re.fullmatch(r"[+-]?\d+(\.\d*)?", name) and float(name) != number:
            raise ChoiceError(
                f"The class named {name!r} has the number {number}: which one is meant by {name}? Rename the class, or "
                "change its number.",
                name,
            )
    return numbers


# The paper's four grades (arXiv:2303.16904), with the bands of COV19-CT-DB and of MosMedData (Morozov et al. 2020).
GGO_SEVERITY = Task(
    names=("mild", "moderate", "severe", "critical"),
    colours=("#0072B2", "#009E73", "#E69F00", "#D55E00"),
    ordered=True,
    bands=((0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)),
    numbers=(1, 2, 3, 4),
)
# MosMedData COVID19_1110: CT-0 is a scan without signs of disease (Morozov et al. 2020, arXiv:2005.06465).
MOSMED = Task(
    names=("CT-0", "CT-1", "CT-2", "CT-3", "CT-4"),
    colours=("#56B4E9", *GGO_SEVERITY.colours),
    ordered=True,
    bands=((0.0, 0.0), (0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)),
    numbers=(0, 1, 2, 3, 4),
)
# Any lesion or none: the detection challenge of COV19-CT-DB, whose folders are called so.
COVID_DETECTION = Task(names=("non-covid", "covid"), colours=("#0072B2", "#D55E00"), bands=((0.0, 0.0), (0.0, 1.0)))
# COVID-CT-MD: COVID-19, community-acquired pneumonia (CAP) or neither (Afshar et al. 2021). No class is more than
# another, and involvement tells no cause.
DIAGNOSIS = Task(names=("normal", "CAP", "COVID-19"), colours=("#0072B2", "#E69F00", "#D55E00"))
# STOIC2021: intubation or death within a month, an outcome that involvement does not decide.
SEVERE_OUTCOME = Task(names=("not severe", "severe"), colours=("#0072B2", "#D55E00"))
