"""Files to scans, whoever wrote them: read_scan, read_labels, write_nifti."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from ggo_lab.errors import ChoiceError, ScanError
from ggo_lab.readers.dicom import is_dicom, read_dicom
from ggo_lab.readers.metaimage import METAIMAGE_SUFFIXES, read_metaimage
from ggo_lab.readers.nifti import NIFTI_SUFFIXES, read_nifti, write_nifti
from ggo_lab.readers.nrrd import NRRD_SUFFIXES, read_nrrd
from ggo_lab.readers.pictures import PICTURE_SUFFIXES, read_pictures
from ggo_lab.readers.stored import Stored, to_labels, to_scan
from ggo_lab.readers.voxels import Take, hu_from, labels_from
from ggo_lab.scan import Scan, Window

__all__ = ["read_labels", "read_scan", "write_nifti"]

_VOLUMES = {NIFTI_SUFFIXES: read_nifti, METAIMAGE_SUFFIXES: read_metaimage, NRRD_SUFFIXES: read_nrrd}
_READABLE = (
    "NIfTI (.nii, .nii.gz), MetaImage (.mha, .mhd), NRRD (.nrrd, .nhdr), DICOM (.dcm, or a folder of them), "
    "or a folder of .jpg or .png slices"
)


def read_scan(
    path: str | Path,
    *,
    series: str | None = None,
    spacing: tuple[float, float, float] | None = None,
    grey_window: str | Window | tuple[float, float] = "paper",
    first_slice: str = "head",
) -> Scan:
    """Read one chest CT as HU on canonical axes (feet to head, front to back, the patient's right to left).

    Args:
        path: a NIfTI, MetaImage, NRRD, DICOM, JPG or PNG file, or a folder of DICOM files (searched to the bottom) or
            of JPG or PNG slices (in natural order: 2 before 10).
        series: for DICOM: the UID or a part of the description of the series to take. The axial CT series with the
            most slices otherwise.
        spacing: distance between voxel centres (z, y, x) in mm, in place of the file's. Pictures have none: without
            it, 350 mm across and 300 mm from first to last slice are assumed.
        grey_window: for pictures: the window that made their grey, by name or as (level, width) in HU.
        first_slice: for pictures: "head" or "feet", where the first one lies.
    Returns: a Scan. Its `notes` tell whatever was assumed, chosen or left out; padding is PADDING_HU; oblique volumes
        lie on the nearest axes, without resampling; pictures give an estimate of HU, and is_hu is False.
    Raises:
        ScanError: what cannot be read, or is not HU, with the likely cause and what to do. Its subject is the path.
    """
    path = _existing(path)
    with _told_in_one_sentence(path):
        return to_scan(_open(path, series, grey_window, first_slice), path, spacing)


def read_labels(path: str | Path) -> np.ndarray:
    """Read a mask or label map: integers (Z, Y, X) on the same canonical axes as read_scan.

    Args:
        path: a NIfTI, MetaImage or NRRD file of whole numbers, whatever type they are stored in.
    Raises:
        ScanError: a file that cannot be read, or one with fractions in it. Its subject is the path.
    """
    path = _existing(path)
    with _told_in_one_sentence(path):
        if stored := _open_volume(path, labels_from):
            return to_labels(stored, path)
    raise ScanError(f"{path}: labels are read from NIfTI, MetaImage or NRRD files only; convert it to .nii.gz.", path)


def _open(path: Path, series: str | None, grey_window: str | Window | tuple[float, float], first_slice: str) -> Stored:
    """Choose the reader by what lies there, and read."""
    name = path.name.lower()
    others = 0
    if path.is_dir():
        dicom, pictures, others = _look_into(path)
    elif path.stat().st_size == 0:
        raise ScanError(f"{path}: the file is empty (0 bytes); copy or download it again.", path)
    else:
        dicom = [path] if is_dicom(path) else []
        pictures = [path] if name.endswith(PICTURE_SUFFIXES) else []
    if series is not None and not dicom:
        raise ChoiceError(f"series={series!r} chooses among DICOM series, but {path} holds no DICOM file.", series)

    if dicom:
        stored = read_dicom(dicom, path, series)
    elif pictures:
        stored = read_pictures(pictures, path, grey_window, first_slice)
    elif volume := _open_volume(path, hu_from):
        stored = volume
    else:
        raise ScanError(f"{path}: not a kind of file that is read as a scan; give {_READABLE}.", path)
    if others:
        kind = "DICOM" if dicom else "JPG or PNG"
        stored = replace(stored, notes=(*stored.notes, f"{others} files that are not {kind} were left out."))
    return stored


def _open_volume(path: Path, take: Take) -> Stored | None:
    """Read a file that holds a whole volume; None where its name is not that of one."""
    for suffixes, read in _VOLUMES.items():
        if path.name.lower().endswith(suffixes):
            return read(path, take)
    return None


def _look_into(folder: Path) -> tuple[list[Path], list[Path], int]:
    """The DICOM files at any depth of a folder or else the pictures directly in it, and how many others there are."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    if not files:
        raise ScanError(f"{folder}: the folder is empty; give {_READABLE}.", folder)
    pictures = [p for p in files if p.parent == folder and p.name.lower().endswith(PICTURE_SUFFIXES)]
    volumes = [p for p in files if p.name.lower().endswith((*NIFTI_SUFFIXES, *METAIMAGE_SUFFIXES, *NRRD_SUFFIXES))]
    not_dicom = {*pictures, *volumes}
    dicom = [p for p in files if p not in not_dicom and is_dicom(p)]
    if dicom:
        return dicom, [], len(files) - len(dicom)
    if pictures:
        return [], pictures, len(files) - len(pictures)
    if volumes:
        raise ScanError(
            f"{folder}: the folder holds whole volumes, not slices; give one of its {len(volumes)} files, such as "
            f"{volumes[0].relative_to(folder)}.",
            folder,
        )
    raise ScanError(
        f"{folder}: no DICOM, JPG or PNG slices among its {len(files)} files, such as "
        f"{files[0].relative_to(folder)}; give {_READABLE}.",
        folder,
    )


def _existing(path: str | Path) -> Path:
    path = Path(path).expanduser()
    try:
        path.stat()
    except FileNotFoundError:
        raise ScanError(f"{path}: no such file or folder; check the spelling and the current folder.", path) from None
    except OSError as error:
        raise _unreadable(path, error) from error
    return path


@contextmanager
def _told_in_one_sentence(path: Path) -> Iterator[None]:
    """Turn what the system refuses while reading into a ScanError."""
    try:
        yield
    except OSError as error:
        raise _unreadable(path, error) from error
    except MemoryError as error:
        raise ScanError(
            f"{path}: does not fit into this machine's memory; close other programs, or crop the scan.", path
        ) from error


def _unreadable(path: Path, error: OSError) -> ScanError:
    reason = error.strerror or str(error)
    return ScanError(f"{path}: cannot be opened ({reason}); check that you may read it and that it is whole.", path)
