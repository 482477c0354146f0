"""The four severity grades: their numbers, names, colours and bands of involvement, once for the whole package."""

from enum import IntEnum

from ggo_lab.errors import ChoiceError


class Grade(IntEnum):
    """Severity of ground-glass opacity, numbered as in COV19-CT-DB and MosMedData."""

    MILD = 1
    MODERATE = 2
    SEVERE = 3
    CRITICAL = 4

    @property
    def index(self) -> int:
        """Row or column of this grade inside a network's four outputs: grade - 1."""
        return self.value - 1

    @property
    def label(self) -> str:
        """The name in lower case, as shown to people."""
        return self.name.lower()

    @property
    def color(self) -> str:
        """One colour per grade, the same in every figure; safe for the colour-blind (Okabe & Ito 2008)."""
        return _COLORS[self.index]

    @property
    def band(self) -> tuple[float, float]:
        """Lower and upper involvement of this grade, as fractions of the lung volume."""
        edges = (0.0, *BAND_EDGES, 1.0)
        return edges[self.index], edges[self.index + 1]


_COLORS = ("#0072B2", "#009E73", "#E69F00", "#D55E00")

# Involvement (lesion volume / lung volume) at which one grade ends and the next begins: the bands of
# MosMedData (Morozov et al. 2020) and of COV19-CT-DB.
BAND_EDGES = (0.25, 0.50, 0.75)

GRADE_NAMES = tuple(grade.label for grade in Grade)


def grade_of(involvement: float) -> Grade | None:
    """Give the grade of an involvement; None for a scan without any lesion.

    Args:
        involvement: lesion volume / lung volume, 0..1. At an edge the lower grade holds for 25% and 50%, and the
            higher for 75%, as the data sets write it: <=25%, 25-50%, 50-75%, >=75%.

    >>> grade_of(0.25), grade_of(0.26), grade_of(0.75), grade_of(0.0)
    (<Grade.MILD: 1>, <Grade.MODERATE: 2>, <Grade.CRITICAL: 4>, None)
    """
    if not 0.0 <= involvement <= 1.0:
        raise ChoiceError(
            f"involvement={involvement!r} is not a fraction of the lungs; give a value from 0 to 1 (0.3 for 30%).",
            involvement,
        )
    if involvement == 0.0:
        return None
    mild_to_moderate, moderate_to_severe, severe_to_critical = BAND_EDGES
    if involvement <= mild_to_moderate:
        return Grade.MILD
    if involvement <= moderate_to_severe:
        return Grade.MODERATE
    if involvement < severe_to_critical:
        return Grade.SEVERE
    return Grade.CRITICAL
