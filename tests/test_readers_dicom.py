"""Reading DICOM: folders, series, compressions, positions, multi-frame files."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scan_files import (
    SPACING,
    SYNTAXES,
    chest,
    has_note,
    save,
    set_pixels,
    slice_header,
    write_dicom,
    write_enhanced,
    write_slices,
)

from ggo_lab.errors import ScanError
from ggo_lab.readers import read_scan
from ggo_lab.scan import PADDING_HU


def test_dicom_slices_are_sorted_by_position_whatever_their_names(tmp_path):
    write_dicom(tmp_path / "scan", chest())
    scan = read_scan(tmp_path / "scan")
    assert np.array_equal(scan.hu, chest())
    assert scan.spacing == pytest.approx(SPACING)
    assert scan.notes == () and scan.name == "scan"


def test_dicom_in_a_deep_folder_without_suffixes(tmp_path):
    write_dicom(tmp_path / "disc" / "study" / "series", chest(), names=[f"IM{k}" for k in range(5)])
    assert np.array_equal(read_scan(tmp_path / "disc").hu, chest())


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_transfer_syntax_unsigned_with_an_intercept(tmp_path, syntax):
    write_slices(tmp_path / "slices", chest(), syntax)
    write_enhanced(tmp_path / "enhanced.dcm", chest(), syntax)
    for name in ("slices", "enhanced.dcm"):
        scan = read_scan(tmp_path / name)
        assert np.array_equal(scan.hu, chest())
        assert scan.spacing == pytest.approx(SPACING) and scan.notes == ()


def test_a_missing_intercept_is_named(tmp_path):
    write_slices(tmp_path, chest(), RescaleIntercept=0)
    with pytest.raises(ScanError, match="intercept of -1024 were missing"):
        read_scan(tmp_path)


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


def test_frames_of_an_enhanced_file_are_sorted_by_position(tmp_path):
    scan = read_scan(write_enhanced(tmp_path / "a.dcm", chest(), order=[3, 1, 0, 4, 2]))
    assert np.array_equal(scan.hu, chest())
    assert scan.spacing == pytest.approx(SPACING) and scan.notes == ()


def test_each_frame_has_its_own_intercept(tmp_path):
    scan = read_scan(write_enhanced(tmp_path / "a.dcm", chest(), intercepts=[-1024, -1100, -1024, -2000, -1024]))
    assert np.array_equal(scan.hu, chest())


def test_gaps_and_repeats_in_an_enhanced_file(tmp_path):
    scan = read_scan(write_enhanced(tmp_path / "gap.dcm", chest(), z=[0, 5, 10, 20, 25]))
    assert scan.spacing == pytest.approx(SPACING) and has_note(scan, "the largest is 10 mm")
    scan = read_scan(write_enhanced(tmp_path / "twice.dcm", chest(), order=[0, 1, 1, 2, 3, 4]))
    assert np.array_equal(scan.hu, chest()) and has_note(scan, "1 slices that repeat another one")
    write_enhanced(tmp_path / "mixed.dcm", chest(), z=[0, 5, 5, 10, 15])
    with pytest.raises(ScanError, match=r"frame 2 of mixed\.dcm and frame 3 of mixed\.dcm are different pictures"):
        read_scan(tmp_path / "mixed.dcm")


def test_frames_without_places_are_refused(tmp_path):
    header = slice_header(chest()[0], 0, SYNTAXES["explicit little endian"])
    header.NumberOfFrames = 5
    set_pixels(header, (chest() + 1024).astype(np.uint16))
    save(header, tmp_path / "a.dcm")
    with pytest.raises(ScanError, match="do not say where they lie"):
        read_scan(tmp_path / "a.dcm")


def test_a_tilted_gantry_is_noted(tmp_path):
    for path, k in zip(write_slices(tmp_path, chest()), range(5), strict=True):
        header = pydicom.dcmread(path)
        header.ImagePositionPatient = [-10, -20 + k * 5 * np.tan(np.radians(20)), k * 5]
        save(header, path)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, chest()) and scan.spacing == pytest.approx(SPACING)
    assert has_note(scan, "The gantry was tilted by 20.0 degrees")


def test_bits_above_the_value_are_no_part_of_it(tmp_path):
    """Old files keep an overlay in the bits above the 12 of the value."""
    header = slice_header(chest()[0], 0, SYNTAXES["explicit little endian"])
    stored = (chest()[:1] + 1024).astype(np.uint16)
    stored[:, ::2] |= 0x8000
    set_pixels(header, stored)
    save(header, tmp_path / "a.dcm")
    assert np.array_equal(read_scan(tmp_path / "a.dcm").hu, chest()[:1])


def test_signed_12_bit_keeps_its_sign(tmp_path):
    hu = chest()[:1]
    header = slice_header(hu[0], 0, SYNTAXES["explicit little endian"])
    header.PixelRepresentation, header.RescaleIntercept = 1, 0
    set_pixels(header, (hu & 0x0FFF).astype(np.uint16))
    save(header, tmp_path / "a.dcm")
    assert np.array_equal(read_scan(tmp_path / "a.dcm").hu, hu)


@pytest.mark.parametrize("syntax", ["JPEG-LS", "JPEG-Lossless", "JPEG 2000", "RLE"])
def test_a_compressed_picture_that_breaks_off_is_left_out(tmp_path, syntax):
    hu = chest((5, 40, 44))
    paths = write_slices(tmp_path, hu, syntax)
    header = pydicom.dcmread(paths[2])
    (frame,) = pydicom.encaps.generate_frames(header.PixelData, number_of_frames=1)
    header.PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 2]])
    header.save_as(paths[2])
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, hu[[0, 1, 3, 4]]) and scan.spacing == pytest.approx(SPACING)
    assert has_note(scan, f"1 of 5 slices cannot be decoded, damaged or of an unknown compression: {paths[2].name}")


@pytest.mark.parametrize("syntax", ["JPEG-LS", "JPEG-Lossless", "JPEG 2000"])
def test_a_compressed_picture_of_another_size_is_refused_before_it_is_decoded(tmp_path, syntax, monkeypatch):
    paths = write_slices(tmp_path, chest(), syntax)
    header = pydicom.dcmread(paths[2])
    header.Rows = header.Columns = 20
    header.save_as(paths[2])
    for decode in ("jpegls_decode", "jpeg8_decode", "jpeg2k_decode", "jpegsof3_decode"):
        monkeypatch.setattr(f"imagecodecs.{decode}", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ScanError, match="1 of 1 slices cannot be decoded"):
        read_scan(paths[2])


def test_a_dicom_header_of_absurd_size_is_refused_before_allocation(tmp_path):
    (path,) = write_slices(tmp_path, chest()[:1])
    header = pydicom.dcmread(path)
    header.Rows = header.Columns = 65535
    header.save_as(path)
    with pytest.raises(ScanError, match="none of 1 DICOM files holds a picture"):
        read_scan(path)


def test_each_file_is_opened_for_its_header_and_once_for_its_pixels(tmp_path, monkeypatch):
    write_slices(tmp_path, chest())
    opened = Counter()
    plain = Path.open

    def counted(self, *args, **kwargs):
        opened[self.name] += 1
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", counted)
    read_scan(tmp_path)
    assert set(opened.values()) == {2}


def test_a_picture_that_crashed_gdcm_is_left_out(tmp_path):
    """144 bits a pixel: GDCM's decoder of JPEG-Lossless read beyond its memory."""
    paths = write_slices(tmp_path, chest(), "JPEG-Lossless")
    data = paths[2].read_bytes()
    paths[2].write_bytes(data.replace(b"\xff\xc3\x00\x0b\x10", b"\xff\xc3\x00\x0b\x90"))
    scan = read_scan(tmp_path)
    assert len(scan.hu) == 4 and has_note(scan, paths[2].name)


def test_a_picture_without_its_end_takes_no_time(tmp_path):
    """CharLS seeks the mark of the end for eight seconds where it is missing."""
    paths = write_slices(tmp_path, chest((5, 256, 256)), "JPEG-LS")
    for path in paths[:3]:
        header = pydicom.dcmread(path)
        (frame,) = pydicom.encaps.generate_frames(header.PixelData, number_of_frames=1)
        header.PixelData = pydicom.encaps.encapsulate([frame[:600] + b"\0"])
        header.save_as(path)
    started = time.monotonic()
    with pytest.raises(ScanError, match="3 of 5 slices cannot be decoded"):
        read_scan(tmp_path)
    assert time.monotonic() - started < 3
