"""What a viewer shows, read from its canvas; for pages and notebooks alike."""

import time

import numpy as np

from ggo_lab.scan import WINDOWS, window

_PIXEL = """([viewer, plane, across, down, [tall, broad]]) => {
    const root = document.querySelectorAll(".ggo-viewer")[viewer];
    if (!root || root.dataset.ready !== "true") return null;
    const canvas = root.querySelectorAll(".ggo-picture")[plane];
    const scale = Math.min(canvas.width / broad, canvas.height / tall);  // the whole slice is in the middle
    const x = Math.floor(canvas.width / 2 + (across - 0.5) * broad * scale);
    const y = Math.floor(canvas.height / 2 + (down - 0.5) * tall * scale);
    return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data.slice(0, 3)];
}"""


# A change of the layout shows a frame or two after the gesture that asks for it.
_STEADY = """async ([viewer, plane]) => {
    const frame = () => new Promise((done) => requestAnimationFrame(done));
    const box = () => {
        const picture = document.querySelectorAll(".ggo-viewer")[viewer]?.querySelectorAll(".ggo-picture")[plane];
        const { x, y, width, height } = picture?.getBoundingClientRect() ?? {};
        return { x, y, width, height };
    };
    let [before, same] = [null, 0];
    for (let frames = 0; same < 3 && frames < 600; frames += 1) {
        await frame();
        const now = box();
        same = now.width && JSON.stringify(now) === JSON.stringify(before) ? same + 1 : 0;
        before = now;
    }
    return same < 3 ? null : before;
}"""


def until(page, holds, what: str, seconds: float = 15) -> None:
    """Wait until a condition holds, asked from outside: a page's content policy may forbid to wait inside it."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"after {seconds} s still not: {what}")
        page.wait_for_timeout(50)


def grey_of(hu: int, name: str | tuple[float, float] = "lung") -> list[int]:
    """The colour that an HU has under a window."""
    level, width = WINDOWS[name] if isinstance(name, str) else name
    return [int(window(np.array([hu]), level, width)[0])] * 3


def shows(page, color: list[int], across: float, down: float, viewer=0, plane=0, mm=(1, 1), within=0) -> None:
    """Wait until a picture has a colour at shares of its slice's width and height; mm: the slice's."""
    found: list[list[int] | None] = [None]

    def right() -> bool:
        found[0] = page.evaluate(_PIXEL, [viewer, plane, across, down, mm])
        return found[0] is not None and all(abs(a - b) <= within for a, b in zip(found[0], color, strict=True))

    try:
        until(page, right, "the colour", 10)
    except TimeoutError:
        raise AssertionError(f"at {across:.2f}, {down:.2f}: {found[0]} instead of {color}") from None


def point(page, across: float, down: float, viewer=0, plane=0, mm=(1, 1)) -> tuple[float, float]:
    """The place on the screen at shares of a slice's width and height, once the picture has its place."""
    box = page.evaluate(_STEADY, [viewer, plane])
    assert box, "the picture does not come to rest"
    tall, broad = mm
    scale = min(box["width"] / broad, box["height"] / tall)
    return (
        box["x"] + box["width"] / 2 + (across - 0.5) * broad * scale,
        box["y"] + box["height"] / 2 + (down - 0.5) * tall * scale,
    )
