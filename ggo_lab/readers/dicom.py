"""DICOM through SimpleITK (GDCM): every file is asked for its place, one series is chosen, slices lie by position."""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ggo_lab.errors import ScanError
from ggo_lab.readers.itk import quiet_itk, steps_of
from ggo_lab.readers.stored import Stored, as_hu, check_size
from ggo_lab.scan import PADDING_HU

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_AXIAL = 0.8  # least cosine between the slices' normal and the body's axis; gantries tilt to 30 degrees (0.87)
_IRREGULAR = 0.10  # of the usual distance between slices
_TILT = 1.0  # degrees
_SAME_PLACE = 0.01  # mm


@dataclass(frozen=True, eq=False)
class _Header:
    """What one file says of itself. Lengths in mm, directions towards the patient's left, back and head."""

    path: Path
    series: str
    description: str
    patient: str
    modality: str
    is_localizer: bool
    size: tuple[int, int, int]  # columns, rows, frames
    colours: int
    bytes_per_voxel: int
    steps: np.ndarray  # (3, 3) as in Stored
    origin: np.ndarray  # (3,)
    padding: float | None  # HU
    thickness: float | None
    has_place: bool
    has_pixel_size: bool

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        across = np.cross(self.steps[:, 0], self.steps[:, 1])
        return across / (np.linalg.norm(across) or 1.0)

    @property
    def stack(self) -> tuple:
        """Equal for slices that can lie on one another; multi-frame files stand alone."""
        alone = str(self.path) if self.size[2] > 1 else ""
        return self.series, self.size, tuple(np.round(self.steps[:, :2], 3).ravel()), alone


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
    with quiet_itk():
        headers = [header for file in files if (header := _read_header(file)) is not None]
        if not headers:
            raise ScanError(
                f"{path}: none of {len(files)} DICOM files holds a picture that can be decoded; they are damaged, or "
                "reports and indexes: give the folder of the CT slices.",
                path,
            )
        chosen, notes = _choose(headers, path, series)
        if len(headers) < len(files):
            left_out = sorted(file.name for file in {*files} - {header.path for header in headers})
            notes.append(
                f"{len(left_out)} DICOM files hold no picture that can be decoded and were left out: "
                f"{', '.join(left_out[:3])}{', ...' if len(left_out) > 3 else ''}."
            )
        first = chosen[0]
        stored_bytes = sum(header.path.stat().st_size for header in chosen)
        shape = (first.size[2] * len(chosen), first.size[1], first.size[0])
        check_size(shape, first.bytes_per_voxel, stored_bytes, True, path)
        if first.size[2] > 1:
            hu, steps = _read_pixels(first), first.steps
        else:
            hu, steps = _read_stack(chosen, shape, path, notes)
    return Stored(hu, steps, notes=tuple(notes))


def _read_header(file: Path) -> _Header | None:
    """What the file says of itself; None where it holds no picture, or is damaged."""
    reader = _reader(file)
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    keys = set(reader.GetMetaDataKeys())

    def text(tag: str) -> str:
        # Bytes of another alphabet come as surrogates, which cannot be printed.
        value = reader.GetMetaData(tag) if tag in keys else ""
        return value.encode("utf-8", "replace").decode().strip(" \0")

    size = (*reader.GetSize(), 1)[:3]
    thickness = _number(text("0018|0050"))
    return _Header(
        path=file,
        series=text("0020|000e"),
        description=text("0008|103e"),
        patient=text("0010|0020"),
        modality=text("0008|0060"),
        is_localizer="LOCALIZER" in text("0008|0008").upper(),
        size=size,
        colours=reader.GetNumberOfComponents(),
        bytes_per_voxel=int(_number(text("0028|0100")) or 16) // 8,
        steps=steps_of(reader),
        origin=np.asarray((*reader.GetOrigin(), 0.0)[:3]),
        padding=_padding_hu(text),
        thickness=thickness if thickness and thickness > 0 else None,
        # Multi-frame files keep both in sequences, which GDCM reads.
        has_place=size[2] > 1 or bool(text("0020|0032") and text("0020|0037")),
        has_pixel_size=size[2] > 1 or bool(text("0028|0030")),
    )


def _choose(headers: list[_Header], path: Path, series: str | None) -> tuple[list[_Header], list[str]]:
    """The files of the one stack of slices to read, and notes on what was chosen and left out."""
    patients = {header.patient for header in headers}
    if len(patients) > 1:
        raise ScanError(
            f"{path}: holds {len(patients)} patients, and a scan is of one; give the folder of one of them.", path
        )
    wanted = headers if series is None else _of_series(headers, path, series)
    pictures = [h for h in wanted if h.modality in ("CT", "") and h.colours == 1 and not h.is_localizer]
    if not pictures:
        raise ScanError(
            f"{path}: no CT slices among {len(wanted)} DICOM pictures, which are {_kinds(wanted)}; give the folder "
            "of a chest CT.",
            path,
        )
    # Asked for by name, coronal or sagittal reformats are taken too.
    axial = [h for h in pictures if series is not None or abs(h.normal[2]) >= _AXIAL]
    if not axial:
        raise ScanError(
            f"{path}: no axial series, only {_listed(pictures)}; choose one with series=, by UID or description.",
            path,
        )
    stacks = defaultdict(list)
    for header in axial:
        stacks[header.stack].append(header)
    chosen = max(stacks.values(), key=lambda stack: sum(header.size[2] for header in stack))

    notes = []
    others = [h for h in headers if h.series != chosen[0].series]
    if others:
        how = "as asked" if series is not None else "the axial CT with the most slices"
        notes.append(f"Read {_listed(chosen)}, {how}; left out {_listed(others)}. series= chooses.")
    same_series = len([h for h in headers if h.series == chosen[0].series]) - len(chosen)
    if same_series:
        notes.append(
            f"{same_series} pictures of the same series were left out: localizers, or of another size or orientation."
        )
    if not chosen[0].modality:
        notes.append("The files do not name their modality; CT was assumed.")
    return chosen, notes


def _of_series(headers: list[_Header], path: Path, series: str) -> list[_Header]:
    """The files whose series has this UID or, failing that, this text in its description."""
    found = [h for h in headers if h.series == series]
    found = found or [h for h in headers if series.lower() in h.description.lower()]
    if len({h.series for h in found}) != 1:
        what = f"series={series!r} fits several series: {_listed(found)}" if found else f"no series is {series!r}"
        raise ScanError(
            f"{path}: {what}; give the UID, or a part of the description, of one of {_listed(headers)}.", path
        )
    return found


def _listed(headers: list[_Header]) -> str:
    """The series of these files in words."""
    slices = Counter()
    for header in headers:
        slices[header.series] += header.size[2]
    description = {header.series: header.description for header in headers}
    listed = [f"{description[uid] or uid or 'no name'!r} ({count} slices)" for uid, count in slices.most_common(6)]
    return ", ".join(listed) + (", ..." if len(slices) > 6 else "")


def _kinds(headers: list[_Header]) -> str:
    return ", ".join(
        sorted({"colour" if h.colours > 1 else "localizers" if h.is_localizer else h.modality for h in headers})
    )


def _read_stack(
    slices: list[_Header], shape: tuple[int, int, int], path: Path, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """HU (K, J, I) of single slices in the order of their positions, and the voxel steps; adds to notes."""
    if not all(header.has_place for header in slices):
        if len(slices) > 1:
            raise ScanError(
                f"{path}: some slices do not say where they lie (Image Position and Orientation), so their order is "
                "unknown; export the series again with its geometry.",
                path,
            )
        notes.append("The slice does not say how it lies; it was taken as upright in radiological view.")
    if not all(header.has_pixel_size for header in slices):
        notes.append("The files store no pixel spacing; 1 mm was assumed.")
    normal = slices[0].normal
    slices = sorted(slices, key=lambda header: header.origin @ normal)
    hu = np.empty(shape, np.int16)
    kept = []
    for header in slices:
        plane = _read_pixels(header)[0]
        if kept and abs((header.origin - kept[-1].origin) @ normal) < _SAME_PLACE:
            if np.array_equal(plane, hu[len(kept) - 1]):
                continue
            raise ScanError(
                f"{path}: {kept[-1].path.name} and {header.path.name} are different pictures of the same place: two "
                "scans share a series, or it lost its geometry; put each in a folder of its own, or export it again.",
                path,
            )
        hu[len(kept)] = plane
        kept.append(header)
    if len(kept) < len(slices):
        notes.append(f"{len(slices) - len(kept)} slices that repeat another one were left out.")
    steps = slices[0].steps.copy()
    steps[:, 2] = normal * _distance(kept, notes)
    return hu[: len(kept)], steps


def _distance(slices: list[_Header], notes: list[str]) -> float:
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
    origins = np.array([header.origin for header in slices])
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


def _read_pixels(header: _Header) -> np.ndarray:
    """HU int16 (K, J, I) of one file, with padding at PADDING_HU."""
    try:
        values = sitk.GetArrayFromImage(_reader(header.path).Execute())
    except RuntimeError as error:
        raise ScanError(
            f"{header.path}: the slice cannot be decoded; it is damaged or of an unknown compression: copy it again.",
            header.path,
        ) from error
    hu = as_hu(values.reshape(header.size[::-1]), header.path)
    if header.padding is not None:
        for plane in hu:
            plane[_at_border(plane == np.rint(header.padding))] = PADDING_HU
    return hu


def _at_border(mask: np.ndarray) -> np.ndarray:
    """The parts of a 2-D mask that touch the picture's border: scanners also clip noisy air to the padding's value."""
    parts, _ = ndimage.label(mask)
    border = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, border[border > 0])


def _padding_hu(text: Callable[[str], str]) -> float | None:
    """HU of the pixels that the file declares as padding; `text` gives the value of a tag."""
    value = _number(text("0028|0120"))
    if value is None:
        return None
    if text("0028|0103") == "1" and value > 32767:  # a signed value, written or read as unsigned
        value -= 65536
    slope, intercept = _number(text("0028|1053")), _number(text("0028|1052"))
    return value * (1.0 if slope is None else slope) + (intercept or 0.0)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _reader(file: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(file))
    return reader
