"""How the voxels of a file lie along the patient, whatever the header's way to say so."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.affines import obliquity
from nibabel.orientations import io_orientation

from ggo_lab.errors import ScanError
from ggo_lab.readers.voxels import without_warnings

_TILT_WORTH_A_NOTE = 1.0  # degrees; less is rounding


class Grid(NamedTuple):
    """How the voxels lie along the patient: the turn onto canonical axes, and what it gives."""

    orientation: np.ndarray  # as nibabel has it, of the axes I, J, K
    shape: tuple[int, int, int]  # (Z, Y, X)
    spacing: tuple[float, float, float]  # mm (z, y, x)
    notes: tuple[str, ...]

    @property
    def slices_are_planes(self) -> bool:
        """Whether axis Z is the file's axis K, so that a slice can be read alone."""
        return int(self.orientation[2, 0]) == 2

    def plane_of(self, z: int) -> int:
        """Give the index along K of a slice."""
        return z if self.orientation[2, 1] > 0 else self.shape[0] - 1 - z


@without_warnings
def grid_of(shape: tuple[int, int, int], steps: np.ndarray, path: Path) -> Grid:
    """Find how stored voxels lie along the patient.

    Args:
        shape: (K, J, I), the file's fastest axis last.
        steps: (3, 3), see Stored.
        path: of the file, for messages.

    Raises:
        ScanError: no three ways that span a volume.
    """
    steps = np.asarray(steps, float)
    sizes = np.sqrt((steps**2).sum(axis=0))
    ways = steps / sizes
    upright, turned, orientation = _how_it_lies(tuple(ways.ravel().tolist()))
    if not upright > 0.1:
        raise ScanError(
            f"{path}: the header's orientation is not usable (voxel steps {steps.tolist()} mm); convert the scan again "
            "from its source.",
            path,
        )
    lean = float(np.degrees(np.arccos(min(upright, 1.0))))
    notes = []
    if lean > _TILT_WORTH_A_NOTE:
        sizes[_stacked(ways)] *= upright  # the distance between planes, across which the grid leans
        notes.append(
            f"The gantry was tilted by {lean:.1f} degrees: each slice is shifted against its neighbour, and stays so."
        )
    elif turned > _TILT_WORTH_A_NOTE:
        notes.append(
            f"The voxel grid lies {turned:.1f} degrees off the patient's axes; it was taken along the nearest ones, "
            "without resampling."
        )
    # Rounding takes off the noise of headers that store float32; 0.7 is 0.699999988 there.
    spacing_of = {int(axis): round(float(size), 6) for axis, size in zip(orientation[:, 0], sizes, strict=True)}
    count_of = dict(zip(orientation[:, 0].astype(int).tolist(), shape[::-1], strict=True))
    return Grid(
        orientation,
        (count_of[2], count_of[1], count_of[0]),
        (spacing_of[2], spacing_of[1], spacing_of[0]),
        tuple(notes),
    )


@lru_cache(maxsize=256)  # most scans lie like others
def _how_it_lies(ways: tuple[float, ...]) -> tuple[float, float, np.ndarray]:
    """Of unit vectors along the axes, (3, 3) by rows: their volume, degrees off the body's axes, and orientation.

    A volume of 1 is a right-angled grid; near 0 two axes run the same way.
    """
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(ways, (3, 3))
    upright = abs(float(np.linalg.det(affine))) if np.isfinite(affine).all() else 0.0
    if not upright > 0.1:
        return 0.0, 0.0, np.empty((0, 2))
    orientation = io_orientation(affine)
    orientation.flags.writeable = False
    return upright, float(np.degrees(obliquity(affine).max())), orientation


def _stacked(ways: np.ndarray) -> int:
    """Give the axis along which right-angled planes are stacked; the last of the file where several could be."""
    cosines = np.abs(ways.T @ ways)
    between = {2: cosines[0, 1], 1: cosines[0, 2], 0: cosines[1, 2]}  # the two other axes
    return min(between, key=lambda axis: round(float(between[axis]), 2))
