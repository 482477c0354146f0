"""MetaImage and NRRD through SimpleITK, guarded against headers that promise what their file does not hold."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from isal import isal_zlib

from ggo_lab.errors import ScanError
from ggo_lab.readers.stored import Stored, check_size

METAIMAGE_NRRD_SUFFIXES = (".mha", ".mhd", ".nrrd", ".nhdr")

_ELSEWHERE = {"headersize", "line skip", "lineskip", "byte skip", "byteskip"}
_LONGEST_HEADER = 1 << 16  # bytes; enough for any written by a program
_NRRD_SPACES = {"lps", "ras", "las"} | {
    f"{x}-{y}-superior" for x, y in (("left", "posterior"), ("right", "anterior"), ("left", "anterior"))
}


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK's warnings off stderr for a while: what matters of them becomes a note or an error here."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def steps_of(reader: sitk.ImageFileReader) -> np.ndarray:
    """Voxel steps as Stored wants them, from a header that was read; ITK counts towards left, back and head too."""
    dimension = reader.GetDimension()
    steps = np.eye(3)
    used = min(dimension, 3)
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:used, :used]
    steps[:used, :used] = direction * np.asarray(reader.GetSpacing())[:used]
    return steps


def read_metaimage_nrrd(path: Path) -> Stored:
    """Read a .mha, .mhd, .nrrd or .nhdr file, also of one slice only."""
    fields, header_bytes = _header(path)
    data = _data_file(fields, path)
    offset = header_bytes if data == path else 0
    encoding = fields.get("encoding", "raw").lower()
    packed = fields.get("compresseddata", "").lower() == "true" or encoding != "raw"
    # Voxels as text, or elsewhere than behind the header, are rare; ITK reads them.
    rare = encoding not in ("raw", "gzip", "gz") or fields.get("binarydata", "").lower() == "false"
    rare = rare or not _ELSEWHERE.isdisjoint(fields)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    with quiet_itk():
        try:
            reader.ReadImageInformation()
            size = _size_in_3d(reader, path)
            dtype = sitk.GetArrayFromImage(sitk.Image([1, 1], reader.GetPixelID())).dtype
            check_size(size, dtype.itemsize, data.stat().st_size - offset, packed, path)
            if rare:
                values = sitk.GetArrayFromImage(reader.Execute())
            else:
                dtype = dtype.newbyteorder(">" if _is_big_endian(fields) else "<")
                values = _voxels(data, offset, dtype, math.prod(size), packed, path)
        except RuntimeError as error:
            raise _damaged(path) from error
    return Stored(values.reshape(size[::-1]), steps_of(reader), notes=_notes(fields, reader))


def _is_big_endian(fields: dict[str, str]) -> bool:
    in_metaimage = fields.get("binarydatabyteordermsb") or fields.get("elementbyteordermsb") or "false"
    return in_metaimage.lower() == "true" or fields.get("endian", "little").lower() == "big"


def _voxels(data: Path, offset: int, dtype: np.dtype, count: int, packed: bool, path: Path) -> np.ndarray:
    """The voxels (1-D) from a byte of the file on, unpacked where needed.

    ITK would do it too, but where the packed data are damaged it warns on stderr and returns what happened to lie in
    memory. Here the checksum is compared.
    """
    if not packed:
        return np.fromfile(data, dtype, count, offset=offset)
    with data.open("rb") as file:
        file.seek(offset)
        stored = file.read()
    inflater = isal_zlib.decompressobj(31 if stored[:2] == b"\x1f\x8b" else 15)  # gzip or zlib
    expected = count * dtype.itemsize
    try:
        # One byte more than there should be makes it run to the end and compare the checksum.
        voxels = inflater.decompress(stored, expected + 1)
    except isal_zlib.error as error:
        raise _damaged(path) from error
    if len(voxels) != expected or not inflater.eof:
        raise _damaged(path)
    return np.frombuffer(voxels, dtype)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The text fields of the header by lower-case name, and its length in bytes."""
    fields = {}
    length = 0
    with path.open("rb") as file:
        while length < _LONGEST_HEADER and (line := file.readline(_LONGEST_HEADER)):
            length += len(line)
            text = line.decode("latin-1").strip()
            if not text:  # ends the header of a NRRD
                break
            if found := re.fullmatch(r"([\w ]+?)\s*[:=]\s*(.*)", text):
                fields[found[1].lower()] = found[2].strip()
                if found[1].lower() == "elementdatafile":  # ends the header of a MetaImage
                    break
    return fields, length


def _data_file(fields: dict[str, str], path: Path) -> Path:
    """The file with the voxels: the same, or the one that the header names."""
    name = fields.get("elementdatafile") or fields.get("data file") or fields.get("datafile") or "LOCAL"
    if name.upper() == "LOCAL":
        return path
    if name.upper().startswith("LIST") or "%" in name:
        raise ScanError(
            f"{path}: its voxels are spread over several files, which is not read; convert it to one .mha or .nii.gz.",
            path,
        )
    data = path.parent / name
    if not data.is_file():
        raise ScanError(f"{path}: its voxels should lie in {name} beside it, which is missing; copy both files.", path)
    return data


def _size_in_3d(reader: sitk.ImageFileReader, path: Path) -> tuple[int, int, int]:
    """The number of voxels (I, J, K) in the header; ScanError for colours, vectors and more than 3 dimensions."""
    if reader.GetNumberOfComponents() > 1:
        raise ScanError(
            f"{path}: {reader.GetNumberOfComponents()} values per voxel, a colour or vector image; give the CT itself.",
            path,
        )
    size = reader.GetSize()
    while len(size) > 3 and size[-1] == 1:
        size = size[:-1]
    if len(size) > 3:
        raise ScanError(
            f"{path}: {len(size)} dimensions ({' x '.join(map(str, size))}), and a scan has 3; save the one volume you "
            "mean to its own file.",
            path,
        )
    return (*size, *(1,) * (3 - len(size)))


def _notes(fields: dict[str, str], reader: sitk.ImageFileReader) -> tuple[str, ...]:
    notes = []
    is_metaimage = "elementdatafile" in fields
    if is_metaimage:
        oriented = not fields.keys().isdisjoint({"transformmatrix", "rotation", "orientation"})
    else:
        oriented = fields.get("space", "").lower() in _NRRD_SPACES
    if not oriented:
        notes.append(
            "The file stores no orientation: first voxel assumed at the patient's right, front and feet; check that "
            "the scan is not upside down."
        )
    if reader.GetDimension() == 2:
        notes.append("One slice without a thickness; 1 mm was assumed.")
    return tuple(notes)


def _damaged(path: Path) -> ScanError:
    return ScanError(
        f"{path}: cannot be read as MetaImage or NRRD; the file is truncated, damaged or of another kind: copy, "
        "download or convert it again.",
        path,
    )
