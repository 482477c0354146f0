"""Slices of a volume in three planes: which way they are looked at, their proportions, and the part in view."""

from collections.abc import Mapping

import numpy as np

from ggo_lab.rendering.overlays import Heat
from ggo_lab.scan import Scan

# Plane -> the axis that its slices are counted along, and the letters at the left, right, top and bottom edge
# (Right, Left, Anterior, Posterior, Head, Foot). Axial is seen from the feet, coronal from the front, as radiologists
# do; sagittal from the patient's left.
PLANES: dict[str, tuple[int, str]] = {"axial": (0, "RLAP"), "coronal": (1, "RLHF"), "sagittal": (2, "APHF")}


def slice_of(volume: np.ndarray, plane: str, index: int) -> np.ndarray:
    """View one slice of a volume (Z, Y, X) the way it is looked at: head up in coronal and sagittal planes."""
    if plane == "axial":
        return volume[index]
    return volume[::-1, index] if plane == "coronal" else volume[::-1, :, index]


def heat_slice(heat: Heat, shape: tuple[int, int, int], plane: str, index: int) -> np.ndarray | None:
    """One slice of the heat, as slice_of gives it; None where there is none."""
    if not isinstance(heat, Mapping):
        return slice_of(heat, plane, index)
    if plane == "axial":
        return heat.get(index)
    laid = np.zeros((shape[0], shape[2] if plane == "coronal" else shape[1]), np.float32)
    for z, values in heat.items():
        laid[shape[0] - 1 - z] = values[index] if plane == "coronal" else values[:, index]
    return laid


def slice_spacing(scan: Scan, plane: str) -> tuple[float, float]:
    """Distance between the rows and between the columns of a plane's slices, mm."""
    rows, columns = (step for axis, step in enumerate(scan.spacing) if axis != PLANES[plane][0])
    return rows, columns


def picture_shape(scan: Scan, plane: str, size: int) -> tuple[int, int]:
    """Rows and columns of square pixels that show a plane in its true proportions, the longer side being `size`."""
    voxels = [n for axis, n in enumerate(scan.shape) if axis != PLANES[plane][0]]
    height, width = (n * step for n, step in zip(voxels, slice_spacing(scan, plane), strict=True))
    scale = size / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


class View:
    """The part of a scan's slices in one plane that a frame shows, and where its points lie in the scan.

    Args:
        zoom: 1 shows the whole slice, 2 half of its width and height.
        centre: voxel (z, y, x) to have in the middle, as far as the slice's edges let it; the scan's middle if None.

    Attributes:
        box: the part of the slice, in its voxels from the top left corner: left, top, right, bottom.
    """

    def __init__(self, scan: Scan, plane: str, zoom: float = 1.0, centre: tuple[float, float, float] | None = None):
        """Find the part of the plane that is in view."""
        self.scan, self.plane, self.zoom = scan, plane, zoom
        rows, columns = (n for axis, n in enumerate(scan.shape) if axis != PLANES[plane][0])
        middle = ((rows - 1) / 2, (columns - 1) / 2) if centre is None else self._in_slice(centre)
        tall, broad = rows / zoom, columns / zoom
        top = min(max(middle[0] + 0.5 - tall / 2, 0), rows - tall)
        left = min(max(middle[1] + 0.5 - broad / 2, 0), columns - broad)
        self.box = (left, top, left + broad, top + tall)

    def point(self, voxel: tuple[float, float, float]) -> tuple[float, float]:
        """Where a voxel's centre lies, as shares of the frame's width and height; outside 0..1 it is out of view."""
        left, top, right, bottom = self.box
        row, column = self._in_slice(voxel)
        return (column + 0.5 - left) / (right - left), (row + 0.5 - top) / (bottom - top)

    def _in_slice(self, voxel: tuple[float, float, float]) -> tuple[float, float]:
        """Row and column of a voxel in the plane's slices, as slice_of gives them."""
        z, y, x = voxel
        if self.plane == "axial":
            return y, x
        return self.scan.shape[0] - 1 - z, x if self.plane == "coronal" else y
