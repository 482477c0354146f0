"""Reading folders of JPG and PNG slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scan_files import SPACING, chest, has_note, write_pictures

from ggo_lab.readers import read_scan
from ggo_lab.scan import window


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


@pytest.mark.parametrize(("before", "descending"), [("s_-", False), ("s (-", False), ("z=-", True), ("-", True)])
def test_a_minus_that_all_names_have_is_a_hyphen_behind_a_separator(tmp_path, before, descending):
    write_pictures(tmp_path, np.stack([np.full((12, 14), 20 * k, np.uint8) for k in range(12)]), before + "{}.png")
    grey = window(read_scan(tmp_path, first_slice="feet").hu, -300, 1400)[:, 0, 0]
    assert grey.tolist() == sorted((20 * np.arange(12)).tolist(), reverse=descending)


@settings(max_examples=60, deadline=None)
@given(
    before=st.text("abcXYZ_- ().é", max_size=6),
    after=st.text("abcXYZ_-", max_size=4),
    first=st.integers(0, 120),
    step=st.integers(1, 9),
    width=st.integers(1, 5),
    suffix=st.sampled_from([".png", ".PNG", ".jpg", ".jpeg", ".JPG"]),
)
def test_folders_of_any_naming_lie_in_the_order_of_their_numbers(
    tmp_path_factory, before, after, first, step, width, suffix
):
    folder = tmp_path_factory.mktemp("slices")
    for k in range(12):
        number = str(first + k * step).zfill(width)
        Image.fromarray(np.full((12, 14), 20 * k, np.uint8)).save(folder / f"s{before}{number}{after}{suffix}")
    grey = window(read_scan(folder, first_slice="feet").hu, -300, 1400)
    assert np.abs(grey[:, 0, 0].astype(int) - 20 * np.arange(12)).max() <= 2  # JPEG loses a little
