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
    "tilted gantry": (tilted, chest()),
    "enhanced multi-frame DICOM": (enhanced, chest()),
    "one DICOM slice": (lambda folder: [write_slices(folder, chest())[3]], chest()[3:4]),
    "damaged DICOM files among good ones": (with_damaged, chest()),
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
            assert not scan.is_hu and np.abs(scan.hu.astype(int) - chest()).max() <= 4
        else:
            assert scan.is_hu and np.array_equal(scan.hu, hu), path
            assert scan.spacing[1:] == pytest.approx(SPACING[1:], rel=1e-4)
        if READ[row]:
            assert any(says(note, READ[row]) for note in scan.notes), scan.notes
        else:
            assert scan.notes == ()
