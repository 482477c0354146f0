"""What DICOM files say of themselves: one Frame a picture, whether a file holds one or many."""

import io
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from ggo_lab.readers.dicom_values import (
    NOTHING,
    Unreadable,
    first_item,
    has_value,
    lut_in,
    numbers_in,
    padding_in,
    text_in,
    unit_ways,
    unsigned_in,
    whole_in,
)

_MOST_FRAMES = 20_000  # in one file; ten times a whole body in slices of 1 mm
_MOST_READS = 2_000_000  # of a header, which takes pydicom seconds; a file of 2,000 frames needs a hundredth
PADDING_BESIDE_LUT = -40_000  # a value that no LUT gives
_MOST_UNPACKED = 1 << 29  # bytes of a deflated file; 1,000 slices of 512 x 512
_USUAL_HEADER = 1 << 14  # bytes; few are longer


@dataclass(frozen=True)
class Pixels:
    """Where and how one file stores its pictures.

    Attributes:
        path: of the file.
        syntax: how the pictures are packed.
        offset: of the first byte of Pixel Data; None where the whole file is deflated.
        frames: how many pictures of rows x columns there are.
        rows, columns: of each.
        allocated: bits of a pixel in the file.
        bits: how many of them hold the value.
        high_bit: the highest of these.
        signed: whether values below 0 are possible.
        colours: values of a pixel.
        padding: lowest and highest stored value that is declared as padding, if any.
        lut: the stored value of the first entry of a modality LUT, and its entries, if there is one.
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
    padding: tuple[int, int] | None = None
    lut: tuple[int, np.ndarray] | None = None

    @property
    def is_packed(self) -> bool:
        """Whether each picture is compressed."""
        return self.syntax.is_encapsulated

    @property
    def padding_given(self) -> tuple[int, int] | None:
        """Lowest and highest value that stands for padding in what is handed over."""
        return self.padding if self.padding is None or self.lut is None else (PADDING_BESIDE_LUT,) * 2

    @property
    def frame_bytes(self) -> int:
        """Bytes of one picture when unpacked."""
        return self.rows * self.columns * self.colours * (self.allocated // 8)


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture. Lengths in mm, directions towards the patient's left, back and head."""

    pixels: Pixels
    number: int  # among the pictures of its file, from 0
    instance: str  # UID of the file
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
    thickness: float | None
    has_place: bool
    has_pixel_size: bool
    order: tuple[int, int]  # of the file in its series, as it says, and of the picture in the file
    traits: dict[str, str]  # what may tell two passes or two reconstructions of one series apart

    @property
    def path(self) -> Path:
        """The file."""
        return self.pixels.path

    @cached_property
    def normal(self) -> np.ndarray:
        """Unit vector across the slice."""
        return np.cross(self.ways[:, 0], self.ways[:, 1])


def read_frames(path: Path) -> list[Frame]:
    """Read what a file says of its pictures.

    Raises:
        Unreadable: none is there, or the file is damaged.
        OSError: the file cannot be opened.
    """
    with path.open("rb") as file, quiet_pydicom():
        try:
            header, offset = _header(file)
            return _frames(header, _pixels(header, offset, path))
        except Unreadable:
            raise
        except Exception as error:  # pydicom raises errors of many kinds on damaged files, OSError among them
            raise Unreadable("damaged") from error


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep back pydicom's remarks on values against the standard, which scanners write; what matters is looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def inflated(file: BinaryIO, headers_only: bool = False) -> Dataset:
    """Read a whole deflated file, after a look at how much it unpacks to."""
    file.seek(0)
    pydicom.filereader.read_preamble(file, force=True)
    pydicom.filereader._read_file_meta_info(file)
    inflater, unpacked, packed = zlib.decompressobj(-zlib.MAX_WBITS), 0, b""
    while (packed or (packed := file.read(1 << 16))) and not inflater.eof:
        unpacked += len(inflater.decompress(packed, 1 << 20))
        packed = inflater.unconsumed_tail
        if unpacked > _MOST_UNPACKED:
            raise Unreadable(f"of more than {_MOST_UNPACKED >> 20} MB when it is inflated")
    file.seek(0)
    return pydicom.dcmread(file, force=True, stop_before_pixels=headers_only)


def _header(file: BinaryIO) -> tuple[Dataset, int | None]:
    """The header, and where Pixel Data begin; they are not read."""
    start = file.read(_USUAL_HEADER)
    if len(start) < _USUAL_HEADER:
        return _parsed(io.BytesIO(start))
    with suppress(Exception):  # the header is longer than this, or something is wrong that shows below
        header, offset = _parsed(io.BytesIO(start))  # in memory, which takes half the time
        if offset is not None:
            return header, offset
    try:
        return _parsed(_Bounded(file))
    except _ReadToTheEnd:
        return inflated(file, headers_only=True), None


def _parsed(file: Any) -> tuple[Dataset, int | None]:
    file.seek(0)
    # force: files without the mark are known by their content or names.
    header = pydicom.dcmread(file, stop_before_pixels=True, force=True)
    syntax = header.file_meta.get("TransferSyntaxUID")
    if syntax is None:
        implicit, little = header.original_encoding
        explicit = "1.2.840.10008.1.2.1" if little else "1.2.840.10008.1.2.2"
        header.file_meta.TransferSyntaxUID = syntax = UID("1.2.840.10008.1.2" if implicit else explicit)
    if syntax == DeflatedExplicitVRLittleEndian:
        return header, None
    order: Literal["little", "big"] = "little" if UID(syntax).is_little_endian else "big"
    start = file.read(12)
    if tuple(int.from_bytes(start[at : at + 2], order) for at in (0, 2)) != (0x7FE0, 0x0010):
        raise Unreadable("damaged" if "Rows" in header else "without a picture")
    return header, file.tell() - (4 if UID(syntax).is_implicit_VR else 0)


class _ReadToTheEnd(Exception):
    """Pydicom asked for all that follows, as it does of what is deflated."""


class _Bounded(io.RawIOBase):
    """A file that refuses to be read for ever: headers may claim millions of items."""

    def __init__(self, file: BinaryIO):
        self._file, self._left = file, _MOST_READS

    def read(self, size: int = -1) -> bytes:
        """Read, while that is allowed."""
        if size < 0:
            raise _ReadToTheEnd
        self._left -= 1
        if self._left < 0:
            raise Unreadable(f"with a header of more than {_MOST_READS} parts")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()


def _pixels(header: Dataset, offset: int | None, path: Path) -> Pixels:
    """Where the pictures lie; Unreadable where the file cannot hold them."""
    allocated = unsigned_in(header, "BitsAllocated") or 0
    bits = unsigned_in(header, "BitsStored") or allocated
    high_bit = unsigned_in(header, "HighBit")
    signed = bool(unsigned_in(header, "PixelRepresentation"))
    pixels = Pixels(
        path=path,
        syntax=_syntax(str(header.file_meta.TransferSyntaxUID)),
        offset=offset,
        frames=unsigned_in(header, "NumberOfFrames") or 1,
        rows=unsigned_in(header, "Rows") or 0,
        columns=unsigned_in(header, "Columns") or 0,
        allocated=allocated,
        bits=bits,
        high_bit=bits - 1 if high_bit is None else high_bit,
        signed=signed,
        colours=unsigned_in(header, "SamplesPerPixel") or 1,
        padding=padding_in(header, allocated, signed),
        lut=lut_in(header, signed),
    )
    fits = pixels.high_bit + 1 >= bits and pixels.high_bit < allocated and allocated in (8, 16, 32)
    if not fits or min(pixels.frames, pixels.rows, pixels.columns, bits, pixels.colours) < 1:
        raise Unreadable("damaged, or of a kind that is not known here")
    if pixels.frames > _MOST_FRAMES:
        raise Unreadable(f"of {pixels.frames} frames, more than any CT has")
    stored_bytes = os.stat(path).st_size - (offset or 0)
    # Each packed picture has a mark of 8 bytes; deflated pictures shrink no further than 1032 : 1.
    least = 8 * pixels.frames if pixels.is_packed else pixels.frames * pixels.frame_bytes // (1 if offset else 1032)
    if stored_bytes < least:
        raise Unreadable("truncated")
    return pixels


@cache
def _syntax(uid: str) -> UID:
    return UID(uid)


def _frames(header: Dataset, pixels: Pixels) -> list[Frame]:
    """One Frame for each picture. Enhanced files say it in groups of each frame, or in those that all frames share."""
    shared = first_item(header, "SharedFunctionalGroupsSequence")
    of_each = header.get("PerFrameFunctionalGroupsSequence") or []
    if pixels.frames > 1 and len(of_each) not in (0, pixels.frames):
        raise Unreadable(f"of {pixels.frames} frames, and says where {len(of_each)} lie")
    return [
        _frame(header, pixels, number, of_each[number] if of_each else NOTHING, shared)
        for number in range(pixels.frames)
    ]


def _frame(header: Dataset, pixels: Pixels, number: int, own: Dataset, shared: Dataset) -> Frame:
    groups = [group for group in (own, shared) if len(group)]

    def found(sequence: str, keyword: str) -> Dataset | None:
        """The part that tells: of the frame's own group, the shared one, or the header."""
        for group in groups:
            for part in (first_item(group, sequence), group):
                if has_value(part, keyword):
                    return part
        # What stands on top is true of all frames, but where one frame lies.
        return (
            header if has_value(header, keyword) and (pixels.frames == 1 or keyword != "ImagePositionPatient") else None
        )

    def numbers(sequence: str, keyword: str, count: int) -> tuple[float, ...] | None:
        return numbers_in(found(sequence, keyword), keyword, count)

    def text(sequence: str, keyword: str) -> str:
        part = found(sequence, keyword)
        return "" if part is None else text_in(part, keyword)

    place = numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    ways = unit_ways(numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6))
    spacing = numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    if spacing is not None and min(spacing) <= 0:
        spacing = None
    slope: tuple[float, ...] = (1.0,)
    intercept: tuple[float, ...] = (0.0,)
    if pixels.lut is None:
        slope = numbers("PixelValueTransformationSequence", "RescaleSlope", 1) or slope
        intercept = numbers("PixelValueTransformationSequence", "RescaleIntercept", 1) or intercept
    try:
        thickness = numbers("PixelMeasuresSequence", "SliceThickness", 1)
    except Unreadable:  # it tells nothing that is not better known from the places
        thickness = None
    kinds = [text_in(header, "ImageType"), text("CTImageFrameTypeSequence", "FrameType")]
    return Frame(
        pixels=pixels,
        number=number,
        instance=text_in(header, "SOPInstanceUID"),
        series=text_in(header, "SeriesInstanceUID"),
        description=text_in(header, "SeriesDescription"),
        patient=text_in(header, "PatientID"),
        modality=text_in(header, "Modality"),
        is_localizer=any("LOCALIZER" in kind.upper() for kind in kinds),
        ways=np.eye(3)[:, :2] if ways is None else ways,
        pixel_size=(1.0, 1.0) if spacing is None else (spacing[1], spacing[0]),
        origin=np.array(place or (0.0, 0.0, 0.0)),
        slope=slope[0],
        intercept=intercept[0],
        thickness=thickness[0] if thickness and thickness[0] > 0 else None,
        has_place=place is not None and ways is not None,
        has_pixel_size=spacing is not None,
        order=(whole_in(header, "InstanceNumber"), number),
        traits={
            "Acquisition Number": text("FrameContentSequence", "FrameAcquisitionNumber")
            or text_in(header, "AcquisitionNumber"),
            "Temporal Position": text("FrameContentSequence", "TemporalPositionIndex")
            or text_in(header, "TemporalPositionIdentifier"),
            "Convolution Kernel": text("CTReconstructionSequence", "ConvolutionKernel"),
            "Image Type": kinds[1] or kinds[0],
            "Slice Thickness": f"{thickness[0]:g}" if thickness else "",
            "Acquisition Time": text_in(header, "AcquisitionTime"),
        },
    )
