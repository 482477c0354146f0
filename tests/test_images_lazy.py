"""prepare reads no more of a scan than its image shows, and makes the same image as of the whole scan."""

from pathlib import Path

import numpy as np
import pytest
from scan_files import chest, write_dicom, write_pictures

import ggo_lab as gl
from ggo_lab.readers import dicom_pixels, open_scan, pictures
from ggo_lab.scan import window

SHAPE = (20, 24, 28)


def sources(folder: Path) -> dict[str, Path]:
    """One scan of 20 slices in each format."""
    hu = chest(SHAPE)
    write_dicom(folder / "dicom", hu)
    write_pictures(folder / "jpg", window(hu, -300, 1400), "{}.jpg")
    written = {"dicom": folder / "dicom", "jpg": folder / "jpg"}
    scan = gl.Scan(hu, (5.0, 0.7, 0.8))
    for suffix in ("nii", "nii.gz"):
        written[suffix] = gl.write_nifti(scan, folder / f"scan.{suffix}")
    return written


@pytest.mark.parametrize("kind", ["dicom", "jpg", "nii", "nii.gz"])
@pytest.mark.parametrize("pick", ["middle", "spread"])
def test_the_image_is_that_of_the_whole_scan(tmp_path, kind, pick):
    path, recipe = sources(tmp_path)[kind], gl.Recipe(pick=pick, size=32)
    cut = recipe.cut(open_scan(path))
    whole = recipe.cut(gl.read_scan(path))
    assert cut.slices == whole.slices and np.array_equal(cut.image(), whole.image())


@pytest.mark.parametrize("shown", [(-300, 1400), (-600, 1500), (40, 400)])
@pytest.mark.parametrize("grey_window", ["paper", "lung"])
def test_grey_of_pictures_is_that_of_their_hu(tmp_path, shown, grey_window):
    """It is made without the HU in between."""
    opened = open_scan(sources(tmp_path)["jpg"], grey_window=grey_window)
    whole = opened.whole().grey([3, 9, 10, 3], gl.scan.Window(*shown))
    assert np.array_equal(opened.grey([3, 9, 10, 3], gl.scan.Window(*shown)), whole)


def test_pictures_without_a_picture_are_refused_by_grey_too(tmp_path):
    write_pictures(tmp_path, np.full((5, 24, 28), 77, np.uint8), "{}.png")
    with pytest.raises(gl.ScanError, match="every pixel is the same grey"):
        open_scan(tmp_path).grey([1, 2, 3], gl.scan.Window(-300, 1400))


def cohort(tmp_path, kind):
    table = tmp_path / "t.csv"
    table.write_text(f"path,grade\n{sources(tmp_path)[kind]},1\n")
    return gl.read_cohort(table)


def test_three_pictures_are_decoded_and_no_more(tmp_path, monkeypatch):
    decoded = []
    plain = pictures._grey
    monkeypatch.setattr(pictures, "_grey", lambda file, size: decoded.append(Path(file).name) or plain(file, size))
    gl.prepare(cohort(tmp_path, "jpg"), gl.Recipe(pick="middle", size=16), progress=False)
    assert decoded == ["11.jpg", "10.jpg", "9.jpg"]


def test_three_dicom_slices_are_decoded_and_no_more(tmp_path, monkeypatch):
    decoded = []
    plain = dicom_pixels._plane
    monkeypatch.setattr(
        dicom_pixels, "_plane", lambda file, frame: decoded.append(frame.origin[2]) or plain(file, frame)
    )
    gl.prepare(cohort(tmp_path, "dicom"), gl.Recipe(pick="middle", size=16), progress=False)
    assert decoded == [40, 45, 50]  # mm


def test_a_packed_file_is_unpacked_no_further_than_needed(tmp_path):
    path = sources(tmp_path)["nii.gz"]
    data = path.read_bytes()
    path.write_bytes(data[: int(0.8 * len(data))])  # the middle is there, and the end is not
    opened = open_scan(path)
    assert np.array_equal(opened.read([8, 9, 10]), chest(SHAPE)[8:11])
    with pytest.raises(gl.ScanError, match="compressed data break off"):
        opened.whole()


def test_a_damaged_slice_in_the_middle_is_left_out_as_of_the_whole(tmp_path):
    cohort_ = cohort(tmp_path, "jpg")
    middle = tmp_path / "jpg" / "10.jpg"
    middle.write_bytes(middle.read_bytes()[:-200])
    recipe = gl.Recipe(pick="middle", size=16)
    images = gl.prepare(cohort_, recipe, progress=False)
    assert np.array_equal(images.pixels[0], recipe.cut(gl.read_scan(tmp_path / "jpg")).image())


def test_slices_without_lung_are_judged_by_the_whole_scan(tmp_path):
    hu = chest(SHAPE)
    hu[8:12] = hu[8:12].clip(20, 60)  # an abdomen, and nothing as dark as lung
    gl.write_nifti(gl.Scan(hu, (5.0, 0.7, 0.8)), tmp_path / "scan.nii.gz")
    (tmp_path / "t.csv").write_text("path,grade\nscan.nii.gz,1\n")
    recipe = gl.Recipe(pick="middle", size=16)
    with pytest.raises(gl.ScanError):
        open_scan(tmp_path / "scan.nii.gz").read([8, 9, 10])
    images = gl.prepare(gl.read_cohort(tmp_path / "t.csv"), recipe, progress=False)
    assert images.table["slices"].tolist() == [(8, 9, 10)]


def test_a_cache_entry_with_any_damage_is_made_again(tmp_path, monkeypatch):
    from ggo_lab.storage import cache_folder

    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    scans, recipe = cohort(tmp_path, "nii"), gl.Recipe(size=16)
    right = gl.prepare(scans, recipe, progress=False).pixels
    (entry,) = (cache_folder() / "images").glob("*.npz")
    whole = entry.read_bytes()
    unknown = bytearray(whole)
    for mark in (b"PK\x01\x02", b"PK\x03\x04"):  # the method in the table of contents and before the content
        at = -1
        while (at := unknown.find(mark, at + 1)) >= 0:
            unknown[at + (10 if mark[2] == 1 else 8)] = 99
    for damaged in (bytes(unknown), whole[:50], whole[::-1], b"", b"PK\5\6" + bytes(18), whole.replace(b"|u1", b"|O4")):
        entry.write_bytes(damaged)
        assert np.array_equal(gl.prepare(scans, recipe, progress=False).pixels, right)


def test_grey_of_a_volume_that_is_no_hu_is_that_of_the_whole_scan(tmp_path):
    """NIfTI made of pictures holds 16 bits, and more values than a picture can."""
    scan = gl.Scan(chest(SHAPE), (5.0, 0.7, 0.8), is_hu=False)
    opened = open_scan(gl.write_nifti(scan, tmp_path / "scan.nii"))
    shown = gl.scan.Window(-300, 1400)
    assert np.array_equal(opened.grey([2, 7], shown), opened.whole().grey([2, 7], shown))
