"""Curves that run under the picture: values per axial slice, to see where to look; and where the lesions are."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ggo_lab.errors import ChoiceError
from ggo_lab.rendering.overlays import areas, lesion_share, mask_colors
from ggo_lab.scan import Scan

Curve = np.ndarray | Mapping[str, np.ndarray]
_LEAST_ML = 0.1  # smaller parts of a mask are specks, not lesions to walk through


class Line(NamedTuple):
    """One curve: a value per axial slice, nan where there is none."""

    name: str
    values: np.ndarray
    color: str
    unit: str = ""


def check_curves(scan: Scan, curve: Curve | None, masks: Mapping[str, np.ndarray]) -> list[Line]:
    """Return the curves to draw under a scan.

    Args:
        scan: whose slices they run over.
        curve: a value per axial slice, nan where there is none, or several such by name. Left out, the lesions' share
            of the lungs where both are among the masks, else the area of the mask to look for.
        masks: bool (Z, Y, X) by name.

    Raises:
        ChoiceError: a curve that has not one number per slice.
    """
    if curve is None:
        return _curve_of(scan, masks)
    curves = dict(curve) if isinstance(curve, Mapping) else {"curve": curve}
    for name, values in curves.items():
        try:
            curves[name] = np.asarray(values, float)
        except (TypeError, ValueError):
            raise ChoiceError(f"curve {name!r} holds values that are no numbers.", name) from None
        if curves[name].shape != scan.shape[:1]:
            raise ChoiceError(
                f"curve {name!r} has shape {curves[name].shape}; {scan.name} has {scan.shape[0]} slices.", name
            )
    colors = mask_colors(list(curves))
    return [Line(name, values, colors[name]) for name, values in curves.items()]


def _curve_of(scan: Scan, masks: Mapping[str, np.ndarray]) -> list[Line]:
    share, name = lesion_share(masks), sought(masks)
    if share is not None:
        return [Line("lesions", share, mask_colors(["lesions"])["lesions"])]
    if name is None:
        return []
    area = areas(masks[name]) * scan.spacing[1] * scan.spacing[2] / 100
    return [Line(name, area, mask_colors(list(masks))[name], " cm²")]


def sought(masks: Mapping[str, np.ndarray]) -> str | None:
    """Return the name of the mask that one opens a scan to see: lesions, else the first but the lungs, else these.

    >>> sought({"lungs": np.ones(1), "consolidation": np.ones(1)})
    'consolidation'
    """
    if "lesions" in masks:
        return "lesions"
    return next((name for name in masks if name != "lungs"), next(iter(masks), None))


def opening_slice(scan: Scan, masks: Mapping[str, np.ndarray], marks: tuple[int, ...]) -> int:
    """Return the axial slice to begin with: the middle mark, else where the mask sought is largest, else the middle."""
    if marks:
        return marks[len(marks) // 2]
    name = sought(masks)
    counted = areas(masks[name]) if name is not None else np.zeros(1)
    return int(counted.argmax()) if counted.any() else scan.shape[0] // 2


def lesion_places(scan: Scan, mask: np.ndarray) -> list[tuple[int, int, int]]:
    """Return a voxel in each connected part of a mask, the largest part first.

    Args:
        scan: on whose grid the mask lies.
        mask: bool (Z, Y, X).

    Returns:
        Voxels (z, y, x): in the slice where the part is largest, the one of the part that is nearest to its middle.
        Parts under 0.1 mL are left out, unless there are no others.
    """
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    large = sizes * scan.voxel_ml >= _LEAST_ML
    chosen = [part for part in np.argsort(-sizes, kind="stable") if large[part] or not large.any()]
    places = []
    for part in chosen:
        inside = labels[boxes[part]] == part + 1
        z = int(areas(inside).argmax())
        rows, columns = np.nonzero(inside[z])
        nearest = np.hypot(rows - rows.mean(), columns - columns.mean()).argmin()
        corner = [axis.start for axis in boxes[part]]
        places.append((corner[0] + z, corner[1] + int(rows[nearest]), corner[2] + int(columns[nearest])))
    return places
