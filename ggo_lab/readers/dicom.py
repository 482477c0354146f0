"""DICOM: every picture is asked for its place, one pass of one series is chosen, slices lie by position."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from ggo_lab.errors import ScanError, printable
from ggo_lab.readers.dicom_headers import Frame, read_frames
from ggo_lab.readers.dicom_pixels import stored_planes
from ggo_lab.readers.dicom_values import Unreadable
from ggo_lab.readers.stored import Stored, check_size, listed

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_START = 512  # bytes of a file that tell what it is
_AXIAL = 0.8  # least cosine between the slices' normal and the body's axis; gantries tilt to 30 degrees (0.87)
_IRREGULAR = 0.10  # of the usual distance between slices
_SAME_PLACE = 0.01  # mm
_SAME_WAY = 0.01  # between unit vectors; half a degree
_SAME_SIZE = 0.001  # relative, of a pixel
_MOST_AT_ONE_PLACE = 3  # pictures that are compared with one another
_LEAST_OF_A_PASS = 3  # slices; with fewer nothing can be said of their distances
_COMPARED = 8  # slices of a second pass that are looked at
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
    return _stored(_one_pass(_placed(stack, path, notes), path, notes), path, notes)


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
        told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        notes.append(f"{len(rest)} pictures of the same series were left out: {told}.")
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
    return 1 + int(np.sum(np.diff(np.sort(_along(stack))) >= _SAME_PLACE))


def _along(frames: Sequence[Frame]) -> np.ndarray:
    """Where slices lie along the normal of the first one, mm."""
    return np.array([frame.origin for frame in frames]) @ frames[0].normal


def _listed(frames: list[Frame]) -> str:
    """The series of these frames in words."""
    slices = Counter(frame.series for frame in frames)
    description = {frame.series: frame.description for frame in frames}
    told = [f"{description[uid] or uid or 'no name'!r} ({count} slices)" for uid, count in slices.most_common(6)]
    return ", ".join(told) + (", ..." if len(slices) > 6 else "")


def _kinds(frames: list[Frame]) -> str:
    kinds = {
        "colour" if f.pixels.colours > 1 else "localizers" if f.is_localizer else f.modality or "of no modality"
        for f in frames
    }
    return ", ".join(sorted(kinds))


def _placed(frames: list[Frame], path: Path, notes: list[str]) -> list[Frame]:
    """The frames in the order of their places, without those that repeat another one."""
    if not frames[0].has_place:
        if len(frames) > 1:
            raise ScanError(
                f"{path}: the slices do not say where they lie (Image Position and Orientation), so their order is "
                "unknown; export the series again with its geometry.",
                path,
            )
        notes.append("The slice does not say how it lies; it was taken as upright in radiological view.")
    if not all(frame.has_pixel_size for frame in frames):
        notes.append("The files store no pixel spacing; 1 mm was assumed.")
    order = sorted(zip(_along(frames), (frame.order for frame in frames), range(len(frames)), strict=True))
    kept: list[Frame] = []
    for frame in (frames[k] for _, _, k in order):
        together = [other for other in kept[-_MOST_AT_ONE_PLACE:] if _same_place(frame, other)]
        if not any(_same_picture(frame, other) for other in together):
            kept.append(frame)
    if len(kept) < len(frames):
        notes.append(f"{len(frames) - len(kept)} slices that repeat another one were left out.")
    return kept


def _same_place(frame: Frame, other: Frame) -> bool:
    return abs((frame.origin - other.origin) @ other.normal) < _SAME_PLACE


def _same_picture(frame: Frame, other: Frame) -> bool:
    one, another = _picture(frame), _picture(other)
    return one is not None and another is not None and np.array_equal(one, another)


def _picture(frame: Frame) -> np.ndarray | None:
    """The frame in HU, float; None where it cannot be decoded."""
    (values,) = stored_planes([frame])
    return None if values is None else values * frame.slope + frame.intercept


def _one_pass(frames: list[Frame], path: Path, notes: list[str]) -> list[Frame]:
    """The slices of one passage through the body, in the order of their places.

    A series may hold two: breathed in and out, with two kernels, early and late. Numbers of acquisitions alone mean
    nothing, for scanners also count them through a single passage. Two passages clash at their places, or do not fit
    between each other.
    """
    clash = _clash(frames)
    for name, told in [*((name, _by(name)) for name in frames[0].traits), ("order of Instance Numbers", _runs)]:
        groups = told(frames)
        passes = [part for part in groups.values() if len(part) >= _LEAST_OF_A_PASS and _clash(part) is None]
        if len(groups) < 2 or not passes:
            continue
        passes.sort(key=lambda part: (-len(part), min(frame.order for frame in part)))
        if clash is None and not _alternate(passes):
            continue
        chosen = _continued(passes[0], passes[1:])
        # Half a volume must not pass for a whole one, and numbers of instances often say nothing.
        if np.ptp(_along(chosen)) < (0.9 if told is _runs else 0.5) * np.ptp(_along(frames)):
            continue
        which = next(value for value, part in groups.items() if part is passes[0])
        notes.append(
            f"The series passes over the same places more than once: of {len(groups)} passes, told apart by {name}, "
            f"that of {which or 'none'} was read; {len(frames) - len(chosen)} slices of others were left out. For "
            "another one, put its files into a folder of their own."
        )
        return chosen
    if clash is not None:
        before, after = clash
        raise ScanError(
            f"{path}: {_named(before)} and {_named(after)} are different pictures of the same place: two scans share a "
            "series, or it lost its geometry; put each in a folder of its own, or export it again.",
            path,
        )
    return frames


def _clash(frames: list[Frame]) -> tuple[Frame, Frame] | None:
    """The first two of these frames, in the order of their places, that lie at the same place."""
    return next(((a, b) for a, b in pairwise(frames) if _same_place(a, b)), None)


def _by(name: str) -> Callable[[list[Frame]], dict[str, list[Frame]]]:
    """Give what puts frames into groups by one of their traits."""

    def groups(frames: list[Frame]) -> dict[str, list[Frame]]:
        found = defaultdict(list)
        for frame in frames:
            found[frame.traits[name]].append(frame)
        return found

    return groups


def _runs(frames: list[Frame]) -> dict[str, list[Frame]]:
    """Frames in groups that go through the body one way, in the order in which the series counts them."""
    place = dict(zip(map(id, frames), _along(frames), strict=True))
    runs: list[list[Frame]] = []
    way = 0.0
    for frame in sorted(frames, key=lambda each: each.order):
        step = place[id(frame)] - place[id(runs[-1][-1])] if runs else 0.0
        if runs and abs(step) >= _SAME_PLACE and (len(runs[-1]) == 1 or step * way > 0):
            runs[-1].append(frame)
            way = step
        else:
            runs.append([frame])
    return {f"{run[0].order[0]} to {run[-1].order[0]}": sorted(run, key=lambda frame: place[id(frame)]) for run in runs}


def _alternate(passes: list[list[Frame]]) -> bool:
    """Whether the two largest groups go over the same part of the body, and are not the halves of one volume."""
    if len(passes) < 2:
        return False
    first, second = passes[:2]
    normal = first[0].normal
    places = [np.array([frame.origin for frame in part]) @ normal for part in (first, second)]
    shared = min(part.max() for part in places) - max(part.min() for part in places)
    if shared < 0.5 * min(np.ptp(part) for part in places) or not all(map(_is_regular, places)):
        return False
    return not _is_regular(np.sort(np.concatenate(places))) or _unlike(first, second, *places)


def _is_regular(places: np.ndarray) -> bool:
    distances = np.diff(places)
    usual = np.median(distances)
    return bool(np.mean(np.abs(distances - usual) > _IRREGULAR * usual) < 0.2)


def _unlike(first: list[Frame], second: list[Frame], places: np.ndarray, others: np.ndarray) -> bool:
    """Whether slices of the second differ from what lies between their neighbours in the first.

    In one volume the mean of two neighbours is nearer to the slice between them than they are to each other.
    """
    between = np.searchsorted(places, others)
    inner = np.flatnonzero((between > 0) & (between < len(places)))
    unlike = apart = 0.0
    for n in inner[np.linspace(0, len(inner) - 1, min(len(inner), _COMPARED)).astype(int)]:
        pictures = [_picture(frame) for frame in (second[n], first[between[n] - 1], first[between[n]])]
        if all(picture is not None for picture in pictures):
            middle, below, above = (ndimage.uniform_filter(picture, 5) for picture in pictures)  # less noise
            unlike += float(np.abs(middle - (below + above) / 2).mean())
            apart += float(np.abs(above - below).mean())
    return unlike > apart


def _continued(chosen: list[Frame], others: list[list[Frame]]) -> list[Frame]:
    """The chosen pass, and those that go on where it ends: a scan in blocks that overlap a little is one."""
    normal = chosen[0].normal
    for other in others:
        low, high = (chosen[k].origin @ normal for k in (0, -1))
        beyond = [f for f in other if not low - _SAME_PLACE <= f.origin @ normal <= high + _SAME_PLACE]
        if 2 * len(beyond) >= len(other):
            chosen = sorted([*chosen, *beyond], key=lambda frame: frame.origin @ normal)
    return chosen


def _stored(frames: list[Frame], path: Path, notes: list[str]) -> Stored:
    """The slices of one volume, ready to be read, and where they lie."""
    pixels = frames[0].pixels
    shape = (len(frames), pixels.rows, pixels.columns)
    files = {frame.path: frame.pixels for frame in frames}
    packed = any(each.is_packed or each.offset is None for each in files.values())
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
        names=[_named(frame) for frame in frames],
    )


def _named(frame: Frame) -> str:
    name = printable(frame.path.name)
    return name if frame.pixels.frames == 1 else f"frame {frame.number + 1} of {name}"


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
    distances = np.diff(_along(slices))
    usual = float(np.median(distances))
    irregular = np.abs(distances - usual) > _IRREGULAR * usual
    if not irregular.any():
        return float(distances.mean())
    notes.append(
        f"{irregular.sum()} of {len(distances)} distances between slices differ from the usual {usual:g} mm, the "
        f"largest is {distances.max():g} mm: slices may be missing. {usual:g} mm is taken as spacing."
    )
    return usual
