"""What is implausible about lungs that were found: said in words, so that nothing wrong is handed on in silence."""

import numpy as np
from skimage.morphology import convex_hull_image

from ggo_lab.lungs.coarse import Coarse
from ggo_lab.scan import Scan

# Both lungs of an adult hold 1 litre (after breathing out, small, ill) to 9 (deep breath, tall, emphysema).
_VOLUME_L = (1.0, 9.0)
_SMALLER_SHARE = 0.35  # of the larger lung: the left is usually 0.8 to 0.95 of the right one
# Medians of -944 (emphysema) to -711 (breathing freely) are seen in lungs without disease; lungs full of disease, and
# what is no lung, are denser.
_MEDIAN_HU = (-950, -650)
_GAS_HU, _GAS_SHARE = -970, 0.5  # air without tissue: stomach, bowel, the room
_WHOLE_MM = 150.0  # a scan at least this long that begins and ends without lung shows the whole thorax
_ENDS_SHARE = 0.15  # of the largest cross-section: less lung than that in an end slice, and the lung ends there
_FRAME_SHARE = 0.02  # of the lungs' outline that may lie at the picture's edge before it is called cut off
_AIRWAY_HU = -900
_AIRWAY_CM2 = (0.3, 8.0)  # cross-section of trachea and main bronchi together
_AIRWAY_MM = 20.0  # over so much height the trachea is seen above the lungs' middle
_JUDGED_MM = 100.0  # of the lungs' height; in less of them the two ends look alike
_BONE_HU = 300  # above the heart's contrast medium, nearly always
_BONE_ML = 3.0  # of spine or breastbone between the lungs, below which neither is taken to be seen


def doubts_about(scan: Scan, right: np.ndarray, left: np.ndarray) -> tuple[str, ...]:
    """Return what is implausible about a scan's lungs, one sentence each; none for a usual chest.

    Args:
        scan: where they were found.
        right: bool (Z, Y, X).
        left: bool (Z, Y, X).
    """
    coarse = Coarse.of(scan)
    sides = {name: coarse.shrink(mask) for name, mask in (("right", right), ("left", left))}
    lungs = sides["right"] | sides["left"]
    if not lungs.any():
        return ("Next to no lung was found: is this a chest?",)
    litre = float(np.prod(coarse.spacing)) / 1e6
    volumes = {name: float(mask.sum()) * litre for name, mask in sides.items()}
    found = []
    smaller, larger = sorted(volumes, key=lambda name: volumes[name])
    one_lung = volumes[smaller] < 0.02 * volumes[larger]
    if one_lung:
        found.append(f"No {smaller} lung was found; the {larger} one has {volumes[larger]:.2f} litres.")
    elif volumes[smaller] < _SMALLER_SHARE * volumes[larger]:
        found.append(
            f"The {smaller} lung has {volumes[smaller]:.2f} litres, the {larger} one {volumes[larger]:.2f}: a part of "
            "it may be missing."
        )
    area = lungs.sum(axis=(1, 2))
    height = len(area) * coarse.spacing[0]
    whole = height >= _WHOLE_MM and max(area[0], area[-1]) <= _ENDS_SHARE * area.max()
    total = sum(volumes.values())
    if total > _VOLUME_L[1] or (whole and total < _VOLUME_L[0]):  # a part of a chest holds little, and never too much
        found.append(
            f"Both lungs have {total:.2f} litres together; an adult's have {_VOLUME_L[0]:g} to {_VOLUME_L[1]:g}."
        )
    values = coarse.hu[lungs]
    median = float(np.median(values))
    if not _MEDIAN_HU[0] <= median <= _MEDIAN_HU[1]:
        cause = (
            "they are full of disease, hardly hold air, or are no lungs"
            if median > _MEDIAN_HU[1]
            else "emphysema, or air that is not in the lungs"
        )
        found.append(
            f"Half of the lungs' voxels lie {'above' if median > _MEDIAN_HU[1] else 'below'} {median:.0f} HU: {cause}."
        )
    if np.mean(values < _GAS_HU) > _GAS_SHARE:
        found.append("Most of what was found is as empty as gas in the bowel or the room: it may be no lung.")
    if (share := _at_the_frame(lungs, coarse.outside)) > _FRAME_SHARE:
        found.append(f"{share:.0%} of the lungs' outline lies at the edge of the picture: a part of them is cut off.")
    if height >= _WHOLE_MM and not _sees_airway(lungs, coarse):
        found.append("No windpipe or main bronchi were seen between the lungs: is this a chest, and the right way up?")
    slices_with_lung = np.flatnonzero(area)
    lungs_mm = (slices_with_lung[-1] - slices_with_lung[0] + 1) * coarse.spacing[0]
    if lungs_mm < _JUDGED_MM:
        where = "in one slice" if len(scan.hu) == 1 else f"over {lungs_mm:.0f} mm"
        found.append(f"Lung is seen {where} only: volume, breath and which way up the chest is cannot be judged.")
    elif not one_lung and _upside_down(sides["right"], sides["left"], whole):
        found.append(
            "The chest seems to be upside down: heart and diaphragm dent the lungs at the end that should be their top."
        )
    if _spine_in_front(lungs, coarse):
        found.append("The spine seems to lie in front of the lungs: the pictures may be flipped from front to back.")
    return tuple(found)


def _upside_down(right: np.ndarray, left: np.ndarray, whole: bool) -> bool:
    """Tell whether the lungs' upper third looks like a base and their lower third like an apex, by two signs.

    Dome and heart dent the lungs below: there the convex hull of a lung's slice holds more that is not lung. And more
    lies between the two lungs there. Where the whole thorax is seen, the stronger of the two signs decides; in a part
    of it, in which one of them may fail, both must agree.
    """
    lungs = right | left
    z = np.flatnonzero(lungs.any(axis=(1, 2)))
    third = max(1, (z[-1] - z[0] + 1) // 3)
    dents, gaps = [], []
    for part in (slice(z[0], z[0] + third), slice(z[-1] + 1 - third, z[-1] + 1)):
        planes = [plane for side in (right, left) for plane in side[part] if plane.any()]
        hulls = sum(np.count_nonzero(convex_hull_image(plane)) for plane in planes)
        dents.append(1 - sum(map(np.count_nonzero, planes)) / hulls)
        gaps.append(1 + np.count_nonzero(_between(lungs[part]) & ~lungs[part]))
    if whole:
        return bool(dents[0] * gaps[0] < dents[1] * gaps[1])
    return bool(dents[0] < dents[1] and gaps[0] < gaps[1])


def _spine_in_front(lungs: np.ndarray, coarse: Coarse) -> bool:
    """Tell whether more bone lies between the lungs at their front, where the breastbone is, than at their back."""
    rows = np.flatnonzero(lungs.any(axis=(0, 2)))
    columns = np.flatnonzero(lungs.any(axis=(0, 1)))
    z = np.flatnonzero(lungs.any(axis=(1, 2)))
    middle, reach = (columns[0] + columns[-1]) / 2, (columns[-1] - columns[0]) / 8
    bone = coarse.hu[z[0] : z[-1] + 1, :, int(middle - reach) : int(middle + reach) + 1] > _BONE_HU
    tenth = (rows[-1] - rows[0]) / 10
    front = np.count_nonzero(bone[:, : int(rows[0] + 3 * tenth)])
    back = np.count_nonzero(bone[:, int(rows[0] + 7 * tenth) :])
    return bool(front > back and (front + back) * float(np.prod(coarse.spacing)) / 1000 > _BONE_ML)


def _between(lungs: np.ndarray) -> np.ndarray:
    """Mark in every slice what has lung to its right and to its left."""
    right = np.maximum.accumulate(lungs, axis=2)
    return right & np.maximum.accumulate(lungs[:, :, ::-1], axis=2)[:, :, ::-1]


def _at_the_frame(lungs: np.ndarray, outside: np.ndarray) -> float:
    """Share of the outline, slice by slice, that touches the picture's edge or padding."""
    grown = np.pad(lungs, [(0, 0), (1, 1), (1, 1)])
    beyond = np.pad(outside, [(0, 0), (1, 1), (1, 1)], constant_values=True)
    rim, cut = 0, 0
    for axis in (1, 2):
        for shift in (1, -1):
            outer = np.roll(grown, shift, axis) & ~grown
            rim += int(outer.sum())
            cut += int((outer & beyond).sum())
    return cut / max(rim, 1)


def _sees_airway(lungs: np.ndarray, coarse: Coarse) -> bool:
    """Tell whether air without tissue runs down between the lungs, at the size of the windpipe or main bronchi."""
    cm2 = coarse.spacing[1] * coarse.spacing[2] / 100
    front = np.maximum.accumulate(lungs.any(axis=2), axis=1)[:, :, None]
    air = (coarse.hu < _AIRWAY_HU) & _between(lungs) & front & ~lungs
    areas = cm2 * air.sum(axis=(1, 2))
    fits = (areas >= _AIRWAY_CM2[0]) & (areas <= _AIRWAY_CM2[1])
    return bool(fits.sum() * coarse.spacing[0] >= _AIRWAY_MM)
