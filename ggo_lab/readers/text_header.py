"""What MetaImage and NRRD share: a header of text lines that tells where the voxels lie and how they are packed."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ggo_lab.errors import ScanError
from ggo_lab.readers.stored import Stored, check_size
from ggo_lab.readers.voxels import PACKED_ERRORS, Stream, planes_of_stream, skip, unpacked

_LONGEST_HEADER = 1 << 16  # bytes; enough for any written by a program
_MOST_SKIPPED = 1 << 24  # bytes of what was unpacked; a header of another kind, which NRRD leaves in place


@dataclass(frozen=True)
class Header:
    """What the header says of the voxels.

    Attributes:
        size: (I, J, K), or (I, J) of one slice.
        dtype: with its byte order.
        encoding: "raw", "packed" (zlib, gzip or bzip2, told apart by their first bytes) or "text".
        data: the file that holds them.
        offset: bytes before them in that file; -1 where they end with the file.
        lines, skipped: lines before them from there on, and bytes of what was unpacked.
    """

    size: tuple[int, ...]
    dtype: np.dtype
    encoding: str
    data: Path
    offset: int
    lines: int = 0
    skipped: int = 0


def read_lines(path: Path) -> Iterator[tuple[str, int]]:
    """The stripped lines of a header, each with the number of bytes up to its end; stops where no header goes on."""
    length = 0
    with path.open("rb") as file:
        while length < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER)):
            length += len(line)
            yield line.decode("latin-1").strip(), length


def file_beside(path: Path, name: str) -> Path:
    """The file with the voxels that a header names."""
    if name.upper().startswith("LIST") or "%" in name:
        raise ScanError(
            f"{path}: its voxels are spread over several files, which is not read; convert it to one .mha or .nii.gz.",
            path,
        )
    if not name.isprintable() or len(name) > 255:  # a damaged header; the longest name that file systems have
        raise ValueError("not the name of a file")
    data = path.parent / name
    if not data.is_file():
        raise ScanError(f"{path}: its voxels should lie in {name} beside it, which is missing; copy both files.", path)
    return data


def stored_voxels(header: Header, steps: np.ndarray, notes: list[str], path: Path) -> Stored:
    """Make what the header promises ready to be read, after a look at whether the file can hold it."""
    i, j, k = (*header.size, 1, 1)[:3]
    file_bytes = header.data.stat().st_size
    # A number as text takes 2 bytes at least, itself and a space.
    bytes_per_voxel = 1 if header.encoding == "text" else header.dtype.itemsize
    check_size(header.size, bytes_per_voxel, file_bytes - max(header.offset, 0), header.encoding == "packed", path)
    if not 0 <= header.skipped <= (_MOST_SKIPPED if header.encoding == "packed" else file_bytes):
        raise ScanError(
            f"{path}: the header says to skip {header.skipped} bytes before the voxels, more than can be there; the "
            "file is damaged, copy it again.",
            path,
        )
    size = i * j * k * header.dtype.itemsize

    @contextmanager
    def at_voxels() -> Iterator[Stream]:
        with header.data.open("rb") as file, refuse_damaged(path):
            file.seek(header.offset if header.offset >= 0 else file_bytes - size)
            for _ in range(header.lines):
                file.readline(_LONGEST_HEADER)
            if header.encoding == "packed":
                with unpacked(file) as stream:
                    skip(stream, header.skipped)
                    yield stream
                return
            numbers = header.encoding == "text"
            stream = io.BytesIO(np.array(file.read().split(), header.dtype).tobytes()) if numbers else file
            skip(stream, header.skipped)
            yield stream

    def at_end(stream: Stream) -> None:
        # Reading on to the end compares the checksum; what lies behind is not the voxels that the header tells of.
        if header.encoding == "packed" and stream.read(1):
            raise ValueError("more is packed than the header claims")

    planes = planes_of_stream(at_voxels, (k, j, i), header.dtype, path, at_end)
    return Stored((k, j, i), steps, planes, notes=notes)


@contextmanager
def refuse_damaged(path: Path) -> Iterator[None]:
    """Turn what parsing and unpacking raise on damaged files into a ScanError."""
    try:
        yield
    except (*PACKED_ERRORS, ValueError, LookupError, OverflowError) as error:
        raise ScanError(
            f"{path}: cannot be read as MetaImage or NRRD; the file is truncated, damaged or of another kind: copy, "
            "download or convert it again.",
            path,
        ) from error
