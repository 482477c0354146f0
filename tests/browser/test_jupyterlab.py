"""A SliceViewer in a real JupyterLab: the notebook is opened and run, controls are used, the picture changes."""

import json

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
viewer = SliceViewer(Scan(hu, (5.0, 4.0, 4.0)), {"lungs": lungs, "lesions": lungs & (hu > -400)})
viewer
"""


@pytest.fixture(scope="module")
def notebook(chromium, jupyterlab):
    """The notebook, open and run."""
    address, folder = jupyterlab
    cell = {"cell_type": "code", "id": "one", "metadata": {}, "source": CODE, "outputs": [], "execution_count": None}
    # Without the kernel's name JupyterLab asks for one, in a dialog that covers the page.
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": [cell]}
    (folder / "viewer.ipynb").write_text(json.dumps(content))
    page = chromium.new_page(viewport={"width": 1400, "height": 1100})
    page.goto(f"{address}/lab/tree/viewer.ipynb?token=ggo-lab-test")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=30_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_selector("img.widget-image", timeout=60_000)
    yield page
    page.close()


def shows(page, hu: int, name: str = "lung") -> None:
    """Wait until the picture's corner has the grey of an HU; JPEG may be off by a little."""
    page.wait_for_function(
        """async (grey) => {
            const image = document.querySelector("img.widget-image");
            await image.decode();
            const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
            canvas.getContext("2d").drawImage(image, 60, 60, 1, 1, 0, 0, 1, 1);
            return Math.abs(canvas.getContext("2d").getImageData(0, 0, 1, 1).data[0] - grey) <= 3;
        }""",
        arg=int(window(np.array([hu]), *WINDOWS[name])[0]),
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
    notebook.get_by_role("button", name="bone", exact=True).click()
    shows(notebook, -1000, "bone")
    notebook.get_by_role("button", name="lung", exact=True).click()
    shows(notebook, -1000)
    notebook.get_by_role("button", name="coronal", exact=True).click()
    shows(notebook, -200)  # 60 of 80 pixels a slice down from the head
    notebook.get_by_role("button", name="axial", exact=True).click()
    shows(notebook, -1000)


def test_playing_runs_through_the_slices(notebook):
    notebook.locator(".jupyter-widgets.widget-play button, .widget-play button").first.click()
    shows(notebook, -100)
