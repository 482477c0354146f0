"""NIfTI, in and out. Headers go through nibabel; the voxels are decompressed once, straight into their array."""

import logging
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from isal import igzip
from nibabel import Nifti1Header, Nifti1Image, Nifti2Header
from nibabel.spatialimages import HeaderDataError

from ggo_lab.errors import ChoiceError, ScanError
from ggo_lab.readers.stored import Stored, check_size, size_in_3d
from ggo_lab.readers.voxels import PACKED_ERRORS, Layout, Stream, Take, unpacked
from ggo_lab.scan import Scan
from ggo_lab.storage import write_whole

NIFTI_SUFFIXES = (".nii", ".nii.gz")

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])  # NIfTI counts towards the patient's right and front
# The lowest three bits of the header's unit code; 2 is mm, and 0 stands for not said, which is mm in practice.
_OTHER_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
_GZIP_LEVEL = 2  # isal knows 0 to 3; 3 costs twice the time and saves 1%
# Marks files written from 8-bit pictures, so that their HU stay an estimate when they are read again.
_NOT_HU_MARK = b"ggo_lab: estimated, not HU"
# nibabel tells of small repairs of a header in the log; only what it cannot repair concerns the user.
_SILENT = logging.Logger("nifti header", level=logging.CRITICAL + 1)


def read_nifti(path: Path, take: Take) -> Stored:
    """Read a .nii or .nii.gz file, either byte order, NIfTI-1 or -2; `take` makes HU or labels of its voxels."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"  # what it is, not what it is called
        file.seek(0)
        if not packed:
            return _read_stream(file, path, packed, take)
        try:
            with unpacked(file) as stream:
                return _read_stream(stream, path, packed, take)
        except PACKED_ERRORS as error:
            raise ScanError(
                f"{path}: the compressed data break off or are damaged ({error}); copy or download the file again.",
                path,
            ) from error


def _read_stream(stream: Stream, path: Path, packed: bool, take: Take) -> Stored:
    header = _read_header(stream, path)
    shape = size_in_3d(header.get_data_shape(), path)
    i, j, k = (*shape, 1, 1)[:3]
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ScanError(f"{path}: a colour or complex NIfTI ({dtype}), not a CT; give the CT itself.", path)
    offset = float(header["vox_offset"]) or header.single_vox_offset  # 0 stands for right behind the header
    if not offset < 2**62:  # endless, or not a number; nibabel refuses what is too low
        raise ScanError(f"{path}: the NIfTI header is damaged (voxels begin at {offset}); copy the file again.", path)
    offset = int(offset)
    stored_bytes = path.stat().st_size - (0 if packed else offset)
    check_size(shape, dtype.itemsize, stored_bytes, packed, path)
    slope, intercept = header.get_slope_inter()
    slope, intercept = (1.0, 0.0) if slope is None else (float(slope), float(intercept))

    steps, notes = _steps(header, path)
    stream.seek(offset)
    values = take(stream, Layout((k, j, i), dtype, slope, intercept), path)  # the first axis of NIfTI is the fastest
    if stream.read(1):  # reaching the end makes a packed stream compare its checksum, too
        notes.append("More data follow than the header claims; check the size of the scan.")
    is_hu = bytes(header["descrip"]).rstrip(b"\0") != _NOT_HU_MARK
    if not is_hu:
        notes.append("The file was written from 8-bit pictures: its HU are an estimate.")
    return Stored(values, steps, is_hu, tuple(notes))


def _read_header(stream: Stream, path: Path) -> Nifti1Header:
    start = stream.read(540) or b""
    # The header begins with its own length, in either byte order, and the length tells its kind.
    lengths = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    kind, length = (Nifti1Header, 348) if 348 in lengths else (Nifti2Header, 540)
    if length not in lengths or len(start) < length:
        raise ScanError(f"{path}: not a NIfTI file, whatever its name says; give the scan's own file.", path)
    try:
        header = kind(start[:length], check=False)
        header.check_fix(logger=_SILENT, error_level=40)
        header.get_slope_inter()  # raises where they are not finite
    except (HeaderDataError, ValueError, OverflowError) as error:
        raise ScanError(
            f"{path}: the NIfTI header is damaged ({error}); copy or convert the file again.", path
        ) from error
    if header["magic"].item() not in (b"n+1", b"n+2"):
        raise ScanError(
            f"{path}: only a header, whose voxels lie in an .img file; convert the pair to one .nii.gz file.", path
        )
    return header


def _steps(header: Nifti1Header, path: Path) -> tuple[np.ndarray, list[str]]:
    """Voxel steps as Stored wants them, and notes on what was assumed."""
    notes = []
    try:
        affine = header.get_best_affine()
    except (HeaderDataError, ValueError) as error:
        raise ScanError(
            f"{path}: the header's orientation is damaged ({error}); convert the scan again from its source.", path
        ) from error
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        notes.append(
            "The file stores no orientation: first voxel assumed at the patient's right, back and feet "
            "(NIfTI's default); check that the scan is not upside down."
        )
    unit, scale = _OTHER_UNITS.get(int(header["xyzt_units"]) % 8, ("mm", 1.0))
    if unit != "mm":
        notes.append(f"The header counts in {unit}; the spacing was converted to mm.")
    return _RAS_TO_LPS @ affine[:3, :3] * scale, notes


def write_nifti(
    scan_or_array: Scan | np.ndarray, path: str | Path, spacing: tuple[float, float, float] | None = None
) -> Path:
    """Write a scan, or a mask or label map, as NIfTI that other programs show the right way round.

    The file appears whole or not at all, and equal input gives equal bytes. read_scan and read_labels give back
    exactly what was written.

    Args:
        scan_or_array: a Scan (stored as int16), or bool or integers (Z, Y, X) on canonical axes (stored in the
            smallest of uint8, int16 and int32 that holds them).
        path: ends in .nii or .nii.gz. Missing folders are made.
        spacing: distance between voxel centres (z, y, x), mm; needed for an array, and known for a Scan.
    Returns: the path.
    Raises:
        ChoiceError: another suffix, an array without spacing.
        ScanError: not a 3-D array of whole numbers.
        GgoLabError: the file cannot be written; what was there before is still whole.
    """
    path = Path(path).expanduser()
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise ChoiceError(f"{path}: the name of a NIfTI file ends in .nii.gz or .nii.", path)
    if isinstance(scan_or_array, Scan):
        values, spacing = scan_or_array.hu, spacing or scan_or_array.spacing
        description = b"" if scan_or_array.is_hu else _NOT_HU_MARK
    else:
        values, description = _smallest_type(np.asarray(scan_or_array)), b""
        if spacing is None:
            raise ChoiceError("An array has no spacing of its own; give spacing=(z, y, x) in mm, such as scan.spacing.")
    z, y, x = spacing
    image = Nifti1Image(values.T, np.diag([-x, -y, z, 1.0]))
    image.set_qform(image.affine, 1)  # both forms, for programs that read only one of them
    image.set_sform(image.affine, 1)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description
    write_whole(path, lambda file: _to_stream(image, file, path.name.lower().endswith(".gz")))
    return path


def _smallest_type(array: np.ndarray) -> np.ndarray:
    if array.ndim != 3 or array.size == 0 or array.dtype.kind not in "biu":
        raise ScanError(
            f"A mask or label map is a bool or integer array (Z, Y, X), found {array.dtype} {array.shape}; round or "
            "threshold it first, or wrap HU in a Scan."
        )
    lowest, highest = int(array.min()), int(array.max())
    for dtype in (np.uint8, np.int16, np.int32):
        if np.iinfo(dtype).min <= lowest and highest <= np.iinfo(dtype).max:
            return array.astype(dtype)
    raise ScanError(f"Labels from {lowest} to {highest} do not fit into 32 bits; renumber them.")


def _to_stream(image: Nifti1Image, file: BufferedIOBase, packed: bool) -> None:
    if not packed:
        image.to_stream(file)
        return
    # No name and no time in the gzip header: equal scans give equal bytes.
    with igzip.IGzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as stream:
        image.to_stream(stream)
