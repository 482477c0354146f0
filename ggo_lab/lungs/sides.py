"""Which lung is which: two that touch are parted, one alone is told by the dent of the heart."""

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image
from skimage.segmentation import watershed

from ggo_lab.errors import ScanError
from ggo_lab.lungs.coarse import Coarse
from ggo_lab.scan import Scan

RIGHT, LEFT = 1, 2
_VALLEY = 0.6  # between two lungs the lung volume falls to less than this share of either lung's
_LEAST_SHARE = 0.05  # of the lung volume that lies on the smaller lung's side
_ONE_SIDED = 0.85  # share of a piece on one side of the middle from which it belongs there as a whole
_CORE_STEPS_MM = (0.0, 3.0, 6.0, 9.0, 12.0)  # depths at which lungs that touch are tried for falling apart


def split_lungs(scan: Scan, lungs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Part a mask of both lungs into the patient's right and left lung.

    Args:
        scan: the scan that the mask is of.
        lungs: bool (Z, Y, X), from segment_lungs or the scan's truth.

    Returns:
        Right and left, bool (Z, Y, X). Together they are `lungs`; one is empty where the scan shows one lung.

    Raises:
        ScanError: `lungs` is empty or of another shape.
    """
    if lungs.shape != scan.shape or not lungs.any():
        raise ScanError(f"{scan.name}: lungs must be a mask of shape {scan.shape} that is not empty.", lungs.shape)
    coarse = Coarse.of(scan)
    sides = sides_of(coarse.shrink(lungs), coarse)
    nearest = ndimage.distance_transform_edt(sides == 0, coarse.spacing, return_distances=False, return_indices=True)
    is_left = coarse.enlarge(sides[tuple(nearest)] == LEFT)
    return lungs & ~is_left, lungs & is_left


def sides_of(lungs: np.ndarray, coarse: Coarse) -> np.ndarray:
    """Label lungs on the coarse lattice: int8, RIGHT, LEFT, 0 elsewhere."""
    middle = _middle(lungs)
    if middle is None:
        return np.where(lungs, np.int8(LEFT if _is_left(lungs) else RIGHT), np.int8(0))
    on_left = np.arange(lungs.shape[2]) > middle
    depth = lungs
    for step in _CORE_STEPS_MM:
        if step > 0 and depth is lungs:
            depth = ndimage.distance_transform_edt(lungs, coarse.spacing)
        pieces, count = ndimage.label(depth > step)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        left = np.bincount(pieces.ravel(), np.broadcast_to(on_left, lungs.shape).ravel(), minlength=count + 1)
        share = left / np.maximum(sizes, 1)
        decided = np.maximum(share, 1 - share) >= _ONE_SIDED
        decided[0] = True
        if sizes[~decided].sum() <= _LEAST_SHARE * sizes[1:].sum():
            break
    side = np.where(share > 0.5, LEFT, RIGHT).astype(np.int8)
    side[0] = 0
    cores = side[pieces]
    by_middle = np.where(np.broadcast_to(on_left, lungs.shape), np.int8(LEFT), np.int8(RIGHT))
    cores = np.where(decided[pieces], cores, by_middle)  # what no depth has parted is cut at the middle
    if step > 0:
        cores = watershed(-depth, cores.astype(np.int32), mask=lungs)
        cores = np.where(cores == 0, by_middle, cores)  # a piece too thin for a core of its own
    return np.where(lungs, cores, 0).astype(np.int8)


def _middle(lungs: np.ndarray) -> float | None:
    """Column of the valley between two lungs in the profile of lung volume from right to left; None for one lung."""
    profile = ndimage.uniform_filter1d(lungs.sum(axis=(0, 1), dtype=float), 3)
    peak_right = np.maximum.accumulate(profile)
    peak_left = np.maximum.accumulate(profile[::-1])[::-1]
    lower = np.minimum(peak_right, peak_left)
    inside = lower > 0
    depth = np.where(inside, profile / np.maximum(lower, 1), 1.0)
    if depth.min() > _VALLEY:
        return None
    bottom = np.flatnonzero(depth <= depth.min() + 0.02)
    middle = float(bottom.mean())
    on_right = profile[: int(middle) + 1].sum() / profile.sum()
    return middle if _LEAST_SHARE < on_right < 1 - _LEAST_SHARE else None


def _is_left(lung: np.ndarray) -> bool:
    """Tell whether a single lung is the left one: heart, spine and hilum dent a lung on its inner side."""
    columns = np.arange(lung.shape[2])
    dents = sum(
        ((convex_hull_image(plane) & ~plane).sum(axis=0) for plane in lung if plane.any()),
        start=np.zeros(lung.shape[2], int),
    )
    if not dents.any():
        return False
    return bool(np.average(columns, weights=dents) < np.average(columns, weights=lung.sum(axis=(0, 1))))
