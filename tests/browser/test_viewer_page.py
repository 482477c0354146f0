"""The page of a scan in a real browser: opened from disk, with the network blocked."""

import numpy as np
import pytest

from ggo_lab.page import scan_page
from ggo_lab.scan import WINDOWS, Scan, window

SHAPE = (6, 32, 32)
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


@pytest.fixture
def page(chromium, scan, tmp_path):
    """The open page; at the end nothing may have been logged, asked of the network, or run from a name."""
    lungs = np.zeros(SHAPE, bool)
    lungs[:, 10:20, 10:20] = True
    lesions = lungs.copy()
    lesions[:3] = False
    heat = np.zeros(SHAPE[1:], np.float32)
    heat[24:30, 24:30] = 1
    path = scan_page(
        scan,
        tmp_path / "page.html",
        {"lungs": lungs, "lesions": lesions, EVIL: lesions},
        heat={5: heat},
        probabilities=np.array([0.1, 0.6, 0.2, 0.1]),
        notes=[EVIL, "</script><script>document.title=2</script>"],
    )
    context = chromium.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=10_000)
    yield page
    assert page.title() == EVIL
    assert page.locator("main img, h1 img, aside img").count() == 0
    assert complaints == []
    context.close()


def drawn(page) -> None:
    """Wait until what was asked is on the screen."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def caption(page) -> str:
    drawn(page)
    return page.inner_text("#caption")


def color_at(page, x: float, y: float) -> list[int]:
    """Red, green and blue of the picture at shares of its width and height."""
    drawn(page)
    return page.evaluate(
        """([x, y]) => {
            const canvas = document.getElementById("picture");
            const at = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
            return [...canvas.getContext("2d").getImageData(...at, 1, 1).data.slice(0, 3)];
        }""",
        [x, y],
    )


def grey_at(page, z: int, name: str = "lung") -> bool:
    """Whether the picture shows slice z under a window."""
    grey = int(window(np.array([hu_of(z)]), *WINDOWS[name])[0])
    return color_at(page, 0.2, 0.8) == [grey] * 3


def test_slices_move_by_keys_wheel_slider_and_curve(page):
    assert grey_at(page, 3)
    for key, z in (("ArrowUp", 4), ("ArrowDown", 3), ("Home", 0), ("PageUp", 5), ("PageDown", 0), ("End", 5)):
        page.keyboard.press(key)
        assert grey_at(page, z), key
    page.hover("#picture")
    page.mouse.wheel(0, 100)
    assert grey_at(page, 4)
    page.mouse.wheel(0, -100)
    assert grey_at(page, 5)
    page.focus("#slice")
    page.keyboard.press("ArrowLeft")
    assert grey_at(page, 4)
    box = page.locator("#slice").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 1, box["y"] + box["height"] / 2, steps=4)
    page.mouse.up()
    assert grey_at(page, 0)
    box = page.locator("#curve").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 8, box["y"] + 20)
    assert grey_at(page, 5)
    assert "axial 5 of 0–5 · 40 mm" in caption(page)
    assert "100%" in page.inner_text("#share")


def test_every_control_says_what_it_is_and_slices_are_spoken(page):
    for role, name in (
        ("radio", "coronal"),
        ("radio", "mediastinum"),
        ("slider", "Slice"),
        ("slider", "level"),
        ("slider", "opacity"),
        ("button", "Play through the slices"),
        ("checkbox", "lesions"),
    ):
        assert page.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    picture = page.get_by_role("application")
    assert picture.get_attribute("aria-label").startswith("CT picture.")
    picture.focus()
    page.keyboard.press("ArrowUp")
    assert "axial 4" in caption(page) and page.get_attribute("#spoken", "aria-live") == "polite"
    page.focus("#slice")
    page.keyboard.press("ArrowUp")
    drawn(page)
    assert page.get_attribute("#spoken", "aria-live") == "off"
    assert page.get_attribute("#slice", "aria-valuetext").startswith("axial 5 of 0–5 · 40 mm")


def test_windows_change_the_greys(page):
    for number, name in enumerate(WINDOWS, start=1):
        page.keyboard.press(str(number))
        assert grey_at(page, 3, name)
        assert page.locator(f'#presets input[value="{name}"]').is_checked()
    page.get_by_text("lung", exact=True).click()
    assert grey_at(page, 3)
    page.keyboard.press("ArrowUp")  # after the click the keys scroll on
    assert grey_at(page, 4)
    page.keyboard.press("ArrowDown")
    page.focus("#level")
    page.keyboard.press("ArrowRight")
    assert color_at(page, 0.2, 0.8) == [int(window(np.array([hu_of(3)]), -590, 1500)[0])] * 3
    assert page.locator("#presets input:checked").count() == 0


def test_planes_keep_left_front_and_head_in_their_places(page):
    page.keyboard.press("End")
    assert color_at(page, 26 / 32, 6 / 32) == [255] * 3  # axial: picture's right is the patient's left, front is up
    page.keyboard.press("c")
    for _ in range(10):
        page.keyboard.press("ArrowDown")
    assert caption(page).startswith("coronal 6 ")
    assert color_at(page, 26 / 32, 0.5 - 20 / 128) == [255] * 3  # 48 mm high in a stage of 128 mm: head is up
    assert color_at(page, 0.5, 0.2) == [0, 0, 0]
    page.keyboard.press("s")
    for _ in range(10):
        page.keyboard.press("ArrowUp")
    assert color_at(page, 6 / 32, 0.5 - 20 / 128) == [255] * 3  # sagittal 26: front is left, head is up


def test_overlays_cover_their_voxels_and_can_be_hidden(page):
    page.get_by_text("fill", exact=True).click()
    page.locator("#opacity").fill("1")
    page.get_by_label(EVIL).uncheck()
    assert color_at(page, 15 / 32, 15 / 32) == [0xF0, 0xE4, 0x42]
    assert grey_at(page, 3)
    page.get_by_label("lesions").uncheck()
    assert color_at(page, 15 / 32, 15 / 32) == [0x56, 0xB4, 0xE9]
    page.keyboard.press("o")
    assert color_at(page, 15 / 32, 15 / 32)[0] == color_at(page, 15 / 32, 15 / 32)[2]
    page.keyboard.press("o")
    assert color_at(page, 15 / 32, 15 / 32) == [0xCC, 0x79, 0xA7]  # the mask listed last lies on top
    page.get_by_label("lungs").uncheck()
    page.get_by_label("lesions").uncheck()
    page.get_by_label(EVIL).uncheck()
    page.keyboard.press("End")
    assert color_at(page, 27 / 32, 27 / 32) == [255, 120, 0]  # the heat of slice 5, opaque


def test_the_pointer_reads_hu_and_position(page):
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 16.5 / 32, box["y"] + box["height"] * 16.5 / 32)
    text = page.inner_text("#probe")
    assert text.startswith("-600 HU at z 24, y 64, x 64 mm") and "in lungs" in text
    page.mouse.move(1, 1)
    assert page.inner_text("#probe").startswith("Point at")


def test_zoom_and_drag_move_the_picture(page):
    page.keyboard.press("End")
    for _ in range(8):
        page.keyboard.press("+")
    assert color_at(page, 26 / 32, 6 / 32) != [255] * 3
    page.hover("#picture")
    page.mouse.down()
    box = page.locator("#picture").bounding_box()
    page.mouse.move(box["x"], box["y"] + box["height"], steps=5)
    page.mouse.up()
    assert caption(page).startswith("axial 5")
    page.keyboard.press("0")
    assert color_at(page, 26 / 32, 6 / 32) == [255] * 3


def test_without_scripts_a_still_picture_shows(chromium, scan, tmp_path):
    path = scan_page(scan, tmp_path / "page.html", probabilities=np.array([0.1, 0.6, 0.2, 0.1]))
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("noscript img").evaluate("image => image.naturalWidth") == 512
    assert page.get_by_text("Predicted: moderate").is_visible()
    assert not page.locator("#controls").is_visible()
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_phantom_opens_in_a_second_and_is_photographed(chromium, tmp_path, screenshots, scheme):
    from ggo_lab.phantom import make_phantom

    scan = make_phantom(grade=2, seed=3)
    path = scan_page(scan, tmp_path / "page.html", "truth", probabilities=np.array([0.1, 0.6, 0.2, 0.1]))
    context = chromium.new_context(color_scheme=scheme, viewport={"width": 1200, "height": 900}, offline=True)
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=10_000)
    milliseconds = page.evaluate("performance.now()")
    page.screenshot(path=screenshots / f"page-{scheme}.png")
    context.close()
    assert milliseconds < 4000  # under 1 s on a free machine; the test runs beside others
