"""Pages of scans: they keep every voxel, stay small, and nothing in a name can do harm."""

import base64
import json
import re

import numpy as np
import pytest
from unpacked import unpack

from ggo_lab.errors import ChoiceError, GgoLabError
from ggo_lab.page import scan_page
from ggo_lab.phantom import make_phantom
from ggo_lab.scan import Scan
from ggo_lab.viewers import SliceViewer


def page_data(path) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])


def unpacked(data: dict) -> tuple[np.ndarray, list[np.ndarray]]:
    """HU and masks of all slices."""
    header = data["state"]["_scan"]
    shape = tuple(header["shape"][1:])
    slices = [unpack(base64.b64decode(packed), shape, len(header["masks"])) for packed in data["slices"]]
    return np.array([hu for hu, _, _ in slices]) * header["step"], [
        np.array(m) for m in zip(*(m for _, m, _ in slices), strict=True)
    ]


def test_a_page_keeps_every_voxel(tmp_path):
    rng = np.random.default_rng(0)
    scan = Scan(rng.choice(np.array([-2048, -1000, 0, 3071, 32767, -32768], np.int16), (3, 5, 4)), (1, 1, 1))
    mask = rng.random(scan.shape) < 0.5
    hu, masks = unpacked(page_data(scan_page(scan, tmp_path / "new" / "page.html", masks={"lungs": mask})))
    np.testing.assert_array_equal(hu, scan.hu)
    np.testing.assert_array_equal(masks[0], mask)


def test_wide_slices_are_reduced_and_the_page_says_so(tmp_path):
    wide = Scan(np.full((2, 300, 512), -600, np.int16), (5.0, 0.7, 0.7))
    path = scan_page(wide, tmp_path / "page.html", masks={"lungs": wide.hu < 0})
    data = page_data(path)
    header = data["state"]["_scan"]
    assert header["shape"] == [2, 150, 256] and header["spacing"] == pytest.approx([5.0, 1.4, 1.4])
    assert "150 × 256 of the scan&#39;s 300 × 512" in path.read_text(encoding="utf-8")
    assert (unpacked(data)[0] == -600).all()


def test_the_page_of_a_full_phantom_with_two_masks_is_under_5_mb(tmp_path):
    path = SliceViewer(make_phantom(grade=4, seed=2), "truth").to_html(tmp_path / "page.html")
    assert path.stat().st_size < 5e6


def test_the_page_shows_probabilities_and_escapes_every_name(tmp_path):
    evil = "</script><script>alert(1)</script>"
    scan = Scan(np.zeros((2, 8, 8), np.int16), (1, 1, 1), name=evil)
    text = scan_page(
        scan, tmp_path / "p.html", {evil: scan.hu > 0}, probabilities=np.array([0.1, 0.6, 0.2, 0.1]), notes=[evil]
    ).read_text(encoding="utf-8")
    assert "alert(1)</script>" not in text
    assert text.count("</script>") == 2
    assert "Predicted: moderate" in text and "60%" in text
    with pytest.raises(ChoiceError, match="4 shares"):
        scan_page(scan, tmp_path / "p.html", probabilities=[0.5, 0.5])


def test_a_page_that_cannot_be_written_says_so(tmp_path):
    scan = Scan(np.zeros((2, 8, 8), np.int16), (1, 1, 1))
    (tmp_path / "file").write_text("")
    with pytest.raises(GgoLabError, match="cannot be written"):
        scan_page(scan, tmp_path / "file" / "page.html")


def test_slices_that_are_not_there_are_refused(tmp_path):
    scan = Scan(np.zeros((2, 8, 8), np.int16), (1, 1, 1))
    for wrong in ({"index": 2}, {"index": -1}, {"marks": (5,)}):
        with pytest.raises(ChoiceError, match="0 to 1"):
            scan_page(scan, tmp_path / "page.html", **wrong)


def test_curves_of_the_viewer_are_on_its_page(tmp_path):
    scan = Scan(np.zeros((3, 8, 8), np.int16), (1, 1, 1))
    viewer = SliceViewer(scan, curve={"GGO fraction": [0.1, np.nan, 0.3], "probability": [0, 0.5, 1]}, marks=(2,))
    data = page_data(viewer.to_html(tmp_path / "p.html"))
    header = data["state"]["_scan"]
    assert [(c["name"], c["values"]) for c in header["curves"]] == [
        ("GGO fraction", [0.1, None, 0.3]),
        ("probability", [0, 0.5, 1]),
    ]
    assert header["marks"] == [2] and len({c["color"] for c in header["curves"]}) == 2
