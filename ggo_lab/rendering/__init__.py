"""A scan as it is looked at: planes, overlays, curves; a still picture, and what the viewer in the browser is sent."""

from ggo_lab.rendering.curves import Curve, Line, check_curves, lesion_places, opening_slice, sought
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
from ggo_lab.rendering.packing import about, pack_slice, packed_slice, scan_header
from ggo_lab.rendering.planes import PLANES, View, heat_slice, picture_shape, slice_of, slice_spacing

__all__ = [
    "HEAT_COLD",
    "HEAT_HOT",
    "PLANES",
    "Curve",
    "FrameRenderer",
    "Heat",
    "Line",
    "View",
    "about",
    "check_curves",
    "check_heat",
    "check_marks",
    "check_masks",
    "encode",
    "heat_levels",
    "heat_slice",
    "lesion_places",
    "lesion_share",
    "mask_colors",
    "opening_slice",
    "pack_slice",
    "packed_slice",
    "picture_shape",
    "rgb_of",
    "scan_header",
    "slice_of",
    "slice_spacing",
    "sought",
]
