"""A scan in the form that the viewer in the browser takes: a header, and slices that are sent when they are needed."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from isal import isal_zlib

from ggo_lab.rendering.curves import Line, sought
from ggo_lab.rendering.overlays import HEAT_COLD, HEAT_HOT, Heat, heat_levels, mask_colors
from ggo_lab.scan import WINDOWS, Scan


def pack_slice(hu: np.ndarray, masks: Sequence[np.ndarray], heat: np.ndarray | None, small: bool = False) -> bytes:
    """Pack one slice; unpackSlice in assets/viewer/volume.js undoes it.

    Each voxel is coded by its difference to the mean of its left and upper neighbours, zigzag; low and high bytes stand
    apart, for the high ones are nearly all 0 and vanish in the deflate stream.

    Args:
        hu: int16 (Y, X).
        masks: bool (Y, X), one bit a voxel in the stream.
        heat: 0..1, float (Y, X), or None.
        small: take longer for a smaller result.

    Returns:
        A zlib stream.
    """
    value = hu.astype(np.int32)
    guess = np.zeros_like(value)
    guess[1:, 1:] = (value[1:, :-1] + value[:-1, 1:]) >> 1
    guess[0, 1:] = value[0, :-1]
    guess[1:, 0] = value[:-1, 0]
    rest = (value - guess).astype(np.int16)  # wraps around, as does the Int16Array that takes it back
    zigzag = ((rest << 1) ^ (rest >> 15)).view(np.uint16)
    parts = [(zigzag & 255).astype(np.uint8).tobytes(), (zigzag >> 8).astype(np.uint8).tobytes()]
    parts += [np.packbits(mask).tobytes() for mask in masks]
    if heat is not None:
        parts.append(heat_levels(heat).tobytes())
    return zlib.compress(b"".join(parts), 9) if small else isal_zlib.compress(b"".join(parts), 1)


def packed_slice(
    scan: Scan, masks: Mapping[str, np.ndarray], heat: Heat | None, index: int, small: bool = False
) -> bytes:
    """Pack axial slice `index` of a scan with what lies over it."""
    warm = None if heat is None else heat.get(index) if isinstance(heat, Mapping) else heat[index]
    return pack_slice(scan.hu[index], [mask[index] for mask in masks.values()], warm, small)


def scan_header(
    scan: Scan,
    masks: Mapping[str, np.ndarray],
    heat: Heat | None,
    curves: Sequence[Line],
    marks: Sequence[int],
    step: int = 1,
) -> dict[str, object]:
    """Return what the viewer needs before any slice: plain values that JSON can hold; volume.js says what they are."""
    colors = mask_colors(list(masks))
    return {
        "name": scan.name,
        "about": about(scan),
        "shape": list(scan.shape),
        "spacing": [float(distance) for distance in scan.spacing],
        "isHu": scan.is_hu,
        "step": step,
        "masks": [
            {"name": name, "color": colors[name], "ml": round(np.count_nonzero(mask) * scan.voxel_ml, 3)}
            for name, mask in masks.items()
        ],
        "lesions": sought(masks) not in (None, "lungs"),
        "heat": heat is not None,
        "heatEnds": [list(HEAT_COLD), list(HEAT_HOT)],
        "windows": {name: list(grey) for name, grey in WINDOWS.items()},
        "curves": [line._asdict() | {"values": _plain(line.values)} for line in curves],
        "marks": list(marks),
    }


def about(scan: Scan) -> str:
    """Return in words how many voxels of which size a scan has."""
    voxels = " × ".join(str(n) for n in scan.shape)
    steps = " × ".join(f"{step:.3g}" for step in scan.spacing)
    return f"{voxels} voxels of {steps} mm{'' if scan.is_hu else ' · grey values, not HU'}"


def _plain(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]
