"""A PredictionViewer in a real JupyterLab: lists are filtered, scans chosen, a phantom made again with more disease."""

import pytest
from pictures import until

# Known answers on small phantoms, and a network with random weights for the maps and for what it says of remade ones.
CODE = """
import numpy as np
import ggo_lab as gl
cohort = gl.phantom_cohort(8, seed=7, shape=(16, 64, 64), second_scans=0)
table = cohort.table
true = table["label"].to_numpy(int)
shares = np.full((8, 4), 0.1)
shares[np.arange(8), np.where(np.arange(8) < 5, true, (true + 1) % 4)] = 0.7  # the last three are wrong
shares[7] = [0.3, 0.25, 0.25, 0.2] if true[7] else [0.25, 0.3, 0.25, 0.2]  # and one of them unsure
report = gl.evaluate(gl.Predictions(table, shares), draws=20)
model = gl.build_backbone("squeezenet1_0", weights=None, seed=1)
model.recipe = gl.Recipe(size=64)
viewer = gl.PredictionViewer(cohort, model, report)
viewer
"""


# Markup in every name that a table, a task, a model or an error brings; one scan cannot be opened.
HOSTILE = """
import numpy as np
import ggo_lab as gl
EVIL = "<img src=x onerror='window.ran=1'><script>window.ran=1</script>"
drawn = gl.phantom_cohort(6, seed=7, shape=(16, 64, 64), second_scans=0)
made = dict(zip(drawn.names, (f"{EVIL}{place}" for place in range(6))))
def open_row(row):
    if row["name"].endswith("5"):
        raise gl.ScanError(f"{row['name']}: {EVIL}")
    scan = drawn.scan(next(old for old, new in made.items() if new == row["name"]))
    return gl.Scan(scan.hu, scan.spacing, row["name"], notes=(EVIL,))
table = drawn.table.assign(name=list(made.values()), patient=list(made.values()), label=[0, 1] * 3)
task = gl.Task(("<img src=x onerror=window.ran=1>", "<script>window.ran=1</script>"))
cohort = gl.Cohort(table, open_row, lambda row: row["name"], task=task)
shares = np.tile([0.7, 0.3], (6, 1))
report = gl.evaluate(gl.Predictions(cohort.table, shares, task, EVIL), draws=20)
model = gl.build_backbone("squeezenet1_0", weights=None, seed=1, task=task)
model.recipe = gl.Recipe(size=64)
model.name = EVIL
pixels = np.random.default_rng(0).integers(0, 255, (4, 3, 64, 64), dtype=np.uint8)
train = gl.images.ImageSet(pixels, cohort.table.iloc[:4].reset_index(drop=True), model.recipe, task=task)
viewer = gl.PredictionViewer(cohort, model, report, train)
viewer
"""


def test_hostile_names_are_text_and_run_nothing(served):
    page = served.run("hostile-predictions", [HOSTILE], width=1500, height=1300)
    scans = page.get_by_role("listbox", name="scans")
    lines = listed(page, 6)
    assert all("<img src=x onerror='window.ran=1'>" in line for line in lines)
    cells = page.locator(".ggo-predictions")
    for shown in range(5):
        scans.select_option(index=shown)
        number = lines[shown].split("</script>")[1][:1]
        page.locator(".ggo-title", has_text=f"</script>{number}").wait_for(timeout=30_000)
    page.get_by_role("combobox", name="Grad-CAM of").select_option("predicted")
    page.get_by_role("checkbox", name="heat").wait_for(timeout=30_000)
    unreadable = next(place for place, line in enumerate(lines) if "</script>5" in line)
    scans.select_option(index=unreadable)
    page.get_by_text("</script>5: <img src=x").first.wait_for(timeout=30_000)
    assert cells.locator("img[src=x], script").count() == 0 and page.locator("img[src=x]").count() == 0
    assert page.evaluate("window.ran") is None and page.said == []


@pytest.fixture(scope="module")
def notebook(served):
    """The notebook, open and run; at the end nothing may have gone wrong in the page."""
    page = served.run("predictions", [CODE], width=1500, height=1300)
    yield page
    assert page.said == []


def listed(page, n: int) -> list[str]:
    """The lines of the list, once there are n."""
    page.wait_for_function("n => document.querySelector('.ggo-list')?.options.length === n", arg=n)
    return page.get_by_role("listbox", name="scans").locator("option").all_text_contents()


def picture(page) -> int:
    """A number made of all pixels of the picture now shown."""
    page.locator(".ggo-viewer[data-ready=true]").wait_for(timeout=20_000)
    return page.evaluate(
        """() => {
            const canvas = document.querySelector(".ggo-picture");
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return data.reduce((sum, byte) => (31 * sum + byte) >>> 0, 7);
        }"""
    )


def test_lists_are_filtered_by_right_class_and_how_sure(notebook):
    everything = listed(notebook, 8)
    assert sum(line.startswith("✓") for line in everything) == 5
    show = notebook.get_by_role("combobox", name="show", exact=True)
    show.select_option("wrong")
    lines = listed(notebook, 3)
    assert all(line.startswith("✗") for line in lines) and "30%" in lines[-1]  # the surest first
    least = notebook.get_by_role("spinbutton", name="least sure, %")
    least.fill("50")
    least.press("Tab")
    assert "30%" not in "".join(listed(notebook, 2))
    least.fill("0")
    least.press("Tab")
    listed(notebook, 3)
    show.select_option("all")
    listed(notebook, 8)


def test_the_chosen_scan_is_shown_with_its_verdict_and_heat_when_asked(notebook):
    before = picture(notebook)
    notebook.get_by_role("listbox", name="scans").select_option(index=6)
    notebook.get_by_text("phantom-7-0006", exact=True).wait_for(timeout=30_000)
    notebook.locator(".ggo-sentence", has_text="(70%), true").wait_for()
    until(notebook, lambda: picture(notebook) != before, "another picture")
    last = notebook.get_by_role("button", name="Go to slice").last
    last.click()
    notebook.get_by_text(f"axial {last.inner_text().split()[1]} of 0–15").wait_for(timeout=20_000)
    until(notebook, lambda: last.get_attribute("aria-pressed") == "true", "the button says where it went")
    assert notebook.get_by_role("checkbox", name="heat").count() == 0
    plain = picture(notebook)
    notebook.get_by_role("combobox", name="Grad-CAM of").select_option("predicted")
    notebook.get_by_role("checkbox", name="heat").wait_for(timeout=30_000)
    notebook.get_by_text("of the heat lies in lesions").wait_for()
    until(notebook, lambda: picture(notebook) != plain, "the heat")
    notebook.get_by_role("combobox", name="Grad-CAM of").select_option("nothing")
    notebook.get_by_role("checkbox", name="heat").wait_for(state="detached", timeout=30_000)
    until(notebook, lambda: picture(notebook) == plain, "the same slice of the same patient")


def test_more_disease_moves_picture_and_answer(notebook):
    before = picture(notebook)
    drawn = notebook.locator(".ggo-plot circle").count()
    slider = notebook.get_by_role("slider", name="involvement")
    slider.focus()
    slider.press("End")
    verdict = notebook.get_by_text("Remade with 90% of the lungs involved. Predicted")
    verdict.wait_for(timeout=30_000)
    notebook.wait_for_function(f"document.querySelectorAll('.ggo-plot circle').length === {drawn + 4}")
    assert "true critical" in verdict.inner_text()
    until(notebook, lambda: picture(notebook) != before, "another picture")
    notebook.get_by_role("button", name="as it is").click()
    verdict.wait_for(state="detached", timeout=30_000)
    notebook.wait_for_function("!document.querySelector('.ggo-predictions > .ggo-fine').textContent")
    until(notebook, lambda: picture(notebook) == before, "the patient as he was")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_slider_stands_beside_the_picture_and_nothing_is_cut_off(notebook, screenshots, scheme):
    notebook.emulate_media(color_scheme=scheme)
    notebook.wait_for_function(f"document.body.dataset.jpThemeLight === '{'true' if scheme == 'light' else 'false'}'")

    def beside() -> bool:
        slider = notebook.get_by_role("slider", name="involvement").bounding_box()
        stage = notebook.locator(".ggo-stage").bounding_box()
        return slider["x"] + slider["width"] <= stage["x"] and abs(slider["y"] - stage["y"]) < stage["height"]

    until(notebook, beside, "the slider beside the picture")
    cut = notebook.evaluate(
        """() => [...document.querySelectorAll(".ggo :is(label, button, th, td)")]
            .filter((part) => part.offsetParent && part.scrollWidth > part.clientWidth + 1)
            .map((part) => part.textContent)"""
    )
    assert cut == []
    notebook.locator(".ggo-predictions").evaluate("panel => panel.scrollIntoView()")
    notebook.screenshot(path=screenshots / f"jupyterlab-predictions-{scheme}.png")
