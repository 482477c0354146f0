"""A SliceViewer in a real JupyterLab and Notebook 7: hands move pictures, traits arrive in the kernel."""

import re
from contextlib import suppress

import pytest
from pictures import grey_of, point, shows, until

# Imported before any test runs: it reads its script in the locale's encoding, which a test may have changed.
with suppress(ImportError):
    import axe_playwright_python.sync_playwright  # noqa: F401

# Each slice has one HU, so that the grey of a pixel tells which slice is shown.
CODE = """
import numpy as np
from ggo_lab.scan import Scan
from ggo_lab.viewers import SliceViewer, link
hu = np.empty((10, 64, 64), np.int16)
hu[:] = (-1000 + 100 * np.arange(10))[:, None, None]
lungs = np.zeros(hu.shape, bool)
lungs[:, 16:48, 16:48] = True
scan = Scan(hu, (5.0, 4.0, 4.0))
viewer = SliceViewer(scan, {"lungs": lungs, "lesions": lungs & (hu > -400)})
asked = []
viewer.on_msg(lambda _widget, content, _buffers: asked.extend(content.get("indices", [])))
viewer
"""
LINKED = """
other = SliceViewer(scan, window="bone", size=256)
unlink = link(viewer, other)
from ggo_lab.progress import bar
with bar(2, "a bar that is shown and done") as shown:
    shown.update(2)
other
"""
STATE = """
import ipywidgets as widgets
said = widgets.Label()
def say(_change):
    said.value = repr([viewer.plane, viewer.index, viewer.window, viewer.probe, viewer.shown, viewer.answer])
    if viewer.ruler or viewer.circle:
        said.value += repr([viewer.ruler, viewer.circle])
viewer.observe(say)
said
"""


# Names with markup, in every place where a name is shown, and the descriptions of a DICOM series.
HOSTILE = """
import tempfile
from pathlib import Path
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
import ggo_lab as gl
EVIL = "<img src=x onerror='window.ran=1'><script>window.ran=1</script>"
folder, series = Path(tempfile.mkdtemp()), generate_uid()
for z in range(3):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CTImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    slice_ = Dataset()
    slice_.file_meta = meta
    slice_.SOPClassUID, slice_.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    slice_.SeriesInstanceUID = series
    slice_.Modality, slice_.PatientName, slice_.PatientID = "CT", EVIL[:60], EVIL[:60]
    slice_.SeriesDescription, slice_.StudyDescription, slice_.ConvolutionKernel = EVIL[:60], EVIL[:60], "<b>"
    slice_.Rows = slice_.Columns = 32
    slice_.BitsAllocated = slice_.BitsStored = 16
    slice_.HighBit, slice_.PixelRepresentation, slice_.SamplesPerPixel = 15, 1, 1
    slice_.PhotometricInterpretation, slice_.RescaleSlope, slice_.RescaleIntercept = "MONOCHROME2", 1, 0
    slice_.ImageOrientationPatient, slice_.PixelSpacing = [1, 0, 0, 0, 1, 0], [4, 4]
    slice_.ImagePositionPatient = [0, 0, 5 * z]
    slice_.PixelData = np.arange(-1000, 24, dtype=np.int16).tobytes()
    slice_.save_as(folder / f"{z}.dcm", enforce_file_format=True)
found = gl.read_scan(folder)
where = {EVIL: found.hu < -500}
hostile = SliceViewer(found.renamed(EVIL), where, curve={EVIL: np.ones(3)})
hostile.ask(EVIL)
hostile.feedback = EVIL
display(found, SliceViewer(found).scan.notes)
hostile
"""


@pytest.fixture(scope="module")
def notebook(served):
    """The notebook, open and run; at the end nothing may have gone wrong in the page, or run from a name."""
    page = served.run("viewer", [CODE, LINKED, STATE, HOSTILE], viewers=3)
    yield page
    assert page.said == [] and page.evaluate("window.ran") is None


def hu_of(z: int) -> int:
    return -1000 + 100 * z


def slice_is(page, z: int, name: str = "lung", viewer: int = 0) -> None:
    shows(page, grey_of(hu_of(z), name), 0.1, 0.9, viewer)


def kernel_says(page, text: str) -> None:
    """Wait until the kernel's state, as it writes it down, holds a text."""
    page.wait_for_function(
        "text => [...document.querySelectorAll('.widget-label')].some((label) => label.textContent.includes(text))",
        arg=text,
        timeout=15_000,
    )


def test_hands_move_pictures_and_the_kernel_knows(notebook, screenshots):
    slice_is(notebook, 7)  # where the lesions begin
    until(
        notebook,
        lambda: notebook.evaluate("document.querySelector('.ggo-viewer').viewer.volume.held") == 10,
        "all slices",
    )
    run(notebook, "assert sorted(asked) == [0, 1, 2, 3, 4, 5, 6, 8, 9], asked")  # each once; the first came along
    stage = notebook.locator(".ggo-stage").first
    stage.scroll_into_view_if_needed()
    notebook.mouse.click(*point(notebook, 20.5 / 64, 32.5 / 64))
    kernel_says(notebook, "['axial', 7, 'lung', (7, 32, 20), ('lungs', 'lesions'), None]")
    for _ in range(3):
        notebook.mouse.wheel(0, 100)
    slice_is(notebook, 4)
    for key, z in (("ArrowUp", 5), ("PageDown", 0), ("End", 9), ("Home", 0)):
        notebook.keyboard.press(key)
        slice_is(notebook, z)
    notebook.keyboard.press("3")
    slice_is(notebook, 0, "bone")
    kernel_says(notebook, "['axial', 0, 'bone'")
    notebook.keyboard.press("1")
    notebook.keyboard.press("c")
    kernel_says(notebook, "['coronal', 32, 'lung'")
    notebook.keyboard.press("a")
    slice_is(notebook, 0)
    x, y = point(notebook, 0.5, 0.5)
    notebook.mouse.move(x, y)
    notebook.mouse.down(button="right")
    notebook.mouse.move(x + 10, y + 10, steps=2)
    notebook.mouse.up(button="right")
    kernel_says(notebook, "Window(level=-570.0, width=1550.0)")
    assert notebook.locator(".lm-Menu").count() == 0  # JupyterLab's menu stays away
    notebook.keyboard.press("1")
    notebook.screenshot(path=screenshots / "jupyterlab-slice-viewer.png")


def test_code_moves_the_picture(notebook):
    run(notebook, "viewer.window = (-700, 800); viewer.index = 3; viewer.shown = ()")
    shows(notebook, grey_of(hu_of(3), (-700, 800)), 0.5, 0.5)
    run(notebook, "viewer.window = 'lung'; viewer.shown = ('lungs', 'lesions')")
    slice_is(notebook, 3)


def test_linked_viewers_move_together(notebook):
    notebook.locator(".ggo-stage").nth(1).focus()
    notebook.keyboard.press("End")
    slice_is(notebook, 9)
    slice_is(notebook, 9, "bone", viewer=1)
    notebook.locator(".ggo-stage").nth(0).focus()
    notebook.keyboard.press("Home")
    slice_is(notebook, 0)
    slice_is(notebook, 0, "bone", viewer=1)


def test_an_answer_clicked_is_an_answer_received(notebook):
    run(notebook, "viewer.ask('Click a voxel of the lungs.')")
    notebook.get_by_text("Click a voxel of the lungs.", exact=True).wait_for()
    slice_is(notebook, 0)
    notebook.locator(".ggo-stage").first.scroll_into_view_if_needed()
    notebook.mouse.click(*point(notebook, 40.5 / 64, 30.5 / 64))
    kernel_says(notebook, "{'voxel': [0, 30, 40], 'hu': -1000}")
    assert "in lungs" not in notebook.locator(".ggo-reading").first.inner_text()  # which would be the answer
    run(notebook, "viewer.ask('Circle the lungs.', 'circle')")
    notebook.get_by_text("Circle the lungs.", exact=True).wait_for()
    notebook.mouse.move(*point(notebook, 0.5, 0.5))
    notebook.mouse.down()
    notebook.mouse.move(*point(notebook, 0.75, 0.5), steps=4)
    notebook.mouse.up()
    kernel_says(notebook, "'mean_hu': -1000")
    run(notebook, "viewer.ask('', ''); viewer.circle = None")


def test_the_keyboard_alone_reaches_everything_and_spares_the_notebook(notebook):
    stage = notebook.locator(".ggo-stage").first
    stage.focus()
    reached = []
    for _ in range(20):
        reached.append(
            notebook.evaluate(
                "(() => { const at = document.activeElement;"
                " return at.ariaLabel || at.labels?.[0]?.textContent || at.textContent; })()"
            )
        )
        notebook.keyboard.press("Tab")
    for name in ("Play through the slices", "Slice", "Number of the slice", "level", "level, HU", "width", "slab, mm"):
        assert name in reached, (name, reached)
    cells = notebook.locator(".jp-Cell").count()
    stage.focus()
    notebook.keyboard.press("x")  # cuts the cell, were JupyterLab to hear it
    notebook.get_by_role("button", name="Ruler").first.focus()
    notebook.keyboard.press("b")  # adds a cell
    notebook.keyboard.press("ArrowUp")
    slice_is(notebook, 1)
    assert notebook.locator(".jp-Cell").count() == cells
    notebook.locator(".lm-TabBar-tab.jp-mod-dirty").first.wait_for()
    notebook.keyboard.press("Control+s")
    notebook.locator(".lm-TabBar-tab.jp-mod-dirty").wait_for(state="detached")


def test_axe_finds_no_serious_fault_between_jupyterlabs_styles(notebook):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for light in ("true", "false"):
        notebook.evaluate("light => { document.body.dataset.jpThemeLight = light; }", light)
        faults = [
            (fault["id"], [node["html"][:200] for node in fault["nodes"]])
            for fault in axe.run(notebook, ".ggo-viewer").response["violations"]
            if fault["impact"] in ("serious", "critical") and (light == "true" or fault["id"] != "color-contrast")
        ]
        assert faults == [], light  # without a dark theme's sheet half of the colours are still the light one's
    notebook.evaluate("document.body.dataset.jpThemeLight = 'true'")


def test_measures_arrive_in_the_kernel(notebook):
    notebook.locator(".ggo-stage").first.focus()
    notebook.keyboard.press("1")
    notebook.get_by_role("button", name="Ruler").first.click()
    notebook.mouse.move(*point(notebook, 10.5 / 64, 20.5 / 64))
    notebook.mouse.down()
    notebook.mouse.move(*point(notebook, 35.5 / 64, 20.5 / 64), steps=4)
    notebook.mouse.up()
    notebook.get_by_role("button", name="Ruler").first.click()
    kernel_says(notebook, "'mm': ")

    def length() -> float:
        (label,) = notebook.locator(".widget-label").all_text_contents()
        return float((re.findall(r"'mm': ([\d.]+)", label) or [0])[0])  # a label between two may have none

    until(notebook, lambda: abs(length() - 100) < 1, "25 voxels of 4 mm")  # and not one of those on the way there
    run(notebook, "viewer.ruler = None; viewer.circle = {'plane': 'axial', 'centre': (1, 30, 30), 'radius_mm': 9}")
    kernel_says(notebook, "'voxels': 21, 'mean_hu': -900, 'sd_hu': 0")  # radius of 2.25 voxels
    run(notebook, "viewer.circle = None")


def test_the_picture_is_copied_and_fills_the_screen(notebook):
    notebook.get_by_role("button", name="Copy the picture").first.click()
    copied = """async () => {
        const [item] = await navigator.clipboard.read();
        const { width, height } = await createImageBitmap(await item.getType("image/png"));
        const canvas = document.querySelector(".ggo-picture");
        return width === canvas.width && height === canvas.height;
    }"""
    notebook.get_by_text("The picture is copied.").first.wait_for()
    assert notebook.evaluate(copied)
    tall = notebook.locator(".ggo-stage").first.bounding_box()["height"]
    notebook.get_by_role("button", name="Full screen").first.click()
    full = notebook.locator(".ggo-viewer:fullscreen .ggo-stage")
    until(notebook, lambda: full.count() and full.bounding_box()["height"] > tall, "a larger picture")
    notebook.get_by_role("button", name="Full screen").first.click()
    until(notebook, lambda: notebook.locator(".ggo-stage").first.bounding_box()["height"] == tall, "as before")


def test_names_with_markup_are_text_and_run_nothing(notebook):
    viewer = notebook.locator(".ggo-viewer").nth(2)
    viewer.scroll_into_view_if_needed()
    assert viewer.locator("img, script").count() == 0
    for part in (".ggo-title", ".ggo-legend", ".ggo-question", ".ggo-caption"):
        assert "<img src=x onerror='window.ran=1'>" in viewer.locator(part).inner_text(), part
    assert notebook.locator("img[src=x]").count() == 0
    assert notebook.evaluate("window.ran") is None


def test_closing_takes_the_viewer_off_the_page(notebook):
    viewers = notebook.locator(".ggo-viewer").count()
    run(notebook, "other.close()")
    notebook.wait_for_function("n => document.querySelectorAll('.ggo-viewer').length === n", arg=viewers - 1)


def test_notebook_7_shows_it_too(served, screenshots):
    page = served.run("classic", [CODE], path="notebooks")
    slice_is(page, 7)
    page.locator(".ggo-stage").focus()
    page.keyboard.press("Home")
    slice_is(page, 0)
    assert page.locator(".ggo-still").first.is_hidden()
    page.screenshot(path=screenshots / "notebook-7.png")


def test_a_saved_notebook_opened_the_next_day_shows_the_still_picture(notebook, served, screenshots):
    """Last here, because it ends the kernels."""
    assert notebook.locator(".ggo-still").first.is_hidden()
    notebook.keyboard.press("Escape")
    notebook.keyboard.press("Control+s")
    until(notebook, lambda: "data-ggo-still" in served.saved("viewer"), "saved")
    served.end_kernels()
    page = served.open("viewer", width=1366, height=768)
    # Its new kernel knows no widgets: were they to show, they would by now have said so.
    page.wait_for_function(
        "document.querySelectorAll('.jp-OutputArea-child').length > 2"
        " && [...document.querySelectorAll('.ggo-still img')].every((image) => image.naturalWidth > 0)"
    )
    page.wait_for_timeout(1500)
    assert page.locator(".ggo-still img").first.is_visible() and page.locator(".ggo-viewer").count() == 0
    shown = page.locator(".jp-Cell:has(.ggo-still)").all_inner_texts()
    assert len(shown) == 3  # the fourth cell has a label of ipywidgets, for which this says nothing
    assert "model not found" not in "".join(shown) and "Loading widget" not in "".join(shown)
    assert "a bar that is shown" not in "".join(
        page.locator(".jp-Cell:has(.ggo-still) .jp-OutputArea").all_inner_texts()
    )
    assert page.evaluate("window.ran") is None
    page.screenshot(path=screenshots / "jupyterlab-opened-again.png")
    page.close()


def run(page, code: str) -> None:
    """Run a line in the last cell of the notebook, and wait for the kernel."""
    count = page.locator(".jp-Cell").count()
    page.evaluate(
        """async (code) => {
            const app = window.jupyterapp ?? window.jupyterlab;
            const panel = app.shell.currentWidget;
            const future = panel.sessionContext.session.kernel.requestExecute({ code });
            const reply = await future.done;
            if (reply.content.status !== "ok") throw new Error(reply.content.evalue);
        }""",
        code,
    )
    assert page.locator(".jp-Cell").count() == count
