"""Find the lungs, tell right from left, measure how much of them is hazy, and say what is doubtful about it."""

from ggo_lab.lungs.find import Lungs, LungsWarning, find_lungs, segment_lungs
from ggo_lab.lungs.involvement import GgoFraction, ggo_fraction
from ggo_lab.lungs.sides import split_lungs

__all__ = ["GgoFraction", "Lungs", "LungsWarning", "find_lungs", "ggo_fraction", "segment_lungs", "split_lungs"]
