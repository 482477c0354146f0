"""The stored values of DICOM pictures, plain or packed.

imagecodecs decodes what is packed, within this process: libjpeg-turbo, OpenJPEG and CharLS, which stood through 55,000
damaged pictures without a crash. Two things are left to us, because a decoder believes what a picture claims: the size
is compared before anything is decoded, and a mark of the end is added, without which CharLS seeks it for seconds.
"""

import io
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import imagecodecs
import numpy as np
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import RLELossless

from ggo_lab.readers.dicom_headers import Frame, Pixels, inflated, quiet_pydicom

_JPEG_END = b"\xff\xd9"
_JPEG_2000 = b"\xff\x4f\xff\x51"  # how its codestream begins, alone or inside a JP2 file
_LONGEST_JP2_HEADER = 1 << 16  # bytes


def stored_planes(frames: Sequence[Frame]) -> Iterator[np.ndarray | None]:
    """Give the stored values (rows, columns) of each frame; None for one that cannot be decoded."""
    file: BinaryIO | None = None
    opened: Pixels | None = None
    try:
        for frame in frames:
            if frame.pixels is not opened:
                if file is not None:
                    file.close()
                opened, file = frame.pixels, _open(frame.pixels)
            yield None if file is None else _plane(file, frame)
    finally:
        if file is not None:
            file.close()


def _open(pixels: Pixels) -> BinaryIO | None:
    """The file at its first byte of Pixel Data."""
    try:
        file = pixels.path.open("rb")
    except OSError:
        return None
    if pixels.offset is not None:
        return file
    with file, quiet_pydicom():
        try:
            return io.BytesIO(inflated(file).PixelData)
        except Exception:  # pydicom raises errors of many kinds on damaged files
            return None


def _plane(file: BinaryIO, frame: Frame) -> np.ndarray | None:
    pixels = frame.pixels
    if pixels.is_packed:
        file.seek(pixels.offset or 0)
        try:
            packed = get_frame(file, frame.number, number_of_frames=pixels.frames)
            values = _decoded(packed, pixels)
        except Exception:  # pydicom and the decoders raise errors of many kinds on damaged pictures
            return None
    else:
        order = "<" if pixels.syntax.is_little_endian else ">"
        file.seek((pixels.offset or 0) + frame.number * pixels.frame_bytes)
        data = file.read(pixels.frame_bytes)
        if len(data) < pixels.frame_bytes:
            return None
        values = np.frombuffer(data, f"{order}u{pixels.allocated // 8}").reshape(pixels.rows, pixels.columns)
        values = values.astype(values.dtype.newbyteorder("="))
    return _meant(values, pixels)


def _decoded(packed: bytes, pixels: Pixels) -> np.ndarray:
    """One packed picture, unsigned with the bits that a plain one would have."""
    kind = np.dtype(f"u{pixels.allocated // 8}")
    size = (pixels.rows, pixels.columns)
    if pixels.syntax == RLELossless:
        return _run_lengths(packed, pixels)
    begin = packed.find(_JPEG_2000, 0, _LONGEST_JP2_HEADER)
    if begin >= 0 and packed[:2] != b"\xff\xd8":
        if _jpeg_2000_size(packed[begin:]) != (*size, 1):
            raise ValueError("another size")
        values = imagecodecs.jpeg2k_decode(packed[begin:])
    else:
        jpeg_size, mark = _jpeg_size(packed)
        if jpeg_size != (*size, 1):
            raise ValueError("another size")
        values = imagecodecs.jpegls_decode(packed + _JPEG_END) if mark == 0xF7 else _jpeg(packed, mark == 0xC3)
    if values.shape != size:
        raise ValueError("another size")
    if pixels.bits <= pixels.high_bit:  # decoders put the value's lowest bit at the end
        values = values << (pixels.high_bit + 1 - pixels.bits)
    return values.astype(kind)


def _run_lengths(packed: bytes, pixels: Pixels) -> np.ndarray:
    kind = np.dtype(f"<u{pixels.allocated // 8}")
    plain = bytearray(pixels.frame_bytes)
    try:
        imagecodecs.dicomrle_decode(packed, kind, out=plain)
    except (
        imagecodecs.DicomrleError
    ):  # pydicom's decoder is slow, and takes bytes behind the last run for what they are
        options: Any = {
            "raw": True,
            "rows": pixels.rows,
            "columns": pixels.columns,
            "samples_per_pixel": 1,
            "number_of_frames": 1,
            "photometric_interpretation": "MONOCHROME2",
            "bits_allocated": pixels.allocated,
            "bits_stored": pixels.allocated,
            "pixel_representation": 0,
            "pixel_keyword": "PixelData",
        }
        with quiet_pydicom():
            values, _ = get_decoder(RLELossless).as_array(encapsulate([packed]), **options)
            return values.astype(kind.newbyteorder("="))
    return np.frombuffer(plain, kind).reshape(pixels.rows, pixels.columns).astype(kind.newbyteorder("="))


def _jpeg(packed: bytes, lossless: bool) -> np.ndarray:
    try:
        values = imagecodecs.jpeg8_decode(packed)
    except imagecodecs.Jpeg8Error:
        if not lossless:
            raise
        values = imagecodecs.jpegsof3_decode(packed)  # of any number of bits
    # Both fill in what a picture that breaks off lacks, and say nothing. Within packed values the mark cannot stand.
    if _JPEG_END not in packed:
        raise ValueError("no end")
    return values


def _meant(values: np.ndarray, pixels: Pixels) -> np.ndarray:
    """What stored bits mean: the value without what lies above and below it, or an entry of the LUT; padding as is.

    Old files keep overlays in the bits above the value. Padding may be declared outside of the value's bits.
    """
    whole = values.view(f"i{pixels.allocated // 8}") if pixels.signed else values
    padded = None
    if pixels.padding is not None:
        low, high = pixels.padding
        lowest, count = (-(1 << (pixels.bits - 1)) if pixels.signed else 0), 1 << pixels.bits
        if pixels.lut is not None or low < lowest or high >= lowest + count:
            padded = (whole >= low) & (whole <= high)
    meant = values << (pixels.allocated - 1 - pixels.high_bit)
    meant = meant.view(f"i{pixels.allocated // 8}") if pixels.signed else meant
    meant = meant >> (pixels.allocated - pixels.bits)  # keeps the sign where there is one
    if pixels.lut is not None:
        first, entries = pixels.lut
        meant = entries[np.clip(meant.astype(np.int64) - first, 0, len(entries) - 1)]
    if padded is not None and pixels.padding_given is not None and padded.any():
        meant = np.where(padded, pixels.padding_given[0], meant.astype(np.int64))
    return meant


def _jpeg_2000_size(picture: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and colours in the SIZ segment of a JPEG 2000 codestream (ISO 15444-1, A.5.1)."""
    right, bottom, left, top = (int.from_bytes(picture[at : at + 4], "big") for at in range(8, 24, 4))
    tile = [int.from_bytes(picture[at : at + 4], "big") for at in (24, 28)]
    rows, columns = bottom - top, right - left
    # Each tile costs memory before anything of it is decoded. Encoders make one, or tiles of 64 pixels and more.
    if min(tile) < min(64, rows, columns):
        return None
    return rows, columns, int.from_bytes(picture[40:42], "big")


def _jpeg_size(picture: bytes) -> tuple[tuple[int, int, int] | None, int]:
    """Rows, columns and colours in the frame header of a JPEG or JPEG-LS picture, and its marker (ITU T.81, T.87)."""
    at = 2
    while picture[:2] == b"\xff\xd8" and at + 10 <= len(picture) and picture[at] == 0xFF:
        marker, length = picture[at + 1], int.from_bytes(picture[at + 2 : at + 4], "big")
        if marker == 0xFF:  # bytes that fill a gap
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = (int.from_bytes(picture[begin : begin + 2], "big") for begin in (at + 5, at + 7))
            return (rows, columns, picture[at + 9]), marker
        at += 2 + length
    return None, 0
