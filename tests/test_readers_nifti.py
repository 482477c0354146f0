"""Reading NIfTI files that nibabel writes, in every orientation, type and scaling."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import igzip
from scan_files import ORIENTATIONS, SPACING, chest, has_note

from ggo_lab.errors import ScanError
from ggo_lab.readers import read_scan, write_nifti
from ggo_lab.scan import PADDING_HU


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


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(nib.orientations.ornt2axcodes(o)))
def test_each_of_the_48_orientations_is_the_same_patient(tmp_path, orientation):
    image = nib.Nifti1Image(chest().T, np.diag([-0.8, -0.7, 5, 1])).as_reoriented(orientation)
    nib.save(image, tmp_path / "scan.nii")
    scan = read_scan(tmp_path / "scan.nii")
    assert np.array_equal(scan.hu, chest()) and scan.spacing == pytest.approx(SPACING)


def test_voxels_right_behind_a_header_that_does_not_say_where(tmp_path):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(chest().T, np.diag([-1, -1, 1, 1])), path)
    data = bytearray(path.read_bytes())
    data[108:112] = np.float32(0).tobytes()
    path.write_bytes(data)
    assert np.array_equal(read_scan(path).hu, chest())


@pytest.mark.parametrize("offset", [np.nan, np.inf, -1e9, 8], ids=str)
def test_voxels_that_would_begin_nowhere_are_refused(tmp_path, offset):
    path = tmp_path / "scan.nii"
    nib.save(nib.Nifti1Image(chest().T, np.diag([-1, -1, 1, 1])), path)
    data = bytearray(path.read_bytes())
    data[108:112] = np.float32(offset).tobytes()
    path.write_bytes(data)
    with pytest.raises(ScanError, match="the NIfTI header is damaged"):
        read_scan(path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_more_data_than_the_header_claims_are_noted(tmp_path, suffix):
    path = tmp_path / f"scan{suffix}"
    nib.save(nib.Nifti1Image(chest().T, np.diag([-1, -1, 1, 1])), path)
    data = path.read_bytes()
    path.write_bytes(igzip.compress(igzip.decompress(data) + b"x") if suffix == ".nii.gz" else data + b"x")
    scan = read_scan(path)
    assert np.array_equal(scan.hu, chest()) and has_note(scan, "More data follow")
