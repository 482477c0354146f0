"""Find the lungs by their air, without any download, and measure how much of them is hazy."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ggo_lab.errors import ScanError
from ggo_lab.scan import Scan

# Half-way between lung (-850) and soft tissue (40): where a voxel at the pleura holds as much of either.
_AIR_BELOW_HU = -400
# Air in the room, the stomach or the bowel is -1000; even lung full of emphysema has a median above this (-944 in one
# real scan), for it still holds vessels and walls.
_PURE_AIR_BELOW_HU = -965
_COARSE_MM = 2.5  # the grid on which shapes are decided; the outline itself comes from the full grid
_CLOSE_MM = 8.0  # vessels and lesions narrower than twice this are taken back into the lungs
_OPEN_MM = 4.0  # half the thickness of the thinnest tissue that counts as body
_ENCLOSED_SHARE = 0.7  # of a lung that has body in front of it and behind it
_LEAST_SHARE = 0.1  # a lung has at least this share of the larger one's volume
_TRACHEA_CM2 = (0.4, 8.0)  # cross-section of the trachea and main bronchi, with room for phantoms and children

# Ground-glass opacity is commonly searched between these, consolidation above; conventions, not laws.
_GGO_ABOVE_HU = -750
_RIM_MM = 2.0  # of the lung's edge: partial volume makes it look hazy
_SMOOTH_MM = 9.0  # median filter, wider than most vessels and narrower than most lesions


def segment_lungs(scan: Scan) -> np.ndarray:
    """Find both lungs, lesions and vessels included, trachea and main bronchi excluded.

    Air is thresholded and what is no lung is taken away: the room, the gut and the airways. Then what the threshold
    missed, vessels and dense lesions, is closed (after Hu, Hoffman & Reinhardt 2001, IEEE TMI 20:490).

    Returns: bool (Z, Y, X).
    Raises:
        ScanError: nothing looks like a lung.
    """
    factors = tuple(max(1, int(_COARSE_MM / step)) for step in scan.spacing)
    spacing = tuple(step * factor for step, factor in zip(scan.spacing, factors, strict=True))
    padding = scan.padding
    outside = _shrink(padding, factors) > 0.5
    coarse = np.where(outside, 0, _shrink(np.where(padding, 0, scan.hu), factors))  # padding is no air
    airways = _airways(coarse < _AIR_BELOW_HU, spacing)
    lungs = _lung_components(coarse, airways, outside, spacing)
    if not lungs.any():
        raise ScanError(
            f"{scan.name}: no lung was found (no large region with HU between {_PURE_AIR_BELOW_HU} and "
            f"{_AIR_BELOW_HU}). Look at it with SliceViewer: is it a chest CT, and are its values HU?",
            scan.source,
        )
    closed = _close(lungs, spacing) & ~airways
    # The full grid draws the outline near the coarse edge; the coarse closing decides what lies well inside.
    inner = _enlarge(ndimage.binary_erosion(closed, border_value=1), factors, scan.shape)
    near = _enlarge(ndimage.binary_dilation(lungs), factors, scan.shape)
    return (inner | (near & (scan.hu < _AIR_BELOW_HU) & ~scan.padding)) & ~_enlarge(airways, factors, scan.shape)


def _shrink(hu: np.ndarray, factors: tuple[int, int, int]) -> np.ndarray:
    """Average blocks of voxels; the last block of an axis repeats the edge."""
    if factors == (1, 1, 1):
        return hu.astype(np.float32)
    for axis, factor in enumerate(factors):
        extra = -hu.shape[axis] % factor
        hu = np.pad(hu, [(0, extra if a == axis else 0) for a in range(3)], mode="edge")
        shape = (*hu.shape[:axis], hu.shape[axis] // factor, factor, *hu.shape[axis + 1 :])
        hu = hu.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return hu


def _enlarge(mask: np.ndarray, factors: tuple[int, int, int], shape: tuple[int, int, int]) -> np.ndarray:
    """Bring a coarse mask to the full grid."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            mask = np.repeat(mask, factor, axis=axis)
    return mask[tuple(slice(n) for n in shape)]


def _airways(air: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Follow the trachea down from its highest slice to where the bronchi open into the lungs."""
    cm2 = spacing[1] * spacing[2] / 100.0
    airways = np.zeros_like(air)
    centre_y, centre_x = (n / 2 for n in air.shape[1:])
    above = None
    for z in range(len(air) - 1, -1, -1):
        labels, count = ndimage.label(air[z])
        if count == 0:
            above = None
            continue
        areas = cm2 * np.bincount(labels.ravel(), minlength=count + 1)
        fits = (areas >= _TRACHEA_CM2[0]) & (areas <= _TRACHEA_CM2[1])
        fits[0] = False
        if above is None:
            # The topmost candidate near the middle of the picture starts the way down.
            for label in np.flatnonzero(fits):
                y, x = ndimage.center_of_mass(labels == label)
                fits[label] = abs(y - centre_y) < 0.25 * air.shape[1] and abs(x - centre_x) < 0.12 * air.shape[2]
        else:
            touching = np.zeros(count + 1, bool)
            touching[np.unique(labels[above])] = True
            fits &= touching
        found = fits[labels]
        airways[z] = found
        above = found if found.any() else None
    return airways


def _lung_components(
    coarse: np.ndarray, airways: np.ndarray, outside: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """Keep the pieces of air that are lung: large, inside the body, and denser than pure air."""
    labels, count = ndimage.label((coarse < _AIR_BELOW_HU) & ~airways)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    medians = ndimage.median(coarse, labels, np.arange(count + 1))
    between = _between_front_and_back((coarse >= _AIR_BELOW_HU) & ~outside, spacing)
    enclosed = np.bincount(labels.ravel(), between.ravel(), minlength=count + 1) / np.maximum(sizes, 1)
    is_lung = (medians > _PURE_AIR_BELOW_HU) & (enclosed > _ENCLOSED_SHARE)
    is_lung[0] = False
    if not is_lung.any():
        return np.zeros(coarse.shape, bool)
    return (is_lung & (sizes >= _LEAST_SHARE * sizes[is_lung].max()))[labels]


def _between_front_and_back(tissue: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Mark the voxels with body both in front of them and behind them.

    Room air and couch fail this, and a lung that the volume's side cuts off passes, where clearing whatever touches
    the border would lose it.
    """
    # Deep inside thick tissue: couch and clothes are too thin for that, and the body is the largest piece of it.
    body = ndimage.distance_transform_edt(np.pad(tissue, 1, mode="edge"), spacing)[1:-1, 1:-1, 1:-1] > _OPEN_MM
    labels, count = ndimage.label(body)
    if count > 1:
        body = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    in_front = np.maximum.accumulate(body, axis=1)
    behind = np.maximum.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    return in_front & behind


def _close(lungs: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Close gaps narrower than 2 x _CLOSE_MM, then holes within each slice."""
    margin = [int(np.ceil(_CLOSE_MM / step)) + 1 for step in spacing]
    padded = np.pad(lungs, [(m, m) for m in margin], mode="edge")  # a lung cut by the volume's edge goes on behind it
    dilated = ndimage.distance_transform_edt(~padded, spacing) <= _CLOSE_MM
    closed = ndimage.distance_transform_edt(dilated, spacing) > _CLOSE_MM
    closed = closed[tuple(slice(m, m + n) for m, n in zip(margin, lungs.shape, strict=True))] | lungs
    for z in range(len(closed)):
        closed[z] = ndimage.binary_fill_holes(closed[z])
    return closed


@dataclass(frozen=True, eq=False)
class GgoFraction:
    """How much of the lungs lies in the range of ground-glass opacity and consolidation.

    Attributes:
        total: share of the lung volume, 0..1.
        per_slice: (Z,), the same in every slice; nan where there is no lung.
        mask: bool (Z, Y, X), what was counted.
    """

    total: float
    per_slice: np.ndarray
    mask: np.ndarray


def ggo_fraction(scan: Scan, lungs: np.ndarray) -> GgoFraction:
    """Estimate involvement without a network: the share of the lungs above -750 HU once fine structures are removed.

    A plain HU band counts vessel walls and partial volume too and never falls below about 5%, in healthy lungs as
    well. So the lungs' rim is left out and a median filter, wider than most vessels, comes first.

    Args:
        lungs: bool (Z, Y, X), from segment_lungs or the scan's truth.
    Raises:
        ScanError: `lungs` is empty or of another shape.
    """
    if lungs.shape != scan.shape or not lungs.any():
        raise ScanError(f"{scan.name}: lungs must be a mask of shape {scan.shape} that is not empty.", lungs.shape)
    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    inside, hu = lungs[box], scan.hu[box]
    reach = [max(0, round(_RIM_MM / step)) for step in scan.spacing[1:]]
    rim = np.ones((1, 2 * reach[0] + 1, 2 * reach[1] + 1), bool)
    core = ndimage.binary_erosion(inside, rim)
    width = tuple(max(1, 2 * round(_SMOOTH_MM / step / 2) + 1) for step in scan.spacing[1:])
    dense = np.stack([ndimage.median_filter(plane, width) for plane in hu]) > _GGO_ABOVE_HU
    mask = np.zeros(scan.shape, bool)
    mask[box] = dense & core
    counted = np.zeros(scan.shape[0])
    counted[box[0]] = core.sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        per_slice = np.where(counted > 0, mask.sum(axis=(1, 2)) / counted, np.nan)
    return GgoFraction(float(mask.sum() / max(counted.sum(), 1)), per_slice, mask)
