"""MetaImage (.mha, .mhd): a text header with the voxels behind it or in a file beside it."""

from pathlib import Path

import numpy as np

from ggo_lab.errors import ScanError
from ggo_lab.readers.stored import Stored, mm, size_in_3d
from ggo_lab.readers.text_header import Header, file_beside, read_lines, refuse_damaged, stored_voxels
from ggo_lab.readers.voxels import without_warnings

METAIMAGE_SUFFIXES = (".mha", ".mhd")

# MetaIO's names of number types, as MetaIO sizes them (metaTypes.h): its LONG has 4 bytes.
_TYPES = {
    **{"met_char": "i1", "met_uchar": "u1", "met_short": "i2", "met_ushort": "u2", "met_int": "i4", "met_uint": "u4"},
    **{"met_long": "i4", "met_ulong": "u4", "met_long_long": "i8", "met_ulong_long": "u8"},
    **{"met_float": "f4", "met_double": "f8"},
}
_ROTATIONS = ("transformmatrix", "rotation", "orientation")  # three names of one field
_SPACINGS = ("elementspacing", "elementsize")


def open_metaimage(path: Path) -> Stored:
    """Open a .mha or .mhd file, also of one slice only."""
    with refuse_damaged(path):
        fields, length = _fields(path)
        header = _header(fields, length, path)
        steps, notes = _steps(fields, len(header.size))
        return stored_voxels(header, steps, notes, path)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of the header by lower-case name, and its length in bytes; ElementDataFile is the last."""
    fields = {}
    for line, length in read_lines(path):
        name, _, value = line.partition("=")
        fields[name.strip().lower()] = value.strip()
        if name.strip().lower() == "elementdatafile":
            return fields, length
    raise ValueError("no MetaImage header")


def _header(fields: dict[str, str], length: int, path: Path) -> Header:
    size = size_in_3d([int(n) for n in fields["dimsize"].split()], path)
    if int(fields["ndims"]) != len(fields["dimsize"].split()):
        raise ValueError("sizes do not fit the number of dimensions")
    channels = int(fields.get("elementnumberofchannels", "1"))
    if channels != 1:
        raise ScanError(f"{path}: {channels} values per voxel, a colour or vector image; give the CT itself.", path)
    big = _is_true(fields, "binarydatabyteordermsb") or _is_true(fields, "elementbyteordermsb")
    dtype = np.dtype((">" if big else "<") + _TYPES[fields["elementtype"].lower()])
    packed = _is_true(fields, "compresseddata")
    encoding = "packed" if packed else "text" if not _is_true(fields, "binarydata", "true") else "raw"
    name = fields["elementdatafile"]
    skipped = int(fields.get("headersize", "0"))
    if name.upper() == "LOCAL":
        return Header(size, dtype, encoding, path, skipped or length)
    return Header(size, dtype, encoding, file_beside(path, name), skipped)


def _is_true(fields: dict[str, str], name: str, default: str = "false") -> bool:
    return fields.get(name, default).lower()[:1] in ("t", "1", "y")


@without_warnings
def _steps(fields: dict[str, str], dimensions: int) -> tuple[np.ndarray, list[str]]:
    """Voxel steps as Stored wants them, and notes on what was assumed. MetaImage counts towards left, back and head."""
    all_dimensions = int(fields["ndims"])
    steps = np.eye(3)
    turned = next((fields[name] for name in _ROTATIONS if name in fields), None)
    notes = []
    if turned is None:
        notes.append(
            "The file stores no orientation: first voxel assumed at the patient's right, front and feet; check that "
            "the scan is not upside down."
        )
    else:
        # Each row of the matrix is the direction of one axis.
        matrix = np.array(turned.split(), float).reshape(all_dimensions, all_dimensions)
        steps[:dimensions, :dimensions] = matrix[:dimensions, :dimensions].T
    spacings = [np.array(fields[name].split(), float)[:dimensions] for name in _SPACINGS if fields.get(name)]
    if spacings:
        steps[:, :dimensions] *= spacings[0]
    if len(spacings) == 2 and not np.allclose(spacings[0], spacings[1], rtol=0.01):
        notes.append(
            f"ElementSpacing is {mm(spacings[0])} and ElementSize {mm(spacings[1])}: the former was taken; check the "
            "spacing."
        )
    if dimensions == 2:
        notes.append("One slice without a thickness; 1 mm was assumed.")
    return steps, notes
