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
    """The place on the screen at shares of a slice's width and height."""
    box = page.locator(".ggo-viewer").nth(viewer).locator(".ggo-picture").nth(plane).bounding_box()
    tall, broad = mm
    scale = min(box["width"] / broad, box["height"] / tall)
    return (
        box["x"] + box["width"] / 2 + (across - 0.5) * broad * scale,
        box["y"] + box["height"] / 2 + (down - 0.5) * tall * scale,
    )
