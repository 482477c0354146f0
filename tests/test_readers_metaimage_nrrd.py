"""Reading MetaImage and NRRD files that SimpleITK or another program writes."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_files import SPACING, as_itk, chest, has_note, text_volumes

from ggo_lab.errors import ScanError
from ggo_lab.readers import read_scan


@settings(max_examples=60, deadline=None)
@given(
    suffix=st.sampled_from([".mha", ".mhd", ".nrrd", ".nhdr"]),
    compress=st.booleans(),
    axes=st.permutations(["LR", "PA", "SI"]),
    flips=st.tuples(*[st.integers(0, 1)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 9.0)] * 3),
    pixel=st.sampled_from([sitk.sitkInt16, sitk.sitkInt32, sitk.sitkInt64, sitk.sitkFloat32, sitk.sitkFloat64]),
)
def test_whatever_simpleitk_writes_comes_back_as_the_same_patient(
    tmp_path_factory, suffix, compress, axes, flips, spacing, pixel
):
    image = sitk.DICOMOrient(as_itk(chest(), spacing), "".join(pair[k] for pair, k in zip(axes, flips, strict=True)))
    path = tmp_path_factory.mktemp("itk") / f"scan{suffix}"
    sitk.WriteImage(sitk.Cast(image, pixel), str(path), useCompression=compress)
    scan = read_scan(path)
    assert np.array_equal(scan.hu, chest())
    assert scan.spacing == pytest.approx(spacing, abs=1e-5)
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


@pytest.mark.parametrize("name", text_volumes(chest()))
def test_other_programs_headers(tmp_path, name):
    (tmp_path / name).write_bytes(text_volumes(chest())[name])
    assert np.array_equal(read_scan(tmp_path / name).hu, chest())


def test_an_oblique_volume_lies_where_simpleitk_says(tmp_path):
    angle = np.radians(12)
    turn = [np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1]
    image = as_itk(chest())
    image.SetDirection(turn)
    for suffix in (".mha", ".nrrd"):
        sitk.WriteImage(image, str(tmp_path / f"oblique{suffix}"))
        scan = read_scan(tmp_path / f"oblique{suffix}")
        assert np.array_equal(scan.hu, chest()) and scan.spacing == pytest.approx(SPACING)
        assert has_note(scan, "12.0 degrees off")


@pytest.mark.parametrize(
    ("space", "ways"),
    [
        ("left-posterior-superior", "(0.8,0,0) (0,0.7,0) (0,0,5)"),
        ("RAS", "(-0.8,0,0) (0,-0.7,0) (0,0,5)"),
        ("left-anterior-superior", "(0.8,0,0) (0,-0.7,0) (0,0,5)"),
    ],
)
def test_every_space_that_is_tied_to_the_patient(tmp_path, space, ways):
    header = f"NRRD0004\ntype: int16\ndimension: 3\nspace: {space}\nsizes: 14 12 5\nspace directions: {ways}\n"
    header += "endian: little\nencoding: raw\n\n"
    (tmp_path / "a.nrrd").write_bytes(header.encode() + chest().tobytes())
    scan = read_scan(tmp_path / "a.nrrd")
    assert np.array_equal(scan.hu, chest()) and scan.spacing == pytest.approx(SPACING) and scan.notes == ()
