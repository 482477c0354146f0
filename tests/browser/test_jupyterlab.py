"""A SliceViewer in a real JupyterLab: the notebook is opened and run, controls are used, the picture changes."""

import numpy as np
import pytest

from ggo_lab.scan import WINDOWS, window

# Each slice has one HU, so that the grey of a pixel tells which slice is shown.
CODE = """
import numpy as np
from ggo_lab.scan import Scan
from ggo_lab.viewers import SliceViewer
hu = np.empty((10, 64, 64), np.int16)
hu[:] = (-1000 + 100 * np.arange(10))[:, None, None]
lungs = np.zeros(hu.shape, bool)
lungs[:, 16:48, 16:48] = True
scan = Scan(hu, (5.0, 4.0, 4.0))
viewer = SliceViewer(scan, {"lungs": lungs, "lesions": lungs & (hu > -400)})
viewer
"""
LINKED = """
from ggo_lab.viewers import link
other = SliceViewer(scan, window="bone", size=256)
unlink = link(viewer, other)
other
"""


@pytest.fixture(scope="module")
def notebook(run_notebook):
    """The notebook, open and run."""
    return run_notebook("viewer", [CODE, LINKED], pictures=2)


def shows(page, hu: int, name: str = "lung", viewer: int = 0) -> None:
    """Wait until the corner of a viewer's picture has the grey of an HU; JPEG may be off by a little."""
    page.wait_for_function(
        """([grey, viewer]) => {  // not async: what an async one gives counts as true before it is known
            const image = document.querySelectorAll("img.widget-image")[viewer];
            if (!image.complete || !image.naturalHeight) return false;
            const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
            canvas.getContext("2d").drawImage(image, 60, 55, 1, 1, 0, 0, 1, 1);
            return Math.abs(canvas.getContext("2d").getImageData(0, 0, 1, 1).data[0] - grey) <= 3;
        }""",
        arg=[int(window(np.array([hu]), *WINDOWS[name])[0]), viewer],
        timeout=10_000,
    )


def test_keys_and_dragging_move_slices(notebook, screenshots):
    shows(notebook, -500)
    handle = notebook.locator(".jp-OutputArea .noUi-handle").first
    handle.focus()
    for _ in range(3):
        notebook.keyboard.press("ArrowRight")
    shows(notebook, -200)
    box = handle.bounding_box()
    notebook.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    notebook.mouse.down()
    notebook.mouse.move(box["x"] - 1000, box["y"], steps=10)
    notebook.mouse.up()
    shows(notebook, -1000)
    notebook.screenshot(path=screenshots / "jupyterlab-slice-viewer.png")


def test_presets_and_planes_change_the_picture(notebook):
    notebook.get_by_role("button", name="bone", exact=True).first.click()
    shows(notebook, -1000, "bone")
    notebook.get_by_role("button", name="lung", exact=True).first.click()
    shows(notebook, -1000)
    notebook.get_by_role("button", name="coronal", exact=True).first.click()
    shows(notebook, -600)  # 55 pixels down from the head, at ten a slice
    notebook.get_by_role("button", name="axial", exact=True).first.click()
    shows(notebook, -1000)


def test_keys_and_wheel_on_the_picture_move_slices(notebook):
    pad = notebook.locator(".ggo-pad").first
    pad.hover()
    shows(notebook, -1000)
    for _ in range(3):
        notebook.mouse.wheel(0, -100)
    shows(notebook, -700)
    notebook.mouse.wheel(0, 100)
    shows(notebook, -800)
    pad.focus()
    for key, hu in (("ArrowUp", -700), ("PageUp", -200), ("ArrowDown", -300), ("PageDown", -800), ("End", -100)):
        notebook.keyboard.press(key)
        shows(notebook, hu)
    notebook.keyboard.press("Home")
    notebook.keyboard.press("3")
    shows(notebook, -1000, "bone")
    notebook.keyboard.press("1")
    notebook.keyboard.press("c")
    shows(notebook, -600)
    notebook.keyboard.press("a")
    shows(notebook, -1000)
    assert notebook.locator(".jp-Notebook.jp-mod-editMode").count() == 0


def test_a_click_reads_hu_and_a_click_on_the_curve_jumps(notebook, screenshots):
    notebook.locator(".ggo-pad").first.focus()
    notebook.keyboard.press("Home")
    shows(notebook, -1000)
    picture = notebook.locator("img.widget-image").first
    frame = picture.bounding_box()["width"]
    # "force", because the pad that takes the click lies over the picture.
    picture.click(position={"x": frame * 32.5 / 64, "y": frame * 20.5 / 64}, force=True)
    notebook.get_by_text("-1000 HU at z 0, y 80, x 128 mm, voxel (0, 20, 32) · in lungs").wait_for(timeout=10_000)
    picture.click(position={"x": 8 + (frame - 16) * 7 / 9, "y": frame + 24}, force=True)
    shows(notebook, -300)
    notebook.get_by_text("lesions fill 100% of the lung in this slice").wait_for(timeout=10_000)
    notebook.screenshot(path=screenshots / "jupyterlab-probe-and-curve.png")
    notebook.get_by_role("spinbutton", name="slice").first.fill("4")
    notebook.keyboard.press("Enter")
    shows(notebook, -600)


def test_nothing_on_the_page_moves_while_slices_change(notebook):
    notebook.locator(".ggo-pad").first.focus()
    notebook.evaluate(
        """() => {
            window.tops = new Set();
            const slider = document.querySelector(".ggo-panel .noUi-target");
            const look = () => { window.tops.add(slider.getBoundingClientRect().top); requestAnimationFrame(look); };
            look();
        }"""
    )
    for key, hu in [("ArrowUp", -500 + 100 * step) for step in range(5)]:
        notebook.keyboard.press(key)
        shows(notebook, hu)
    assert len(notebook.evaluate("[...window.tops]")) == 1


def test_linked_viewers_move_together(notebook):
    pad = notebook.locator(".ggo-pad")
    pad.nth(1).scroll_into_view_if_needed()
    pad.nth(1).focus()
    notebook.keyboard.press("End")
    shows(notebook, -100)
    shows(notebook, -100, "bone", viewer=1)
    pad.nth(0).focus()
    notebook.keyboard.press("Home")
    shows(notebook, -1000)
    shows(notebook, -1000, "bone", viewer=1)


def test_playing_runs_through_the_slices(notebook):
    play = notebook.locator(".widget-play button").first
    play.click()
    shows(notebook, -100)
    notebook.wait_for_function("button => button.ariaLabel === 'play'", arg=play.element_handle())  # it has ended


def test_every_control_says_what_it_is(notebook):
    panel = notebook.locator(".ggo-panel").first
    for role, name in (
        ("slider", "slice"),
        ("slider", "level HU"),
        ("textbox", "level HU"),
        ("slider", "opacity"),
        ("group", "plane"),
        ("group", "overlays drawn as"),
        ("button", "play"),
        ("spinbutton", "slice"),
        ("checkbox", "lesions"),
    ):
        assert panel.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    assert panel.get_by_role("application").get_attribute("aria-label").startswith("CT picture of scan")
    assert panel.get_by_role("status").inner_text().startswith("axial ")
    panel.get_by_role("application").focus()
    notebook.keyboard.press("s")
    panel.get_by_role("button", name="sagittal", exact=True, pressed=True).wait_for(timeout=10_000)
    notebook.keyboard.press("a")
    panel.get_by_role("button", name="axial", exact=True, pressed=True).wait_for(timeout=10_000)


def test_the_keyboard_alone_reaches_everything_and_spares_the_notebook(notebook, screenshots):
    notebook.locator(".ggo-pad").first.focus()
    notebook.keyboard.press("Home")
    shows(notebook, -1000)
    reached = []
    for _ in range(22):
        reached.append(
            notebook.evaluate(
                "(() => { const at = document.activeElement;"
                " return at.ariaLabel || at.labels?.[0]?.textContent || at.textContent; })()"
            )
        )
        notebook.keyboard.press("Tab")
    assert reached[0].startswith("CT picture")
    assert reached[1:] == [
        *("slice", "play", "stop and go back to the first", "repeat", "slice", "lung", "mediastinum", "bone", "paper"),
        *("level HU", "level HU", "width HU", "width HU", "zoom", "zoom", "lungs", "lesions", "outline", "fill"),
        *("opacity", "opacity"),
    ]
    handle = notebook.get_by_role("slider", name="slice", exact=True).first
    handle.focus()
    notebook.keyboard.press("PageUp")
    shows(notebook, -500)
    cells = notebook.locator(".jp-Cell").count()
    notebook.keyboard.press("x")  # cuts the cell, were JupyterLab to hear it
    notebook.get_by_role("button", name="bone", exact=True).first.focus()
    notebook.keyboard.press("b")  # adds a cell
    notebook.keyboard.press("Enter")
    shows(notebook, -500, "bone")
    assert notebook.locator(".jp-Cell").count() == cells
    notebook.get_by_role("button", name="lung", exact=True).first.press("Space")
    shows(notebook, -500)
    notebook.locator(".lm-TabBar-tab.jp-mod-dirty").first.wait_for()
    notebook.keyboard.press("Control+s")
    notebook.locator(".lm-TabBar-tab.jp-mod-dirty").wait_for(state="detached")
