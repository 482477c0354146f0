"""Reading and writing scans: files that these tests write themselves, with other programs, and the real ones."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import igzip
from PIL import Image

from ggo_lab.errors import ChoiceError, GgoLabError, ScanError
from ggo_lab.readers import read_labels, read_scan, write_nifti
from ggo_lab.scan import PADDING_HU, Scan, window

SPACING = (5.0, 0.7, 0.8)


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
    compress=False,
    **tags,
) -> list[Path]:
    """Write one file per slice, in names that do not sort in the order of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(direction[:3], direction[3:])
    columns = np.array([direction[:3], direction[3:], normal], float).T
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.SetUseCompression(compress)
    if compress:
        writer.SetCompressor("JPEG2000")
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


def write_pictures(folder: Path, grey: np.ndarray, name="{}.jpg", mode="L") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name.format(k) for k in range(len(grey))]
    for path, plane in zip(paths, grey, strict=True):
        Image.fromarray(plane).convert(mode).save(path)
    return paths


def has_note(scan: Scan, words: str) -> bool:
    return any(words in note for note in scan.notes)


# NIfTI

ORIENTATIONS = [
    np.column_stack([axes, flips])
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


@settings(max_examples=120, deadline=None)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    spacing=st.tuples(*[st.floats(0.3, 9.0)] * 3),
    dtype=st.sampled_from(["<i2", ">i2", "<u2", "<i4", "<f4", ">f4", "<f8"]),
    scaling=st.sampled_from([(1.0, 0.0), (1.0, -1024.0), (0.5, -1024.0), (2.0, -2048.0)]),
    version=st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
    codes=st.sampled_from([(1, 1), (0, 2), (1, 0)]),
)
def test_whatever_nibabel_writes_comes_back_as_the_same_patient(
    tmp_path_factory, orientation, spacing, dtype, scaling, version, suffix, codes
):
    slope, intercept = scaling
    if np.dtype(dtype).kind == "u" and intercept == 0:
        intercept = -1024.0
    hu = chest() // 2 * 2  # even, so that every slope here gives whole stored numbers
    stored = ((hu - intercept) / slope).astype(dtype)
    z, y, x = spacing
    image = version(stored.T, np.diag([-x, -y, z, 1]), dtype=np.dtype(dtype)).as_reoriented(orientation)
    image.header.set_data_dtype(dtype)
    image.header.set_slope_inter(slope, intercept)
    image.set_qform(image.affine, codes[0])
    image.set_sform(image.affine, codes[1])
    path = tmp_path_factory.mktemp("nifti") / f"scan{suffix}"
    nib.save(image, path)

    scan = read_scan(path)
    assert np.array_equal(scan.hu, hu)
    assert scan.hu.dtype == np.int16 and scan.hu.flags.c_contiguous
    assert scan.spacing == pytest.approx(spacing, rel=1e-4)
    assert scan.notes == () and scan.is_hu and scan.name == "scan" and scan.source == path


def test_the_first_voxel_of_a_ras_file_is_left_back_and_feet(tmp_path):
    stored = np.asfortranarray(chest().T)  # axes x, y, z
    nib.save(nib.Nifti1Image(stored, np.diag([1, 1, 2, 1])), tmp_path / "ras.nii.gz")
    hu = read_scan(tmp_path / "ras.nii.gz").hu
    # Its axes count towards right, front and head; here left has the highest column and back the highest row.
    assert hu[0, -1, -1] == stored[0, 0, 0]
    assert hu[0, -1, 0] == stored[-1, 0, 0]
    assert hu[0, 0, -1] == stored[0, -1, 0]
    assert hu[-1, -1, -1] == stored[0, 0, -1]


def test_an_oblique_volume_goes_to_the_nearest_axes_and_says_so(tmp_path):
    angle = np.radians(12)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-0.8, -0.7, 5])
    nib.save(nib.Nifti1Image(chest().T, affine), tmp_path / "oblique.nii.gz")
    scan = read_scan(tmp_path / "oblique.nii.gz")
    assert np.array_equal(scan.hu, chest())
    assert scan.spacing == pytest.approx(SPACING)
    assert has_note(scan, "12.0 degrees off")


def test_floats_are_rounded_and_one_volume_in_4d_is_a_scan(tmp_path):
    hu = chest()
    stored = (hu + np.where(hu % 2, 0.4, -0.4)).astype(np.float32).T[..., None]
    nib.save(nib.Nifti1Image(stored, np.diag([-1, -1, 1, 1])), tmp_path / "float.nii.gz")
    assert np.array_equal(read_scan(tmp_path / "float.nii.gz").hu, hu)


@pytest.mark.parametrize("padding", [-2000, -2048, -3024, -32768])
def test_padding_of_any_value_becomes_one_and_air_stays(tmp_path, padding):
    hu = chest()
    hu[:, :3] = padding
    hu[:, 3] = -1255
    nib.save(nib.Nifti1Image(hu.T, np.diag([-1, -1, 1, 1])), tmp_path / "padded.nii")
    scan = read_scan(tmp_path / "padded.nii")
    assert np.all(scan.hu[:, :3] == PADDING_HU)
    assert np.array_equal(scan.hu[:, 3:], hu[:, 3:])


def test_metal_beyond_int16_is_clamped_not_wrapped(tmp_path):
    hu = chest().astype(np.int32)
    hu[0, 0, :2] = 70_000, -70_000
    nib.save(nib.Nifti1Image(hu.T, np.diag([-1, -1, 1, 1])), tmp_path / "metal.nii")
    scan = read_scan(tmp_path / "metal.nii")
    assert scan.hu[0, 0, :2].tolist() == [32767, PADDING_HU]


def test_a_file_without_orientation_is_read_with_a_note(tmp_path):
    image = nib.Nifti1Image(chest().T, None)
    image.header.set_zooms(SPACING[::-1])
    nib.save(image, tmp_path / "bare.nii")
    scan = read_scan(tmp_path / "bare.nii")
    assert scan.spacing == pytest.approx(SPACING)
    assert has_note(scan, "stores no orientation")


def test_metres_become_millimetres(tmp_path):
    image = nib.Nifti1Image(chest().T, np.diag([-0.0008, -0.0007, 0.005, 1]))
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "metres.nii")
    scan = read_scan(tmp_path / "metres.nii")
    assert scan.spacing == pytest.approx(SPACING, rel=1e-4)
    assert has_note(scan, "metres")


def test_a_given_spacing_wins_and_a_strange_one_is_noted(tmp_path):
    write_nifti(chest(), tmp_path / "a.nii", (90.0, 0.7, 0.8))
    assert has_note(read_scan(tmp_path / "a.nii"), "unlikely")
    scan = read_scan(tmp_path / "a.nii", spacing=(3, 1, 1))
    assert scan.spacing == (3.0, 1.0, 1.0)
    assert has_note(scan, "3 x 1 x 1 mm (z, y, x) as given, in place of 90 x 0.7 x 0.8 mm")


# MetaImage and NRRD


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from([".mha", ".mhd", ".nrrd", ".nhdr"]),
    compress=st.booleans(),
    axes=st.permutations(["LR", "PA", "SI"]),
    flips=st.tuples(*[st.integers(0, 1)] * 3),
    pixel=st.sampled_from([sitk.sitkInt16, sitk.sitkInt32, sitk.sitkInt64, sitk.sitkFloat32, sitk.sitkFloat64]),
)
def test_whatever_simpleitk_writes_comes_back_as_the_same_patient(
    tmp_path_factory, suffix, compress, axes, flips, pixel
):
    image = sitk.DICOMOrient(as_itk(chest()), "".join(pair[k] for pair, k in zip(axes, flips, strict=True)))
    path = tmp_path_factory.mktemp("itk") / f"scan{suffix}"
    sitk.WriteImage(sitk.Cast(image, pixel), str(path), useCompression=compress)
    scan = read_scan(path)
    assert np.array_equal(scan.hu, chest())
    assert scan.spacing == pytest.approx(SPACING)
    assert scan.notes == ()


@pytest.mark.parametrize(
    ("suffix", "header"),
    [
        (
            ".mha",
            "NDims = 3\nBinaryData = True\n{order}DimSize = 14 12 5\nElementType = MET_SHORT\n{skip}"
            "ElementDataFile = LOCAL\n",
        ),
        (".nrrd", "NRRD0004\ntype: short\ndimension: 3\nsizes: 14 12 5\n{order}{skip}encoding: raw\n\n"),
    ],
)
def test_other_byte_orders_and_skipped_bytes(tmp_path, suffix, header):
    big = "BinaryDataByteOrderMSB = True\n" if suffix == ".mha" else "endian: big\n"
    little = "" if suffix == ".mha" else "endian: little\n"
    skip = "HeaderSize = -1\n" if suffix == ".mha" else "byte skip: 3\n"
    (tmp_path / f"big{suffix}").write_bytes(
        header.format(order=big, skip="").encode() + chest().astype(">i2").tobytes()
    )
    assert np.array_equal(read_scan(tmp_path / f"big{suffix}").hu, chest())
    skipped = header.format(order=little, skip=skip).encode() + b"xyz" + chest().astype("<i2").tobytes()
    (tmp_path / f"skip{suffix}").write_bytes(skipped)
    assert np.array_equal(read_scan(tmp_path / f"skip{suffix}").hu, chest())


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_no_damaged_byte_of_packed_voxels_goes_unseen(tmp_path, suffix, capfd):
    path = tmp_path / f"scan{suffix}"
    sitk.WriteImage(as_itk(chest()), str(path), useCompression=True)
    whole = path.read_bytes()
    start = whole.index(b"LOCAL\n") + 6 if suffix == ".mha" else whole.index(b"\n\n") + 2
    for place in range(start, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 85]) + whole[place + 1 :])
        try:
            assert np.array_equal(read_scan(path).hu, chest())  # a byte without meaning
        except ScanError as error:
            assert "cannot be read as MetaImage or NRRD" in str(error)
    assert capfd.readouterr().err == ""


def test_one_slice_in_a_metaimage_is_a_scan_of_one_slice(tmp_path):
    sitk.WriteImage(as_itk(chest())[:, :, 2], str(tmp_path / "slice.mha"))
    scan = read_scan(tmp_path / "slice.mha")
    assert np.array_equal(scan.hu, chest()[2:3])
    assert scan.spacing == pytest.approx((1.0, 0.7, 0.8))
    assert has_note(scan, "1 mm was assumed")


def test_a_nrrd_without_a_space_is_read_with_a_note(tmp_path):
    header = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 14 12 5\nspacings: 0.8 0.7 5\nendian: little\nencoding: raw\n\n"
    )
    (tmp_path / "bare.nrrd").write_bytes(header.encode() + chest().astype("<i2").tobytes())
    scan = read_scan(tmp_path / "bare.nrrd")
    assert np.array_equal(scan.hu, chest())
    assert scan.spacing == pytest.approx(SPACING)
    assert has_note(scan, "stores no orientation")


# DICOM


def test_dicom_slices_are_sorted_by_position_whatever_their_names(tmp_path):
    write_dicom(tmp_path / "scan", chest())
    scan = read_scan(tmp_path / "scan")
    assert np.array_equal(scan.hu, chest())
    assert scan.spacing == pytest.approx(SPACING)
    assert scan.notes == () and scan.name == "scan"


def test_dicom_in_a_deep_folder_without_suffixes(tmp_path):
    write_dicom(tmp_path / "disc" / "study" / "series", chest(), names=[f"IM{k}" for k in range(5)])
    assert np.array_equal(read_scan(tmp_path / "disc").hu, chest())


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "JPEG 2000"])
def test_unsigned_dicom_with_an_intercept(tmp_path, compress):
    paths = write_dicom(tmp_path, (chest() + 1024).astype(np.uint16), compress=compress)
    with pytest.raises(ScanError, match="intercept of -1024 were missing"):
        read_scan(tmp_path)
    # ITK always writes an intercept of 0; put -1024 into the tag, in implicit and in explicit notation.
    tag = b"\x28\x00\x52\x10" + (b"DS" if compress else b"")
    end = b"" if compress else b"\x00\x00"
    for path in paths:
        data = path.read_bytes()
        changed = data.replace(tag + b"\x02\x00" + end + b"0 ", tag + b"\x06\x00" + end + b"-1024 ")
        assert len(changed) == len(data) + 4
        path.write_bytes(changed)
    assert np.array_equal(read_scan(tmp_path).hu, chest())


def test_feet_first_and_prone_slices_are_turned(tmp_path):
    hu = chest()
    # Rows run to the patient's right and columns to the front: the picture is turned by 180 degrees.
    write_dicom(tmp_path / "prone", hu, direction=(-1, 0, 0, 0, -1, 0))
    assert np.array_equal(read_scan(tmp_path / "prone").hu, hu[:, ::-1, ::-1])
    # Rows run to the right, columns to the back: the normal points to the feet.
    write_dicom(tmp_path / "feet", hu, direction=(-1, 0, 0, 0, 1, 0))
    assert np.array_equal(read_scan(tmp_path / "feet").hu, hu[::-1, :, ::-1])


def test_the_axial_ct_with_the_most_slices_is_chosen_and_named(tmp_path):
    write_dicom(tmp_path, chest((3, 12, 14), 1), uid="1.2.3.1", description="thick")
    write_dicom(tmp_path, chest((6, 12, 14), 2), uid="1.2.3.2", description="thin lung")
    write_dicom(tmp_path, chest((9, 12, 14), 3), uid="1.2.3.3", description="coronal", direction=(1, 0, 0, 0, 0, -1))
    write_dicom(tmp_path, chest((8, 12, 14), 4), uid="1.2.3.4", description="dose", modality="OT")
    write_dicom(
        tmp_path, chest((7, 12, 14), 5), uid="1.2.3.5", description="scout", t0008_0008="ORIGINAL\\PRIMARY\\LOCALIZER"
    )
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, chest((6, 12, 14), 2))
    assert has_note(scan, "Read 'thin lung' (6 slices), the axial CT with the most slices")
    assert has_note(scan, "'thick' (3 slices)")

    assert np.array_equal(read_scan(tmp_path, series="THICK").hu, chest((3, 12, 14), 1))
    assert np.array_equal(read_scan(tmp_path, series="1.2.3.1").hu, chest((3, 12, 14), 1))
    # A coronal reformat is taken when asked for, and still lies on the patient's axes.
    assert read_scan(tmp_path, series="coronal").shape == (12, 9, 14)
    with pytest.raises(ScanError, match=r"no series is 'bone'.*'thin lung'"):
        read_scan(tmp_path, series="bone")
    with pytest.raises(ScanError, match="fits several series"):
        read_scan(tmp_path, series="thi")
    with pytest.raises(ScanError, match="no CT slices among 8 DICOM pictures, which are OT"):
        read_scan(tmp_path, series="dose")


def test_a_missing_slice_is_noted_and_the_usual_distance_kept(tmp_path):
    write_dicom(tmp_path, chest(), z=[0, 5, 10, 20, 25])
    scan = read_scan(tmp_path)
    assert scan.spacing[0] == pytest.approx(5.0)
    assert has_note(scan, "1 of 4 distances between slices differ from the usual 5 mm, the largest is 10 mm")


def test_rounding_of_positions_is_no_gap(tmp_path):
    write_dicom(tmp_path, chest(), z=[0, 5.0004, 10, 14.9996, 20])
    assert read_scan(tmp_path).notes == ()


def test_repeated_slices_are_dropped_and_different_ones_refused(tmp_path):
    hu = chest()
    write_dicom(tmp_path / "twice", hu[[0, 1, 1, 2, 3, 4]], z=[0, 5, 5, 10, 15, 20])
    scan = read_scan(tmp_path / "twice")
    assert np.array_equal(scan.hu, hu)
    assert has_note(scan, "1 slices that repeat another one")
    write_dicom(tmp_path / "mixed", hu, z=[0, 5, 5, 10, 15])
    with pytest.raises(ScanError, match="different pictures of the same place"):
        read_scan(tmp_path / "mixed")


def test_slices_of_another_size_in_one_series_are_left_out_with_a_note(tmp_path):
    write_dicom(tmp_path, chest())
    write_dicom(tmp_path, chest((1, 20, 20)), z=[50], names=["odd.dcm"])
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, chest())
    assert has_note(scan, "1 pictures of the same series were left out")


def test_a_damaged_slice_is_named(tmp_path):
    paths = write_dicom(tmp_path, chest())
    paths[2].write_bytes(paths[2].read_bytes()[:-200])
    scan = read_scan(tmp_path)
    assert len(scan.hu) == 4
    assert has_note(scan, paths[2].name) and has_note(scan, "slices may be missing")


def test_declared_padding_is_padding_at_the_border_only(tmp_path):
    hu = chest()
    hu[:, :2] = -1024
    hu[:, 6, 7] = -1024
    hu[:, 2, :] = hu[:, :, 0] = hu[:, :, -1] = hu[:, -1, :] = 40
    write_dicom(tmp_path, hu, t0028_0120="0", t0028_1052="-1024", t0028_1053="1", t0028_0103="0")
    read = read_scan(tmp_path).hu
    assert np.all(read[:, :2, 1:-1] == PADDING_HU)
    assert np.all(read[:, 6, 7] == -1024)


def test_several_patients_in_one_folder_are_refused(tmp_path):
    write_dicom(tmp_path / "a", chest(), uid="1.2.3.1", patient="a")
    write_dicom(tmp_path / "b", chest(), uid="1.2.3.2", patient="b")
    with pytest.raises(ScanError, match="holds 2 patients"):
        read_scan(tmp_path)


def test_one_dicom_file_is_a_scan_of_one_slice(tmp_path):
    path = write_dicom(tmp_path, chest())[3]
    scan = read_scan(path)
    assert np.array_equal(scan.hu, chest()[3:4])
    assert scan.spacing == pytest.approx(SPACING)
    assert has_note(scan, "A single slice; its thickness of 5 mm")


def test_magnetic_resonance_is_refused(tmp_path):
    write_dicom(tmp_path, chest(), modality="MR")
    with pytest.raises(ScanError, match="which are MR; give the folder of a chest CT"):
        read_scan(tmp_path)


# Pictures


def test_pictures_lie_in_natural_order_and_are_marked_as_no_hu(tmp_path):
    grey = np.stack([np.full((12, 14), 20 * k, np.uint8) for k in range(12)])
    write_pictures(tmp_path / "ct_scan_7", grey, "{}.png")
    scan = read_scan(tmp_path / "ct_scan_7", first_slice="feet")
    assert window(scan.hu, -300, 1400)[:, 0, 0].tolist() == (20 * np.arange(12)).tolist()
    assert not scan.is_hu and scan.name == "ct_scan_7"
    assert np.array_equal(read_scan(tmp_path / "ct_scan_7").hu, scan.hu[::-1])
    for words in ("estimate", "nearest the feet", "350 mm across"):
        assert has_note(scan, words)
    assert scan.spacing == (8.0, 25.0, 25.0)


@pytest.mark.parametrize("choice", ["lung", "paper", (-500, 1500)])
def test_grey_is_turned_back_by_the_window_that_made_it(tmp_path, choice):
    level, width = {"lung": (-600, 1500), "paper": (-300, 1400)}.get(choice, choice)
    hu = chest().clip(int(level - width / 2), int(level + width / 2))
    write_pictures(tmp_path, window(hu, level, width), "s{:03}.png")
    scan = read_scan(tmp_path, grey_window=choice, first_slice="feet", spacing=SPACING)
    assert np.abs(scan.hu.astype(int) - hu).max() <= width / 255 / 2 + 1
    assert scan.spacing == SPACING


@pytest.mark.parametrize(("name", "mode"), [("{}.jpg", "RGB"), ("{}.JPEG", "L"), ("{}.png", "RGBA"), ("{}.png", "P")])
def test_grey_stored_as_colour_is_grey(tmp_path, name, mode):
    ramp = np.tile(np.arange(0, 240, 5, dtype=np.uint8), (3, 40, 1))
    write_pictures(tmp_path, ramp, name, mode)
    scan = read_scan(tmp_path, first_slice="feet")
    assert np.abs(window(scan.hu, -300, 1400).astype(int) - ramp).max() <= 3  # JPEG loses a little


def test_one_picture_is_a_scan_of_one_slice(tmp_path):
    (path,) = write_pictures(tmp_path, window(chest()[:1], -300, 1400), "{}.png")
    scan = read_scan(path)
    assert scan.shape == (1, 12, 14) and not scan.is_hu and scan.name == "0"


def test_other_files_beside_the_slices_are_counted(tmp_path):
    write_pictures(tmp_path, window(chest(), -300, 1400), "{}.png")
    (tmp_path / "readme.txt").write_text("hello")
    assert has_note(read_scan(tmp_path), "1 files that are not JPG or PNG were left out")


# What is refused: one sentence, and no library's error


def bad_file(kind: str, folder: Path) -> Path:
    """Make one kind of bad input and give its path."""
    good = folder / "good.nii.gz"
    nib.save(nib.Nifti1Image(chest().T, np.diag([-1, -1, 1, 1])), good)
    path = folder / {"nifti": "bad.nii", "gzip": "bad.nii.gz"}.get(kind.split()[0], "bad")
    if kind == "nothing":
        return folder / "nothing.nii.gz"
    if kind == "empty folder":
        path.mkdir()
    elif kind == "folder of text":
        path.mkdir()
        (path / "notes.txt").write_text("hello")
    elif kind == "folder of volumes":
        path.mkdir()
        good.rename(path / "one.nii.gz")
    elif kind == "empty file":
        path = folder / "bad.nii.gz"
        path.touch()
    elif kind == "other suffix":
        path = folder / "bad.docx"
        path.write_bytes(b"word" * 99)
    elif kind in ("gzip text", "nifti text"):
        path.write_text("this is a text, renamed. " * 40)
    elif kind == "gzip of text":
        path.write_bytes(igzip.compress(b"this is a text, renamed. " * 40))
    elif kind == "gzip truncated":
        path.write_bytes(good.read_bytes()[:-200])
    elif kind == "gzip header only":
        path.write_bytes(good.read_bytes()[:30])
    elif kind == "gzip flipped":
        data = bytearray(good.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    elif kind == "nifti truncated":
        path.write_bytes(igzip.decompress(good.read_bytes())[:-1])
    elif kind == "nifti of absurd size":
        data = bytearray(igzip.decompress(good.read_bytes()))
        data[42:48] = np.array([30000, 30000, 30000], "<i2").tobytes()
        path.write_bytes(data)
    elif kind == "gzip that cannot hold it":
        data = bytearray(igzip.decompress(good.read_bytes()))
        data[42:48] = np.array([1500, 1500, 1500], "<i2").tobytes()
        path.write_bytes(igzip.compress(bytes(data)))
    elif kind == "nifti in 4-D":
        nib.save(nib.Nifti1Image(np.stack([chest().T] * 2, -1), np.eye(4)), path)
    elif kind == "nifti in colour":
        colours = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.save(nib.Nifti1Image(colours, np.eye(4)), path)
    elif kind == "nifti with NaN":
        values = chest().T.astype(np.float32)
        values[3, 3, 3] = np.nan
        nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    elif kind == "nifti with a flat affine":
        image = nib.Nifti1Image(chest().T, np.diag([-1, -1, 1, 1]))
        image.header["srow_z"] = image.header["srow_x"]
        nib.save(image, path)
        data = bytearray(path.read_bytes())
        data[312:328] = data[280:296]  # the header's srow_z gets the values of srow_x
        path.write_bytes(data)
    elif kind == "nifti in 12 bit":
        nib.save(nib.Nifti1Image((chest().T + 1024).astype(np.uint16), np.eye(4)), path)
    elif kind.startswith("mha"):
        path = folder / "bad.mha"
        sitk.WriteImage(as_itk(chest()), str(path), useCompression="compressed" in kind)
        data = path.read_bytes()
        if "truncated" in kind:
            path.write_bytes(data[:-100])
        elif "absurd" in kind:
            path.write_bytes(data.replace(b"DimSize = 14 12 5", b"DimSize = 14000 12000 50000"))
        elif "negative" in kind:
            path.write_bytes(data.replace(b"DimSize = 14 12 5", b"DimSize = 14 -12 5"))
        elif "text" in kind:
            path.write_text("hello")
        elif "colour" in kind:
            sitk.WriteImage(sitk.Compose([as_itk(chest())] * 3), str(path))
        elif "4-D" in kind:
            sitk.WriteImage(sitk.JoinSeries([as_itk(chest())] * 2), str(path))
        elif "list" in kind:
            path.write_bytes(data[: data.index(b"ElementDataFile")] + b"ElementDataFile = LIST\na.raw\n")
    elif kind == "mhd without its raw file":
        path = folder / "bad.mhd"
        sitk.WriteImage(as_itk(chest()), str(path))
        (folder / "bad.raw").unlink()
    elif kind.startswith("nrrd"):
        path = folder / "bad.nrrd"
        sitk.WriteImage(as_itk(chest()), str(path), useCompression="compressed" in kind)
        path.write_bytes(path.read_bytes()[:-300])
        if "absurd" in kind:
            path.write_bytes(path.read_bytes().replace(b"sizes: 14 12 5", b"sizes: 14000 12000 50000"))
    elif kind == "dicom text":
        path = folder / "bad.dcm"
        path.write_text("hello")
    elif kind == "dicom in colour":
        path = folder / "bad.dcm"
        rgb = sitk.GetImageFromArray(np.zeros((1, 8, 8, 3), np.uint8), isVector=True)
        rgb.SetMetaData("0008|0060", "CT")
        sitk.WriteImage(rgb, str(path))
    elif kind == "dicom without places":
        write_dicom(path, chest())
        for file in path.iterdir():  # another, unknown tag in place of Image Position
            file.write_bytes(file.read_bytes().replace(b"\x20\x00\x32\x00", b"\x20\x00\x33\x00"))
    elif kind.startswith("picture"):
        grey = window(chest(), -300, 1400)
        pictures = write_pictures(path, grey, "{}.png")
        if "colour" in kind:
            red = np.stack([grey[0], grey[0] // 2, grey[0] // 4], -1)
            Image.fromarray(red).save(pictures[3])
        elif "size" in kind:
            Image.fromarray(grey[0][:5]).save(pictures[3])
        elif "truncated" in kind:
            pictures[3].write_bytes(pictures[3].read_bytes()[:-60])
        elif "text" in kind:
            pictures[3].write_text("hello")
        elif "16 bit" in kind:
            Image.fromarray(chest()[0].astype(np.uint16)).save(pictures[0])
        elif "both" in kind:
            write_pictures(path, grey, "{}.jpg")
        elif "blank" in kind:
            write_pictures(path, grey * 0, "{}.png")
    return path


BAD = {
    "nothing": "no such file or folder",
    "empty folder": "the folder is empty",
    "folder of text": "no DICOM, JPG or PNG slices among its 1 files, such as notes.txt",
    "folder of volumes": "such as one.nii.gz",
    "empty file": "empty .0 bytes",
    "other suffix": "not a kind of file that is read",
    "gzip text": "not a NIfTI file, whatever its name says",
    "nifti text": "not a NIfTI file, whatever its name says",
    "gzip of text": "not a NIfTI file, whatever its name says",
    "gzip truncated": "break off or are damaged",
    "gzip header only": "break off or are damaged",
    "gzip flipped": "break off or are damaged",
    "nifti truncated": "truncated or damaged",
    "nifti of absurd size": "claims 30000 x 30000 x 30000 voxels, more than any CT",
    "gzip that cannot hold it": "claims 1500 x 1500 x 1500 voxels of 2 bytes, and only",
    "nifti in 4-D": "4-D NIfTI",
    "nifti in colour": "colour",
    "nifti with NaN": "not numbers",
    "nifti with a flat affine": "orientation is not usable",
    "nifti in 12 bit": "intercept of -1024 were missing",
    "mha truncated": "truncated",
    "mha compressed truncated": "truncated",
    "mha absurd": "more than any CT",
    "mha negative": "cannot be read as MetaImage or NRRD|the header claims",
    "mha text": "cannot be read as MetaImage or NRRD",
    "mha colour": "3 values per voxel",
    "mha 4-D": "4 dimensions",
    "mha list": "spread over several files",
    "mhd without its raw file": "should lie in bad.raw beside it, which is missing",
    "nrrd truncated": "truncated",
    "nrrd compressed truncated": "truncated",
    "nrrd absurd": "more than any CT",
    "dicom text": "none of 1 DICOM files holds a picture",
    "dicom in colour": "which are colour",
    "dicom without places": "do not say where they lie",
    "picture colour": "a coloured picture",
    "picture size": "14 x 5 pixels, and the first slice has 14 x 12",
    "picture truncated": "not a whole JPG or PNG",
    "picture text": "not a whole JPG or PNG",
    "picture 16 bit": "mode I;16",
    "picture both": "both JPG and PNG",
    "picture blank": "every pixel is 0",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_ends_in_one_sentence(kind, tmp_path, capfd):
    path = bad_file(kind, tmp_path)
    with pytest.raises(ScanError, match=BAD[kind]) as caught:
        read_scan(path)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".") and message.startswith(str(tmp_path))
    assert Path(caught.value.subject).is_relative_to(path)
    assert capfd.readouterr().err == ""


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    path = write_nifti(chest(), tmp_path / "locked.nii.gz", SPACING)

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ScanError, match=r"locked\.nii\.gz: cannot be opened \(Permission denied\)"):
        read_scan(path)
    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(ScanError, match="Permission denied"):
        read_scan(path)


def test_choices_are_checked(tmp_path):
    write_nifti(chest(), tmp_path / "a.nii", SPACING)
    with pytest.raises(ChoiceError, match="holds no DICOM"):
        read_scan(tmp_path / "a.nii", series="lung")
    write_pictures(tmp_path / "p", window(chest(), -300, 1400), "{}.png")
    with pytest.raises(ChoiceError, match="'head', 'feet'"):
        read_scan(tmp_path / "p", first_slice="top")
    with pytest.raises(ChoiceError, match="'paper'"):
        read_scan(tmp_path / "p", grey_window="wide")
    with pytest.raises(GgoLabError, match="three distances"):
        read_scan(tmp_path / "p", spacing=(1, 2))


def test_libraries_keep_silent_about_what_was_read(tmp_path):
    """ITK warns on stderr about slices that are 0.0005 mm off; it must not reach the user, nor stay switched off."""
    write_dicom(tmp_path, chest(), z=[0, 5.0004, 10, 14.9996, 20])
    code = (
        "import sys, SimpleITK as sitk; from ggo_lab.readers import read_scan; read_scan(sys.argv[1]);"
        "assert sitk.ProcessObject.GetGlobalWarningDisplay()"
    )
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=root)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# Labels


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_labels_come_back_as_integers_whatever_they_are_stored_in(tmp_path, dtype):
    labels = np.random.default_rng(0).integers(0, 100, (5, 12, 14)).astype(dtype)
    image = nib.Nifti1Image(labels.T, np.diag([-1, -1, 1, 1])).as_reoriented(ORIENTATIONS[21])
    nib.save(image, tmp_path / "labels.nii.gz")
    read = read_labels(tmp_path / "labels.nii.gz")
    assert read.dtype.kind in "iu" and np.array_equal(read, labels)


def test_labels_that_are_no_labels_are_refused(tmp_path):
    nib.save(nib.Nifti1Image(np.full((4, 4, 4), 0.5, np.float32), np.eye(4)), tmp_path / "probability.nii.gz")
    with pytest.raises(ScanError, match="needs whole numbers"):
        read_labels(tmp_path / "probability.nii.gz")
    (tmp_path / "labels.png").touch()
    with pytest.raises(ScanError, match=r"NIfTI, MetaImage or NRRD files only"):
        read_labels(tmp_path / "labels.png")
    with pytest.raises(ScanError, match="no such file"):
        read_labels(tmp_path / "none.nii.gz")


# Writing


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_written_scan_is_read_back_exactly_and_shown_right_by_others(tmp_path, suffix):
    hu = chest()
    hu[0, 0, :3] = PADDING_HU, 32767, -1499
    path = write_nifti(Scan(hu, SPACING), tmp_path / "new" / f"scan{suffix}")
    assert path == tmp_path / "new" / f"scan{suffix}"
    scan = read_scan(path)
    assert np.array_equal(scan.hu, hu) and scan.spacing == SPACING and scan.notes == ()

    other = sitk.ReadImage(str(path))  # knows nothing of this package, and counts towards left, back and head
    assert np.array_equal(sitk.GetArrayFromImage(other), hu)
    assert other.GetDirection() == pytest.approx(np.eye(3).ravel())
    assert other.GetSpacing() == pytest.approx(SPACING[::-1])
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    assert image.get_data_dtype() == np.int16
    assert np.allclose(image.get_qform(), image.get_sform()) and image.get_sform(coded=True)[1] == 1


@pytest.mark.parametrize(
    ("highest", "dtype"), [(1, np.uint8), (255, np.uint8), (256, np.int16), (-1, np.int16), (40000, np.int32)]
)
def test_labels_are_written_small_and_read_back_exactly(tmp_path, highest, dtype):
    labels = np.zeros((3, 4, 5), np.int64)
    labels[1, 2, 3] = highest
    path = write_nifti(labels, tmp_path / "labels.nii.gz", spacing=SPACING)
    assert nib.load(path).get_data_dtype() == dtype
    assert np.array_equal(read_labels(path), labels)


def test_a_mask_is_written_as_bytes(tmp_path):
    mask = chest() > 0
    path = write_nifti(mask, tmp_path / "mask.nii.gz", SPACING)
    assert nib.load(path).get_data_dtype() == np.uint8
    assert np.array_equal(read_labels(path).astype(bool), mask)


def test_an_estimate_stays_an_estimate(tmp_path):
    write_pictures(tmp_path / "p", window(chest(), -300, 1400), "{}.png")
    scan = read_scan(tmp_path / "p")
    again = read_scan(write_nifti(scan, tmp_path / "scan.nii.gz"))
    assert not again.is_hu and np.array_equal(again.hu, scan.hu)


def test_equal_scans_give_equal_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(Scan(chest(), SPACING), tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = write_nifti(Scan(chest(), SPACING), tmp_path / "scan.nii.gz")
    before = path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ScanError, match=r"cannot be written \(No space left on device\)"):
        write_nifti(Scan(chest(seed=1), SPACING), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ChoiceError, match=r"ends in \.nii\.gz or \.nii"):
        write_nifti(chest(), tmp_path / "scan.mha", SPACING)
    with pytest.raises(ChoiceError, match="give spacing"):
        write_nifti(chest(), tmp_path / "scan.nii")
    for wrong in (chest().astype(np.float32), chest()[0]):
        with pytest.raises(ScanError, match="bool or integer array"):
            write_nifti(wrong, tmp_path / "scan.nii", SPACING)
    (tmp_path / "file").touch()
    with pytest.raises(ScanError, match="cannot be written"):
        write_nifti(chest(), tmp_path / "file" / "scan.nii", SPACING)


# Real scans


def test_the_same_real_chest_as_nrrd_and_as_dicom(real_data):
    nrrd = read_scan(real_data / "cip_thorax" / "ct-64.nrrd")
    dicom = read_scan(real_data / "cip_thorax" / "ct-64-dicom")
    assert np.array_equal(nrrd.hu, dicom.hu) and nrrd.shape == (79, 64, 64)
    assert nrrd.spacing == pytest.approx((3.987342, 4.171872, 4.171872))
    assert dicom.spacing == pytest.approx(nrrd.spacing, abs=1e-4)
    assert nrrd.notes == () and dicom.notes == ()


def test_the_real_label_map_lies_on_its_scan(real_data):
    scan = read_scan(real_data / "cip_thorax" / "ct-64.nrrd")
    labels = read_labels(real_data / "cip_thorax" / "lm-64.nrrd")
    lungs = (labels & 0xFF >= 9) & (labels & 0xFF <= 14)
    assert lungs.shape == scan.shape
    assert np.median(scan.hu[lungs]) == pytest.approx(-919, abs=3)
    assert lungs.sum() * scan.voxel_ml == pytest.approx(4500, rel=0.03)


def test_a_real_chest_lies_on_canonical_axes(real_data):
    hu = read_scan(real_data / "cip_thorax" / "ct-64.nrrd").hu
    body = hu > -300
    # The spine is the densest, and lies behind the middle of the body.
    _, rows, _ = np.nonzero(hu[20:60] > 300)
    assert rows.mean() > np.nonzero(body[20:60])[1].mean()
    # The lungs narrow towards the head, where slices hold the least of them.
    lung = (hu > -980) & (hu < -700)
    assert lung[-6:].sum() < lung[20:26].sum()


def test_the_padding_of_a_real_slice_is_not_air(real_data):
    scan = read_scan(real_data / "lungmask_slice" / "0.dcm")
    assert scan.shape == (1, 512, 512) and scan.padding.mean() == pytest.approx(0.215, abs=0.001)
    assert scan.hu[~scan.padding].min() > -1100
    assert has_note(scan, "CT was assumed")


def test_the_real_half_chest_and_its_mask(real_data):
    scan = read_scan(real_data / "elastix_right_lung" / "3DCT_lung.mha")
    mask = read_labels(real_data / "elastix_right_lung" / "3DCT_lung_baseline_mask.mha")
    assert scan.shape == mask.shape == (129, 157, 115) and scan.spacing == (2.5, 1.366, 1.366)
    assert np.median(scan.hu[mask == 1]) == pytest.approx(-944, abs=2)
    assert mask.sum() * scan.voxel_ml == pytest.approx(3360, rel=0.01)


def test_two_real_slices_at_full_resolution(real_data):
    scan = read_scan(real_data / "cip_thorax" / "crop_ct_2slices.nrrd")
    assert scan.shape == (2, 349, 443) and scan.spacing == (0.5, 0.585938, 0.585938) and scan.is_hu
