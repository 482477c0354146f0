"""What meets a newcomer in JupyterLab: answers, errors, progress and pictures, on a laptop's screen and a wide one."""

import pytest
from pictures import until

# A training that stops early is played back, so that nothing has to be trained: `fit` shows itself in the same way.
CELLS = [
    "import ggo_lab as gl\ngl.start_lesson()",
    """
@gl.exercise(gives=gl.GGO_SEVERITY)
def check(answer):
    if answer != 1:
        return "Look again."
""",
    "check('moderate')",
    "check(4)",
    "check('12')",
    """
from ggo_lab.training import TrainConfig, history
history.SILENT_S = 0
so_far, config = history.Progress(), TrainConfig(max_epochs=30, patience=2)
with history.progress_bar(config, True) as advance:
    for epoch, loss in enumerate([1.2, 0.9, 1.1, 1.0], 1):
        so_far.rows.append((epoch, 1.0, 0.5, loss, 0.5, 0.1))
        if loss < so_far.least_loss:
            so_far.best, so_far.best_epoch, so_far.least_loss = (0.5, -loss), epoch, loss
        so_far.waited = epoch - so_far.best_epoch
        advance(so_far)
""",
    "gl.SliceViewer(gl.make_phantom(grade=2, seed=3, shape=(16, 64, 64)), 'truth')",
    """
import matplotlib.pyplot as plt
from ipywidgets import interact
scan = gl.make_phantom(grade=2, seed=3, shape=(16, 64, 64))
gl.plot_slice(scan)
gl.caption(1, "A slice.", alt="Two dark lungs.")
@interact(z=(0, 15))
def draw(z=8):
    plt.plot([0, z])
    plt.show()
""",
    "gl.read_scan('nowhere.nii.gz')",  # last: JupyterLab runs nothing after an error
]


@pytest.fixture(scope="module")
def notebook(served):
    """The notebook, open and run; the error in it is meant."""
    page = served.run("first_hour", CELLS, errors=1)
    yield page
    assert page.said == []


def output(page, cell: int) -> str:
    return page.locator(".jp-Cell").nth(cell).locator(".jp-Cell-outputArea").inner_text()


def test_right_and_wrong_look_different_and_any_form_is_taken(notebook):
    for cell, sign in ((2, "✓ Right."), (3, "✗"), (4, "✗")):
        until(notebook, lambda cell=cell, sign=sign: sign in output(notebook, cell), f"{sign} below cell {cell}")
    colours = [
        notebook.locator(".jp-Cell").nth(cell).locator("[style*=border-left]").evaluate("e => e.style.borderLeftColor")
        for cell in (2, 3)
    ]
    assert colours[0] != colours[1]


def test_an_error_of_ours_is_one_sentence(notebook):
    until(notebook, lambda: "nowhere" in output(notebook, 8), "the sentence")
    said = output(notebook, 8)
    assert "nowhere.nii.gz" in said and "Traceback" not in said and "File " not in said
    assert len(said.split("\n\n")) == 2  # IPython's word on %tb, and the sentence


def test_an_early_end_leaves_a_line_and_no_red_bar(notebook):
    end = "stopped at epoch 4: no lower validation loss for 2 epochs; kept epoch 2 *"
    until(notebook, lambda: end in output(notebook, 5), "the line")
    said = output(notebook, 5)
    assert [line.split()[0] for line in said.strip().splitlines()[1:5]] == ["1", "2", "3", "4"]
    bars = notebook.locator(".jp-Cell").nth(5).locator(".widget-hprogress:visible, .progress-bar-danger:visible")
    assert bars.count() == 0


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (1920, 1080)])
def test_all_that_moves_the_picture_is_on_screen_and_no_third_is_empty(notebook, screenshots, width, height):
    notebook.set_viewport_size({"width": width, "height": height})
    notebook.locator(".jp-Cell").nth(6).evaluate("cell => cell.scrollIntoView()")

    def box(part: str) -> dict:
        return notebook.locator(f".ggo-viewer {part}").first.bounding_box()

    def in_sight() -> bool:
        notebook.locator(".ggo-viewer").evaluate("viewer => viewer.scrollIntoView()")
        bottoms = [box(part)["y"] + box(part)["height"] for part in (".ggo-stage", ".ggo-moving", ".ggo-reading")]
        return max(bottoms) <= height - 20 and box(".ggo-bar")["y"] >= 0

    until(notebook, in_sight, "picture, slider, number and reading on the screen")
    viewer, side = box(""), box(".ggo-side")
    assert side["x"] + side["width"] - viewer["x"] > 0.66 * viewer["width"]
    notebook.screenshot(path=screenshots / f"jupyterlab-{width}.png")


def test_jupyterlabs_own_styles_do_not_reach_the_list_of_keys(notebook):
    notebook.locator(".ggo-viewer").get_by_role("button", name="Keys and gestures").click()
    dialog = notebook.get_by_role("dialog", name="Keys and gestures")
    (term, does) = (dialog.locator(part).first.bounding_box() for part in ("dt", "dd"))
    assert term["x"] + term["width"] <= does["x"] and abs(term["y"] - does["y"]) < 6
    assert dialog.locator("dt").first.evaluate("term => getComputedStyle(term).backgroundColor") == "rgba(0, 0, 0, 0)"
    notebook.keyboard.press("Escape")


def test_in_the_dark_theme_what_the_browser_draws_is_dark(notebook, screenshots):
    """Also where the system is light and only JupyterLab is dark: arrows, boxes and sliders are the browser's."""
    scheme = "getComputedStyle(document.querySelector('.ggo-viewer')).colorScheme"
    figures = notebook.locator(".ggo-figure:visible")  # with a caption, and drawn by a slider
    until(notebook, lambda: notebook.evaluate(scheme) == "light" and figures.count() == 2, "light, and the figures")
    sheets = notebook.locator(".ggo-figure .ggo-sheet:visible")
    assert sheets.count() == 0
    notebook.evaluate("document.body.dataset.jpThemeLight = 'false'")
    until(notebook, lambda: notebook.evaluate(scheme) == "dark" and sheets.count() == 2, "dark, figures too")
    for sheet, figure in zip(sheets.all(), figures.all(), strict=True):
        picture = figure.locator("img").first
        until(
            notebook, lambda s=sheet, p=picture: s.bounding_box() == p.bounding_box(), "the sheet covers the figure", 5
        )
    figures.first.scroll_into_view_if_needed()
    notebook.screenshot(path=screenshots / "jupyterlab-figures-dark.png")
    notebook.evaluate("document.body.dataset.jpThemeLight = 'true'")
