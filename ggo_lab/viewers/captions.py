"""What a SliceViewer says in words: where the slice is, and what a voxel holds."""

from collections.abc import Mapping

import numpy as np

from ggo_lab.rendering import PLANES
from ggo_lab.scan import PADDING_BELOW_HU, Scan

_BEGINS = ("above the lowest slice", "behind the front edge", "from the patient's right edge")


def where(scan: Scan, plane: str, index: int) -> str:
    """Say which slice this is, and how many mm from the first one."""
    axis = PLANES[plane][0]
    distance = index * scan.spacing[axis]
    return f"{plane} {index} of 0–{scan.shape[axis] - 1} · {distance:.0f} mm {_BEGINS[axis]}"


def reading(scan: Scan, masks: Mapping[str, np.ndarray], voxel: tuple[int, int, int], numbered: bool = False) -> str:
    """Say the HU of a voxel, its place in mm (and its indices, if `numbered`), and the masks it lies in."""
    hu = int(scan.hu[voxel])
    unit = "HU" if scan.is_hu else "(estimated HU)"
    value = f"{hu} {unit}" if hu >= PADDING_BELOW_HU else "outside the scanner's field"
    at = ", ".join(f"{axis} {n * step:.0f}" for axis, n, step in zip("zyx", voxel, scan.spacing, strict=True))
    inside = [name for name, mask in masks.items() if mask[voxel]]
    which = f", voxel {voxel}" if numbered else ""
    return f"{value} at {at} mm{which}" + (f" · in {', '.join(inside)}" if inside else "")
