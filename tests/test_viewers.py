"""Frames against numbers, the state and its controls, pages that stay small and safe."""

import base64
import io
import json
import re

import ipywidgets as widgets
import numpy as np
import pytest
import traitlets
from PIL import Image

from ggo_lab.errors import ChoiceError
from ggo_lab.phantom import make_phantom
from ggo_lab.rendering import FrameRenderer, View, lesion_share, mask_colors, picture_shape, rgb_of, slice_of
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


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("zoom,centre", [(1, None), (2.5, None), (4, (6, 9, 41)), (12, (0, 63, 0))])
def test_points_of_a_view_and_voxels_of_the_scan_belong_together(scan, plane, zoom, centre):
    view = View(scan, plane, zoom, centre)
    for across in np.linspace(0.001, 0.999, 9):
        for down in np.linspace(0.001, 0.999, 9):
            voxel = view.voxel(5, across, down)
            back = view.point(voxel)
            left, top, right, bottom = view.box
            assert abs(back[0] - across) * (right - left) <= 0.5 + 1e-9
            assert abs(back[1] - down) * (bottom - top) <= 0.5 + 1e-9


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


def picture(viewer: SliceViewer) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(viewer.controls.image.value)).convert("RGB")).astype(int)


def test_setting_traits_draws_and_moves_the_controls(phantom):
    viewer = SliceViewer(phantom, "truth")
    before = picture(viewer)
    viewer.index = 3
    assert viewer.controls.slider.value == 3
    assert np.abs(picture(viewer)[:512] - before[:512]).max() > 60
    viewer.window = "bone"
    assert (viewer.controls.presets.value, viewer.controls.level.value, viewer.controls.width.value) == (
        "bone",
        400,
        1800,
    )
    viewer.window = (-500, 900)
    assert viewer.window == (-500, 900) and viewer.controls.presets.value is None
    viewer.shown = ()
    assert not any(box.value for box in viewer.controls.checks.values())
    np.testing.assert_array_equal(viewer.frame(), SliceViewer(phantom, window=(-500, 900), marks=(3,)).frame())


def test_controls_set_traits(phantom):
    viewer = SliceViewer(phantom, "truth")
    viewer.controls.slider.value = 5
    viewer.controls.presets.value = "mediastinum"
    assert (viewer.index, viewer.window) == (5, "mediastinum")
    viewer.controls.level.value = 60
    assert viewer.window == (60, 350)
    viewer.controls.checks["lungs"].value = False
    assert viewer.shown == ("lesions",)
    viewer.controls.overlay.value = "fill"
    assert viewer.overlay == "fill"


def test_every_plane_remembers_its_slice(phantom):
    viewer = SliceViewer(phantom)
    viewer.index = 2
    viewer.plane = "coronal"
    assert (viewer.index, viewer.controls.slider.max) == (32, 63)
    viewer.index = 60
    viewer.plane = "axial"
    assert (viewer.index, viewer.controls.slider.max, viewer.controls.slider.value) == (2, 15, 2)
    viewer.plane = "coronal"
    assert viewer.index == 60


def test_a_change_draws_once(phantom, monkeypatch):
    viewer = SliceViewer(phantom)
    drawn = []
    monkeypatch.setattr(viewer, "_render", lambda: drawn.append(viewer.index))
    viewer.plane = "sagittal"
    viewer.window = "bone"
    viewer.controls.slider.value = 4
    assert len(drawn) == 3


def test_two_viewers_can_be_linked(phantom):
    one, two = SliceViewer(phantom), SliceViewer(phantom, "truth")
    traitlets.link((one, "index"), (two, "index"))
    one.controls.slider.value = 4
    assert two.index == 4 and two.controls.slider.value == 4


def tell(viewer: SliceViewer, **told) -> None:
    """What pad.js does: change what the hidden text says."""
    wire = viewer.pad.wire
    before = (
        json.loads(wire.value) if wire.value else {"steps": 0, "zooms": 0, "keys": "", "gesture": None, "hover": None}
    )
    wire.value = json.dumps({**before, **told})


def gesture(kind: str, start: tuple[float, float], end: tuple[float, float] | None = None, name: int = 1) -> dict:
    return {"name": name, "kind": kind, "from": list(start), "to": list(end or start)}


def test_a_probe_reads_hu_and_every_plane_goes_there(phantom):
    viewer = SliceViewer(phantom, "truth")
    viewer.probe = (5, 30, 20)
    assert viewer.index == 5
    text = viewer.controls.caption.value
    dy, dx = phantom.spacing[1:]
    assert f"{phantom.hu[5, 30, 20]} HU at z {5 * phantom.spacing[0]:.0f}, y {30 * dy:.0f}, x {20 * dx:.0f} mm" in text
    assert ("in lungs" in text) == phantom.truth.lungs[5, 30, 20]
    viewer.plane = "coronal"
    assert viewer.index == 30
    viewer.plane = "sagittal"
    assert viewer.index == 20


def test_keys_and_wheel_skip_nothing_when_messages_are_merged(phantom):
    viewer = SliceViewer(phantom, "truth")
    tell(viewer, steps=3)
    tell(viewer, steps=-2)
    assert viewer.index == 6
    tell(viewer, steps=100)
    assert viewer.index == 15
    tell(viewer, keys="[3o")
    assert (viewer.index, viewer.window, viewer.shown) == (0, "bone", ())
    tell(viewer, keys="[3oo]c1")
    assert (viewer.plane, viewer.window, viewer.shown) == ("coronal", "lung", ("lungs", "lesions"))
    tell(viewer, keys="[3oo]c1p^>")
    assert viewer.probe == (8, 32, 33)  # the middle of the view, a voxel up and one to the picture's right
    tell(viewer, zooms=2)
    assert viewer.zoom == 1.25**2 and viewer.centre == viewer.probe
    tell(viewer, keys="[3oo]c1p^>p0")
    assert viewer.zoom == 1 and viewer.probe is None


def test_clicks_and_drags_probe_scroll_move_and_jump(phantom):
    viewer = SliceViewer(phantom, "truth")
    whole = 512 + 44  # the frame and the strip under it
    tell(viewer, gesture=gesture("click", (20.5 / 64, 30.5 / 64 * 512 / whole)))
    assert viewer.probe == (8, 30, 20)
    tell(viewer, gesture=gesture("drag", (0.5, 0.3), (0.5, 0.3 + 21 / whole), name=2))
    assert viewer.index == 5
    tell(viewer, gesture=gesture("drag", (0.5, 0.3), (0.5, 0.3 - 14 / whole), name=2))
    assert viewer.index == 10
    tell(viewer, gesture=gesture("down", ((8 + 495 * 3 / 15) / 512, 0.98), name=3))
    assert viewer.index == 3
    tell(viewer, gesture=gesture("drag", (0.2, 0.98), (2.0, 0.1), name=3))
    assert viewer.index == 15  # a drag that began on the curve stays there
    viewer.zoom = 4
    viewer.centre = (15, 32, 32)
    tell(viewer, gesture=gesture("drag", (0.5, 0.4), (0.5 + 4 / 16, 0.4), name=4))
    assert viewer.centre == (15, 32, 28) and viewer.index == 15


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
    viewer.index = 1
    assert "curve" not in viewer.controls.caption.value and viewer.marks == (2, 5)
    at_3 = viewer.strip.draw(0)[:, 8 + 3 * (viewer.strip.width - 17) // 7]
    assert (at_3 > 60).any(axis=1).argmax() < 14  # the highest finite value reaches the top
    viewer.to_html(tmp_path / "page.html")
    SliceViewer(scan, heat={}).to_html(tmp_path / "page.html")


def test_a_scan_of_one_slice_can_be_looked_at_and_written(tmp_path):
    one = Scan(np.full((1, 20, 20), -600, np.int16), (5.0, 2.0, 2.0))
    viewer = SliceViewer(one, {"lungs": one.hu < 0, "lesions": one.hu > 0}, marks=(0,))
    for plane in ("coronal", "sagittal", "axial"):
        viewer.plane = plane
        viewer.zoom = 12
        assert viewer.frame().shape[2] == 3
    assert viewer.last_index == 0 and viewer.strip.index_at(0.7) == 0
    viewer.to_html(tmp_path / "page.html")


def test_the_curve_is_the_lesions_share_of_the_lungs(phantom):
    share = lesion_share({"lungs": phantom.truth.lungs, "lesions": phantom.truth.lesions})
    z = int(np.nanargmax(share))
    assert share[z] == phantom.truth.lesions[z].sum() / phantom.truth.lungs[z].sum()
    assert np.isnan(share[~phantom.truth.lungs.any(axis=(1, 2))]).all()
    viewer = SliceViewer(phantom, "truth")
    viewer.index = z
    assert f"{share[z]:.0%}" in viewer.controls.caption.value
    strip = picture(viewer)[512:]
    bright = np.flatnonzero((strip[20:] > 200).all(axis=(0, 2)))
    assert abs(bright.mean() / 511 - z / 15) < 0.03


def test_without_a_kernel_a_still_picture_is_shown(phantom):
    bundle = SliceViewer(phantom.renamed("<b>x</b>"))._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"]
    assert "<b>x" not in bundle["text/html"] and "&lt;b&gt;x" in bundle["text/html"]
    data = re.search(r"base64,([^\"]+)", bundle["text/html"])[1]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (512, 512)


def test_closing_frees_every_widget(phantom):
    living = widgets.widget._instances if hasattr(widgets.widget, "_instances") else widgets.Widget.widgets
    before = set(living)
    viewer = SliceViewer(phantom, "truth", heat=np.zeros(phantom.shape))
    assert len(living) > len(before) + 20
    viewer.close()
    assert set(living) == before
