"""DICOM: every picture is asked for its place, one series is chosen, slices lie by position."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from ggo_lab.errors import ScanError
from ggo_lab.readers.dicom_headers import Frame, read_frames
from ggo_lab.readers.dicom_pixels import stored_planes
from ggo_lab.readers.stored import Stored, check_size
from ggo_lab.readers.voxels import as_hu
from ggo_lab.scan import PADDING_HU

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_AXIAL = 0.8  # least cosine between the slices' normal and the body's axis; gantries tilt to 30 degrees (0.87)
_IRREGULAR = 0.10  # of the usual distance between slices
_TILT = 1.0  # degrees
_SAME_PLACE = 0.01  # mm


def is_dicom(path: Path) -> bool:
    """Whether the file bears DICOM's mark, or a name that only DICOM files have."""
    if path.name.lower().endswith(DICOM_SUFFIXES):
        return True
    with path.open("rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def read_dicom(files: list[Path], path: Path, series: str | None) -> Stored:
    """Read one series of CT slices.

    Args:
        files: of one patient, in any order, of any number of series.
        path: what the user gave, for messages.
        series: UID or part of the description of the series to take; None for the axial CT with the most slices.
    """
    found = [(file, read_frames(file)) for file in files]
    frames = [frame for _, frames in found for frame in frames]
    if not frames:
        raise ScanError(
            f"{path}: none of {len(files)} DICOM files holds a picture that can be decoded; they are damaged, or "
            "reports and indexes: give the folder of the CT slices.",
            path,
        )
    chosen, notes = _choose(frames, path, series)
    left_out = sorted(file.name for file, frames in found if not frames)
    if left_out:
        notes.append(
            f"{len(left_out)} DICOM files hold no picture that can be decoded and were left out: "
            f"{', '.join(left_out[:3])}{', ...' if len(left_out) > 3 else ''}."
        )
    hu, steps = _read_stack(chosen, path, notes)
    return Stored(hu, steps, notes=tuple(notes))


def _choose(frames: list[Frame], path: Path, series: str | None) -> tuple[list[Frame], list[str]]:
    """The frames of the one stack of slices to read, and notes on what was chosen and left out."""
    patients = {frame.patient for frame in frames}
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
    stacks = defaultdict(list)
    for frame in axial:
        stacks[frame.stack].append(frame)
    chosen = max(stacks.values(), key=len)

    notes = []
    others = [f for f in frames if f.series != chosen[0].series]
    if others:
        how = "as asked" if series is not None else "the axial CT with the most slices"
        notes.append(f"Read {_listed(chosen)}, {how}; left out {_listed(others)}. series= chooses.")
    same_series = len(frames) - len(others) - len(chosen)
    if same_series:
        notes.append(
            f"{same_series} pictures of the same series were left out: localizers, or of another size or orientation."
        )
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


def _listed(frames: list[Frame]) -> str:
    """The series of these frames in words."""
    slices = Counter(frame.series for frame in frames)
    description = {frame.series: frame.description for frame in frames}
    listed = [f"{description[uid] or uid or 'no name'!r} ({count} slices)" for uid, count in slices.most_common(6)]
    return ", ".join(listed) + (", ..." if len(slices) > 6 else "")


def _kinds(frames: list[Frame]) -> str:
    kinds = {"colour" if f.pixels.colours > 1 else "localizers" if f.is_localizer else f.modality for f in frames}
    return ", ".join(sorted(kinds))


def _read_stack(frames: list[Frame], path: Path, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """HU (K, J, I) of slices in the order of their positions, and the voxel steps; adds to notes."""
    if not all(frame.has_place for frame in frames):
        if len(frames) > 1:
            raise ScanError(
                f"{path}: some slices do not say where they lie (Image Position and Orientation), so their order is "
                "unknown; export the series again with its geometry.",
                path,
            )
        notes.append("The slice does not say how it lies; it was taken as upright in radiological view.")
    if not all(frame.has_pixel_size for frame in frames):
        notes.append("The files store no pixel spacing; 1 mm was assumed.")
    normal = frames[0].normal
    frames = sorted(frames, key=lambda frame: frame.origin @ normal)
    shape = (len(frames), frames[0].pixels.rows, frames[0].pixels.columns)
    stored_bytes = sum(file.stat().st_size for file in {frame.path for frame in frames})
    check_size(shape, frames[0].pixels.allocated // 8, stored_bytes, True, path)
    hu = np.empty(shape, np.int16)
    for k, stored in _stored(frames):
        hu[k] = _hu_of(stored, frames[k])
    kept = _without_repeats(frames, hu, path)
    if len(kept) < len(frames):
        notes.append(f"{len(frames) - len(kept)} slices that repeat another one were left out.")
        hu, frames = hu[kept], [frames[k] for k in kept]
    steps = np.column_stack([frames[0].ways * frames[0].pixel_size, normal * _distance(frames, notes)])
    return hu, steps


def _stored(frames: list[Frame]) -> Iterator[tuple[int, np.ndarray]]:
    """The index of each frame in the list with its stored values, each file being read once."""
    wanted: dict[Path, dict[int, int]] = defaultdict(dict)
    for k, frame in enumerate(frames):
        wanted[frame.path][frame.number] = k
    for places in wanted.values():
        pixels = frames[next(iter(places.values()))].pixels
        for number, values in enumerate(stored_planes(pixels)):
            if number in places:
                yield places[number], values


def _without_repeats(frames: list[Frame], hu: np.ndarray, path: Path) -> list[int]:
    """The indices of the frames without those that repeat the one before; ScanError for two pictures of one place."""
    kept = [0]
    for k in range(1, len(frames)):
        before = frames[kept[-1]]
        if abs((frames[k].origin - before.origin) @ before.normal) >= _SAME_PLACE:
            kept.append(k)
        elif not np.array_equal(hu[k], hu[kept[-1]]):
            raise ScanError(
                f"{path}: {_named(before)} and {_named(frames[k])} are different pictures of the same place: two "
                "scans share a series, or it lost its geometry; put each in a folder of its own, or export it again.",
                path,
            )
    return kept


def _named(frame: Frame) -> str:
    return frame.path.name if frame.pixels.frames == 1 else f"frame {frame.number + 1} of {frame.path.name}"


def _distance(slices: list[Frame], notes: list[str]) -> float:
    """Distance between slices in mm, along their normal; notes on gaps and on a tilted gantry."""
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
    origins = np.array([frame.origin for frame in slices])
    way = origins[-1] - origins[0]
    places = origins @ slices[0].normal
    tilt = np.degrees(np.arccos(np.clip((places[-1] - places[0]) / np.linalg.norm(way), -1, 1)))
    if tilt > _TILT:
        notes.append(
            f"The gantry was tilted by {tilt:.1f} degrees: each slice is shifted against its neighbour, and stays so."
        )
    distances = np.diff(places)
    usual = float(np.median(distances))
    irregular = np.abs(distances - usual) > _IRREGULAR * usual
    if not irregular.any():
        return float(distances.mean())
    notes.append(
        f"{irregular.sum()} of {len(distances)} distances between slices differ from the usual {usual:g} mm, the "
        f"largest is {distances.max():g} mm: slices may be missing. {usual:g} mm is taken as spacing."
    )
    return usual


def _hu_of(stored: np.ndarray, frame: Frame) -> np.ndarray:
    """HU int16 of one frame, with padding at PADDING_HU."""
    hu = as_hu(stored, frame.path, frame.slope, frame.intercept)
    if frame.padding is not None:
        hu[_at_border(hu == np.rint(frame.padding))] = PADDING_HU
    return hu


def _at_border(mask: np.ndarray) -> np.ndarray:
    """The parts of a 2-D mask that touch the picture's border: scanners also clip noisy air to the padding's value."""
    parts, _ = ndimage.label(mask)
    border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, border[border > 0])
