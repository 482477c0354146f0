"""A PredictionViewer in a real JupyterLab: lists are filtered, scans chosen, a phantom made again with more disease."""

import pytest

# Known answers on small phantoms, and a network with random weights for the maps and for what it says of remade ones.
CODE = """
import numpy as np
import ggo_lab as gl
from ggo_lab.evaluation import Predictions
cohort = gl.phantom_cohort(8, seed=7, shape=(16, 64, 64), second_scans=0)
table = cohort.table
true = table["grade"].to_numpy() - 1
shares = np.full((8, 4), 0.1)
shares[np.arange(8), np.where(np.arange(8) < 5, true, (true + 1) % 4)] = 0.7  # the last three are wrong
shares[7] = [0.3, 0.25, 0.25, 0.2] if true[7] else [0.25, 0.3, 0.25, 0.2]  # and one of them unsure
report = gl.evaluate(Predictions(list(table["name"]), list(table["patient"]), true, shares), draws=20)
model = gl.build_backbone("squeezenet1_0", extent="scratch", seed=1)
model.recipe = gl.Recipe(size=64)
viewer = gl.PredictionViewer(cohort, model, report)
viewer
"""


@pytest.fixture(scope="module")
def notebook(run_notebook):
    return run_notebook("predictions", [CODE], viewport={"width": 1280, "height": 1700})


def listed(page, n: int) -> list[str]:
    """The lines of the list, once there are n."""
    page.wait_for_function("n => document.querySelector('.widget-select select').options.length === n", arg=n)
    return options(page.get_by_role("listbox", name="scans"))


def options(field) -> list[str]:
    """What can be chosen; ipywidgets writes blanks as blanks that do not break."""
    return [text.replace("\xa0", " ") for text in field.locator("option").all_text_contents()]


def picture(page) -> int:
    """A number made of all bytes of the picture now shown."""
    page.locator(".ggo-stage > img").wait_for(timeout=20_000)
    return page.evaluate(
        "async () => { const bytes = await (await fetch(document.querySelector('.ggo-stage > img').src)).arrayBuffer();"
        " return new Uint8Array(bytes).reduce((sum, byte) => (31 * sum + byte) >>> 0, 7); }"
    )


def test_lists_are_filtered_by_right_grade_and_how_sure(notebook):
    everything = listed(notebook, 8)
    assert sum(line.startswith("✓") for line in everything) == 5
    show = notebook.get_by_role("combobox", name="show", exact=True)
    show.select_option("wrong (3)")
    lines = listed(notebook, 3)
    assert all(line.startswith("✗") for line in lines) and "30%" in lines[-1]  # the surest first
    surest = notebook.get_by_role("slider", name="how sure, from")
    surest.focus()
    surest.press("PageUp")
    surest.press("PageUp")
    assert "30%" not in "".join(listed(notebook, 2))
    surest.press("Home")
    listed(notebook, 3)
    grade = next(option for option in options(show) if option.startswith("true "))
    show.select_option(grade)
    lines = listed(notebook, int(grade.split("(")[1][:-1]))
    assert all(grade.split()[1] in line for line in lines)
    show.select_option("all (8)")
    listed(notebook, 8)


def test_the_chosen_scan_is_shown_with_its_verdict(notebook):
    before = picture(notebook)
    notebook.get_by_role("listbox", name="scans").select_option(index=6)
    notebook.get_by_text("phantom-7-0006 · 16 × 64 × 64 voxels").wait_for(timeout=20_000)
    notebook.get_by_text("(70%), true").wait_for()
    assert picture(notebook) != before
    last = notebook.get_by_role("group", name="slices the network sees").get_by_role("button").last
    last.click()
    notebook.get_by_text(f"axial {last.inner_text().split()[1]} of 0–15").wait_for(timeout=10_000)
    heated = picture(notebook)
    notebook.get_by_role("combobox", name="Grad-CAM of").select_option("nothing")
    notebook.get_by_role("checkbox", name="heat").wait_for(state="detached", timeout=20_000)
    assert picture(notebook) != heated


def test_more_disease_moves_picture_and_answer(notebook):
    before = picture(notebook)
    drawn = notebook.locator("svg[role=img] circle").count()
    slider = notebook.get_by_role("slider", name="involvement")
    slider.focus()
    slider.press("End")
    verdict = notebook.get_by_text("Remade with 90% of the lungs involved. Predicted")
    verdict.wait_for(timeout=30_000)
    assert "true critical" in verdict.inner_text() and picture(notebook) != before
    notebook.wait_for_function(f"document.querySelectorAll('svg[role=img] circle').length === {drawn + 4}")
    notebook.get_by_role("button", name="as it is").click()
    verdict.wait_for(state="detached", timeout=30_000)
    assert picture(notebook) == before  # the same slice of the same patient


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 900])
def test_nothing_is_cut_off(notebook, screenshots, width, scheme):
    notebook.set_viewport_size({"width": width, "height": 1700 if width == 1280 else 2300})
    notebook.emulate_media(color_scheme=scheme)
    notebook.wait_for_function(f"document.body.dataset.jpThemeLight === '{'true' if scheme == 'light' else 'false'}'")
    cut = notebook.evaluate(
        """() => [...document.querySelectorAll(".ggo-panel .widget-readout, .ggo-panel label, .ggo-panel button")]
            .filter((part) => part.scrollWidth > part.clientWidth + 1 || (part.clientWidth &&
                part.getBoundingClientRect().right > part.closest(".ggo-panel").getBoundingClientRect().right + 1))
            .map((part) => part.textContent)"""
    )
    assert cut == []
    notebook.screenshot(path=screenshots / f"jupyterlab-predictions-{width}-{scheme}.png")
