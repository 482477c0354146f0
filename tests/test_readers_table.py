"""Every row of the table "What is read" in data/README.md, on files that other programs write."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scan_files import (
    ORIENTATIONS,
    SPACING,
    SYNTAXES,
    as_itk,
    chest,
    save,
    says,
    table,
    text_volumes,
    write_dicom,
    write_enhanced,
    write_pictures,
    write_slices,
)

from ggo_lab.readers import read_scan
from ggo_lab.scan import PADDING_HU, window

AXES = np.diag([-0.8, -0.7, 5, 1])


def nifti(folder: Path) -> list[Path]:
    paths = []
    for k, orientation in enumerate(ORIENTATIONS[::7]):
        kind, suffix = (nib.Nifti1Image, "nii") if k % 2 else (nib.Nifti2Image, "nii.gz")
        stored = chest().T.astype((">i2", "<i4", ">f4", "<f8")[k % 4])
        nib.save(kind(stored, AXES).as_reoriented(orientation), folder / f"{k}.{suffix}")
        paths.append(folder / f"{k}.{suffix}")
    scaled = nib.Nifti1Image((chest().T + 1024).astype(np.uint16), AXES)
    scaled.header.set_slope_inter(1, -1024)
    nib.save(scaled, folder / "scaled.nii")
    data = bytearray((folder / "scaled.nii").read_bytes())
    data[112:120] = np.array([1, -1024], "<f4").tobytes()  # nibabel would scale the voxels, too
    data[352:] = (chest() + 1024).astype("<u2").tobytes()
    (folder / "scaled.nii").write_bytes(data)
    return [*paths, folder / "scaled.nii"]


def oblique(folder: Path) -> list[Path]:
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ AXES[:3, :3]
    nib.save(nib.Nifti1Image(chest().T, affine), folder / "a.nii")
    image = as_itk(chest())
    image.SetDirection(turn.ravel().tolist())
    for suffix in ("mha", "nrrd"):
        sitk.WriteImage(image, str(folder / f"a.{suffix}"))
    return [folder / f"a.{suffix}" for suffix in ("nii", "mha", "nrrd")]


def bare_nifti(folder: Path) -> list[Path]:
    image = nib.Nifti1Image(chest()[:, ::-1].T, None)  # NIfTI's default counts from the back
    image.header.set_zooms(SPACING[::-1])
    nib.save(image, folder / "a.nii")
    return [folder / "a.nii"]


def other_units(folder: Path) -> list[Path]:
    paths = []
    for unit, scale in (("meter", 0.001), ("micron", 1000)):
        image = nib.Nifti1Image(chest().T, AXES @ np.diag([scale, scale, scale, 1]))
        image.header.set_xyzt_units(unit)
        paths.append(folder / f"{unit}.nii")
        nib.save(image, paths[-1])
    return paths


def volumes(folder: Path, suffixes: tuple[str, str], others: str) -> list[Path]:
    paths = []
    for k, codes in enumerate(("LPS", "RAS", "SAR", "PIL", "AIR", "ILA")):
        paths.append(folder / f"{k}.{suffixes[k % 2]}")
        sitk.WriteImage(sitk.DICOMOrient(as_itk(chest()), codes), str(paths[-1]), useCompression=k > 2)
    return paths + [path for path in texts(folder) if path.suffix == others]


def texts(folder: Path) -> list[Path]:
    oriented = {
        ".mha": (b"ElementDataFile", b"ElementSpacing = 0.8 0.7 5\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"),
        ".nrrd": (b"encoding", b"space: LPS\nspace directions: (0.8,0,0) (0,0.7,0) (0,0,5)\n"),
    }
    paths = []
    for name, data in text_volumes(chest()).items():
        field, more = oriented[Path(name).suffix]
        paths.append(folder / name)
        paths[-1].write_bytes(data.replace(field, more + field, 1))
    return paths


def one_slice(folder: Path) -> list[Path]:
    for suffix in ("mha", "nrrd"):
        sitk.WriteImage(as_itk(chest())[:, :, 2], str(folder / f"a.{suffix}"))
    return [folder / "a.mha"]


def deep_dicom(folder: Path) -> list[Path]:
    write_slices(folder / "study" / "series", chest())
    return [folder]


def signed_and_unsigned(folder: Path) -> list[Path]:
    write_dicom(folder / "signed", chest())
    write_slices(folder / "unsigned", chest())
    return [folder / "signed", folder / "unsigned"]


def every_syntax(folder: Path) -> list[Path]:
    paths = []
    for name in SYNTAXES:
        write_slices(folder / name, chest(), name)
        paths += [folder / name, write_enhanced(folder / f"{name}.dcm", chest(), name)]
    return paths


def several_series(folder: Path) -> list[Path]:
    write_dicom(folder, chest(), uid="1.2.3.1")
    write_dicom(folder, chest((3, 12, 14), 1), uid="1.2.3.2", description="thick")
    return [folder]


def with_localizer(folder: Path) -> list[Path]:
    write_dicom(folder, chest())
    write_dicom(folder, chest((1, 12, 14), 1), z=[99], names=["scout"], t0008_0008="ORIGINAL\\PRIMARY\\LOCALIZER")
    return [folder]


def with_gap(folder: Path) -> list[Path]:
    write_dicom(folder, chest(), z=[0, 5, 10, 20, 25])
    return [folder]


def with_repeats(folder: Path) -> list[Path]:
    write_dicom(folder, chest()[[0, 1, 1, 2, 3, 4]], z=[0, 5, 5, 10, 15, 20])
    return [folder]


def tilted(folder: Path) -> list[Path]:
    for k, path in enumerate(write_slices(folder, chest())):
        header = pydicom.dcmread(path)
        header.ImagePositionPatient = [-10, -20 + k * 5 * np.tan(np.radians(20)), k * 5]
        save(header, path)
    return [folder]


def enhanced(folder: Path) -> list[Path]:
    intercepts = [-1024, -1100, -1024, -2000, -1024]
    return [write_enhanced(folder / "a.dcm", chest(), order=[3, 1, 0, 4, 2], intercepts=intercepts)]


def with_damaged(folder: Path) -> list[Path]:
    write_dicom(folder, chest())
    (folder / "damaged.dcm").write_bytes(b"DICM" * 50)
    return [folder]


def with_two_passes(folder: Path) -> list[Path]:
    write_slices(folder / "in", chest(), AcquisitionNumber=1)
    write_slices(folder / "out", chest(seed=1), AcquisitionNumber=2, InstanceNumber=9)
    return [folder]


def with_undecodable(folder: Path) -> list[Path]:
    paths = write_slices(folder, np.concatenate([chest(), chest()[:1]]), "JPEG 2000")
    paths[5].write_bytes(paths[5].read_bytes().replace(b"\xff\x4f\xff\x51", b"\xff\x4f\xff\x50"))
    return [folder]


def two_forms(sform, qform):
    def write(folder: Path) -> list[Path]:
        image = nib.Nifti1Image(chest().T, AXES)
        image.set_qform(qform, 1)
        image.set_sform(sform, 1)
        nib.save(image, folder / "a.nii.gz")
        return [folder / "a.nii.gz"]

    return write


def thin_bodies(folder: Path) -> list[Path]:
    hu = np.full((3, 80, 80), -1000, np.int16)
    hu[:, 10:70, 10:70] = 40
    paths = [folder / f"a.{suffix}" for suffix in ("nii.gz", "mha", "nrrd")]
    for path in paths:
        sitk.WriteImage(as_itk(hu, (5, 1.6, 1.6)), str(path))
    return paths


def without_mark(folder: Path) -> list[Path]:
    for path in write_slices(folder, chest()):
        header = pydicom.dcmread(path)
        header.preamble, header.file_meta = None, pydicom.dataset.FileMetaDataset()
        header.save_as(path, implicit_vr=True, little_endian=True)
        path.rename(path.with_suffix(""))
    return [folder]


def with_commas(folder: Path) -> list[Path]:
    for path in write_slices(folder, chest()):
        header = pydicom.dcmread(path)
        header.PixelSpacing = ["0.7000", "0.8000"]
        save(header, path)
        path.write_bytes(path.read_bytes().replace(rb"0.7000\0.8000", rb"0,7000\0,8000"))
    return [folder]


def with_lut(folder: Path) -> list[Path]:
    for path in write_slices(folder, chest()):
        header = pydicom.dcmread(path)
        del header.RescaleSlope, header.RescaleIntercept
        table = pydicom.Dataset()
        table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "HU"
        table.add_new("LUTData", "OW", (np.arange(4096) - 1024).astype("<i2").tobytes())
        header.ModalityLUTSequence = pydicom.Sequence([table])
        save(header, path)
    return [folder]


def odd_pictures(kind: str):
    def write(folder: Path) -> list[Path]:
        place = folder / "inner" if kind == "deeper" else folder
        grey = window(chest((12, 12, 14)), -300, 1400)
        paths = write_pictures(place, grey, "slice_{}.png")
        if kind == "truncated":
            paths[3].write_bytes(paths[3].read_bytes()[:-60])
        elif kind == "size":
            write_pictures(place / "new", grey[:1, :5], "slice_3.png")[0].replace(paths[3])
            (place / "new").rmdir()
        elif kind == "stray":
            write_pictures(place / "new", grey[:1], "cover.png")[0].rename(place / "cover.png")
            (place / "new").rmdir()
        return [folder]

    return write


def padded(folder: Path) -> list[Path]:
    paths = []
    for value in (-2000, -2048, -3024):
        hu = np.where(WITH_PADDING == PADDING_HU, value, WITH_PADDING).astype(np.int16)
        paths.append(folder / f"{value}.nii")
        nib.save(nib.Nifti1Image(hu.T, AXES), paths[-1])
    return paths


def pictures(folder: Path) -> list[Path]:
    write_pictures(folder, window(chest()[::-1], -300, 1400), "{}.png")
    return [folder]


WITH_PADDING = chest()
WITH_PADDING[:, :3] = PADDING_HU
WITH_PADDING[:, 3] = -1255  # noisy air

# By the first cell of its row: who writes the files, and the HU that must come of them.
ROWS = {
    "NIfTI `.nii`, `.nii.gz`, version 1 or 2": (nifti, chest()),
    "oblique NIfTI, MetaImage or NRRD": (oblique, chest()),
    "NIfTI without an orientation": (bare_nifti, chest()),
    "NIfTI in metres or micrometres": (other_units, chest()),
    "MetaImage `.mha`, `.mhd`": (lambda folder: volumes(folder, ("mha", "mhd"), ".mha"), chest()),
    "NRRD `.nrrd`, `.nhdr`": (lambda folder: volumes(folder, ("nrrd", "nhdr"), ".nrrd"), chest()),
    "one slice in a MetaImage or NRRD": (one_slice, chest()[2:3]),
    "DICOM folder, searched to the bottom": (deep_dicom, chest()),
    "DICOM, signed, or unsigned with an intercept": (signed_and_unsigned, chest()),
    "DICOM, uncompressed, deflated, RLE, JPEG-LS, JPEG-Lossless, JPEG 2000": (every_syntax, chest()),
    "DICOM of several series": (several_series, chest()),
    "localizers among the slices": (with_localizer, chest()),
    "missing DICOM slices": (with_gap, chest()),
    "repeated DICOM slices": (with_repeats, chest()),
    "tilted gantry, also as a sheared NIfTI or NRRD": (tilted, chest()),
    "NIfTI whose sform is a placeholder of 1 mm": (two_forms(np.diag([-1, -1, 1, 1]), AXES), chest()),
    "NIfTI whose sform and pixdim disagree": (two_forms(AXES, np.diag([-0.8, -0.7, 2, 1])), chest()),
    "NIfTI whose sform and qform turn it differently": (two_forms(AXES, AXES * [[-1], [1], [1], [1]]), chest()),
    "NIfTI of 1 mm everywhere": (two_forms(np.diag([-1, -1, 1, 1]), np.diag([-1, -1, 1, 1])), chest()),
    "a body that no adult has, whatever the format": (thin_bodies, None),
    "DICOM without a mark or a suffix": (without_mark, chest()),
    "DICOM with decimal commas": (with_commas, chest()),
    "DICOM with a modality LUT": (with_lut, chest()),
    "one JPG or PNG that breaks off": (odd_pictures("truncated"), None),
    "a picture of another size among slices": (odd_pictures("size"), None),
    "stray pictures among slices": (odd_pictures("stray"), None),
    "slices one folder deeper": (odd_pictures("deeper"), None),
    "enhanced multi-frame DICOM": (enhanced, chest()),
    "one DICOM slice": (lambda folder: [write_slices(folder, chest())[3]], chest()[3:4]),
    "damaged DICOM files among good ones": (with_damaged, chest()),
    "several passes or reconstructions in one series": (with_two_passes, chest()),
    "DICOM pictures that cannot be decoded among good ones": (with_undecodable, chest()),
    "padding of -2000, -2048, -3024": (padded, WITH_PADDING),
    "folder of `.jpg` or `.png` slices": (pictures, None),
}
READ = {cells[0]: cells[2].strip() if len(cells) > 2 else "" for cells in table("What is read")}


def test_every_row_of_the_table_of_what_is_read_is_tested():
    assert set(READ) == set(ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_what_is_read_becomes_what_its_row_says(row, tmp_path):
    write, hu = ROWS[row]
    for path in write(tmp_path):
        scan = read_scan(path)
        if hu is None:
            right = chest() if scan.hu.shape == (5, 12, 14) else scan.hu
            assert np.abs(scan.hu.astype(int) - right).max() <= 4 and scan.is_hu == (path.suffix != "")
        else:
            assert scan.is_hu and np.array_equal(scan.hu, hu), path
            unit = row == "NIfTI of 1 mm everywhere"
            assert scan.spacing[1:] == pytest.approx((1, 1) if unit else SPACING[1:], rel=1e-4)
        if READ[row]:
            assert any(says(note, READ[row]) for note in scan.notes), scan.notes
        else:
            assert scan.notes == ()
