"""Frames against numbers, the state and its controls, pages that stay small and safe."""

import base64
import io
import re
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import anywidget
import ipywidgets as widgets
import numpy as np
import pytest
from PIL import Image
from unpacked import unpack

from ggo_lab.errors import ChoiceError
from ggo_lab.phantom import make_phantom
from ggo_lab.rendering import (
    FrameRenderer,
    View,
    check_curves,
    lesion_places,
    lesion_share,
    mask_colors,
    opening_slice,
    picture_shape,
    rgb_of,
    slice_of,
)
from ggo_lab.scan import WINDOWS, Scan, window
from ggo_lab.viewers import SliceViewer, link

SHAPE = (8, 64, 48)


@pytest.fixture
def scan() -> Scan:
    """Every slice has its own HU; a marker at the patient's left, front and head; square pixels of 4 mm."""
    hu = np.empty(SHAPE, np.int16)
    hu[:] = (-900 + 100 * np.arange(SHAPE[0]))[:, None, None]
    hu[6:, 5:12, 38:44] = 1000
    return Scan(hu, (10.0, 4.0, 4.0), name="marked")


@pytest.fixture(scope="module")
def phantom() -> Scan:
    return make_phantom(grade=3, seed=1, shape=(16, 64, 64))


def frame(scan, plane="axial", index=0, grey=WINDOWS["lung"], masks=None, size=64, **options):
    return FrameRenderer(scan, masks or {}, options.pop("heat", None), size).frame(plane, index, grey, **options)


# Pixels


@pytest.mark.parametrize("name", WINDOWS)
def test_known_hu_gives_known_grey(scan, name):
    pixels = frame(scan, index=4, grey=WINDOWS[name])
    expected = window(np.array([-500]), *WINDOWS[name])
    assert pixels.shape == (64, 48, 3) and pixels.dtype == np.uint8
    assert (pixels[30:50, 10:30] == expected).all()


def test_marker_on_the_patients_left_front_and_head_is_drawn_there(scan):
    axial = frame(scan, "axial", 7)[:, :, 0] == 255
    rows, columns = np.nonzero(axial)
    assert (columns > 24).all() and (rows < 32).all()  # right half of the picture, upper half: L and A
    coronal = frame(scan, "coronal", 8)[:, :, 0] == 255
    rows, columns = np.nonzero(coronal)
    assert (columns > 24 / 48 * coronal.shape[1]).all() and (rows < coronal.shape[0] / 2).all()  # L and H
    sagittal = frame(scan, "sagittal", 40)[:, :, 0] == 255
    rows, columns = np.nonzero(sagittal)
    assert (columns < sagittal.shape[1] / 2).all() and (rows < sagittal.shape[0] / 2).all()  # A and H


def test_aspect_comes_from_the_spacing(scan):
    assert picture_shape(scan, "axial", 512) == (512, 384)  # 256 x 192 mm
    assert picture_shape(scan, "coronal", 480) == (200, 480)  # 80 x 192 mm
    assert picture_shape(scan, "sagittal", 512) == (160, 512)  # 80 x 256 mm


@pytest.mark.parametrize(
    "plane,index,size,times", [("axial", 3, 64, (1, 1)), ("coronal", 20, 96, (5, 2)), ("sagittal", 11, 128, (5, 2))]
)
def test_fill_covers_exactly_the_mask(scan, plane, index, size, times):
    mask = np.random.default_rng(0).random(SHAPE) < 0.3
    plain = frame(scan, plane, index, size=size)
    filled = frame(
        scan, plane, index, size=size, masks={"lesions": mask}, shown=("lesions",), overlay="fill", opacity=1.0
    )
    expected = np.kron(slice_of(mask, plane, index), np.ones(times, bool))  # each voxel is so many pixels
    np.testing.assert_array_equal((filled == rgb_of(mask_colors(["lesions"])["lesions"])).all(axis=2), expected)
    np.testing.assert_array_equal(filled[~expected], plain[~expected])


def test_outline_is_the_rim_of_the_mask(scan):
    mask = np.zeros(SHAPE, bool)
    mask[2, 10:20, 10:20] = True
    drawn = frame(scan, index=2, masks={"lungs": mask}, shown=("lungs",))
    rim = mask[2].copy()
    rim[11:19, 11:19] = False
    np.testing.assert_array_equal((drawn == rgb_of(mask_colors(["lungs"])["lungs"])).all(axis=2), rim)


def test_heat_warms_the_hot_and_leaves_the_cold(scan):
    heat = np.zeros(SHAPE[1:], np.float32)
    heat[30:40, 20:30] = 1
    plain = frame(scan, index=4).astype(int)
    drawn = frame(scan, index=4, heat={4: heat}, shown=("heat",), opacity=0.6).astype(int)
    red, blue = (drawn - plain)[35, 25, [0, 2]]
    assert red > 50 and blue < -20
    np.testing.assert_array_equal(drawn[:28], plain[:28])
    np.testing.assert_array_equal(frame(scan, index=5, heat={4: heat}, shown=("heat",)), frame(scan, index=5))


@pytest.mark.parametrize("plane,index", [("axial", 4), ("coronal", 33), ("sagittal", 22)])
def test_heat_of_single_slices_looks_like_the_same_heat_as_a_volume(scan, plane, index):
    volume = np.zeros(SHAPE, np.float32)
    volume[4, 30:40, 20:30] = 1
    np.testing.assert_array_equal(
        frame(scan, plane, index, heat=volume, shown=("heat",)),
        frame(scan, plane, index, heat={4: volume[4]}, shown=("heat",)),
    )


def test_letters_and_scale_bar_are_drawn_on_frames_that_have_room(scan):
    flat = Scan(np.full((4, 50, 50), -600, np.int16), (5.0, 4.0, 4.0))
    drawn = frame(flat, size=200)
    assert set(np.unique(drawn)) == {32, 128, 235}  # halo, lung grey, sign
    bar_row = np.flatnonzero((drawn[:, :, 0] == 235).sum(axis=1) > 40)[-1]
    # 50 mm at 1 pixel a mm, both ends drawn
    assert abs((drawn[bar_row, 100:, 0] == 235).sum() - 51) <= 1


def test_a_thin_slab_can_be_looked_at_in_every_plane():
    slab = Scan(np.zeros((2, 40, 30), np.int16), (0.5, 0.6, 0.6))
    for plane in ("axial", "coronal", "sagittal"):
        assert frame(slab, plane, 1, size=300).shape[2] == 3


def test_a_half_opaque_fill_is_the_mean_of_grey_and_colour(scan):
    plain = frame(scan, index=3)
    filled = frame(scan, index=3, masks={"lungs": scan.hu < 5000}, shown=("lungs",), overlay="fill", opacity=0.5)
    expected = (plain[40, 20].astype(int) + rgb_of(mask_colors(["lungs"])["lungs"])) / 2
    np.testing.assert_allclose(filled[40, 20], expected, atol=0.5)


def test_zoom_shows_the_part_around_the_centre_with_its_mask(scan):
    mask = np.random.default_rng(0).random(SHAPE) < 0.3
    look = {"shown": ("lesions",), "overlay": "fill", "opacity": 1.0}
    drawn = frame(scan, index=6, masks={"lesions": mask}, **look, zoom=4, centre=(6, 4, 39.5))
    part = np.kron(mask[6, :16, 34:46], np.ones((4, 4), bool))  # 16 x 12 voxels; the slice's upper edge ends the view
    np.testing.assert_array_equal((drawn == rgb_of(mask_colors(["lesions"])["lesions"])).all(axis=2), part)


def test_a_cross_marks_the_probe_in_every_plane_through_it(scan):
    probe = (6, 20, 30)
    for plane, index in zip(("axial", "coronal", "sagittal"), probe, strict=True):
        plain, marked = (frame(scan, plane, index, size=256, probe=where) for where in (None, probe))
        changed = (plain != marked).any(axis=2)
        across, down = View(scan, plane).point(probe)
        rows, columns = np.nonzero(changed)
        assert abs(rows.mean() + 0.5 - down * changed.shape[0]) < 1.5
        assert abs(columns.mean() + 0.5 - across * changed.shape[1]) < 1.5
        assert not changed[int(down * changed.shape[0]), int(across * changed.shape[1])]
        np.testing.assert_array_equal(
            frame(scan, plane, index - 1, size=256), frame(scan, plane, index - 1, size=256, probe=probe)
        )


# The state of a SliceViewer


def told(viewer: SliceViewer, **state) -> None:
    """What the browser does: set some of the state in one message."""
    viewer.set_state(state)


def sent(viewer: SliceViewer, monkeypatch, **content) -> list:
    """What the kernel answers to a message of the browser."""
    answers = []
    monkeypatch.setattr(viewer, "send", lambda content, buffers=None: answers.append((content, buffers)))
    viewer._handle_custom_msg(content, [])
    return answers


def test_code_and_browser_set_the_same_state(phantom):
    viewer = SliceViewer(phantom, "truth")
    viewer.index = 3
    assert viewer.cross == (3, 32, 32)
    viewer.window = (-500, 900)
    assert viewer.window == (-500, 900)
    told(viewer, plane="coronal", index=20, cross=[3, 20, 32], window=[-505, 901], shown=["lungs"])
    assert (viewer.plane, viewer.index, viewer.cross) == ("coronal", 20, (3, 20, 32))
    assert viewer.window == (-505, 901) and viewer.shown == ("lungs",)
    told(viewer, probe=[5, 30, 20], cross=[5, 30, 20], index=30)
    assert viewer.probe == (5, 30, 20) and viewer.index == 30


def test_every_plane_remembers_its_slice(phantom):
    viewer = SliceViewer(phantom)
    viewer.index = 2
    viewer.plane = "coronal"
    assert (viewer.index, viewer.last_index) == (32, 63)
    viewer.index = 60
    viewer.plane = "axial"
    assert (viewer.index, viewer.last_index) == (2, 15)
    viewer.plane = "coronal"
    assert viewer.index == 60


def test_every_plane_goes_to_the_probe(phantom):
    viewer = SliceViewer(phantom, "truth")
    viewer.probe = (5, 30, 20)
    assert viewer.index == 5
    for plane, index in (("coronal", 30), ("sagittal", 20)):
        viewer.plane = plane
        assert viewer.index == index


def test_slices_are_sent_when_they_are_asked_for_and_hold_every_voxel(phantom, monkeypatch):
    heat = {3: np.linspace(0, 1, 64 * 64).reshape(64, 64)}
    viewer = SliceViewer(phantom, "truth", heat)
    header = viewer._scan
    assert (header["shape"], header["heat"]) == ([16, 64, 64], True)
    ((answer, packed),) = sent(viewer, monkeypatch, kind="slices", serial=header["serial"], indices=[3, 4])
    assert answer["indices"] == [3, 4] and len(packed) == 2
    for z, buffer in zip((3, 4), packed, strict=True):
        hu, masks, warm = unpack(buffer, (64, 64), 2)
        np.testing.assert_array_equal(hu, phantom.hu[z])
        np.testing.assert_array_equal(masks[1], phantom.truth.lesions[z])
        assert (warm is None) == (z == 4)
    np.testing.assert_array_equal(unpack(packed[0], (64, 64), 2)[2], np.rint(255 * heat[3]))
    assert sent(viewer, monkeypatch, kind="slices", serial=header["serial"] - 1, indices=[0]) == []


def test_another_scan_can_take_the_place_of_the_first(phantom, scan, monkeypatch):
    viewer = SliceViewer(phantom, "truth", window="bone")
    viewer.shown, viewer.plane, viewer.index = ("lesions",), "coronal", 60
    serial = viewer._scan["serial"]
    viewer.show(scan, {"lungs": scan.hu > 900, "airways": scan.hu > 900}, heat={4: np.zeros((64, 48))})
    assert viewer.scan is scan and viewer._scan["serial"] != serial and viewer.window == "bone"
    assert (viewer.plane, viewer.index, viewer.cross) == ("axial", 6, (6, 32, 24))
    assert viewer.shown == ("airways",)  # lungs were hidden, and heat comes when it is asked for
    ((answer, _),) = sent(viewer, monkeypatch, kind="slices", serial=viewer._scan["serial"], indices=[7])
    assert answer["serial"] == viewer._scan["serial"]


def test_it_opens_where_the_lesions_are_and_walks_through_them(scan, monkeypatch):
    lesions = np.zeros(SHAPE, bool)
    lesions[1:3, 4:8, 4:8] = True
    lesions[5, 20:32, 20:32] = True
    lesions[5, 24:28, 24:28] = False  # a hole where the middle would be
    masks = {"lungs": np.ones(SHAPE, bool), "lesions": lesions}
    viewer = SliceViewer(scan, masks)
    assert viewer.index == 5 == opening_slice(scan, masks, ()) and opening_slice(scan, masks, (2, 3, 7)) == 3
    places = lesion_places(scan, lesions)
    assert [place[0] for place in places] == [5, 1] and all(lesions[place] for place in places)
    ((answer, _),) = sent(viewer, monkeypatch, kind="lesions", serial=viewer._scan["serial"])
    assert answer["places"] == places
    assert SliceViewer(scan, {"lungs": np.zeros(SHAPE, bool)}).index == 4


def test_a_question_is_asked_and_its_answer_arrives(phantom):
    viewer = SliceViewer(phantom)
    answers = []
    viewer.observe(lambda change: answers.append(change.new), "answer")
    viewer.ask("Click a voxel of ground glass.")
    assert (viewer.asking, viewer.answer) == ("point", None)
    told(viewer, answer={"voxel": [5, 30, 20], "hu": -612})
    assert answers == [{"voxel": [5, 30, 20], "hu": -612}]
    viewer.ask("Circle the trachea.", "circle")
    assert viewer.answer is None and viewer.asking == "circle"
    with pytest.raises(ChoiceError, match="asking"):
        viewer.ask("?", "square")


def test_measures_are_traits(phantom):
    viewer = SliceViewer(phantom)
    viewer.ruler = {"plane": "axial", "from": (8, 10, 10), "to": (8, 13, 14)}
    dy, dx = phantom.spacing[1:]
    assert viewer.ruler["mm"] == pytest.approx(np.hypot(3 * dy, 4 * dx))
    viewer.circle = {"plane": "axial", "centre": (8, 30, 30), "radius_mm": 20}
    for trait, wrong in (
        ("ruler", {"plane": "axial", "from": (8, 10, 10)}),
        ("circle", {"plane": "axial", "centre": (8, 30, 30), "radius_mm": 0}),
        ("circle", {"plane": "oblique", "centre": (8, 30, 30), "radius_mm": 5}),
        ("circle", {"plane": "axial", "centre": (16, 30, 30), "radius_mm": 5}),
    ):
        with pytest.raises(ChoiceError):
            setattr(viewer, trait, wrong)


def test_linked_viewers_show_one_place_whichever_is_moved(phantom):
    one, two, three = SliceViewer(phantom), SliceViewer(phantom, "truth", window="bone"), SliceViewer(phantom, size=200)
    unlink = link(one, two, three)
    one.plane = "coronal"
    one.index = 60  # more than there are axial slices
    assert (two.plane, two.index, three.index) == ("coronal", 60, 60)
    three.plane = "axial"
    two.probe = (3, 20, 20)
    assert (one.plane, one.index, one.probe, three.probe) == ("axial", 3, (3, 20, 20), (3, 20, 20))
    assert (one.window, two.window) == ("lung", "bone")
    unlink()
    one.index = 9
    assert two.index == 3
    with pytest.raises(ChoiceError, match="one grid"):
        link(one, SliceViewer(Scan(np.zeros((3, 4, 4), np.int16), (1, 1, 1))))


@pytest.mark.parametrize(
    "change",
    [
        {"probe": (0, 0, 64)},
        {"centre": (1, 2)},
        {"index": 16},
        {"index": -1},
        {"plane": "oblique"},
        {"window": "liver"},
        {"shown": ("ribs",)},
    ],
)
def test_a_wrong_state_is_refused_and_not_kept(phantom, change):
    viewer = SliceViewer(phantom, "truth")
    (name, value), before = *change.items(), viewer.png()
    with pytest.raises(ChoiceError):
        setattr(viewer, name, value)
    assert viewer.png() == before


def test_masks_and_heat_that_do_not_fit_are_refused(scan):
    with pytest.raises(ChoiceError, match="truth"):
        SliceViewer(scan, "truth")
    with pytest.raises(ChoiceError, match="labels == 1"):
        SliceViewer(scan, {"lungs": np.ones(SHAPE, np.uint8)})
    with pytest.raises(ChoiceError, match="heat"):
        SliceViewer(scan, heat=np.zeros(SHAPE[1:]))
    with pytest.raises(ChoiceError, match="named 'heat'"):
        SliceViewer(scan, {"heat": scan.hu > 0})
    with pytest.raises(ChoiceError, match="8 slices"):
        SliceViewer(scan, curve=np.zeros(5))


@pytest.mark.parametrize(
    "arguments,message",
    [
        ({"masks": np.ones(SHAPE, bool)}, "give every mask its name"),
        ({"masks": {1: np.ones(SHAPE, bool)}}, "named 1"),
        ({"masks": {"lungs": [[1]]}}, "labels == 1"),
        ({"heat": 0.5}, "needs an array"),
        ({"heat": {2: [[1.0]]}}, "needs an array"),
        ({"curve": ["a"] * 8}, "no numbers"),
        ({"marks": (8,)}, "0 to 7"),
        ({"marks": (1.5,)}, "0 to 7"),
        ({"window": (1, 2, 3)}, "nor .level, width."),
        ({"window": (np.nan, 100)}, "no number"),
        ({"window": None}, "neither a name"),
    ],
)
def test_arguments_that_make_no_sense_are_explained(scan, arguments, message):
    with pytest.raises(ChoiceError, match=message):
        SliceViewer(scan, **arguments)


def test_what_is_no_scan_or_no_voxel_is_explained(scan):
    with pytest.raises(ChoiceError, match="read_scan"):
        SliceViewer(scan.hu)
    viewer = SliceViewer(scan)
    for probe in ((1.5, 2, 3), 3):
        with pytest.raises(ChoiceError, match="no voxel"):
            viewer.probe = probe


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_heat_and_curves_have_no_value_where_they_are_nan_or_infinite(scan, tmp_path):
    heat = np.full(SHAPE, np.nan)
    np.testing.assert_array_equal(frame(scan, index=4, heat=heat, shown=("heat",)), frame(scan, index=4))
    viewer = SliceViewer(scan, heat=heat, curve=[0, np.inf, 1, 2, -np.inf, 0, np.nan, -3], marks=np.array([2, 5]))
    assert viewer._scan["curves"][0]["values"] == [0, None, 1, 2, None, 0, None, -3] and viewer.marks == (2, 5)
    viewer.to_html(tmp_path / "page.html")
    SliceViewer(scan, heat={}).to_html(tmp_path / "page.html")


def test_a_scan_of_one_slice_can_be_looked_at_and_written(tmp_path):
    one = Scan(np.full((1, 20, 20), -600, np.int16), (5.0, 2.0, 2.0))
    viewer = SliceViewer(one, {"lungs": one.hu < 0, "lesions": one.hu > 0}, marks=(0,))
    for plane in ("coronal", "sagittal", "axial"):
        viewer.plane = plane
        viewer.zoom = 12
        assert viewer.frame().shape[2] == 3
    assert viewer.last_index == 0
    viewer.to_html(tmp_path / "page.html")


def test_the_curve_is_the_lesions_share_of_the_lungs(phantom):
    share = lesion_share({"lungs": phantom.truth.lungs, "lesions": phantom.truth.lesions})
    z = int(np.nanargmax(share))
    assert share[z] == phantom.truth.lesions[z].sum() / phantom.truth.lungs[z].sum()
    assert np.isnan(share[~phantom.truth.lungs.any(axis=(1, 2))]).all()
    (line,) = check_curves(phantom, None, {"lungs": phantom.truth.lungs, "lesions": phantom.truth.lesions})
    assert line.name == "lesions" and line.values[z] == share[z]
    (line,) = check_curves(phantom, None, {"lungs": phantom.truth.lungs})
    square_cm = phantom.spacing[1] * phantom.spacing[2] / 100
    assert line.values[z] == pytest.approx(phantom.truth.lungs[z].sum() * square_cm) and line.unit == " cm²"


def test_a_still_picture_stands_before_the_widget(phantom, monkeypatch):
    outputs = []
    monkeypatch.setattr("ggo_lab.viewers.still.display", lambda data, raw, metadata=None: outputs.append(data))
    viewer = SliceViewer(phantom.renamed("<b>x</b>"))
    viewer._ipython_display_()
    still, widget = outputs
    assert widget["application/vnd.jupyter.widget-view+json"]["model_id"] == viewer.model_id
    assert "<b>x" not in still["text/html"] and "&lt;b&gt;x" in still["text/html"]
    data = re.search(r"base64,([^\"]+)", still["text/html"])[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (512, 512)


def test_colab_is_asked_for_its_manager_of_custom_widgets(phantom, monkeypatch):
    """As far as it can be tried without Colab: a stand-in for google.colab, as anywidget looks for it."""
    calls, metadata = [], []
    output = ModuleType("google.colab.output")
    output.enable_custom_widget_manager = lambda: calls.append("enabled")
    output._widgets = SimpleNamespace(_installed_url="https://example.org/manager.js")
    for name, module in (("google", ModuleType("google")), ("google.colab", ModuleType("google.colab"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "google.colab.output", output)
    monkeypatch.setattr(
        "ggo_lab.viewers.still.display", lambda data, raw, **said: metadata.append(said.get("metadata"))
    )
    anywidget._util.enable_custom_widget_manager_once.cache_clear()
    viewer = SliceViewer(phantom)
    viewer._ipython_display_()
    assert calls == ["enabled"]
    view = metadata[1]["application/vnd.jupyter.widget-view+json"]
    assert view["colab"]["custom_widget_manager"]["url"] == "https://example.org/manager.js"
    anywidget._util.enable_custom_widget_manager_once.cache_clear()
    viewer.close()


def test_a_slice_viewer_does_not_wait_for_what_only_predictions_need():
    code = "import sys, ggo_lab.viewers; print(sorted({'pandas', 'torch', 'pydicom', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_closing_frees_every_widget(phantom):
    living = widgets.widget._instances
    before = set(living)
    viewer = SliceViewer(phantom, "truth", heat=np.zeros(phantom.shape))
    assert len(living) > len(before)
    viewer.close()
    assert set(living) == before
    assert viewer._code == "" and viewer._scan == {}  # what a notebook keeps of it
    viewer.close()  # once more is no error


def test_a_look_is_taken_over_after_a_probe_and_a_scroll(scan):
    one, other = SliceViewer(scan), SliceViewer(scan)
    one.probe = (1, 2, 3)
    one.index = 4
    other.look = one.look
    assert other.index == 4 and other.cross == one.cross and other.probe == (1, 2, 3)
