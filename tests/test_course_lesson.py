"""What a notebook's setup cell and its figures do, in a shell as JupyterLab's kernel has it."""

import base64
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from PIL import Image

from ggo_lab.course import lesson
from ggo_lab.course.figures import caption, dark_sheet, figure_html


@pytest.fixture
def shell(monkeypatch):
    shell = InteractiveShell()
    monkeypatch.setattr(lesson, "get_ipython", lambda: shell)
    lesson.start_lesson()
    return shell


def said_by(shell, cell):
    with capture_output() as captured:
        shell.run_cell(cell)
    return captured.stdout


def test_a_long_cell_says_what_it_did_and_how_long_it_took(shell, monkeypatch):
    assert said_by(shell, "x = 1") == ""
    monkeypatch.setattr(lesson, "_LONG_SECONDS", 0)
    said = said_by(shell, "class gl:\n    fit = prepare = len\nx = gl.prepare(''), gl.fit(''), gl.fit('')")
    assert re.fullmatch(r"Done in \d+ s: prepare, fit\.\n", said), said
    said = said_by(shell, "class gl:\n    wilson = len\nx = gl.wilson('')")
    assert re.fullmatch(r"Done in \d+ s\.\n", said), f"named for what takes no time: {said}"
    lesson.start_lesson()  # the setup cell, run again
    assert said_by(shell, "x = 1").count("Done in") == 1
    assert "Done in" not in said_by(shell, "1 / 0"), "it was not done"


def test_a_figure_has_a_number_a_caption_and_words_for_who_does_not_see_it(monkeypatch):
    shown = []
    monkeypatch.setattr("ggo_lab.course.figures.display", lambda data, raw: shown.append(data))
    plt.plot([1, 2])
    caption(3, "A <line>.", alt='It "rises".')
    (data,) = shown
    html = data["text/html"]
    assert "<b>Figure 3.</b> A &lt;line&gt;.</p>" in html and 'alt="It &quot;rises&quot;."' in html
    assert base64.b64decode(re.search(r"base64,([^\"]+)", html)[1]).startswith(b"\x89PNG")
    assert data["text/plain"] == 'Figure 3. A <line>. (It "rises".)'
    assert not plt.get_fignums(), "else the notebook shows it once more"


def pictures_in(html):
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in re.findall(r"base64,([^\"]+)", html)]


def test_on_a_dark_page_charts_are_dark_and_scans_stay_as_they_are():
    figure, (scan, air, chart, table) = plt.subplots(1, 4, figsize=(8, 2))
    scan.imshow(np.full((8, 8), 900.0), cmap="gray", vmin=0, vmax=1000)  # bright tissue to the edge
    air.imshow(np.zeros((8, 8)), cmap="gray", vmin=0, vmax=1000)
    air.set_axis_off()
    chart.bar([0, 1], [1, 2], color="#E69F00")
    table.imshow(np.zeros((4, 4)), cmap="Greys", vmin=0, vmax=1)
    light, sheet = pictures_in(figure_html(figure, "A scan, bars, a table."))
    plt.close(figure)
    light = light[..., :3].astype(int)
    assert sheet.shape[:2] == light.shape[:2]
    seen = np.where(sheet[..., 3:] > 0, sheet[..., :3], light)
    tissue = (light == light[50, 60]).all(axis=-1) & (np.arange(light.shape[1]) < 200)
    assert tissue.sum() > 5000 and (seen[tissue] == light[tissue]).mean() > 0.98  # but for a pixel at the edge
    paper = (light == 255).all(axis=-1)
    assert paper.mean() > 0.2 and (seen[paper] == 0x11).all(), "no white is left, nor at the scan's edge"
    assert seen.max(axis=(0, 1)).min() > 225, "light ink"
    held = 150 + np.flatnonzero((light[:, 150:400] == 0).all(axis=-1).mean(axis=0) > 0.5)  # columns full of air
    assert len(held) > 50 and seen[:, held[0] - 3 : held[-1] + 4].max() < 100, "no bright seam around it"
    bars = (light == (0xE6, 0x9F, 0x00)).all(axis=-1)
    assert bars.sum() > 1000 and np.abs(seen[bars] - light[bars]).max() < 45, "known by its colour"


def test_greys_change_places_and_nothing_leaves_the_range():
    ramp = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    turned = dark_sheet(ramp)[0, :, 0].astype(int)
    assert (np.diff(turned) <= 0).all() and (turned[0], turned[-1]) == (237, 17)
    colors = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert dark_sheet(colors)[..., :3].min() >= 17 and dark_sheet(colors)[..., :3].max() <= 237


def test_a_figure_without_a_caption_suits_dark_pages_too(shell):
    figure, _ = plt.subplots()
    shown, _ = shell.display_formatter.format(figure)
    plt.close(figure)
    assert "ggo-sheet" in shown["text/html"] and "image/png" not in shown
