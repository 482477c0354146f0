"""From a scan to the one small image a 2-D network sees, and from a cohort to an ImageSet, cached on disk."""

from ggo_lab.images.caching import prepare
from ggo_lab.images.image_set import ImageSet, image_set_of
from ggo_lab.images.recipe import Recipe, choose_slices, image_to_scan_grid, scan_to_image

__all__ = [
    "ImageSet",
    "Recipe",
    "choose_slices",
    "image_set_of",
    "image_to_scan_grid",
    "prepare",
    "scan_to_image",
]
