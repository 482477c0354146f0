"""What every reader hands over, and the one way from there to HU on canonical axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from nibabel.affines import obliquity, voxel_sizes
from nibabel.orientations import apply_orientation, io_orientation

from ggo_lab.errors import ScanError
from ggo_lab.readers.voxels import without_warnings
from ggo_lab.scan import PADDING_BELOW_HU, PADDING_HU, Scan, check_hu

_MOST_VOXELS = 4_000_000_000  # 8 GB as int16, twenty times the largest chest CT
_DEFLATE_LIMIT = 1032  # zlib shrinks nothing further than 1032 : 1 (zlib's technical details, zlib.net)
_TILT_WORTH_A_NOTE = 1.0  # degrees; less is rounding
_LIKELY_SPACING = (0.1, 25.0)  # mm

_SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr", ".dcm", ".dicom", ".ima", ".jpg", ".jpeg", ".png")


@dataclass(frozen=True, eq=False)
class Stored:
    """HU or labels in the order of a file, before they lie on canonical axes.

    Attributes:
        values: (K, J, I), int16 HU or integer labels; the file's fastest axis last.
        steps: (3, 3); columns 0, 1, 2 are the ways in mm, towards the patient's left, back and head, of one voxel
            along I, J, K.
        is_hu: False for grey, whose HU are an estimate.
        notes: what the reader assumed, chose or repaired, one sentence each.
    """

    values: np.ndarray
    steps: np.ndarray
    is_hu: bool = True
    notes: tuple[str, ...] = ()


def check_size(shape: tuple[int, ...], bytes_per_voxel: int, stored_bytes: int, packed: bool, path: Path) -> None:
    """Refuse, before anything is allocated, a header that claims what its file cannot hold.

    Args:
        shape: as the header claims it, any order of axes.
        stored_bytes: what the file holds for the voxels.
        packed: whether they are compressed there.
    """
    claimed = " x ".join(str(n) for n in shape)
    if min(shape) < 1:
        raise ScanError(f"{path}: the header claims {claimed} voxels; the file is damaged, copy it again.", path)
    voxels = 1
    for n in shape:  # in Python's integers, which do not overflow
        voxels *= int(n)
    if voxels > _MOST_VOXELS:
        raise ScanError(
            f"{path}: the header claims {claimed} voxels, more than any CT has; the file is damaged, copy it again.",
            path,
        )
    if voxels * bytes_per_voxel > stored_bytes * (_DEFLATE_LIMIT if packed else 1):
        raise ScanError(
            f"{path}: the header claims {claimed} voxels of {bytes_per_voxel} bytes, and only {stored_bytes} bytes "
            "are there; the file is truncated or damaged, copy it again.",
            path,
        )


def size_in_3d(size: Sequence[int], path: Path) -> tuple[int, ...]:
    """A header's size, 2-D or 3-D, without further dimensions of 1; ScanError for other numbers of dimensions."""
    size = tuple(int(n) for n in size)
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if not 2 <= len(size) <= 3:
        raise ScanError(
            f"{path}: the header claims {len(size)} dimensions ({' x '.join(map(str, size))}), and a scan has 3; save "
            "the one volume you mean to its own file.",
            path,
        )
    return size


def to_scan(stored: Stored, path: Path, spacing: tuple[float, float, float] | None) -> Scan:
    """Make the Scan of what was stored: int16 HU on canonical axes, guarded, padding unified."""
    values, stored_spacing, tilt = _on_canonical_axes(stored, path)
    hu = np.require(values, requirements=["C", "W"])
    notes = list(stored.notes)
    if tilt > _TILT_WORTH_A_NOTE:
        notes.append(
            f"The voxel grid lies {tilt:.1f} degrees off the patient's axes; it was taken along the nearest ones, "
            "without resampling."
        )
    if spacing is not None:
        notes.append(f"The spacing is {_mm(spacing)} (z, y, x) as given, in place of {_mm(stored_spacing)}.")
    elif not all(_LIKELY_SPACING[0] <= step <= _LIKELY_SPACING[1] for step in stored_spacing):
        notes.append(f"The spacing {_mm(stored_spacing)} (z, y, x) is unlikely for a chest CT; check it.")
    # That there are three is for Scan to check.
    used_spacing = stored_spacing if spacing is None else cast(tuple[float, float, float], tuple(map(float, spacing)))
    scan = Scan(hu, used_spacing, scan_name(path), stored.is_hu, None, tuple(notes), path)
    if scan.is_hu:
        check_hu(scan.hu, path)
        for plane in scan.hu:  # a mask of the whole scan would take half its memory
            plane[plane < PADDING_BELOW_HU] = PADDING_HU
    return scan


def to_labels(stored: Stored, path: Path) -> np.ndarray:
    """Make the integer labels (Z, Y, X) of what was stored, on canonical axes."""
    return np.require(_on_canonical_axes(stored, path)[0], requirements=["C", "W"])


def scan_name(path: Path) -> str:
    """The file's or folder's name without the suffixes that are read here."""
    name = path.resolve().name
    for suffix in _SUFFIXES:
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


@without_warnings
def _on_canonical_axes(stored: Stored, path: Path) -> tuple[np.ndarray, tuple[float, float, float], float]:
    """The values as a view (Z, Y, X) on the patient's nearest axes, its spacing in mm and its tilt in degrees."""
    affine = np.eye(4)
    affine[:3, :3] = stored.steps
    sizes = voxel_sizes(affine)
    # A volume of 1 of the unit parallelepiped is a right-angled grid; near 0 two axes run the same way.
    if not np.isfinite(affine).all() or sizes.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / sizes)) < 0.1:
        raise ScanError(
            f"{path}: the header's orientation is not usable (voxel steps {stored.steps.tolist()} mm); convert the "
            "scan again from its source.",
            path,
        )
    orientation = io_orientation(affine)
    # Rounding takes off the noise of headers that store float32; 0.7 is 0.699999988 there.
    spacing_of = {int(axis): round(float(size), 6) for axis, size in zip(orientation[:, 0], sizes, strict=True)}
    tilt = float(np.degrees(obliquity(affine).max()))
    return apply_orientation(stored.values.T, orientation).T, (spacing_of[2], spacing_of[1], spacing_of[0]), tilt


def _mm(spacing: tuple[float, float, float]) -> str:
    return " x ".join(f"{step:g}" for step in spacing) + " mm"
