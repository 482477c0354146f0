"""NIfTI, in and out. Headers go through nibabel; the voxels are decompressed once, straight into their array."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader
from pathlib import Path

import numpy as np
from isal import igzip
from nibabel import Nifti1Header, Nifti1Image, Nifti2Header
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes
from nibabel.spatialimages import HeaderDataError

from ggo_lab.errors import ChoiceError, ScanError
from ggo_lab.readers.stored import Stored, check_size, size_in_3d
from ggo_lab.readers.voxels import PACKED_ERRORS, Stream, planes_of_stream, skip, unpacked, without_warnings
from ggo_lab.scan import Scan
from ggo_lab.storage import NIFTI, home_filled_in, write_whole

NIFTI_SUFFIXES = (".nii", ".nii.gz")

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])  # NIfTI counts towards the patient's right and front
# The lowest three bits of the header's unit code; 2 is mm, and 0 stands for not said, which is mm in practice.
_OTHER_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
_SAME_SIZE = 0.01  # relative; what is further apart is no rounding
_GZIP_LEVEL = 2  # isal knows 0 to 3; 3 costs twice the time and saves 1%
# Marks files written from 8-bit pictures, so that their HU stay an estimate when they are read again.
_NOT_HU_MARK = b"ggo_lab: estimated, not HU"
# nibabel tells of small repairs of a header in the log; only what it cannot repair concerns the user.
_SILENT = logging.Logger("nifti header", level=logging.CRITICAL + 1)


def open_nifti(path: Path) -> Stored:
    """Open a .nii or .nii.gz file, either byte order, NIfTI-1 or -2."""
    with _refuse_damaged(path), _stream(path) as stream:
        packed = not isinstance(stream, BufferedReader)
        header = _read_header(stream, path)
    shape = size_in_3d(header.get_data_shape(), path)
    i, j, k = (*shape, 1, 1)[:3]  # the first axis of NIfTI is the fastest
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise ScanError(f"{path}: a colour or complex NIfTI ({dtype}), not a CT; give the CT itself.", path)
    offset = float(header["vox_offset"]) or header.single_vox_offset  # 0 stands for right behind the header
    if not offset < 2**31:  # endless, or not a number; nibabel refuses what is too low
        raise ScanError(f"{path}: the NIfTI header is damaged (voxels begin at {offset}); copy the file again.", path)
    offset = int(offset)
    # What is packed could hold any offset; the bytes before the voxels must be unpacked, too.
    check_size(shape, dtype.itemsize, path.stat().st_size - (0 if packed else offset), packed, path)
    slope, intercept = header.get_slope_inter()
    slope, intercept = (1.0, 0.0) if slope is None else (float(slope), float(intercept))
    steps, notes = _steps(header, path)
    is_hu = bytes(header["descrip"]).rstrip(b"\0") != _NOT_HU_MARK
    if not is_hu:
        notes.append("The file was written from 8-bit pictures: its HU are an estimate.")

    @contextmanager
    def at_voxels() -> Iterator[Stream]:
        with _refuse_damaged(path), _stream(path) as stream:
            skip(stream, offset)
            yield stream

    def at_end(stream: Stream) -> None:
        if stream.read(1):  # reaching the end makes a packed stream compare its checksum, too
            notes.append("More data follow than the header claims; check the size of the scan.")

    planes = planes_of_stream(at_voxels, (k, j, i), dtype, path, at_end)
    return Stored((k, j, i), steps, planes, slope, intercept, is_hu=is_hu, notes=notes)


@contextmanager
def _stream(path: Path) -> Iterator[Stream]:
    """Open the file, unpacked if it is packed: what it is counts, not what it is called."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not packed:
            yield file
            return
        with unpacked(file) as stream:
            yield stream


@contextmanager
def _refuse_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except PACKED_ERRORS as error:
        raise ScanError(
            f"{path}: the compressed data break off or are damaged ({error}); copy or download the file again.", path
        ) from error


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


@without_warnings
def _steps(header: Nifti1Header, path: Path) -> tuple[np.ndarray, list[str]]:
    """Voxel steps as Stored wants them, and notes on what was assumed or disagrees."""
    notes: list[str] = []
    try:
        affine = _cross_checked(header, notes)
    except (HeaderDataError, ValueError, np.linalg.LinAlgError) as error:
        raise ScanError(
            f"{path}: the header's orientation is damaged ({error}); convert the scan again from its source.", path
        ) from error
    unit, scale = _OTHER_UNITS.get(int(header["xyzt_units"]) % 8, ("mm", 1.0))
    if unit != "mm":
        notes.append(f"The header counts in {unit}; the spacing was converted to mm.")
    return _RAS_TO_LPS @ affine[:3, :3] * scale, notes


def _cross_checked(header: Nifti1Header, notes: list[str]) -> np.ndarray:
    """The affine (4, 4) to trust among those of the header; notes where they do not agree.

    NIfTI tells the voxels' sizes up to three times: in the sform, in the qform, and in pixdim, which the qform uses.
    """
    affine = header.get_best_affine()  # the sform, else the qform, else one of pixdim alone
    has_sform, has_qform = int(header["sform_code"]) > 0, int(header["qform_code"]) > 0
    if not has_sform and not has_qform:
        notes.append(
            "The file stores no orientation: first voxel assumed at the patient's right, back and feet "
            "(NIfTI's default); check that the scan is not upside down."
        )
    elif np.array_equal(np.abs(affine[:3, :3]), np.eye(3)) and np.allclose(header.get_zooms()[:3], 1, atol=1e-4):
        notes.append(
            "The spacing of exactly 1 x 1 x 1 mm is what programs write that know none; check the spacing, and that "
            "the scan is not upside down."
        )
    if not has_sform:
        return affine
    of_sform, of_pixdim = (np.asarray(v, float) for v in (voxel_sizes(affine), header.get_zooms()[:3]))
    of_pixdim = np.resize(np.abs(of_pixdim), 3) if len(of_pixdim) == 3 else of_sform  # one slice has no third size
    if not np.isfinite(of_sform).all() or not np.isfinite(of_pixdim).all() or min(*of_sform, *of_pixdim) <= 0:
        return affine
    if not np.allclose(of_sform, of_pixdim, rtol=_SAME_SIZE):
        both = f"The sform has voxels of {_mm(of_sform)} (x, y, z), and pixdim {_mm(of_pixdim)}"
        if np.allclose(of_sform, 1, rtol=1e-5):  # the mark of a program that knew no spacing
            notes.append(f"{both}: the former is a placeholder, and the latter were taken; check the spacing.")
            affine = header.get_qform() if has_qform else affine @ np.diag([*of_pixdim, 1.0])
        else:
            notes.append(f"{both}: the former were taken; check the spacing.")
    elif has_qform:
        ways = [aff2axcodes(form) for form in (affine, header.get_qform())]
        if ways[0] != ways[1]:
            named = ["".join(str(way) for way in of_one) for of_one in ways]
            notes.append(
                f"The sform and the qform turn the scan differently ({named[0]} and {named[1]}): the former was taken; "
                "check left and right, front and back."
            )
    return affine


def _mm(sizes: np.ndarray) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes) + " mm"


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

    Returns:
        The path.

    Raises:
        ChoiceError: another suffix, an array without spacing; the file that the scan was read from, or one of another
            kind.
        ScanError: not a 3-D array of whole numbers.
        GgoLabError: the file cannot be written; what was there before is still whole.
    """
    path = home_filled_in(path)
    if not path.name.lower().endswith(NIFTI_SUFFIXES):
        raise ChoiceError(f"{path}: the name of a NIfTI file ends in .nii.gz or .nii.", path)
    sources = []
    if isinstance(scan_or_array, Scan):
        sources = [scan_or_array.source] if scan_or_array.source else []
        values, spacing = scan_or_array.hu, scan_or_array.spacing if spacing is None else spacing
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
    write_whole(path, lambda file: _to_stream(image, file, path.name.lower().endswith(".gz")), NIFTI, sources)
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
