"""One frame of a scan as pixels: planes, windows, overlays, letters, scale bar; and the curves that run under it."""

from ggo_lab.rendering.frames import FrameRenderer, encode
from ggo_lab.rendering.overlays import (
    HEAT_COLD,
    HEAT_HOT,
    Heat,
    check_heat,
    check_marks,
    check_masks,
    heat_levels,
    lesion_share,
    mask_colors,
    rgb_of,
)
from ggo_lab.rendering.planes import PLANES, View, heat_slice, picture_shape, slice_of, slice_spacing
from ggo_lab.rendering.strip import Curve, CurveStrip, check_curves, say_curve

__all__ = [
    "HEAT_COLD",
    "HEAT_HOT",
    "PLANES",
    "Curve",
    "CurveStrip",
    "FrameRenderer",
    "Heat",
    "View",
    "check_curves",
    "check_heat",
    "check_marks",
    "check_masks",
    "encode",
    "heat_levels",
    "heat_slice",
    "lesion_share",
    "mask_colors",
    "picture_shape",
    "rgb_of",
    "say_curve",
    "slice_of",
    "slice_spacing",
]
