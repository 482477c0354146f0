"""From a scan to the one small image a 2-D network sees, and from a cohort to an ImageSet, cached on disk."""

from ggo_lab.images.caching import prepare
from ggo_lab.images.cut import Cut, Planes, Square
from ggo_lab.images.image_set import ImageSet, image_set_of
from ggo_lab.images.recipe import Recipe

__all__ = ["Cut", "ImageSet", "Planes", "Recipe", "Square", "image_set_of", "prepare"]
