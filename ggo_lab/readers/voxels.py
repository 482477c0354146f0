"""Voxels from a file to HU or labels, a few planes at a time, so that large files need little memory."""

import bz2
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, igzip_lib, isal_zlib

from ggo_lab.errors import ScanError

_VOXELS_AT_ONCE = 2_000_000  # 16 MB as float64
_CHUNK = 1 << 20  # bytes
# What the decompressors raise where their data break off or are damaged; bz2 raises OSError as well.
PACKED_ERRORS: tuple = (EOFError, igzip.BadGzipFile, isal_zlib.error, zlib.error)

# Damaged numbers are looked for after each calculation; numpy need not warn of them as well.
without_warnings = np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True)
class Layout:
    """How a file stores its voxels.

    Attributes:
        shape: (K, J, I), the fastest axis last.
        dtype: with its byte order.
        slope, intercept: stored value * slope + intercept is HU, or the label.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype
    slope: float = 1.0
    intercept: float = 0.0

    @property
    def is_scaled(self) -> bool:
        return (self.slope, self.intercept) != (1.0, 0.0)


# A binary file, or what is unpacked from one.
Stream = io.RawIOBase | io.BufferedIOBase
# Takes the voxels out of a stream: hu_from or labels_from.
Take = Callable[[Stream, Layout, Path], np.ndarray]


def hu_from(stream: Stream, layout: Layout, path: Path) -> np.ndarray:
    """Read int16 HU (K, J, I); ScanError where the stream ends before, or voxels are no numbers."""
    hu = np.empty(layout.shape, np.int16)
    if layout.dtype == np.int16 and not layout.is_scaled:
        _fill(stream, hu, path)
        return hu
    for planes, block in _blocks(stream, layout, path):
        hu[planes] = as_hu(block, path, layout.slope, layout.intercept)
    return hu


def labels_from(stream: Stream, layout: Layout, path: Path) -> np.ndarray:
    """Read integer labels (K, J, I), in their own type where that is an integer; ScanError for fractions."""
    if layout.dtype.kind in "iu" and not layout.is_scaled:
        labels = np.empty(layout.shape, layout.dtype)
        _fill(stream, labels, path)
        return labels.astype(layout.dtype.newbyteorder("="), copy=False)
    labels = np.empty(layout.shape, np.int32)
    for planes, block in _blocks(stream, layout, path):
        labels[planes] = _as_labels(block, path, layout.slope, layout.intercept)
    return labels


@without_warnings
def as_hu(values: np.ndarray, path: Path, slope: float, intercept: float) -> np.ndarray:
    """Round values * slope + intercept to int16 HU; beyond its range (metal, padding) they are clamped."""
    if values.dtype == np.int16 and (slope, intercept) == (1.0, 0.0):
        return values
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
def _as_labels(values: np.ndarray, path: Path, slope: float, intercept: float) -> np.ndarray:
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
        return True

    def readinto(self, target: Any) -> int:  # any writable buffer, a type that Python names from 3.12 on
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


def _blocks(stream: Stream, layout: Layout, path: Path) -> Iterator[tuple[slice, np.ndarray]]:
    """Some planes at a time as stored, with their place among all planes."""
    count, *plane = layout.shape
    at_once = min(count, max(1, _VOXELS_AT_ONCE // (plane[0] * plane[1])))
    buffer = np.empty((at_once, *plane), layout.dtype)
    for first in range(0, count, at_once):
        block = buffer[: min(at_once, count - first)]
        _fill(stream, block, path)
        yield slice(first, first + len(block)), block


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
