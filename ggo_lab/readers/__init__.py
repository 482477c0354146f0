"""Files to scans, whoever wrote them: read_scan, open_scan, read_labels, write_nifti."""

import os
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ggo_lab.errors import ChoiceError, ScanError, printable
from ggo_lab.readers.dicom import DICOM_SUFFIXES, begins_like_dicom, is_dicom, open_dicom
from ggo_lab.readers.metaimage import METAIMAGE_SUFFIXES, open_metaimage
from ggo_lab.readers.nifti import NIFTI_SUFFIXES, open_nifti, write_nifti
from ggo_lab.readers.nrrd import NRRD_SUFFIXES, open_nrrd
from ggo_lab.readers.pictures import PICTURE_SUFFIXES, open_pictures
from ggo_lab.readers.stored import OpenedScan, Stored, read_as_labels, told_in_one_sentence, unreadable
from ggo_lab.scan import Scan, Window
from ggo_lab.storage import home_filled_in

__all__ = ["FORMATS", "VOLUME_SUFFIXES", "OpenedScan", "open_scan", "read_labels", "read_scan", "write_nifti"]


class Choices(NamedTuple):
    """What the user may choose of a scan: see read_scan."""

    series: str | None = None
    grey_window: str | Window | tuple[float, float] = "paper"
    first_slice: str = "head"


class Format(NamedTuple):
    """One kind of file.

    Attributes:
        name: for people.
        suffixes: of its files, in lower case.
        open: gives what the files hold, unread. It is called with the files, with what the user gave, which messages
            name, and with the user's choices.
        of_slices: whether a folder of such files is one scan; else each file is one.
        begins: tells by a file's first 512 bytes that it is of this kind, whatever its name.
    """

    name: str
    suffixes: tuple[str, ...]
    open: Callable[[list[str], Path, Choices], Stored]
    of_slices: bool = False
    begins: Callable[[bytes], bool] = lambda start: False


# In the order in which they are asked; the first to know a file takes it.
FORMATS = (
    Format(
        "DICOM",
        DICOM_SUFFIXES,
        lambda files, path, choices: open_dicom([Path(file) for file in files], path, choices.series),
        True,
        begins_like_dicom,
    ),
    Format(
        "pictures",
        PICTURE_SUFFIXES,
        lambda files, path, choices: open_pictures(files, path, choices.grey_window, choices.first_slice),
        True,
    ),
    Format("NIfTI", NIFTI_SUFFIXES, lambda files, *_: open_nifti(Path(files[0]))),
    Format("MetaImage", METAIMAGE_SUFFIXES, lambda files, *_: open_metaimage(Path(files[0]))),
    Format("NRRD", NRRD_SUFFIXES, lambda files, *_: open_nrrd(Path(files[0]))),
)
_DICOM, _PICTURES, *_VOLUMES = FORMATS
VOLUME_SUFFIXES = tuple(suffix for kind in _VOLUMES for suffix in kind.suffixes)  # of files that are one scan each
_READABLE = ", ".join(
    f"{kind.name} ({', '.join(kind.suffixes)}{', or a folder of them' if kind.of_slices else ''})" for kind in FORMATS
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar", ".gz", ".bz2", ".xz", ".zst")
_PAIRS = (".hdr", ".img", ".img.gz", ".hdr.gz")
_DICOM_INDEX = "dicomdir"  # a table of contents on discs; bears DICOM's mark and holds no picture


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

    Returns:
        A Scan. Its `notes` tell whatever was assumed, chosen or left out; padding is PADDING_HU; oblique volumes lie on
        the nearest axes, without resampling; pictures give an estimate of HU, and is_hu is False.

    Raises:
        ScanError: what cannot be read, or is not HU, with the likely cause and what to do. Its subject is the path.
    """
    return open_scan(path, series=series, spacing=spacing, grey_window=grey_window, first_slice=first_slice).whole()


def open_scan(
    path: str | Path,
    *,
    series: str | None = None,
    spacing: tuple[float, float, float] | None = None,
    grey_window: str | Window | tuple[float, float] = "paper",
    first_slice: str = "head",
) -> OpenedScan:
    """Open one chest CT: every header is read and checked, and slices are read when they are asked for.

    Args:
        path: as for read_scan.
        series: as for read_scan.
        spacing: as for read_scan.
        grey_window: as for read_scan.
        first_slice: as for read_scan.

    Returns:
        An OpenedScan, whose `whole` gives a Scan, and whose `read` gives some slices.

    Raises:
        ScanError: what cannot be read, as for read_scan.
    """
    path = _existing(path)
    with told_in_one_sentence(path):
        return OpenedScan(_open(path, Choices(series, grey_window, first_slice)), path, spacing)


def read_labels(path: str | Path) -> np.ndarray:
    """Read a mask or label map: integers (Z, Y, X) on the same canonical axes as read_scan.

    Args:
        path: a NIfTI, MetaImage or NRRD file of whole numbers, whatever type they are stored in.

    Returns:
        Integers (Z, Y, X).

    Raises:
        ScanError: a file that cannot be read, or one with fractions in it. Its subject is the path.
    """
    path = _existing(path)
    with told_in_one_sentence(path):
        for kind in _VOLUMES:
            if path.is_file() and path.name.lower().endswith(kind.suffixes):
                return read_as_labels(kind.open([os.fspath(path)], path, Choices()), path)
    names = ", ".join(kind.name for kind in _VOLUMES)
    raise ScanError(f"{printable(str(path))}: labels are read from {names} files only; convert it to .nii.gz.", path)


def _open(path: Path, choices: Choices) -> Stored:
    """Choose the format by what lies there, and open it."""
    if path.is_dir():
        kind, files, notes = _look_into(path)
    else:
        kind, files, notes = _format_of(path), [os.fspath(path)], []
    if choices.series is not None and kind is not _DICOM:
        raise ChoiceError(
            f"series={choices.series!r} chooses among DICOM series, but {printable(str(path))} holds no DICOM file.",
            choices.series,
        )
    stored = kind.open(files, path, choices)
    stored.notes.extend(notes)
    return stored


def _format_of(path: Path) -> Format:
    """The format of a file: by its content where that tells, else by its name."""
    if not path.is_file():
        raise ScanError(f"{path}: neither a file nor a folder; give {_READABLE}.", path)
    if path.stat().st_size == 0:
        raise ScanError(f"{path}: the file is empty (0 bytes); copy or download it again.", path)
    with path.open("rb") as file:
        start = file.read(512)
    name = path.name.lower()
    for kind in FORMATS:
        if kind.begins(start):
            return kind
    for kind in FORMATS:
        if name.endswith(kind.suffixes):
            return kind
    if name.endswith(_PAIRS):
        raise ScanError(
            f"{path}: half of an Analyze or NIfTI pair (.hdr and .img), which is not read: it does not say where left "
            "and right are. Convert the pair to one .nii.gz file, and check that the sides are right.",
            path,
        )
    if name.endswith(_ARCHIVES):
        raise ScanError(f"{path}: an archive; unpack it, and give the file or folder that comes out.", path)
    raise ScanError(f"{path}: not a kind of file that is read as a scan; give {_READABLE}.", path)


def _look_into(folder: Path) -> tuple[Format, list[str], list[str]]:
    """The format of the slices in a folder, its files, and notes on the others."""
    # As text: pathlib takes ten times as long to join and to compare, and there are hundreds.
    files = sorted(_files_in(os.fspath(folder), set()))
    if not files:
        raise ScanError(f"{folder}: the folder is empty; give {_READABLE}.", folder)
    pictures, volumes, dicom = [], [], []
    for file in files:
        name = file.lower()
        if name.endswith(PICTURE_SUFFIXES):
            pictures.append(file)
        elif name.endswith(VOLUME_SUFFIXES):
            volumes.append(file)
        elif is_dicom(Path(file)):
            dicom.append(file)
    if not dicom:  # under a foreign name, as some viewers export it
        dicom = [file for file in pictures[:1] + volumes[:1] if is_dicom(Path(file))]
        dicom = [file for file in (*pictures, *volumes) if is_dicom(Path(file))] if dicom else []
    if dicom:
        return _DICOM, dicom, _left_out(len(files) - len(dicom), "DICOM")
    places: dict[Path, list[str]] = {}
    for name, inside in groupby(pictures, os.path.dirname):
        places.setdefault(Path(name), []).extend(inside)
    if folder in places or len(places) == 1:
        place = folder if folder in places else next(iter(places))
        direct = places[place]
        notes = _left_out(len(files) - len(direct), "JPG or PNG, or lie deeper" if len(places) > 1 else "JPG or PNG")
        deeper = [] if place == folder else [f"The slices lie deeper, in {printable(str(place.relative_to(folder)))}."]
        return _PICTURES, direct, [*deeper, *notes]
    if pictures:
        raise ScanError(
            f"{folder}: holds pictures in {len(places)} folders, and a scan is one of them; give it, such as "
            f"{min(places).relative_to(folder)}.",
            folder,
        )
    if volumes:
        raise ScanError(
            f"{folder}: the folder holds whole volumes, not slices; give one of its {len(volumes)} files, such as "
            f"{Path(volumes[0]).relative_to(folder)}.",
            folder,
        )
    if packed := [file for file in files if file.lower().endswith((*_ARCHIVES, *_PAIRS))]:
        _format_of(Path(packed[0]))
    raise ScanError(
        f"{folder}: no DICOM, JPG or PNG slices among its {len(files)} files, such as "
        f"{Path(files[0]).relative_to(folder)}; give {_READABLE}.",
        folder,
    )


def _left_out(count: int, kind: str) -> list[str]:
    return [f"{count} files that are not {kind} were left out."] if count else []


def _files_in(folder: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Every file at any depth that is not hidden; links are followed, and no folder is entered twice."""
    found = os.stat(folder)
    if (found.st_dev, found.st_ino) in visited:
        return
    visited.add((found.st_dev, found.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                yield from _files_in(entry.path, visited)
            elif entry.is_file() and entry.name.lower() != _DICOM_INDEX:
                yield entry.path


def _existing(path: str | Path) -> Path:
    path = home_filled_in(path)
    try:
        path.stat()
    except (FileNotFoundError, ValueError):  # ValueError: no file's name holds the character NUL
        raise ScanError(f"{path}: no such file or folder; check the spelling and the current folder.", path) from None
    except OSError as error:
        raise unreadable(path, error) from error
    return path
