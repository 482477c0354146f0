"""Find the lungs by their air, without any download, and give back to them what disease has filled."""

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from ggo_lab.errors import ScanError
from ggo_lab.lungs.airways import find_airways
from ggo_lab.lungs.coarse import Coarse
from ggo_lab.lungs.sides import LEFT, RIGHT, sides_of
from ggo_lab.scan import Scan

# Half-way between lung (-850) and soft tissue (40): where a voxel at the pleura holds as much of either.
_AIR_BELOW_HU = -400
# Air in the room, the stomach or the bowel is -1000; even lung full of emphysema has a median above this (-944 in one
# real scan), for it still holds vessels and walls.
_PURE_AIR_BELOW_HU = -965
_BODY_MM = 4.0  # half the thickness of the thinnest tissue that counts as body: couch and clothes are thinner
_ENCLOSED_SHARE = 0.7  # of a lung that has body in front of it and behind it
_LEAST_SHARE = 0.1  # a lung has at least this share of the larger one's volume
_CANDIDATES = 12  # largest regions of air in the body that are looked at
_CLOSE_MM = 8.0  # vessels and lesions narrower than twice this are taken back into the lungs
_CLOSE_ILL_MM = 16.0  # the same in an ill lung, where the price is a little of the mediastinum
# A lung is called ill when more than this share of it is denser than that, HU: 2 to 9% of healthy lungs are, vessels
# included, and 14% and more with moderate disease.
_ILL_ABOVE_HU, _ILL_SHARE = -600, 0.15
_DENSE_BELOW_HU = -150  # ground glass too dense for the threshold; still clearly no soft tissue
_DENSE_MM = 20.0  # how far from lung with air such ground glass is looked for
NEARBY_MM = 6.0  # sd of the weights with which the lung's attenuation at its outline is averaged
TISSUE_HU = 0  # chest wall, between fat (-100) and muscle (50)
_POCKET_MM = 25.0  # consolidation under the chest wall reaches no farther from lung that is found
_BESIDE_MM = 8.0  # how far from straight below such consolidation the lung must go on
_BONE_ABOVE_HU = 150  # averaged over a block
_TWO_BY_TWO = np.ones((1, 2, 2))  # blocks, about 6 mm: what this fits into is no partial volume
_DIRECTIONS = 120  # in a slice, in which the chest wall is looked for


def lungs_by_rule(scan: Scan, lung_share: float = 0.5) -> np.ndarray:
    """Find both lungs by thresholds and shapes, lesions and vessels included, trachea and main bronchi excluded.

    Air is thresholded and what is no lung is taken away: the room, the gut and the airways. Then each lung gets back
    what the threshold missed: vessels and lesions are closed (after Hu, Hoffman & Reinhardt 2001, IEEE TMI 20:490),
    and consolidation under the chest wall, which no closing reaches, is filled up to the lung's convex hull, for
    towards the ribs a lung is convex. A lung that is largely dense is searched more boldly.

    Args:
        scan: a chest CT, in HU.
        lung_share: of a voxel at the outline, from which it counts as lung.

    Returns:
        bool (Z, Y, X).

    Raises:
        ScanError: nothing looks like a lung.
    """
    coarse = Coarse.of(scan)
    air, airways = _aerated(coarse)
    if not air.any():
        raise ScanError(
            f"{scan.name}: no lung was found (no large region with HU between {_PURE_AIR_BELOW_HU} and "
            f"{_AIR_BELOW_HU}). Look at it with SliceViewer: is it a chest CT, and are its values HU?",
            scan.source,
        )
    sides = sides_of(air, coarse)
    row, column = _centre(sides)
    filled, dense = np.zeros(air.shape, bool), np.zeros(air.shape, bool)
    for label in (RIGHT, LEFT):
        lung = sides == label
        if lung.any():
            box = _box(lung)  # no filling leaves it
            centre = row - box[1].start, column - box[2].start
            whole, ill = _fill(lung[box], coarse.hu[box], coarse.spacing, centre)
            filled[box] |= whole
            dense[box] |= whole & ~air[box] & ill
    filled &= air | ~ndimage.binary_dilation(airways)  # the airways' walls are no lung
    return _draw(scan, coarse, air, filled, dense & filled, airways, lung_share)


def _aerated(coarse: Coarse) -> tuple[np.ndarray, np.ndarray]:
    """Find what holds air in the lungs, and the airways; bool (z, y, x) each."""
    air = coarse.hu < _AIR_BELOW_HU
    enclosed = _between_front_and_back(~air & ~coarse.outside, coarse.spacing)
    airways = find_airways(air & enclosed, enclosed, coarse.spacing)
    labels, count = ndimage.label(air & ~airways)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    share = np.bincount(labels.ravel(), enclosed.ravel(), minlength=count + 1) / np.maximum(sizes, 1)
    fits = share > _ENCLOSED_SHARE
    fits[0] = False
    is_lung = np.zeros(count + 1, bool)
    largest = 0
    for label in np.argsort(-sizes * fits)[:_CANDIDATES]:
        if fits[label] and sizes[label] >= _LEAST_SHARE * largest:
            is_lung[label] = np.median(coarse.hu[labels == label]) > _PURE_AIR_BELOW_HU
            largest = max(largest, sizes[label] * is_lung[label])
    return is_lung[labels], airways


def _between_front_and_back(tissue: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Mark the voxels with body both in front of them and behind them.

    Room air and couch fail this, and a lung that the volume's side cuts off passes, where clearing whatever touches
    the border would lose it.
    """
    # Deep inside thick tissue: couch and clothes are too thin for that, and the body is the largest piece of it.
    body = ndimage.minimum_filter(tissue, [2 * round(_BODY_MM / step) + 1 for step in spacing], mode="nearest")
    labels, count = ndimage.label(body)
    if count > 1:
        body = labels == 1 + np.argmax(np.bincount(labels.ravel())[1:])
    in_front = np.maximum.accumulate(body, axis=1)
    behind = np.maximum.accumulate(body[:, ::-1], axis=1)[:, ::-1]
    return in_front & behind


def _erode(mask: np.ndarray, by_mm: float, spacing: tuple[float, float, float]) -> np.ndarray:
    return ndimage.distance_transform_edt(mask, spacing) > by_mm


def _dilate(mask: np.ndarray, by_mm: float, spacing: tuple[float, float, float]) -> np.ndarray:
    return ndimage.distance_transform_edt(~mask, spacing) <= by_mm


def _centre(sides: np.ndarray) -> tuple[float, float]:
    """Return row and column of the chest's middle: half-way between two lungs, or the inner edge of one."""
    columns = {side: np.flatnonzero((sides == side).any(axis=(0, 1))) for side in (RIGHT, LEFT)}
    rows = np.flatnonzero((sides > 0).any(axis=(0, 2)))
    inner = [columns[RIGHT][-1:], columns[LEFT][:1]]
    return (rows[0] + rows[-1]) / 2, float(np.mean(np.concatenate(inner)))


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box around a mask, and one voxel of what surrounds it where the volume goes on."""
    return tuple(
        slice(max(part.start - 1, 0), part.stop + 1) for part in ndimage.find_objects(mask.astype(np.uint8))[0]
    )


def _fill(
    lung: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float], centre: tuple[float, float]
) -> tuple[np.ndarray, bool]:
    """Give one lung what is too dense for the threshold: vessels, lesions, consolidation under the chest wall.

    Returns:
        The filled lung, and whether so much of it is dense that it is taken for ill.
    """
    closed = _close(lung, _CLOSE_MM, spacing)
    ill = _is_ill(closed, hu)
    if ill:
        dense = (hu >= _AIR_BELOW_HU) & (hu < _DENSE_BELOW_HU) & _dilate(lung, _DENSE_MM, spacing)
        lung = lung | ndimage.binary_opening(dense, _TWO_BY_TWO)  # thinner is the pleura's partial volume
        closed = _close(lung, _CLOSE_ILL_MM, spacing)
        closed |= _surrounded(closed, hu)
    hidden = _outward(closed, spacing, centre) & ~closed & (hu < _BONE_ABOVE_HU)
    hidden &= _dilate(closed, _POCKET_MM, spacing)
    # No consolidation is believed where the lung does not go on below it, or nearly: there is the liver.
    hidden &= np.maximum.accumulate(_dilate(closed, _BESIDE_MM, (1e3, *spacing[1:])), axis=0)
    hidden = _inside_hull(closed, np.argwhere(hidden))
    # The chest wall dents every lung a little between the ribs: only gaps two blocks thick are consolidation.
    pockets = ndimage.binary_opening(hidden, _TWO_BY_TWO)
    return (_close(closed | pockets, _CLOSE_MM, spacing) if pockets.any() else closed), ill


def _is_ill(lung: np.ndarray, hu: np.ndarray) -> bool:
    """Tell whether so much of a lung is dense that more of it may hide behind the threshold."""
    core = ndimage.binary_erosion(lung, border_value=1)
    return bool(core.any() and np.mean(hu[core] > _ILL_ABOVE_HU) > _ILL_SHARE)


def _surrounded(lung: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """Mark what has lung above and below, in front and behind, on its right and on its left."""
    surrounded = hu < _BONE_ABOVE_HU
    for axis in range(3):
        after = np.flip(np.maximum.accumulate(np.flip(lung, axis), axis=axis), axis)
        surrounded &= np.maximum.accumulate(lung, axis=axis) & after
    return surrounded


def _close(lung: np.ndarray, by_mm: float, spacing: tuple[float, float, float]) -> np.ndarray:
    """Close gaps narrower than 2 x by_mm, then holes within each slice."""
    margin = [int(np.ceil(by_mm / step)) + 1 for step in spacing]
    padded = np.pad(lung, [(m, m) for m in margin], mode="edge")  # a lung cut by the volume goes on behind it
    closed = _erode(_dilate(padded, by_mm, spacing), by_mm, spacing)
    closed = closed[tuple(slice(m, n - m) for m, n in zip(margin, closed.shape, strict=True))] | lung
    for plane in closed:
        plane |= ndimage.binary_fill_holes(plane)
    return closed


def _outward(lung: np.ndarray, spacing: tuple[float, float, float], centre: tuple[float, float]) -> np.ndarray:
    """Mark what lies behind the lung as seen from the chest's middle, slice by slice: nothing but the chest wall."""
    y = (np.arange(lung.shape[1])[:, None] - centre[0]) * spacing[1]
    x = (np.arange(lung.shape[2])[None, :] - centre[1]) * spacing[2]
    radius = np.hypot(y, x)
    direction = ((np.arctan2(y, x) / (2 * np.pi) % 1) * _DIRECTIONS).astype(int) % _DIRECTIONS
    outward = np.zeros_like(lung)
    for z in np.flatnonzero(lung.any(axis=(1, 2))):
        reach = np.zeros(_DIRECTIONS)
        np.maximum.at(reach, direction[lung[z]], radius[lung[z]])
        reach[reach == 0] = np.inf  # where no lung is seen, nothing lies behind it
        outward[z] = radius > reach[direction]
    return outward


def _inside_hull(lung: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Mark those candidate voxels (N, 3) that lie in the convex hull of the lung."""
    surface = np.argwhere(lung & ~ndimage.binary_erosion(lung))
    corners = np.concatenate([surface - 0.5, surface + 0.5])  # of voxels, so that a single slice has a hull too
    inside = np.ones(len(candidates), bool)
    try:
        hull = ConvexHull(corners)
    except QhullError:  # a speck without volume has no inside
        return np.zeros_like(lung)
    for *normal, offset in hull.equations:
        inside[inside] = candidates[inside] @ np.array(normal) + offset <= 0
    marked = np.zeros_like(lung)
    marked[tuple(candidates[inside].T)] = True
    return marked


def _draw(
    scan: Scan,
    coarse: Coarse,
    air: np.ndarray,
    filled: np.ndarray,
    dense: np.ndarray,
    airways: np.ndarray,
    lung_share: float,
) -> np.ndarray:
    """Draw the outline on the full grid: by attenuation where lung with air ends, else where the filling ends.

    Args:
        scan: its values are asked.
        coarse: the same on the coarse lattice, on which all the masks are.
        air: what the threshold found.
        filled: what the lungs hold besides.
        dense: the filled part of ill lungs.
        airways: trachea and main bronchi.
        lung_share: of a voxel at the outline, from which it counts as lung.
    """
    near = ndimage.binary_dilation(air)
    # Where filling lies as a thin layer on lung with air, attenuation knows better where the lung ends.
    solid = filled & (
        ndimage.binary_erosion(filled, border_value=1) | ~ndimage.binary_dilation(air, np.ones((3, 3, 3)))
    )
    solid |= ndimage.binary_opening(dense, _TWO_BY_TWO)
    threshold = lung_share * _lung_beside(coarse, air) + (1 - lung_share) * TISSUE_HU
    lungs = coarse.enlarge(near) & ~scan.padding
    for z, plane in enumerate(lungs):
        plane &= scan.hu[z] < coarse.spread(threshold, z)
    lungs |= coarse.enlarge(solid)
    lungs &= ~coarse.enlarge(airways)
    return lungs


def _lung_beside(coarse: Coarse, air: np.ndarray) -> np.ndarray:
    """Compute the mean HU of the lung nearby, float32 (z, y, x)."""
    core = ndimage.binary_erosion(air, border_value=1)
    weight = core.astype(np.float32)
    sigma = [NEARBY_MM / step for step in coarse.spacing]
    held = ndimage.gaussian_filter(weight, sigma, mode="nearest")
    lung = ndimage.gaussian_filter(np.where(core, coarse.hu, 0), sigma, mode="nearest")
    usual = coarse.hu[core].mean() if core.any() else 2 * _AIR_BELOW_HU
    return np.where(held > 0.01, lung / np.maximum(held, 0.01), usual)
