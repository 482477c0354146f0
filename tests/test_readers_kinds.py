"""What hospitals, challenges and downloads hand over: odd headers, odd names, one bad file among good ones."""

import io
import os
import time

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from scan_files import (
    SPACING,
    chest,
    has_note,
    save,
    set_pixels,
    slice_header,
    write_enhanced,
    write_pictures,
    write_slices,
)

from ggo_lab.errors import ScanError
from ggo_lab.readers import read_scan
from ggo_lab.readers.pictures import natural
from ggo_lab.scan import PADDING_HU, window


def grey(count=12) -> np.ndarray:
    return window(chest((count, 40, 44)), -300, 1400)


@pytest.mark.parametrize("cut", [140, 300, 0.5, 0.7, 0.99])
def test_one_file_that_breaks_off_is_left_out_and_named(tmp_path, cut):
    hu = chest((6, 40, 44))
    paths = write_slices(tmp_path, hu)
    data = paths[3].read_bytes()
    paths[3].write_bytes(data[: int(cut * len(data)) if cut < 1 else cut])
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, np.delete(hu, 3, 0)) and scan.spacing == pytest.approx(SPACING)
    assert has_note(scan, paths[3].name)


def test_a_sequence_that_breaks_off_is_left_out_and_named(tmp_path):
    paths = write_slices(tmp_path, chest())
    for path in paths:
        header = pydicom.dcmread(path)
        item = Dataset()
        item.CodeValue, item.CodeMeaning = "THORAX-1", "Chest CT"
        header.ProcedureCodeSequence = pydicom.Sequence([item])
        header["ProcedureCodeSequence"].is_undefined_length = item.is_undefined_length_sequence_item = True
        save(header, path)
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[: data.index(b"THORAX-1") + 4])
    scan = read_scan(tmp_path)
    assert len(scan.hu) == 4 and has_note(scan, f"1 DICOM files are damaged and were left out: {paths[1].name}")


@pytest.mark.parametrize("how", ["truncated", "empty", "text", "odd size"])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_one_picture_that_is_none_is_left_out_and_named(tmp_path, how, kind):
    paths = write_pictures(tmp_path, grey(), f"{{}}.{kind}")
    whole = read_scan(tmp_path, first_slice="feet").hu
    if how == "odd size":
        Image.fromarray(grey()[0][:20]).save(paths[5])
    else:
        paths[5].write_bytes({"truncated": paths[5].read_bytes()[:-300], "empty": b"", "text": b"hello"}[how])
    scan = read_scan(tmp_path, first_slice="feet")
    assert np.array_equal(scan.hu, np.delete(whole, 5, 0)) and has_note(scan, paths[5].name)


def test_half_a_volume_is_no_volume(tmp_path):
    for path in write_pictures(tmp_path / "jpg", grey(), "{}.jpg")[:7]:
        path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ScanError, match="7 of 12 slices cannot be decoded"):
        read_scan(tmp_path / "jpg")


def without_preamble(path, explicit=False, big=False):
    file = pydicom.dcmread(path)
    file.preamble, file.file_meta = None, pydicom.dataset.FileMetaDataset()
    file.save_as(path, implicit_vr=not explicit, little_endian=not big)


@pytest.mark.parametrize("name", ["IM{:04}", "{}", "scan.{}", "{}.jpg", "{}.img"])
@pytest.mark.parametrize("explicit", [False, True])
@pytest.mark.parametrize("mark", [False, True])
def test_dicom_is_known_by_its_content(tmp_path, name, explicit, mark):
    for k, path in enumerate(write_slices(tmp_path, chest())):
        if not mark:
            without_preamble(path, explicit)
        path.rename(tmp_path / name.format(k))
    assert np.array_equal(read_scan(tmp_path).hu, chest())


@pytest.mark.parametrize("content", [b"", b"\x08\0" * 40, b"\x08\0\x05\0CS\x0a\0ISO", b"II*\0" * 50, b"hello " * 90])
def test_what_is_no_dicom_is_not_taken_for_it(tmp_path, content):
    write_slices(tmp_path, chest())
    (tmp_path / "readme").write_bytes(content)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, chest()) and has_note(scan, "1 files that are not DICOM were left out")


@pytest.mark.parametrize("syntax", ["JPEG 2000", "JPEG-LS", "JPEG-Lossless", "RLE"])
@pytest.mark.parametrize("behind", [b"\0\0\0\0", b"\0\0", b"\xff\xd9", b"garbage!"])
def test_bytes_behind_a_compressed_picture_do_no_harm(tmp_path, syntax, behind):
    hu = chest((3, 40, 44))
    for path in write_slices(tmp_path, hu, syntax):
        header = pydicom.dcmread(path)
        (frame,) = pydicom.encaps.generate_frames(header.PixelData, number_of_frames=1)
        header.PixelData = pydicom.encaps.encapsulate([frame.rstrip(b"\0") + behind])
        save(header, path)
    assert np.array_equal(read_scan(tmp_path).hu, hu)


def test_jpeg_2000_inside_a_jp2_file(tmp_path):
    hu = chest((3, 40, 44))
    for path, plane in zip(write_slices(tmp_path, hu, "JPEG 2000"), hu, strict=True):
        content = io.BytesIO()
        Image.fromarray((plane + 1024).astype(np.uint16)).save(content, "JPEG2000", irreversible=False)
        header = pydicom.dcmread(path)
        header.PixelData = pydicom.encaps.encapsulate([content.getvalue()])
        save(header, path)
    assert np.array_equal(read_scan(tmp_path).hu, hu)


@pytest.mark.parametrize("value", [63536, 65535, 0, 3000, 4095, 40000])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("syntax", ["explicit little endian", "RLE"])
def test_declared_padding_is_padding_whatever_its_value(tmp_path, value, bits, syntax):
    hu = chest((3, 30, 30))
    hu = hu.clip(-1000, 400)
    outside = np.hypot(*(np.indices((30, 30)) - 14.5)) > 14
    for path, plane in zip(write_slices(tmp_path, hu), hu, strict=True):
        header = pydicom.dcmread(path)
        header.file_meta.TransferSyntaxUID = {"RLE": "1.2.840.10008.1.2.5"}.get(
            syntax, header.file_meta.TransferSyntaxUID
        )
        header.BitsStored, header.HighBit = 16, 15
        header.add_new("PixelPaddingValue", "US", value)
        set_pixels(header, np.where(outside, value, plane.astype(int) + 1024).astype(np.uint16))
        header.BitsStored, header.HighBit = bits, bits - 1
        save(header, path)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, np.where(outside, PADDING_HU, hu))


def test_a_range_of_padding(tmp_path):
    hu = chest((3, 30, 30)).clip(-1000, 400)
    for path, plane in zip(write_slices(tmp_path, hu), hu, strict=True):
        header = pydicom.dcmread(path)
        header.add_new("PixelPaddingValue", "US", 3900)
        header.add_new("PixelPaddingRangeLimit", "US", 4000)
        stored = (plane + 1024).astype(np.uint16)
        stored[0], stored[-1] = 3900, 3977
        set_pixels(header, stored)
        save(header, path)
    scan = read_scan(tmp_path)
    assert np.all(scan.hu[:, [0, -1]] == PADDING_HU) and np.array_equal(scan.hu[:, 1:-1], hu[:, 1:-1])


@pytest.mark.parametrize("kind", ["US", "HU"])
def test_a_modality_lut_stands_for_slope_and_intercept(tmp_path, kind):
    hu = chest()
    for path, plane in zip(write_slices(tmp_path, hu), hu, strict=True):
        header = pydicom.dcmread(path)
        del header.RescaleSlope, header.RescaleIntercept
        table = Dataset()
        entries = np.arange(4096) * 2 - 3000  # stored values are half of HU + 3000
        table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "HU"
        table.LUTData = (entries % 65536).astype("<u2").tobytes() if kind == "US" else (entries % 65536).tolist()
        table["LUTData"].VR = "OW" if kind == "US" else "US"
        header.ModalityLUTSequence = pydicom.Sequence([table])
        set_pixels(header, ((plane + 3000) // 2).astype(np.uint16))
        save(header, path)
    assert np.array_equal(read_scan(tmp_path).hu, (hu + 3000) // 2 * 2 - 3000)


@pytest.mark.parametrize(
    ("right", "written"),
    [
        (rb"0.7000\0.8000", rb"0,7000\0,8000"),
        (rb"-10.00\-20.00", rb"-10,00\-20,00"),
        (rb"-1024.000", rb"-1024,000"),
    ],
)
def test_decimal_commas_are_read(tmp_path, right, written):
    for path in write_slices(tmp_path, chest()):
        header = pydicom.dcmread(path)
        header.PixelSpacing, header.RescaleIntercept = ["0.7000", "0.8000"], "-1024.000"
        header.ImagePositionPatient = ["-10.00", "-20.00", str(header.ImagePositionPatient[2])]
        save(header, path)
        path.write_bytes(path.read_bytes().replace(right, written))
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, chest()) and scan.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize("written", [rb"0.7.00\0.8000", rb"0;7000\0;8000", b"about 0.7 mm ", rb"0,7,000\0.800"])
def test_a_number_that_is_none_is_named_with_its_tag(tmp_path, written):
    for path in write_slices(tmp_path, chest()):
        header = pydicom.dcmread(path)
        header.PixelSpacing = ["0.7000", "0.8000"]
        save(header, path)
        path.write_bytes(path.read_bytes().replace(rb"0.7000\0.8000", written))
    with pytest.raises(ScanError, match="Pixel Spacing") as refused:
        read_scan(tmp_path)
    assert written.decode().strip().split("\\")[0] in str(refused.value)


@pytest.mark.parametrize("frames", [10_000_000, 2_000_000_000, 25_000])
@pytest.mark.parametrize("packed", [False, True])
def test_millions_of_frames_are_refused_at_once(tmp_path, frames, packed):
    header = slice_header(chest((1, 1, 1))[0], 0, "1.2.840.10008.1.2.1")
    header.NumberOfFrames, header.BitsAllocated, header.BitsStored, header.HighBit = frames, 8, 8, 7
    header.PixelData = b"\0" * min(frames, 10_000_000)
    if packed:
        header.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.5"
        header.PixelData = pydicom.encaps.encapsulate([b"\0" * 64])
        header["PixelData"].VR = "OB"
    save(header, tmp_path / "a.dcm")
    started = time.monotonic()
    with pytest.raises(ScanError, match=f"of {frames} frames, more than any CT has"):
        read_scan(tmp_path / "a.dcm")
    assert time.monotonic() - started < 5


def test_names_are_sorted_by_the_value_of_their_numbers():
    for right in (
        ["s_-20.jpg", "s_-3.jpg", "s_0.jpg", "s_12.jpg"],
        ["1.25.png", "1.5.png", "2.png", "10.png"],
        ["z=-102.50.jpg", "z=-100.00.jpg", "z=3.75.jpg"],
        ["IM-0001-0002.jpg", "IM-0001-0010.jpg", "IM-0002-0001.jpg"],
        ["1.2.840.9.jpg", "1.2.840.10.jpg"],
    ):
        assert sorted(reversed(right), key=natural) == right


@pytest.mark.parametrize("stray", ["cover.jpg", "thumbnail.jpg", "Screenshot 3.png"])
def test_a_stray_picture_is_no_slice(tmp_path, stray):
    write_pictures(tmp_path, grey(), "slice_{:03}.jpg")
    right = read_scan(tmp_path).hu
    Image.fromarray(grey()[0]).save(tmp_path / stray)
    scan = read_scan(tmp_path)
    assert np.array_equal(scan.hu, right) and has_note(scan, stray)


def test_slices_one_folder_deeper_are_found_and_those_of_several_are_named(tmp_path):
    write_pictures(tmp_path / "ct_scan_1" / "ct_scan_1", grey(), "{}.jpg")
    assert has_note(read_scan(tmp_path / "ct_scan_1"), "The slices lie deeper, in ct_scan_1.")
    write_pictures(tmp_path / "ct_scan_1" / "ct_scan_2", grey(), "{}.jpg")
    with pytest.raises(ScanError, match="pictures in 2 folders, and a scan is one of them; give it, such as ct_scan_1"):
        read_scan(tmp_path / "ct_scan_1")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_and_loops_end(tmp_path):
    write_slices(tmp_path / "elsewhere", chest())
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "series").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "study" / "loop").symlink_to(tmp_path / "study", target_is_directory=True)
    (tmp_path / "study" / "broken").symlink_to(tmp_path / "nowhere")
    assert np.array_equal(read_scan(tmp_path / "study").hu, chest())


@pytest.mark.skipif(os.name == "nt", reason="such names exist elsewhere")
def test_a_name_that_is_not_utf8_can_be_printed(tmp_path):
    for name in (b"M\xe4rz", b"line\nbreak", b"\x1b[31mred"):
        folder = tmp_path / os.fsdecode(name)
        write_slices(folder, chest())
        scan = read_scan(folder)
        assert scan.name.isprintable() and np.array_equal(scan.hu, chest())
        for path in folder.iterdir():
            path.write_text("hello")
        with pytest.raises(ScanError) as refused:
            read_scan(folder)
        assert str(refused.value).isprintable() and str(refused.value).encode()


@pytest.mark.parametrize(
    ("name", "words"),
    [("a.zip", "unpack it"), ("a.tar.gz", "unpack it"), ("a.hdr", "Convert the pair"), ("a.img", "Convert the pair")],
)
def test_archives_and_pairs_are_told_what_to_do(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"PK\3\4 and so on" * 50)
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(ScanError, match=words):
            read_scan(path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes on this system")
    os.mkfifo(tmp_path / "a.nii")
    with pytest.raises(ScanError, match="neither a file nor a folder"):
        read_scan(tmp_path / "a.nii")


def test_a_damaged_frame_of_a_multi_frame_file_is_named(tmp_path):
    hu = chest((5, 40, 44))
    path = write_enhanced(tmp_path / "a.dcm", hu, "JPEG 2000")
    header = pydicom.dcmread(path)
    frames = list(pydicom.encaps.generate_frames(header.PixelData, number_of_frames=5))
    frames[2] = b"damaged " * 20
    header.PixelData = pydicom.encaps.encapsulate(frames)
    save(header, path)
    scan = read_scan(path)
    assert np.array_equal(scan.hu, np.delete(hu, 2, 0)) and has_note(scan, "frame 3 of a.dcm")
