"""The pictures of a DICOM file: as they lie there, or through GDCM's decoders where compressed."""

import atexit
import contextlib
import functools
import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, CTImageStorage, RLELossless

from ggo_lab.errors import ScanError
from ggo_lab.readers.dicom_headers import Pixels, quiet_pydicom

_CHILD = Path(__file__).with_name("gdcm_child.py")
_LONGEST_DECODING_S = 4.0  # of one picture; 512 x 512 take 0.04
_PIXEL_DATA_OB = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"  # its tag, type and undefined length, explicit little endian
_SEQUENCE_END = b"\xfe\xff\xdd\xe0\0\0\0\0"


def stored_planes(pixels: Pixels) -> Iterator[np.ndarray]:
    """The stored values (rows, columns) of one picture after another, in the order of the file.

    Raises:
        ScanError: a picture that cannot be decoded.
    """
    with _open(pixels) as file:
        if not pixels.is_packed:
            yield from (_plain(file, pixels) for _ in range(pixels.frames))
            return
        frames = _packed_frames(file, pixels)
        for _ in range(pixels.frames):
            yield _decoded(next(frames, b""), pixels)


def _open(pixels: Pixels) -> BinaryIO:
    """The file at its first byte of Pixel Data."""
    if pixels.offset is None:
        try:
            with quiet_pydicom():
                return io.BytesIO(pydicom.dcmread(pixels.path, force=True).PixelData)
        except Exception as error:  # pydicom raises errors of many kinds on damaged files
            raise _undecodable(pixels) from error
    file = pixels.path.open("rb")
    file.seek(pixels.offset)
    return file


def _plain(file: BinaryIO, pixels: Pixels) -> np.ndarray:
    """The next uncompressed picture."""
    order = "<" if pixels.syntax.is_little_endian else ">"
    data = file.read(pixels.frame_bytes)
    if len(data) < pixels.frame_bytes:
        raise _undecodable(pixels)
    values = np.frombuffer(data, f"{order}u{pixels.allocated // 8}").reshape(pixels.rows, pixels.columns)
    return _value_bits(values, pixels)


def _value_bits(values: np.ndarray, pixels: Pixels) -> np.ndarray:
    """The bits of the value alone; above them old files keep overlays, and below them nothing."""
    values = values.astype(values.dtype.newbyteorder("="))
    values <<= pixels.allocated - 1 - pixels.high_bit
    values = values.view(f"i{pixels.allocated // 8}") if pixels.signed else values
    values >>= pixels.allocated - pixels.bits  # keeps the sign where there is one
    return values


def _packed_frames(file: BinaryIO, pixels: Pixels) -> Iterator[bytes]:
    try:
        yield from generate_frames(file, number_of_frames=pixels.frames)
    except Exception as error:  # pydicom raises errors of many kinds on damaged files
        raise _undecodable(pixels) from error


def _decoded(frame: bytes, pixels: Pixels) -> np.ndarray:
    """One compressed picture through GDCM, where the picture's own header claims the size that it should have.

    GDCM takes gigabytes on damaged headers. So it gets a file that is written here, with nothing in it but the picture.
    """
    if not _is_whole(frame, pixels):
        raise _undecodable(pixels)
    header = _bare_header(
        pixels.syntax, pixels.rows, pixels.columns, pixels.allocated, pixels.bits, pixels.high_bit, pixels.signed
    )
    values = _DECODER.decode(header + _PIXEL_DATA_OB + encapsulate([frame]) + _SEQUENCE_END)
    if values is None or values.size != pixels.rows * pixels.columns:
        raise _undecodable(pixels)
    return values.reshape(pixels.rows, pixels.columns)


class _Decoder:
    """GDCM in a process of its own: on damaged pictures it may crash or hang, and would take the notebook with it.

    The process starts with the first compressed picture, serves all that follow, and ends with this one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner: int | None = None  # a forked process must not share the pipes of the one it comes from

    def decode(self, file: bytes) -> np.ndarray | None:
        """The pixels (1-D) of a DICOM file given as bytes; None where GDCM fails, dies, or takes too long."""
        with self._lock, tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / "picture.dcm"
            picture.write_bytes(file)
            child = self._child
            if child is None or self._owner != os.getpid():
                child = self._child = self._start()
            watchdog = threading.Timer(_LONGEST_DECODING_S, child.kill)
            watchdog.start()
            try:
                return _ask(child, picture)
            except (OSError, ValueError):  # the pipe is broken, or ended before the answer did
                self.stop()
                return None
            finally:
                watchdog.cancel()

    def _start(self) -> subprocess.Popen[bytes]:
        # -P: modules of this folder must not stand before those of the same name elsewhere.
        child = subprocess.Popen(
            [sys.executable, "-P", str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._owner = os.getpid()
        _pipes(child)[1].readline()  # it is ready; loading GDCM takes time, which is no picture's
        return child

    def stop(self) -> None:
        """End the process; the next picture starts another."""
        if self._child is not None and self._owner == os.getpid():
            questions, answers = _pipes(self._child)
            self._child.kill()
            with contextlib.suppress(OSError):  # what still waits for a dead process cannot be written
                questions.close()
            answers.close()
            self._child.wait()
        self._child = None


def _ask(child: subprocess.Popen[bytes], picture: Path) -> np.ndarray | None:
    questions, answers = _pipes(child)
    questions.write(f"{picture}\n".encode())
    questions.flush()
    kind, count = answers.readline().split()
    data = answers.read(int(count))
    if len(data) < int(count):
        raise ValueError("the answer broke off")
    return np.frombuffer(data, kind.decode()) if data else None


def _pipes(child: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert child.stdin is not None and child.stdout is not None  # it was started with both
    return child.stdin, child.stdout


_DECODER = _Decoder()
atexit.register(_DECODER.stop)


@functools.lru_cache(maxsize=8)  # all slices of a scan share one
def _bare_header(syntax: UID, rows: int, columns: int, allocated: int, bits: int, high_bit: int, signed: bool) -> bytes:
    """A DICOM file up to its Pixel Data, with no more than decoding needs."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, UID("1.2.3")
    meta.TransferSyntaxUID = syntax
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, "1.2.3"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows, header.Columns = rows, columns
    header.BitsAllocated, header.BitsStored, header.HighBit = allocated, bits, high_bit
    header.PixelRepresentation = int(signed)
    written = io.BytesIO()
    header.save_as(written)
    return written.getvalue()


def _is_whole(frame: bytes, pixels: Pixels) -> bool:
    """Whether a compressed picture begins with a header of the expected size and goes on to its end."""
    if pixels.syntax == RLELossless:
        # Segments of one byte of each pixel; runs shrink 128 bytes to 2 at best.
        return len(frame) > 64 and int.from_bytes(frame[:4], "little") == pixels.allocated // 8
    if b"\xff\xd9" not in frame[-4:]:  # the mark of the end, in JPEG, JPEG-LS and JPEG 2000
        return False
    size = _jpeg_2000_size(frame) if frame[:4] == b"\xff\x4f\xff\x51" else _jpeg_size(frame)
    return size == (pixels.rows, pixels.columns, 1)


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and colours in the SIZ segment of a JPEG 2000 codestream (ISO 15444-1, A.5.1)."""
    right, bottom, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in range(8, 24, 4))
    tile = [int.from_bytes(frame[at : at + 4], "big") for at in (24, 28)]
    rows, columns = bottom - top, right - left
    # Each tile costs memory before anything of it is decoded. Encoders make one, or tiles of 64 pixels and more.
    if min(tile) < min(64, rows, columns):
        return None
    return rows, columns, int.from_bytes(frame[40:42], "big")


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and colours in the frame header of a JPEG or JPEG-LS picture (ITU T.81, B.2.2; T.87, C.2.2)."""
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 10 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            rows, columns = (int.from_bytes(frame[begin : begin + 2], "big") for begin in (at + 5, at + 7))
            return rows, columns, frame[at + 9]
        at += 2 + length
    return None


def _undecodable(pixels: Pixels) -> ScanError:
    return ScanError(
        f"{pixels.path}: the slice cannot be decoded; it is damaged or of an unknown compression: copy it again.",
        pixels.path,
    )
