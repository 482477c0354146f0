"""The page of a scan in a real browser: opened from disk, with the network blocked; every gesture moves the picture."""

from contextlib import suppress

import numpy as np
import pytest
from pictures import grey_of, point, shows, until

from ggo_lab.page import scan_page
from ggo_lab.scan import WINDOWS, Scan

# Imported before any test runs: it reads its script in the locale's encoding, which a test may have changed.
with suppress(ImportError):
    import axe_playwright_python.sync_playwright  # noqa: F401

SHAPE = (6, 32, 32)
SIDE = (48, 128)  # mm: height and width of coronal and sagittal slices
EVIL = '<img src=x onerror="document.title=1">'


def hu_of(z: int) -> int:
    return -900 + 100 * z


@pytest.fixture(scope="module")
def scan() -> Scan:
    """Each slice has one HU, so that a grey tells the slice; a bright block at the patient's left, front and head."""
    hu = np.empty(SHAPE, np.int16)
    hu[:] = np.array([hu_of(z) for z in range(SHAPE[0])])[:, None, None]
    hu[4:, 4:8, 24:28] = 1000
    return Scan(hu, (8.0, 4.0, 4.0), name=EVIL)


@pytest.fixture(scope="module")
def path(scan, tmp_path_factory):
    lungs = np.zeros(SHAPE, bool)
    lungs[:, 10:20, 10:20] = True
    lesions = lungs.copy()
    lesions[:3] = False
    heat = np.zeros(SHAPE[1:], np.float32)
    heat[24:30, 24:30] = 1
    return scan_page(
        scan,
        tmp_path_factory.mktemp("page") / "page.html",
        {"lungs": lungs, "lesions": lesions, EVIL: lesions},
        heat={5: heat},
        probabilities=np.array([0.1, 0.6, 0.2, 0.1]),
        notes=[EVIL, "</script><script>document.title=2</script>"],
    )


def opened(chromium, path, **options):
    """A page that notes what it logs, asks of the network, or runs from a name."""
    context = chromium.new_context(**{"viewport": {"width": 1366, "height": 768}, "offline": True, **options})
    page, complaints = context.new_page(), []
    page.set_default_timeout(10_000)
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(".ggo-viewer[data-ready=true]", timeout=20_000)
    page.locator(".ggo-stage").focus()
    return page, complaints


@pytest.fixture
def page(chromium, path):
    """The open page; at the end nothing may have been logged, asked of the network, or run from a name."""
    page, complaints = opened(chromium, path)
    yield page
    assert page.title() == EVIL
    assert page.locator("main img, h1 img, .ggo-viewer img").count() == 0
    assert complaints == []
    page.context.close()


def slice_is(page, z: int, name: str | tuple[float, float] = "lung") -> None:
    shows(page, grey_of(hu_of(z), name), 0.2, 0.8)


def drawn(page) -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def state(page) -> dict:
    """The state of the viewer: all that is plain."""
    return page.evaluate("JSON.parse(JSON.stringify(document.querySelector('.ggo-viewer').viewer.view()))")


def text(page, kind: str) -> str:
    drawn(page)
    return page.inner_text(f".ggo-{kind}")


def chosen(page, name: str, yes=True) -> None:
    """Wait until a radio button is, or is not, the chosen one."""
    radio = page.get_by_role("radio", name=name, exact=True)
    until(page, lambda: radio.is_checked() is yes, f"{name} is{'' if yes else ' not'} chosen")


def drag(page, start, end, button="left", keys=()):
    for key in keys:
        page.keyboard.down(key)
    page.mouse.move(*point(page, *start))
    page.mouse.down(button=button)
    page.mouse.move(*point(page, *end), steps=6)
    page.mouse.up(button=button)
    for key in keys:
        page.keyboard.up(key)


def test_it_opens_where_the_lesions_are(page):
    slice_is(page, 3)
    until(page, lambda: "axial 3 of 0–5 · 24 mm" in text(page, "caption"), "slice and place")
    assert "lesions fill 100% of the lung in this slice" in text(page, "caption")


def test_slices_move_by_keys_wheel_drag_slider_number_and_curve(page):
    for key, z in (("ArrowUp", 4), ("ArrowDown", 3), ("Home", 0), ("PageUp", 5), ("PageDown", 0), ("End", 5)):
        page.keyboard.press(key)
        slice_is(page, z)
    page.mouse.move(*point(page, 0.5, 0.5))
    page.mouse.wheel(0, 100)
    slice_is(page, 4)
    page.mouse.wheel(0, -100)
    slice_is(page, 5)
    page.mouse.down()
    page.mouse.move(*(at + by for at, by in zip(point(page, 0.5, 0.5), (0, 16), strict=True)), steps=4)
    page.mouse.up()
    slice_is(page, 3)
    page.locator(".ggo-slice").focus()
    page.keyboard.press("ArrowLeft")
    slice_is(page, 2)
    page.get_by_role("spinbutton", name="Number of the slice").fill("4")
    slice_is(page, 4)
    box = page.locator(".ggo-curve").bounding_box()
    page.mouse.click(box["x"] + 10, box["y"] + 20)
    slice_is(page, 0)


def test_the_wheel_scrolls_the_page_until_the_viewer_has_the_focus(chromium, path):
    page, _ = opened(chromium, path, viewport={"width": 1000, "height": 480})
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(*point(page, 0.5, 0.5))
    page.mouse.wheel(0, 60)
    until(page, lambda: page.evaluate("scrollY") > 0, "the page has scrolled")
    slice_is(page, 3)
    page.mouse.click(*point(page, 0.5, 0.5))
    before = page.evaluate("scrollY")
    page.mouse.wheel(0, -100)
    slice_is(page, 4)
    assert page.evaluate("scrollY") == before
    page.context.close()


def test_windows_are_chosen_typed_and_dragged(page):
    for number, name in enumerate(WINDOWS, start=1):
        page.keyboard.press(str(number))
        slice_is(page, 3, name)
        chosen(page, name)
    page.get_by_text("lung", exact=True).click()
    slice_is(page, 3)
    page.keyboard.press("ArrowUp")  # after the click the keys scroll on
    slice_is(page, 4)
    page.get_by_role("spinbutton", name="level, HU").fill("-505")
    page.get_by_role("spinbutton", name="width, HU").fill("1234")
    slice_is(page, 4, (-505, 1234))
    chosen(page, "lung", yes=False)
    drag(page, (0.4, 0.4), (0.4, 0.4), "right")
    x, y = point(page, 0.4, 0.4)
    page.mouse.move(x, y)
    page.mouse.down(button="right")
    page.mouse.move(x + 10, y - 20)
    page.mouse.up(button="right")
    slice_is(page, 4, (-505 - 60, 1234 + 50))


def test_planes_keep_left_front_and_head_in_their_places(page):
    page.keyboard.press("o")
    page.keyboard.press("End")
    shows(page, [255] * 3, 26 / 32, 6 / 32)  # axial: picture's right is the patient's left, front is up
    page.keyboard.press("c")
    for _ in range(10):
        page.keyboard.press("ArrowDown")
    until(page, lambda: text(page, "caption").startswith("coronal 6 "), "coronal 6")
    shows(page, [255] * 3, 26 / 32, 0.5 / 6, plane=1, mm=SIDE)  # head is up
    shows(page, grey_of(hu_of(0)), 26 / 32, 5.5 / 6, plane=1, mm=SIDE, within=1)
    page.keyboard.press("s")
    for _ in range(10):
        page.keyboard.press("ArrowUp")
    shows(page, [255] * 3, 6 / 32, 0.5 / 6, plane=2, mm=SIDE)  # sagittal 26: front is left, head is up


def test_three_planes_meet_where_one_clicks(page):
    page.keyboard.press("o")
    page.get_by_role("button", name="Three planes at once").click()
    until(page, lambda: page.locator(".ggo-picture:visible").count() == 3, "three planes")
    page.mouse.click(*point(page, 26.5 / 32, 6.5 / 32))
    page.get_by_text("voxel (3, 6, 26)").first.wait_for()
    for plane, across in ((1, 29.5 / 32), (2, 9.5 / 32)):  # beside the block and off the cross, in the slice clicked
        shows(page, grey_of(hu_of(3)), across, 2.3 / 6, plane=plane, mm=SIDE, within=4)
    page.mouse.click(*point(page, 6.5 / 32, 0.5 / 6, plane=2, mm=SIDE))  # in the sagittal plane, two slices up
    page.get_by_text("voxel (5, 6, 26)").first.wait_for()
    chosen(page, "sagittal")
    slice_is(page, 5)


def test_overlays_cover_their_voxels_and_can_be_hidden(page):
    page.get_by_text("fill", exact=True).click()
    page.get_by_role("spinbutton", name="opacity").fill("100")
    page.get_by_role("checkbox", name=EVIL).uncheck()
    shows(page, [0xF0, 0xE4, 0x42], 15 / 32, 15 / 32)
    for across in (10.1 / 32, 19.9 / 32):  # to the voxel
        shows(page, [0xF0, 0xE4, 0x42], across, 15 / 32)
    for across in (9.9 / 32, 20.1 / 32):
        shows(page, grey_of(hu_of(3)), across, 15 / 32)
    page.get_by_label("lesions").uncheck()
    shows(page, [0x56, 0xB4, 0xE9], 15 / 32, 15 / 32)
    page.locator(".ggo-stage").focus()
    page.keyboard.press("o")
    shows(page, grey_of(hu_of(3)), 15 / 32, 15 / 32)
    page.keyboard.press("o")
    shows(page, [0xCC, 0x79, 0xA7], 15 / 32, 15 / 32)  # the mask listed last lies on top
    page.keyboard.press("o")
    page.get_by_label("heat").check()
    page.locator(".ggo-stage").focus()
    page.keyboard.press("End")
    shows(page, [255, 120, 0], 27 / 32, 27 / 32)  # the heat of slice 5, opaque
    shows(page, grey_of(hu_of(5)), 20 / 32, 27 / 32)
    page.keyboard.press("o")
    shows(page, grey_of(hu_of(5)), 27 / 32, 27 / 32)
    page.keyboard.press("o")
    shows(page, [255, 120, 0], 27 / 32, 27 / 32)  # all that can lie there, heat too


def test_outlines_are_opaque_so_opacity_is_off(page):
    page.get_by_label("heat").uncheck()
    until(page, page.get_by_role("slider", name="opacity").is_disabled, "opacity is off")
    page.get_by_text("fill", exact=True).click()
    until(page, page.get_by_role("slider", name="opacity").is_enabled, "opacity is on")


def test_the_pointer_reads_hu_and_position_also_after_zooming(page):
    page.mouse.move(*point(page, 16.5 / 32, 16.5 / 32))
    page.get_by_text("-600 HU at z 24, y 64, x 64 mm, voxel (3, 16, 16) · in lungs, lesions").first.wait_for()
    page.keyboard.down("Control")
    for _ in range(4):
        page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.get_by_text("voxel (3, 16, 16)").first.wait_for()  # what is under the pointer stays there
    page.mouse.wheel(0, -100)
    page.get_by_text("-500 HU at z 32").first.wait_for()
    page.mouse.move(1, 1)
    until(page, lambda: text(page, "reading") == "", "nothing is read")
    page.keyboard.press("p")
    spoken = page.locator(".ggo-viewer [role=status].ggo-unseen")
    until(page, lambda: "-500 HU" in spoken.text_content(), "what is read is said")


def test_zoom_is_about_the_pointer_and_a_drag_moves_the_picture(page):
    page.keyboard.press("f")
    page.get_by_role("spinbutton", name="opacity").fill("100")
    edge = 20 / 32  # of the masks
    page.mouse.move(*point(page, edge, 0.5))
    page.keyboard.down("Control")
    for _ in range(4):
        page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    shows(page, grey_of(hu_of(3)), edge + 0.2, 0.5)  # before, the slice's block began there
    for away, color in ((-0.01, [0xCC, 0x79, 0xA7]), (0.01, grey_of(hu_of(3)))):
        shows(page, color, edge + away, 0.5)
    drag(page, (edge, 0.5), (edge - 0.25, 0.5))
    for away, color in ((-0.01, [0xCC, 0x79, 0xA7]), (0.01, grey_of(hu_of(3)))):
        shows(page, color, edge - 0.25 + away, 0.5)
    until(page, lambda: text(page, "caption").startswith("axial 3"), "the slice as before")
    page.keyboard.press("0")
    shows(page, grey_of(hu_of(3)), edge + 0.01, 0.5)
    page.mouse.dblclick(*point(page, edge, 0.5))
    until(page, lambda: state(page)["zoom"] == 2, "a double click enlarges")
    page.mouse.dblclick(*point(page, edge, 0.5))
    until(page, lambda: state(page)["zoom"] == 1, "and the next one shows all")


def test_ruler_and_circle_measure(page):
    page.get_by_role("button", name="Ruler").click()
    drag(page, (8.5 / 32, 4.5 / 32), (8.5 / 32, 24.5 / 32))
    page.keyboard.press("r")
    page.keyboard.press("e")
    drag(page, (26 / 32, 6 / 32), (31 / 32, 6 / 32))
    until(page, lambda: state(page)["circle"] is not None, "a circle")
    drawn(page)
    found = state(page)
    assert abs(found["ruler"]["mm"] - 80) < 1  # 20 voxels of 4 mm
    circle = found["circle"]
    rows, columns = np.ogrid[:32, :32]
    z, y, x = circle["centre"]
    inside = (rows - y) ** 2 + (columns - x) ** 2 <= (circle["radius_mm"] / 4) ** 2
    assert z == 3 and circle["voxels"] == inside.sum() and circle["area_mm2"] == inside.sum() * 16
    assert circle["mean_hu"] == hu_of(3) and circle["sd_hu"] == 0
    assert abs(circle["volume_ml"] - inside.sum() * 16 * 8 / 1000) < 1e-6
    page.keyboard.press("Escape")
    until(page, lambda: state(page)["circle"] is None, "no circle")


def test_a_ruler_can_be_laid_by_keys_alone(page):
    page.keyboard.press("p")
    page.keyboard.press("r")
    page.keyboard.press("Enter")
    for _ in range(5):
        page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Enter")
    until(page, lambda: (state(page)["ruler"] or {}).get("mm") == 20, "a ruler of 20 mm")


def test_lesions_are_walked_through_and_a_slab_is_shown(page):
    page.keyboard.press("Home")
    page.get_by_role("button", name="Next lesion").click()
    until(page, lambda: text(page, "caption").startswith("axial 3"), "at the lesion")
    page.get_by_role("spinbutton", name="slab, mm").fill("24")  # three slices
    until(page, page.get_by_role("radio", name="MIP").is_enabled, "a slab can be projected")
    for how, hu in (("MIP", hu_of(4)), ("MinIP", hu_of(2)), ("mean", hu_of(3))):
        page.get_by_text(how, exact=True).click()
        shows(page, grey_of(hu), 0.2, 0.8)
    until(page, lambda: "mean of 3 slices" in text(page, "caption"), "what is projected")


def test_playing_runs_through_the_slices_and_stops(page):
    page.keyboard.press("Home")
    page.keyboard.press(" ")
    slice_is(page, 5)
    page.keyboard.press(" ")
    drawn(page)
    before = text(page, "caption")
    page.wait_for_timeout(300)
    assert text(page, "caption") == before


def test_every_control_says_what_it_is_and_slices_are_spoken(page):
    for role, name in (
        *(("radio", name) for name in ("coronal", "mediastinum", "outline", "MIP")),
        *(("slider", name) for name in ("Slice", "level", "width", "opacity", "slab")),
        *(("button", name) for name in ("Play through the slices", "Three planes at once", "Ruler", "Previous lesion")),
        *(("button", name) for name in ("Copy the picture", "Save the picture", "Full screen", "Keys and gestures")),
        ("checkbox", "heat"),
    ):
        assert page.get_by_role(role, name=name).count() == 1, (role, name)
    assert page.get_by_role("application").get_attribute("aria-label").startswith("CT picture of <img")
    page.keyboard.press("ArrowUp")
    caption = page.locator(".ggo-caption")
    until(page, lambda: "axial 4" in caption.inner_text(), "axial 4")
    assert caption.get_attribute("aria-live") == "polite"
    page.locator(".ggo-slice").focus()
    page.keyboard.press("ArrowUp")
    until(page, lambda: caption.get_attribute("aria-live") == "off", "the slider speaks, not the caption")
    spoken = page.locator(".ggo-slice")
    until(page, lambda: spoken.get_attribute("aria-valuetext").startswith("axial 5 of 0–5 · 40 mm"), "slice and place")


def test_help_lists_the_keys_and_the_picture_can_be_saved(page):
    page.keyboard.press("?")
    page.get_by_role("dialog", name="Keys and gestures").get_by_text("next, previous lesion").wait_for()
    page.keyboard.press("Escape")
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save the picture").click()
    assert saved.value.suggested_filename.endswith("-axial-3.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(chromium, path, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    page, _ = opened(chromium, path, color_scheme=scheme)
    page.keyboard.press("p")
    for state in ("open", "help"):
        if state == "help":
            page.keyboard.press("?")
        faults = [
            (fault["id"], [node["html"][:200] for node in fault["nodes"]])
            for fault in axe.run(page).response["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert faults == [], state
    page.context.close()


def test_without_scripts_a_still_picture_shows(chromium, scan, tmp_path):
    path = scan_page(scan, tmp_path / "page.html", probabilities=np.array([0.1, 0.6, 0.2, 0.1]))
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("noscript img").evaluate("image => image.naturalWidth") == 512
    assert page.get_by_text("Predicted: moderate").is_visible()
    context.close()


def test_on_a_phone_a_tap_reads_a_finger_scrolls_two_enlarge_and_targets_are_large(chromium, path, screenshots):
    page, complaints = opened(
        chromium, path, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, device_scale_factor=2
    )
    page.touchscreen.tap(*point(page, 16.5 / 32, 16.5 / 32))
    page.get_by_text("voxel (3, 16, 16)").first.wait_for()
    small = page.evaluate(
        """() => [...document.querySelectorAll(".ggo-viewer :is(button, label, input[type=number], .ggo-slice)")]
            .filter((part) => part.offsetParent && part.getBoundingClientRect().height < 43.5)
            .map((part) => part.textContent || part.ariaLabel)"""
    )
    assert small == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing to scroll sideways
    tools = page.context.new_cdp_session(page)
    x, y = point(page, 0.5, 0.5)

    def touch(kind: str, *fingers: tuple[float, float]) -> None:
        points = [{"x": x + dx, "y": y + dy, "id": i} for i, (dx, dy) in enumerate(fingers)]
        tools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def asked(how: str, question: str) -> None:
        """Ask, as `viewer.ask` does in a notebook."""
        page.evaluate(
            "asked => document.querySelector('.ggo-viewer').viewer.set(asked)", {"asking": how, "question": question}
        )
        page.get_by_text(question, exact=True).wait_for()

    answer = "document.querySelector('.ggo-viewer').viewer.get('answer')"
    asked("point", "Tap a lesion.")
    x, y = point(page, 0.5, 0.5)  # the question has moved the picture down
    page.touchscreen.tap(*point(page, 12.5 / 32, 14.5 / 32))
    until(page, lambda: page.evaluate(answer) == {"voxel": [3, 14, 12], "hu": hu_of(3)}, "a tap is the answer")
    asked("circle", "Circle the lesion.")
    touch("touchStart", (0, 0))
    for move in range(1, 8):
        touch("touchMove", (6 * move, 0))
    touch("touchEnd")
    until(page, lambda: page.evaluate(answer).get("mean_hu") == hu_of(3), "a circle drawn by a finger is the answer")
    page.evaluate("document.querySelector('.ggo-viewer').viewer.set({ asking: '', question: '', circle: null })")
    page.get_by_text("Circle the lesion.", exact=True).wait_for(state="hidden")
    x, y = point(page, 0.5, 0.5)
    touch("touchStart", (0, 0))
    for move in range(1, 8):
        touch("touchMove", (0, -4 * move))
    touch("touchEnd")
    slice_is(page, 5)
    touch("touchStart", (-20, 0), (20, 0))
    for move in range(1, 6):
        touch("touchMove", (-20 - 8 * move, 0), (20 + 8 * move, 0))
    touch("touchEnd")
    until(page, lambda: state(page)["zoom"] > 2, "enlarged")
    edge = state(page)["centre"]
    touch("touchStart", (0, 0))
    for move in range(1, 8):
        touch("touchMove", (6 * move, 0))
    touch("touchEnd")
    until(page, lambda: state(page)["centre"][2] < edge[2], "moved with the finger")
    page.wait_for_timeout(400)  # a tap that follows a swipe at once only stops it
    page.get_by_role("button", name="Three planes at once").tap()
    until(page, lambda: page.locator(".ggo-picture:visible").count() == 3, "three planes")
    page.touchscreen.tap(*point(page, 16.5 / 32, 0.5, plane=1, mm=SIDE))
    until(page, lambda: state(page)["probe"] is not None, "the probe is set")
    page.screenshot(path=screenshots / "page-phone-three.png")
    page.get_by_role("button", name="Three planes at once").tap()
    page.screenshot(path=screenshots / "page-phone.png", full_page=True)
    assert complaints == []
    page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_phantom_opens_and_everything_is_in_sight(chromium, tmp_path, screenshots, scheme):
    from ggo_lab.phantom import make_phantom

    scan = make_phantom(grade=2, seed=3, shape=(24, 128, 128))
    path = scan_page(scan, tmp_path / "page.html", "truth", probabilities=np.array([0.1, 0.6, 0.2, 0.1]))
    page, complaints = opened(chromium, path, color_scheme=scheme)

    def in_sight(part: str) -> bool:
        box = page.locator(part).bounding_box()
        return box["y"] >= 0 and box["y"] + box["height"] <= 768

    for part in (".ggo-stage", ".ggo-slice", ".ggo-moving button", ".ggo-reading", ".ggo-legend"):
        until(page, lambda part=part: in_sight(part), f"{part} in sight", 5)
    page.screenshot(path=screenshots / f"page-{scheme}.png")
    assert complaints == []
    page.context.close()
