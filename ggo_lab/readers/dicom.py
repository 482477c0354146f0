"""DICOM: every picture is asked for its place, one pass of one series is chosen, slices lie by position."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ggo_lab.errors import ScanError
from ggo_lab.readers.dicom_headers import Frame, read_frames
from ggo_lab.readers.dicom_passes import IRREGULAR, SAME_PLACE, along, named, one_pass, placed
from ggo_lab.readers.dicom_pixels import stored_planes
from ggo_lab.readers.dicom_values import Unreadable
from ggo_lab.readers.stored import Stored, check_size, listed

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_START = 512  # bytes of a file that tell what it is
_AXIAL = 0.8  # least cosine between the slices' normal and the body's axis; gantries tilt to 30 degrees (0.87)
_SAME_WAY = 0.01  # between unit vectors; half a degree
_SAME_SIZE = 0.001  # relative, of a pixel
# Value representations: what stands between an element's tag and its length in most files.
_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT OB OW PN SH SL SQ SS ST TM UI UL UN US UT".split())


def is_dicom(path: Path) -> bool:
    """Whether the file holds DICOM by its content, or has a name that only DICOM files have."""
    if path.name.lower().endswith(DICOM_SUFFIXES):
        return True
    with path.open("rb", buffering=0) as file:
        return begins_like_dicom(file.read(_START))


def begins_like_dicom(start: bytes) -> bool:
    """Whether these first bytes of a file are DICOM's: its mark, or without it three elements in the order of tags."""
    if start[128:132] == b"DICM":
        return True
    for order in ("little", "big"):
        at, before = 0, (0, 0)
        for _ in range(3):
            tag = tuple(int.from_bytes(start[at + n : at + n + 2], order) for n in (0, 2))
            if tag <= before or tag[0] not in (2, 8) or at + 8 > len(start):
                break
            before = (tag[0], tag[1])
            if start[at + 4 : at + 6] in _VRS:
                length = int.from_bytes(start[at + 6 : at + 8], order)
                if start[at + 4 : at + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
                    length = 4 + int.from_bytes(start[at + 8 : at + 12], order)
            else:
                length = int.from_bytes(start[at + 4 : at + 8], order)
            at += 8 + length
            if at > len(start):
                return len(start) == _START and length < 1 << 16
        else:
            return True
    return False


def open_dicom(files: list[Path], path: Path, series: str | None) -> Stored:
    """Open one series of CT slices.

    Args:
        files: of one patient, in any order, of any number of series.
        path: what the user gave, for messages.
        series: UID or part of the description of the series to take; None for the axial CT with the most slices.
    """
    frames, unreadable = [], {}
    for file in files:
        try:
            frames += read_frames(file)
        except Unreadable as reason:
            unreadable[file.name] = str(reason)
    if not frames:
        reasons = Counter(unreadable.values()).most_common(3)
        raise ScanError(
            f"{path}: none of {len(files)} DICOM files holds a picture that can be decoded; they are "
            f"{', '.join(f'{reason} ({count})' for reason, count in reasons)}: give the folder of the CT slices.",
            path,
        )
    stack, notes = _choose(frames, path, series)
    for why in dict.fromkeys(unreadable.values()):
        names = sorted(name for name, its in unreadable.items() if its == why)
        notes.append(f"{len(names)} DICOM files are {why} and were left out: {listed(names)}.")
    return _stored(one_pass(placed(stack, path, notes), path, notes), path, notes)


def _choose(frames: list[Frame], path: Path, series: str | None) -> tuple[list[Frame], list[str]]:
    """The frames that can lie on one another, of the series to read, and notes on what was chosen and left out."""
    patients = {frame.patient for frame in frames} - {""}
    if len(patients) > 1:
        raise ScanError(
            f"{path}: holds {len(patients)} patients, and a scan is of one; give the folder of one of them.", path
        )
    wanted = frames if series is None else _of_series(frames, path, series)
    pictures = [f for f in wanted if f.modality in ("CT", "") and f.pixels.colours == 1 and not f.is_localizer]
    if not pictures:
        raise ScanError(
            f"{path}: no CT slices among {len(wanted)} DICOM pictures, which are {_kinds(wanted)}; give the folder "
            "of a chest CT.",
            path,
        )
    # Asked for by name, coronal or sagittal reformats are taken too.
    axial = [f for f in pictures if series is not None or abs(f.normal[2]) >= _AXIAL]
    if not axial:
        raise ScanError(
            f"{path}: no axial series, only {_listed(pictures)}; choose one with series=, by UID or description.",
            path,
        )
    stacks = _stacks(axial)
    chosen = max(stacks, key=_places)

    notes = []
    others = [f for f in frames if f.series != chosen[0].series]
    if others:
        how = "as asked" if series is not None else "the axial CT with the most slices"
        notes.append(f"Read {_listed(chosen)}, {how}; left out {_listed(others)}. series= chooses.")
    taken = set(map(id, chosen))
    rest = [f for f in frames if f.series == chosen[0].series and id(f) not in taken]
    if rest:
        reasons = Counter(_why_not(frame, chosen[0]) for frame in rest)
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        notes.append(f"{len(rest)} pictures of the same series were left out: {why}.")
    if not chosen[0].modality:
        notes.append("The files do not name their modality; CT was assumed.")
    return chosen, notes


def _of_series(frames: list[Frame], path: Path, series: str) -> list[Frame]:
    """The frames whose series has this UID or, failing that, this text in its description."""
    found = [f for f in frames if f.series == series]
    found = found or [f for f in frames if series.lower() in f.description.lower()]
    if len({f.series for f in found}) != 1:
        what = f"series={series!r} fits several series: {_listed(found)}" if found else f"no series is {series!r}"
        raise ScanError(
            f"{path}: {what}; give the UID, or a part of the description, of one of {_listed(frames)}.", path
        )
    return found


def _stacks(frames: list[Frame]) -> list[list[Frame]]:
    """The frames in groups of those that can lie on one another: of one series, size and direction."""
    stacks: list[list[Frame]] = []
    for frame in frames:
        for stack in reversed(stacks):
            if _why_not(frame, stack[0]) is None:
                stack.append(frame)
                break
        else:
            stacks.append([frame])
    return stacks


def _why_not(frame: Frame, other: Frame) -> str | None:
    """Why a frame cannot lie on another one, in a few words; None where it can."""
    if frame.is_localizer:
        return "localizers"
    if frame.modality != other.modality:
        return f"of modality {frame.modality or 'unknown'}"
    if frame.pixels.colours != other.pixels.colours:
        return "in colour"
    size, its = ((f.pixels.rows, f.pixels.columns) for f in (frame, other))
    if size != its:
        return f"of {size[0]} x {size[1]} pixels"
    if frame.has_place != other.has_place:
        return "that do not say where they lie" if other.has_place else "that say where they lie"
    if frame.series != other.series:
        return "of another series"
    if np.abs(frame.ways - other.ways).max() > _SAME_WAY:
        return "of another orientation"
    if any(abs(a - b) > _SAME_SIZE * b for a, b in zip(frame.pixel_size, other.pixel_size, strict=True)):
        return f"with pixels of {frame.pixel_size[1]:g} x {frame.pixel_size[0]:g} mm"
    return None


def _places(stack: list[Frame]) -> int:
    """How many places the slices of a stack lie at; pictures of one place over time are one."""
    if not stack[0].has_place:
        return min(len(stack), 1)
    return 1 + int(np.sum(np.diff(np.sort(along(stack))) >= SAME_PLACE))


def _listed(frames: list[Frame]) -> str:
    """The series of these frames in words."""
    slices = Counter(frame.series for frame in frames)
    description = {frame.series: frame.description for frame in frames}
    series = [f"{description[uid] or uid or 'no name'!r} ({count} slices)" for uid, count in slices.most_common(6)]
    return ", ".join(series) + (", ..." if len(slices) > 6 else "")


def _kinds(frames: list[Frame]) -> str:
    kinds = {
        "colour" if f.pixels.colours > 1 else "localizers" if f.is_localizer else f.modality or "of no modality"
        for f in frames
    }
    return ", ".join(sorted(kinds))


def _stored(frames: list[Frame], path: Path, notes: list[str]) -> Stored:
    """The slices of one volume, ready to be read, and where they lie."""
    pixels = frames[0].pixels
    shape = (len(frames), pixels.rows, pixels.columns)
    files = {frame.path: frame.pixels for frame in frames}
    packed = any(picture.is_packed or picture.offset is None for picture in files.values())
    check_size(shape, pixels.allocated // 8, sum(file.stat().st_size for file in files), packed, path)

    def planes(wanted: Sequence[int]) -> Iterator[np.ndarray | None]:
        return stored_planes([frames[k] for k in wanted])

    # Slices may be shifted against each other; the way from one to the next then leans.
    normal = frames[0].normal
    way = frames[-1].origin - frames[0].origin
    way = way / (way @ normal) if len(frames) > 1 else normal
    steps = np.column_stack([frames[0].ways * frames[0].pixel_size, way * _distance(frames, notes)])
    return Stored(
        shape,
        steps,
        planes,
        [frame.slope for frame in frames],
        [frame.intercept for frame in frames],
        [frame.pixels.padding_given for frame in frames],
        notes=notes,
        names=[named(frame) for frame in frames],
    )


def _distance(slices: list[Frame], notes: list[str]) -> float:
    """Distance between slices in mm, along their normal; a note on gaps."""
    if len(slices) == 1:
        thickness = slices[0].thickness
        notes.append(
            "A single slice; "
            + (
                f"its thickness of {thickness:g} mm is taken as spacing."
                if thickness
                else "1 mm was assumed as spacing."
            )
        )
        return thickness or 1.0
    distances = np.diff(along(slices))
    usual = float(np.median(distances))
    irregular = np.abs(distances - usual) > IRREGULAR * usual
    if not irregular.any():
        return float(distances.mean())
    notes.append(
        f"{irregular.sum()} of {len(distances)} distances between slices differ from the usual {usual:g} mm, the "
        f"largest is {distances.max():g} mm: slices may be missing. {usual:g} mm is taken as spacing."
    )
    return usual
