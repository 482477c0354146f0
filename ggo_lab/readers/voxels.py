"""Raw voxels out of streams, packed or not, and what they become, a plane at a time: HU or labels."""

import bz2
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, igzip_lib, isal_zlib

from ggo_lab.errors import ScanError

_CHUNK = 1 << 20  # bytes
# What the decompressors raise where their data break off or are damaged; bz2 raises OSError as well.
PACKED_ERRORS: tuple = (EOFError, igzip.BadGzipFile, isal_zlib.error, zlib.error)

# Damaged numbers are looked for after each calculation; numpy need not warn of them as well.
without_warnings = np.errstate(divide="ignore", over="ignore", invalid="ignore")

# A binary file, or what is unpacked from one.
Stream = io.RawIOBase | io.BufferedIOBase
# Gives the raw values (J, I) of the planes whose numbers, increasing ones, it is called with, one after another. The
# next overwrites the one before; None stands for a plane that is damaged, in files that hold each plane on its own.
Planes = Callable[[Sequence[int]], Iterator[np.ndarray | None]]


def planes_of_stream(
    opened: Callable[[], AbstractContextManager[Stream]],
    shape: tuple[int, int, int],
    dtype: np.dtype,
    path: Path,
    at_end: Callable[[Stream], None],
) -> Planes:
    """Give the planes of a volume that lies in one stream, reading no further than the last one that is wanted.

    Args:
        opened: gives the stream at its first voxel.
        shape: (K, J, I), the fastest axis last.
        dtype: of a voxel, with its byte order.
        path: of the file, for messages.
        at_end: called with the stream behind the last plane, if that was wanted.
    """

    def planes(wanted: Sequence[int]) -> Iterator[np.ndarray]:
        plane, following = np.empty(shape[1:], dtype), 0
        with opened() as stream:
            for k in wanted:
                skip(stream, (k - following) * plane.nbytes)
                _fill(stream, plane, path)
                following = k + 1
                yield plane
            if following == shape[0]:
                at_end(stream)

    return planes


@without_warnings
def as_hu(values: np.ndarray, path: Path, slope: float, intercept: float) -> np.ndarray:
    """Round values * slope + intercept to int16 HU; beyond its range (metal, padding) they are clamped."""
    if values.dtype == np.int16 and (slope, intercept) == (1.0, 0.0):
        return values
    if values.dtype == np.uint8 and values.size > 256:  # few values are met many times
        return as_hu(np.arange(256, dtype=np.int16), path, slope, intercept)[values]
    if slope == 1.0 and intercept == round(intercept) and values.dtype.kind in "iu" and values.itemsize <= 2:
        scaled: np.ndarray = values.astype(np.int32)
        scaled += round(intercept)
        return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)
    scaled = values.astype(np.float64)
    scaled *= slope
    scaled += intercept
    if not np.isfinite(scaled).all():
        raise ScanError(
            f"{path}: some voxels are not numbers (NaN or infinite); if they lie outside the scanner's view, "
            "replace them by -2048, the mark of padding; else convert the scan again.",
            path,
        )
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32768, 32767, out=scaled).astype(np.int16)


@without_warnings
def as_labels(values: np.ndarray, path: Path, slope: float, intercept: float) -> np.ndarray:
    """Round values * slope + intercept to integers, unscaled ones in their own type; ScanError for fractions."""
    if values.dtype.kind in "iu" and (slope, intercept) == (1.0, 0.0):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    scaled = values.astype(np.float64) * slope + intercept
    whole = np.rint(scaled)
    # The negation catches NaN as well. Fractions are tolerated as far as float32 scaling makes them.
    if not np.all(np.abs(scaled - whole) < 1e-3) or np.abs(whole).max() > np.iinfo(np.int32).max:
        raise ScanError(
            f"{path}: a label map needs whole numbers, and this has fractions, NaN or huge values; open a CT with "
            "read_scan, and threshold probabilities before saving them as labels.",
            path,
        )
    return whole.astype(np.int32)


def unpacked(file: io.BufferedIOBase) -> Stream:
    """What follows in a compressed file as a stream: gzip, bzip2 or zlib, whichever it is."""
    start = file.read(3)
    file.seek(-len(start), io.SEEK_CUR)
    if start[:2] == b"\x1f\x8b":
        return igzip.open(file, "rb")
    return bz2.open(file) if start == b"BZh" else _Zlib(file)


class _Zlib(io.RawIOBase):
    """A zlib stream through isal, which compares the checksum at its end."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = file
        self._inflater = igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_ZLIB)

    def readable(self) -> bool:
        """As io asks it of a stream."""
        return True

    def readinto(self, target: Any) -> int:  # any writable buffer, a type that Python names from 3.12 on
        """Fill the buffer as far as one step of unpacking goes; give the number of bytes."""
        while len(target) and not self._inflater.eof:
            waiting = not self._inflater.needs_input
            packed = b"" if waiting else self._file.read(_CHUNK)
            data = self._inflater.decompress(packed, len(target))
            target[: len(data)] = data
            if data:
                return len(data)
            if not packed and not self._inflater.eof:
                raise EOFError("the compressed data end before their end is marked")
        return 0


def skip(stream: Stream, count: int) -> None:
    """Go so many bytes on: at once in a file, and by unpacking them in what is packed."""
    if count < 0:
        raise ValueError("a negative number of bytes to skip")
    if isinstance(stream, io.BufferedReader | io.BytesIO):
        stream.seek(count, io.SEEK_CUR)
        return
    buffer = memoryview(bytearray(min(count, _CHUNK)))
    while count:
        skipped = stream.readinto(buffer[:count])
        if not skipped:
            raise EOFError("less is there than is to be skipped")
        count -= skipped


def _fill(stream: Stream, values: np.ndarray, path: Path) -> None:
    """Read into the array until it is full; ScanError where the stream ends before."""
    waiting = values.view(np.uint8).data.cast("B")
    while waiting:
        # In pieces: isal unpacks what is asked for at once into memory of its own, and then copies it.
        read = stream.readinto(waiting[:_CHUNK])
        if not read:
            raise ScanError(
                f"{path}: the file breaks off, {len(waiting)} bytes of voxels are missing; it is truncated, copy or "
                "download it again.",
                path,
            )
        waiting = waiting[read:]
