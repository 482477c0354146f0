"""The curves that run under the frames: values per axial slice, to see where to look."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

from ggo_lab.errors import ChoiceError
from ggo_lab.rendering.overlays import lesion_share, mask_colors, rgb_of
from ggo_lab.scan import Scan

Curve = np.ndarray | Mapping[str, np.ndarray]
_MARGIN = 8  # pixels, where the slider's rail begins and ends
_PAPER = 17  # grey


def check_curves(scan: Scan, curve: Curve | None, masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Give the curves to draw under a scan, by name, each float (Z,).

    Args:
        curve: a value per axial slice, nan where there is none, or several such by name.
        masks: with lungs and lesions among them, the lesions' share of the lungs stands in for a curve left out.
    Raises:
        ChoiceError: a curve that has not one value per slice.
    """
    if curve is None:
        share = lesion_share(masks)
        return {} if share is None else {"lesions": share}
    curves = dict(curve) if isinstance(curve, Mapping) else {"curve": curve}
    for name, values in curves.items():
        try:
            curves[name] = np.asarray(values, float)
        except (TypeError, ValueError):
            raise ChoiceError(f"curve {name!r} holds values that are no numbers.", name) from None
        if curves[name].shape != scan.shape[:1]:
            raise ChoiceError(
                f"curve {name!r} has shape {curves[name].shape}; {scan.name} has {scan.shape[0]} slices.", name
            )
    return curves


def say_curve(name: str, value: float) -> str:
    """Say what a curve tells of one slice; nothing where it has no value.

    >>> say_curve("lesions", 0.31), say_curve("GGO fraction", 0.275), say_curve("lesions", np.nan)
    ('lesions fill 31% of the lung in this slice', 'GGO fraction 0.275', '')
    """
    if not np.isfinite(value):
        return ""
    return f"lesions fill {value:.0%} of the lung in this slice" if name == "lesions" else f"{name} {value:.3g}"


class CurveStrip:
    """Curves over the axial slices as a strip as wide as the frame, with a line at the current slice.

    Args:
        curves: float (Z,) by name, nan where there is no value. All have one scale, from 0 to the highest value.
        slices: how many there are.
        width, height: pixels.
        marks: slices to mark with a small triangle, such as those that a network sees.
    """

    def __init__(
        self,
        curves: Mapping[str, np.ndarray],
        slices: int,
        width: int,
        height: int = 44,
        marks: tuple[int, ...] = (),
    ):
        self.slices, self.width, self.height = slices, width, height
        sharp = 2  # drawn twice as large and shrunk, for smooth edges
        sheet = Image.new("RGB", (width * sharp, height * sharp), (_PAPER,) * 3)
        draw = ImageDraw.Draw(sheet)
        finite = {name: np.where(np.isfinite(values), np.clip(values, 0, None), 0) for name, values in curves.items()}
        top = max([1e-9, *(values.max() for values in finite.values())])
        floor = (height - 3) * sharp
        room = (height - 12) * sharp
        xs = self._columns(np.arange(slices)) * sharp
        for name, color in mask_colors(list(curves)).items():
            line = list(zip(xs, floor - room * finite[name] / top, strict=True))
            if len(curves) == 1:
                shade = tuple(round(0.7 * _PAPER + 0.3 * light) for light in rgb_of(color))
                draw.polygon([(line[0][0], floor), *line, (line[-1][0], floor)], fill=shade)
            draw.line(line, fill=rgb_of(color), width=3)
        for x in self._columns(np.array(marks, int)):
            draw.polygon([((x - 4) * sharp, 0), ((x + 4) * sharp, 0), (x * sharp, 7 * sharp)], fill=(235, 235, 235))
        self._base = np.asarray(sheet.resize((width, height), Image.Resampling.BOX))

    def _columns(self, slices: np.ndarray) -> np.ndarray:
        return _MARGIN + slices * (self.width - 1 - 2 * _MARGIN) / max(1, self.slices - 1)

    def index_at(self, across: float) -> int:
        """The slice at a share 0..1 of the strip's width."""
        first, last = self._columns(np.array([0, self.slices - 1]))
        share = (across * self.width - first) / max(last - first, 1)
        return round(min(max(share, 0), 1) * (self.slices - 1))

    def draw(self, index: int) -> np.ndarray:
        """uint8 (height, width, 3) with the line at slice `index`."""
        strip = self._base.copy()
        x = round(float(self._columns(np.array(index))))
        strip[:, x : x + 2] = 255
        return strip
