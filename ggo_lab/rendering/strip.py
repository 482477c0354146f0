"""The curve that runs under the frames: a value per axial slice, to see where to look."""

import numpy as np
from PIL import Image, ImageDraw

from ggo_lab.rendering.overlays import COLOR_OF, rgb_of


class CurveStrip:
    """A value per axial slice as a strip as wide as the frame, with a line at the current slice.

    Args:
        values: float (Z,), nan where there is none.
        width, height: pixels.
        marks: slices to mark with a small triangle, such as those that a network sees.
    """

    def __init__(self, values: np.ndarray, width: int, height: int = 44, marks: tuple[int, ...] = ()):
        self.values, self.width, self.height = np.asarray(values, float), width, height
        self._margin = 8  # where the slider's rail begins and ends
        finite = np.nan_to_num(self.values)
        top = max(finite.max(), 1e-9)
        sharp = 2  # drawn twice as large and shrunk, for smooth edges
        sheet = Image.new("RGB", (width * sharp, height * sharp), (17, 17, 17))
        draw = ImageDraw.Draw(sheet)
        xs = self._columns(np.arange(len(finite)), width)
        floor = height - 3
        line = [(x * sharp, (floor - (height - 12) * max(v, 0) / top) * sharp) for x, v in zip(xs, finite, strict=True)]
        area = [(line[0][0], floor * sharp), *line, (line[-1][0], floor * sharp)]
        draw.polygon(area, fill=(84, 80, 36))
        draw.line(line, fill=rgb_of(COLOR_OF["lesions"]), width=3)
        for x in self._columns(np.array(marks, int), width):
            draw.polygon([((x - 4) * sharp, 0), ((x + 4) * sharp, 0), (x * sharp, 7 * sharp)], fill=(235, 235, 235))
        self._base = np.asarray(sheet.resize((width, height), Image.Resampling.BOX))

    def _columns(self, slices: np.ndarray, width: int) -> np.ndarray:
        return self._margin + slices * (width - 1 - 2 * self._margin) / max(1, len(self.values) - 1)

    def index_at(self, across: float) -> int:
        """The slice at a share 0..1 of the strip's width."""
        first, last = self._columns(np.array([0, len(self.values) - 1]), self.width)
        share = (across * self.width - first) / max(last - first, 1)
        return round(min(max(share, 0), 1) * (len(self.values) - 1))

    def draw(self, index: int) -> np.ndarray:
        """uint8 (height, width, 3) with the line at slice `index`."""
        strip = self._base.copy()
        x = round(float(self._columns(np.array(index), strip.shape[1])))
        strip[:, x : x + 2] = 255
        return strip
