"""Small files of every kind that is read, written by other programs than the package: for tests and for the fuzzer."""

import bz2
import gzip
import itertools
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

SPACING = (5.0, 0.7, 0.8)  # mm (z, y, x)
INTERCEPT = -1024

# All 48 ways to lay axes along the patient, as nibabel writes them: (axis, flip) of each.
ORIENTATIONS = [
    np.column_stack([axes, flips])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def chest(shape=(5, 12, 14), seed=0) -> np.ndarray:
    """Int16 HU (Z, Y, X), different in every voxel's neighbourhood, so that no wrong flip can go unseen."""
    return np.random.default_rng(seed).integers(-1000, 400, shape).astype(np.int16)


def as_itk(hu: np.ndarray, spacing=SPACING) -> sitk.Image:
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing([float(step) for step in spacing[::-1]])
    return image


def write_dicom(
    folder: Path,
    hu: np.ndarray,
    *,
    uid="1.2.3.1",
    description="lung",
    modality="CT",
    patient="p1",
    z=None,
    direction=(1, 0, 0, 0, 1, 0),
    names=None,
    **tags,
) -> list[Path]:
    """Write one file per slice with SimpleITK, in names that do not sort in the order of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(direction[:3], direction[3:])
    columns = np.array([direction[:3], direction[3:], normal], float).T
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    written = []
    for k, plane in enumerate(hu):
        image = as_itk(plane[None])
        place = k * SPACING[0] if z is None else z[k]
        image.SetDirection(columns.ravel().tolist())
        origin = normal * place
        image.SetOrigin(origin.tolist())
        fields = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"{uid}.{k + 1}",
            "0008|0060": modality,
            "0008|103e": description,
            "0010|0020": patient,
            "0018|0050": "5",
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0020|0013": str(100 - k),
            "0020|0032": "\\".join(f"{v:g}" for v in origin),
            "0020|0037": "\\".join(f"{v:g}" for v in direction),
        }
        for tag, value in {**fields, **tags}.items():
            image.SetMetaData(tag.replace("_", "|").removeprefix("t"), value)
        path = folder / (names[k] if names else f"{uid}-{(k * 7) % 11}-{k}.dcm")
        writer.SetFileName(str(path))
        writer.Execute(image)
        written.append(path)
    return written


def text_volumes(hu: np.ndarray) -> dict[str, bytes]:
    """Headers that other programs than ITK write: numbers as text, bzip2, bytes and lines to skip; by name."""
    size = " ".join(str(n) for n in hu.shape[::-1])
    numbers = " ".join(str(v) for v in hu.ravel()).encode()
    little = hu.astype("<i2").tobytes()
    meta = f"NDims = 3\nBinaryData = {{}}\nDimSize = {size}\nElementType = MET_SHORT\n{{}}ElementDataFile = LOCAL\n"
    nrrd = f"NRRD0004\ntype: short\ndimension: 3\nsizes: {size}\nendian: little\nencoding: {{}}\n{{}}\n"
    return {
        "text.mha": meta.format("False", "").encode() + numbers,
        "behind-a-gap.mha": meta.format("True", "HeaderSize = -1\n").encode() + b"gap" + little,
        "text.nrrd": nrrd.format("ascii", "").encode() + numbers,
        "bzip2.nrrd": nrrd.format("bzip2", "").encode() + bz2.compress(little),
        "skipped-lines.nrrd": nrrd.format("raw", "line skip: 2\n").encode() + b"one\ntwo\n" + little,
        "skipped-bytes.nrrd": nrrd.format("gzip", "byte skip: 3\n").encode() + gzip.compress(b"gap" + little),
        "at-the-end.nrrd": nrrd.format("raw", "byte skip: -1\n").encode() + b"gap" + little,
    }


def slice_header(plane: np.ndarray, z: float, syntax: str, number: int = 1) -> FileDataset:
    """What a scanner writes around one slice: unsigned 12 bit with an intercept of -1024. plane: HU (Y, X)."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = f"1.2.3.1.{number}"
    meta.TransferSyntaxUID = syntax
    header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    header.Modality, header.SeriesDescription, header.PatientID = "CT", "lung", "p1"
    header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    header.StudyInstanceUID, header.SeriesInstanceUID, header.InstanceNumber = "1.2.3", "1.2.3.1", number
    header.SliceThickness = SPACING[0]
    header.ImagePositionPatient, header.ImageOrientationPatient = [-10, -20, z], [1, 0, 0, 0, 1, 0]
    header.PixelSpacing = list(SPACING[1:])
    header.Rows, header.Columns = plane.shape
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 12, 11, 0
    header.RescaleSlope, header.RescaleIntercept = 1, INTERCEPT
    return header


# Transfer syntaxes by the name that a person gives them, and who writes them here.
SYNTAXES = {
    "implicit little endian": "1.2.840.10008.1.2",
    "explicit little endian": ExplicitVRLittleEndian,
    "explicit big endian": ExplicitVRBigEndian,
    "deflated": "1.2.840.10008.1.2.1.99",
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG-Lossless": JPEGLosslessSV1,
    "JPEG 2000": JPEG2000Lossless,
}
_BY_GDCM = {JPEGLosslessSV1: "JPEG", JPEG2000Lossless: "JPEG2000"}


def write_slices(folder: Path, hu: np.ndarray, syntax="explicit little endian", **fields) -> list[Path]:
    """Write one unsigned 12-bit file per slice with pydicom, packed as `syntax` says; fields overrule the header."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for k, plane in enumerate(hu):
        path = folder / f"{(k * 7) % 11}-{k}.dcm"
        header = slice_header(plane, k * SPACING[0], SYNTAXES[syntax], k + 1)
        for keyword, value in fields.items():
            setattr(header, keyword, value)
        set_pixels(header, (plane.astype(int) - INTERCEPT).astype(np.uint16))
        save(header, path)
        paths.append(path)
    return paths


def set_pixels(header: FileDataset, stored: np.ndarray) -> None:
    """Put the stored values, uint16 (Y, X) or (frames, Y, X), into a header, compressed as its transfer syntax says."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _BY_GDCM:
        frames = [_packed_by_gdcm(plane, _BY_GDCM[syntax]) for plane in np.atleast_3d(stored.T).T]
        header.PixelData = pydicom.encaps.encapsulate(frames)
        header["PixelData"].VR = "OB"
    elif pydicom.uid.UID(syntax).is_encapsulated:
        header.compress(syntax, stored, generate_instance_uid=False)
    else:
        header.PixelData = stored.astype(">u2" if syntax == ExplicitVRBigEndian else "<u2").tobytes()
        header["PixelData"].VR = "OW"


def save(header: FileDataset, path: Path) -> None:
    """Write a DICOM file; pydicom asks for the byte order by name where it is the old one."""
    syntax = pydicom.uid.UID(header.file_meta.TransferSyntaxUID)
    pydicom.dcmwrite(
        path, header, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian, force_encoding=True
    )


def _packed_by_gdcm(plane: np.ndarray, compressor: str) -> bytes:
    """One frame (Y, X) as GDCM packs it."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/frame.dcm"
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.SetFileName(path)
        writer.Execute(sitk.GetImageFromArray(plane[None]))
        return next(pydicom.encaps.generate_frames(pydicom.dcmread(path).PixelData, number_of_frames=1))


def write_enhanced(
    path: Path,
    hu: np.ndarray,
    syntax="explicit little endian",
    order: Sequence[int] | None = None,
    intercepts: Sequence[float] | None = None,
    z: Sequence[float] | None = None,
) -> Path:
    """Write an enhanced multi-frame CT. order: which slice each frame holds; intercepts: one a slice."""
    order = list(range(len(hu))) if order is None else list(order)
    intercepts = [INTERCEPT] * len(hu) if intercepts is None else list(intercepts)
    header = slice_header(hu[0], 0, SYNTAXES[syntax])
    for keyword in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
        "RescaleSlope",
        "RescaleIntercept",
    ):
        delattr(header, keyword)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    header.NumberOfFrames = len(order)
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING[1:]), SPACING[0]
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Items([measures]), Items([orientation])
    header.SharedFunctionalGroupsSequence = Items([shared])
    per_frame = []
    for k in order:
        place, scaling, groups = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [-10, -20, k * SPACING[0] if z is None else z[k]]
        scaling.RescaleSlope, scaling.RescaleIntercept, scaling.RescaleType = 1, intercepts[k], "HU"
        groups.PlanePositionSequence, groups.PixelValueTransformationSequence = Items([place]), Items([scaling])
        per_frame.append(groups)
    header.PerFrameFunctionalGroupsSequence = Items(per_frame)
    stored = np.stack([hu[k] - int(intercepts[k]) for k in order]).astype(np.uint16)
    set_pixels(header, stored)
    path.parent.mkdir(parents=True, exist_ok=True)
    save(header, path)
    return path


def write_pictures(folder: Path, grey: np.ndarray, name="{}.jpg", mode="L") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name.format(k) for k in range(len(grey))]
    for path, plane in zip(paths, grey, strict=True):
        Image.fromarray(plane).convert(mode).save(path)
    return paths


def has_note(scan, words: str) -> bool:
    return any(words in note for note in scan.notes)


def table(heading: str) -> list[list[str]]:
    """The rows of the table under a heading of data/README.md, each a list of its cells."""
    text = (Path(__file__).parents[1] / "data" / "README.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip().strip("|").split(" | ")] for row in rows[1:]]


def says(message: str, sentence: str) -> bool:
    """Whether a message is the sentence of a table, in which … stands for names and numbers."""
    return re.fullmatch(".*".join(re.escape(part) for part in sentence.split("…")), message) is not None
