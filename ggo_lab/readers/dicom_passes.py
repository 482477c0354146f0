"""The slices of a DICOM series in their places: what repeats is left out, and one passage through the body chosen."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from ggo_lab.errors import ScanError, printable
from ggo_lab.readers.dicom_headers import Frame
from ggo_lab.readers.dicom_pixels import stored_planes

IRREGULAR = 0.10  # of the usual distance between slices
SAME_PLACE = 0.01  # mm
_MOST_AT_ONE_PLACE = 3  # pictures that are compared with one another
_LEAST_OF_A_PASS = 3  # slices; with fewer nothing can be said of their distances
_COMPARED = 8  # slices of a second pass that are looked at


def along(frames: Sequence[Frame]) -> np.ndarray:
    """Where slices lie along the normal of the first one, mm."""
    return np.array([frame.origin for frame in frames]) @ frames[0].normal


def named(frame: Frame) -> str:
    """The frame, for a message: its file, and its number where the file holds several."""
    name = printable(frame.path.name)
    return name if frame.pixels.frames == 1 else f"frame {frame.number + 1} of {name}"


def placed(frames: list[Frame], path: Path, notes: list[str]) -> list[Frame]:
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
    order = sorted(zip(along(frames), (frame.order for frame in frames), range(len(frames)), strict=True))
    kept: list[Frame] = []
    for frame in (frames[k] for _, _, k in order):
        together = [other for other in kept[-_MOST_AT_ONE_PLACE:] if _same_place(frame, other)]
        if not any(_same_picture(frame, other) for other in together):
            kept.append(frame)
    if len(kept) < len(frames):
        notes.append(f"{len(frames) - len(kept)} slices that repeat another one were left out.")
    return kept


def _same_place(frame: Frame, other: Frame) -> bool:
    return abs((frame.origin - other.origin) @ other.normal) < SAME_PLACE


def _same_picture(frame: Frame, other: Frame) -> bool:
    one, another = _picture(frame), _picture(other)
    return one is not None and another is not None and np.array_equal(one, another)


def _picture(frame: Frame) -> np.ndarray | None:
    """The frame in HU, float; None where it cannot be decoded."""
    (values,) = stored_planes([frame])
    return None if values is None else values * frame.slope + frame.intercept


def one_pass(frames: list[Frame], path: Path, notes: list[str]) -> list[Frame]:
    """The slices of one passage through the body, in the order of their places.

    A series may hold two: breathed in and out, with two kernels, early and late. Numbers of acquisitions alone mean
    nothing, for scanners also count them through a single passage. Two passages clash at their places, or do not fit
    between each other.
    """
    clash = _clash(frames)
    for name, group in [*((name, _by(name)) for name in frames[0].traits), ("order of Instance Numbers", _runs)]:
        groups = group(frames)
        passes = [part for part in groups.values() if len(part) >= _LEAST_OF_A_PASS and _clash(part) is None]
        if len(groups) < 2 or not passes:
            continue
        passes.sort(key=lambda part: (-len(part), min(frame.order for frame in part)))
        if clash is None and not _alternate(passes):
            continue
        chosen = _continued(passes[0], passes[1:])
        # Half a volume must not pass for a whole one, and numbers of instances often say nothing.
        if np.ptp(along(chosen)) < (0.9 if group is _runs else 0.5) * np.ptp(along(frames)):
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
            f"{path}: {named(before)} and {named(after)} are different pictures of the same place: two scans share a "
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
    place = dict(zip(map(id, frames), along(frames), strict=True))
    runs: list[list[Frame]] = []
    way = 0.0
    for frame in sorted(frames, key=lambda one: one.order):
        step = place[id(frame)] - place[id(runs[-1][-1])] if runs else 0.0
        if runs and abs(step) >= SAME_PLACE and (len(runs[-1]) == 1 or step * way > 0):
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
    return bool(np.mean(np.abs(distances - usual) > IRREGULAR * usual) < 0.2)


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
        beyond = [f for f in other if not low - SAME_PLACE <= f.origin @ normal <= high + SAME_PLACE]
        if 2 * len(beyond) >= len(other):
            chosen = sorted([*chosen, *beyond], key=lambda frame: frame.origin @ normal)
    return chosen
