"""Find the lungs by their air, tell right from left, and measure how much of them is hazy."""

from ggo_lab.lungs.involvement import GgoFraction, ggo_fraction
from ggo_lab.lungs.segment import segment_lungs
from ggo_lab.lungs.sides import split_lungs

__all__ = ["GgoFraction", "ggo_fraction", "segment_lungs", "split_lungs"]
