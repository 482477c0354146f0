"""What DICOM files say of themselves: one Frame a picture, whether a file holds one or many."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

_FARTHEST = 1e6  # mm; no slice lies, and no number of a header is, beyond


@dataclass(frozen=True)
class Pixels:
    """Where and how one file stores its pictures.

    Attributes:
        offset: of the first byte of Pixel Data; None where the whole file is deflated.
        frames: how many pictures of rows x columns there are.
        bits: how many of `allocated` bits hold the value, the highest of them being bit number `high_bit`.
    """

    path: Path
    syntax: UID
    offset: int | None
    frames: int
    rows: int
    columns: int
    allocated: int
    bits: int
    high_bit: int
    signed: bool
    colours: int

    @property
    def is_packed(self) -> bool:
        return self.syntax.is_encapsulated

    @property
    def frame_bytes(self) -> int:
        """Bytes of one picture when unpacked."""
        return self.rows * self.columns * self.colours * (self.allocated // 8)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture. Lengths in mm, directions towards the patient's left, back and head."""

    pixels: Pixels
    number: int  # among the pictures of its file, from 0
    series: str
    description: str
    patient: str
    modality: str
    is_localizer: bool
    ways: np.ndarray  # (3, 2): unit vectors along a row and down a column
    pixel_size: tuple[float, float]  # along a row, down a column
    origin: np.ndarray  # (3,)
    slope: float
    intercept: float
    padding: float | None  # HU
    thickness: float | None
    has_place: bool
    has_pixel_size: bool

    @property
    def path(self) -> Path:
        return self.pixels.path

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        return np.cross(self.ways[:, 0], self.ways[:, 1])

    @property
    def stack(self) -> tuple:
        """Equal for slices that can lie on one another; multi-frame files stand alone."""
        alone = str(self.path) if self.pixels.frames > 1 else ""
        grid = np.round(self.ways, 3).ravel() + 0.0, np.round(self.pixel_size, 3)
        return self.series, self.pixels.rows, self.pixels.columns, *(tuple(part) for part in grid), alone


def read_frames(path: Path) -> list[Frame]:
    """The pictures of a file; none where it holds no picture, or is damaged."""
    with quiet_pydicom():
        try:
            header, offset = _header(path)
            return _frames(header, _pixels(header, offset, path))
        except OSError:
            raise
        except Exception:  # pydicom raises errors of many kinds on damaged files
            return []


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep back pydicom's remarks on values against the standard, which scanners write; what matters is looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _header(path: Path) -> tuple[Dataset, int | None]:
    """The header, and where Pixel Data begin; they are not read."""
    with path.open("rb") as file:
        # force: files without the mark are known by their names.
        header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
        syntax = header.file_meta.get("TransferSyntaxUID")
        if syntax is None:
            syntax = "1.2.840.10008.1.2" if header.original_encoding[0] else "1.2.840.10008.1.2.1"
            header.file_meta.TransferSyntaxUID = UID(syntax)
        if syntax == DeflatedExplicitVRLittleEndian:
            return header, None
        order: Literal["little", "big"] = "little" if UID(syntax).is_little_endian else "big"
        start = file.read(12)
        if tuple(int.from_bytes(start[at : at + 2], order) for at in (0, 2)) != (0x7FE0, 0x0010):
            raise ValueError("no Pixel Data")
        return header, file.tell() - (4 if UID(syntax).is_implicit_VR else 0)


def _pixels(header: Dataset, offset: int | None, path: Path) -> Pixels:
    """Where the pictures lie; ValueError where the file cannot hold them."""
    allocated = int(header.BitsAllocated)
    bits = int(header.get("BitsStored") or allocated)
    high_bit = header.get("HighBit")
    pixels = Pixels(
        path=path,
        syntax=UID(header.file_meta.TransferSyntaxUID),
        offset=offset,
        frames=int(header.get("NumberOfFrames") or 1),
        rows=int(header.Rows),
        columns=int(header.Columns),
        allocated=allocated,
        bits=bits,
        high_bit=bits - 1 if high_bit is None else int(high_bit),
        signed=bool(header.get("PixelRepresentation")),
        colours=int(header.get("SamplesPerPixel") or 1),
    )
    fits = pixels.high_bit + 1 >= bits and pixels.high_bit < allocated and allocated in (8, 16, 32)
    if not fits or min(pixels.frames, pixels.rows, pixels.columns, bits, pixels.colours) < 1:
        raise ValueError("no picture that is known here")
    if not pixels.is_packed and offset is not None:
        there = os.stat(path).st_size - offset
        if there < pixels.frames * pixels.frame_bytes:
            raise ValueError("the file is truncated")
    return pixels


def _frames(header: Dataset, pixels: Pixels) -> list[Frame]:
    """One Frame for each picture. Enhanced files say it in groups of each frame, or in those that all frames share."""
    shared = _first(header, "SharedFunctionalGroupsSequence")
    of_each = header.get("PerFrameFunctionalGroupsSequence") or []
    if pixels.frames > 1 and len(of_each) not in (0, pixels.frames):
        raise ValueError("not as many groups as frames")
    return [
        _frame(header, pixels, number, of_each[number] if of_each else Dataset(), shared)
        for number in range(pixels.frames)
    ]


def _frame(header: Dataset, pixels: Pixels, number: int, own: Dataset, shared: Dataset) -> Frame:
    def value(sequence: str, keyword: str) -> Any:
        """From the frame's own group, the shared one, or the header of a single slice."""
        for group in (own, shared):
            if keyword in (items := _first(group, sequence)):
                return items[keyword].value
        return header.get(keyword) if pixels.frames == 1 else None

    place = _numbers(value("PlanePositionSequence", "ImagePositionPatient"), 3)
    ways = _unit_ways(_numbers(value("PlaneOrientationSequence", "ImageOrientationPatient"), 6))
    spacing = _numbers(value("PixelMeasuresSequence", "PixelSpacing"), 2)
    thickness = _numbers(value("PixelMeasuresSequence", "SliceThickness"), 1)
    slope, intercept = (
        _numbers(value("PixelValueTransformationSequence", keyword), 1) or (default,)
        for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0))
    )
    kinds = [header.get("ImageType"), value("CTImageFrameTypeSequence", "FrameType")]
    return Frame(
        pixels=pixels,
        number=number,
        series=_text(header, "SeriesInstanceUID"),
        description=_text(header, "SeriesDescription"),
        patient=_text(header, "PatientID"),
        modality=_text(header, "Modality"),
        is_localizer=any("LOCALIZER" in str(kind).upper() for kind in kinds),
        ways=np.eye(3)[:, :2] if ways is None else ways,
        pixel_size=(1.0, 1.0) if spacing is None or min(spacing) <= 0 else (spacing[1], spacing[0]),
        origin=np.zeros(3) if place is None else np.array(place),
        slope=slope[0],
        intercept=intercept[0],
        padding=_padding_hu(header, pixels, slope[0], intercept[0]),
        thickness=thickness[0] if thickness and thickness[0] > 0 else None,
        has_place=place is not None and ways is not None,
        has_pixel_size=spacing is not None and min(spacing) > 0,
    )


def _first(header: Dataset, sequence: str) -> Dataset:
    items = header.get(sequence)
    return items[0] if items else Dataset()


def _text(header: Dataset, keyword: str) -> str:
    """A printable text; bytes of another alphabet than the file says come as surrogates, which cannot be printed."""
    text = str(header.get(keyword) or "").encode("utf-8", "replace").decode()
    return "".join(letter for letter in text if letter.isprintable()).strip()


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """So many likely numbers; None where there are none, others, or too few."""
    values = [value] if isinstance(value, int | float) else value
    if values is None or isinstance(values, str) or len(values) != count:
        return None
    numbers = tuple(float(number) for number in values)
    return numbers if all(abs(number) <= _FARTHEST for number in numbers) else None


def _unit_ways(numbers: tuple[float, ...] | None) -> np.ndarray | None:
    """The two directions of a slice as columns of length 1; None unless they stand upright on each other."""
    if numbers is None:
        return None
    ways = np.array(numbers).reshape(2, 3).T
    lengths = np.linalg.norm(ways, axis=0)
    if not np.allclose(lengths, 1, atol=0.1) or abs(ways[:, 0] @ ways[:, 1]) > 0.1:
        return None
    return ways / lengths


def _padding_hu(header: Dataset, pixels: Pixels, slope: float, intercept: float) -> float | None:
    """HU of the pixels that the file declares as padding."""
    padding = _numbers(header.get("PixelPaddingValue"), 1)
    if padding is None:
        return None
    value = padding[0]
    if pixels.signed and value > 32767:  # a signed value, written or read as unsigned
        value -= 65536
    return value * slope + intercept
