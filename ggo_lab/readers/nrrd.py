"""NRRD (.nrrd, .nhdr), as defined at https://teem.sourceforge.net/nrrd/format.html."""

import re
from pathlib import Path

import numpy as np

from ggo_lab.errors import ScanError, printable
from ggo_lab.readers.stored import Stored, size_in_3d
from ggo_lab.readers.text_header import Header, file_beside, read_lines, refuse_damaged, stored_voxels
from ggo_lab.readers.voxels import without_warnings

NRRD_SUFFIXES = (".nrrd", ".nhdr")

_TYPES = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64", "int64_t"), "i8"),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"), "u8"),
    **{"float": "f4", "double": "f8"},
}
_ENCODINGS = {"raw": "raw", "txt": "text", "text": "text", "ascii": "text"} | dict.fromkeys(
    ("gz", "gzip", "bz2", "bzip2"), "packed"
)
# The ways of the patient's left, back and head in each space that is tied to the patient.
_SPACES = {
    "left-posterior-superior": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1),
}
_SHORT = {"lps": "left-posterior-superior", "ras": "right-anterior-superior", "las": "left-anterior-superior"}
_SCALAR_KINDS = ("domain", "space", "time", "???", "none")


def open_nrrd(path: Path) -> Stored:
    """Open a .nrrd or .nhdr file, also of one slice only."""
    with refuse_damaged(path):
        fields, length = _fields(path)
        if fields.get("kinds", "domain").split()[0].lower() not in _SCALAR_KINDS:
            values = int(fields["sizes"].split()[0])
            raise ScanError(f"{path}: {values} values per voxel, a colour or vector image; give the CT itself.", path)
        header = _header(fields, length, path)
        steps, notes = _steps(fields, len(header.size))
        return stored_voxels(header, steps, notes, path)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The fields of the header by lower-case name, and its length in bytes; an empty line ends it."""
    fields = {}
    lines = read_lines(path)
    first, end = next(lines, ("", 0))
    if not first.startswith("NRRD"):
        raise ValueError("no NRRD header")
    for line, length in lines:
        end = length
        if not line:
            break
        # "name: value" is a field, "name:=value" a remark.
        if found := re.fullmatch(r"([\w ]+?):(?!=)\s*(.*)", line):
            fields[found[1].lower()] = found[2]
    return fields, end


def _header(fields: dict[str, str], length: int, path: Path) -> Header:
    size = size_in_3d([int(n) for n in fields["sizes"].split()], path)
    if int(fields["dimension"]) != len(fields["sizes"].split()):
        raise ValueError("sizes do not fit the number of dimensions")
    kind = _TYPES[fields["type"].lower()]
    encoding = _ENCODINGS[fields["encoding"].lower()]
    has_order = np.dtype(kind).itemsize > 1 and encoding != "text"
    dtype = np.dtype({"little": "<", "big": ">"}[fields["endian"].lower()] + kind if has_order else kind)
    name = fields.get("data file", fields.get("datafile"))
    data = path if name is None else file_beside(path, name)
    lines = int(fields.get("line skip", fields.get("lineskip", "0")))
    skipped = int(fields.get("byte skip", fields.get("byteskip", "0")))
    if not 0 <= lines <= 1000:
        raise ValueError("too many lines to skip")
    offset = length if name is None else 0
    if skipped == -1 and encoding == "raw":  # NRRD's sign for voxels that end with the file
        return Header(size, dtype, encoding, data, -1)
    return Header(size, dtype, encoding, data, offset, lines, skipped)


@without_warnings
def _steps(fields: dict[str, str], dimensions: int) -> tuple[np.ndarray, list[str]]:
    """Voxel steps as Stored wants them, and notes on what was assumed."""
    notes = []
    space = fields.get("space", "").lower()
    space = _SHORT.get(space, space)
    if space not in _SPACES:
        notes.append(
            "The file stores no orientation: first voxel assumed at the patient's right, front and feet; check that "
            "the scan is not upside down."
        )
    steps = np.eye(3)
    ways = [way for way in re.findall(r"\(([^)]*)\)|none", fields.get("space directions", "")) if way]
    if ways:
        vectors = np.array([[float(part) for part in way.split(",")] for way in ways[:dimensions]])
        steps[: vectors.shape[1], : len(vectors)] = vectors.T
        if dimensions == 2:
            across = np.cross(steps[:, 0], steps[:, 1])
            steps[:, 2] = across / (np.linalg.norm(across) or 1.0)
    if "spacings" in fields:
        spacings = np.array([float(step) for step in fields["spacings"].split()[:dimensions]])
        if not ways:
            steps[range(dimensions), range(dimensions)] = np.where(np.isnan(spacings), 1.0, spacings)
        elif not np.allclose(np.linalg.norm(steps[:, :dimensions], axis=0), spacings, rtol=0.01, equal_nan=True):
            notes.append(
                f"The spacings are {printable(fields['spacings'][:80])}, and the space directions have other lengths: "
                "the latter were taken; check the spacing."
            )
    if dimensions == 2:
        notes.append("One slice without a thickness; 1 mm was assumed.")
    return np.array(_SPACES.get(space, (1, 1, 1)))[:, None] * steps, notes
