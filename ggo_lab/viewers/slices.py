"""A scan to scroll through in JupyterLab and Colab, with core ipywidgets only."""

import base64
import html
from collections.abc import Mapping
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import traitlets

from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.page import scan_page
from ggo_lab.rendering import (
    PLANES,
    CurveStrip,
    FrameRenderer,
    Heat,
    check_heat,
    check_masks,
    encode,
    lesion_share,
    mask_colors,
    picture_shape,
)
from ggo_lab.scan import WINDOWS, Scan, Window, as_window
from ggo_lab.viewers.panel import Panel

_SIDE_WIDTH = "290px"


class SliceViewer(Panel):
    """Scroll through a scan: slices, planes, windows, overlays. Shows itself as the last expression of a cell.

    Its state are plain traits, so code can steer it: `viewer.index = 40`; `viewer.window = (-500, 900)`;
    `traitlets.link((a, "index"), (b, "index"))` makes two viewers scroll together.

    Args:
        scan: what to show. It is not copied.
        masks: bool (Z, Y, X) by name, drawn in one colour each; "truth" for the lungs and lesions of scan.truth.
        heat: 0..1, float (Z, Y, X), or a dict from axial slices to maps (Y, X), as image_to_scan_grid gives them.
        window: a name of WINDOWS, or (level, width) in HU.
        curve: float (Z,), a value per axial slice to draw under the picture, nan where there is none. Where lungs and
            lesions are among the masks, the lesions' share of the lungs is drawn by itself.
        marks: axial slices to mark on the curve, such as those that a network sees.
        size: the longer side of the picture, pixels.
    Attributes:
        index: of the slice, counted along the plane's axis of scan.hu.
        plane: "axial", "coronal" or "sagittal".
        window: as in the arguments.
        shown: names of the masks that are drawn, and "heat".
        overlay: "outline" or "fill".
        opacity: of fills and heat, 0..1.
    Raises:
        ChoiceError: masks or heat that do not fit the scan, an unknown window or plane, a slice outside the scan.
    """

    index = traitlets.Int()
    plane = traitlets.Unicode("axial")
    window = traitlets.Any("lung")
    shown = traitlets.Tuple()
    overlay = traitlets.Unicode("outline")
    opacity = traitlets.Float(0.4, min=0.0, max=1.0)

    def __init__(
        self,
        scan: Scan,
        masks: Mapping[str, np.ndarray] | str | None = None,
        heat: Heat | None = None,
        window: str | tuple[float, float] = "lung",
        *,
        curve: np.ndarray | None = None,
        marks: tuple[int, ...] = (),
        size: int = 512,
    ):
        self.scan = scan
        self.masks = check_masks(scan, masks)
        self.heat = check_heat(scan, heat)
        self.marks = tuple(marks)
        self._renderer = FrameRenderer(scan, self.masks, self.heat, size)
        self._index_in = {plane: scan.shape[axis] // 2 for plane, (axis, _) in PLANES.items()}
        if marks:
            self._index_in["axial"] = self.marks[len(self.marks) // 2]
        self._own_curve = curve is not None
        self.curve = np.asarray(curve, float) if self._own_curve else lesion_share(self.masks)
        if self.curve is None and marks:  # an empty strip, to put the marks on
            self.curve = np.full(scan.shape[0], np.nan)
        self._strip = None
        if self.curve is not None:
            if self.curve.shape != scan.shape[:1]:
                raise ChoiceError(f"curve has shape {self.curve.shape}; {scan.name} has {scan.shape[0]} slices.", curve)
            self._strip = CurveStrip(self.curve, picture_shape(scan, "axial", size)[1], marks=self.marks)
        super().__init__()
        self.window = window
        self.shown = (*self.masks, *(["heat"] if heat is not None else []))
        self.index = self._index_in["axial"]
        self._build(size)
        self.observe(self._state_changed, ["index", "plane", "window", "shown", "overlay", "opacity"])
        self._follow()
        self._render()

    # What others may ask of it

    def frame(self) -> np.ndarray:
        """The picture now shown: uint8 (H, W, 3)."""
        return self._renderer.frame(
            self.plane, self.index, as_window(self.window), self.shown, self.overlay, self.opacity
        )

    def png(self) -> bytes:
        """The picture now shown, as an exact PNG file."""
        return encode(self.frame(), "PNG")

    def to_html(self, path: str | Path) -> Path:
        """Write one HTML file that scrolls without Python or network; see page.scan_page."""
        return scan_page(
            self.scan,
            path,
            masks=self.masks,
            heat=self.heat,
            window=self.window,
            index=self._index_in["axial"] if self.plane != "axial" else self.index,
            marks=self.marks,
        )

    # The state and its controls

    @traitlets.validate("index")
    def _valid_index(self, proposal) -> int:
        count = self.scan.shape[PLANES[self.plane][0]]
        if not 0 <= proposal["value"] < count:
            raise ChoiceError(
                f"index={proposal['value']} is outside {self.scan.name}: its {self.plane} slices are 0 to {count - 1}.",
                proposal["value"],
            )
        return proposal["value"]

    @traitlets.validate("plane", "overlay")
    def _valid_choice(self, proposal) -> str:
        name = proposal["trait"].name
        check_choice(name, proposal["value"], PLANES if name == "plane" else ("outline", "fill"))
        return proposal["value"]

    @traitlets.validate("window")
    def _valid_window(self, proposal) -> str | Window:
        window = as_window(proposal["value"])
        return proposal["value"] if isinstance(proposal["value"], str) else window

    @traitlets.validate("shown")
    def _valid_shown(self, proposal) -> tuple[str, ...]:
        for name in proposal["value"]:
            check_choice("shown", name, [*self.masks, "heat"])
        return proposal["value"]

    def _state_changed(self, change) -> None:
        if self._following:
            return
        if change.name == "plane":
            self._index_in[change.old] = self.index
            with self._quietly():
                self.index = self._index_in[self.plane]
        self._follow()
        self._render()

    def _build(self, size: int) -> None:
        """Make the controls; _follow gives them their values."""
        wide = widgets.Layout(width="auto")
        self._image = widgets.Image(format="jpeg", layout=widgets.Layout(max_width="100%", object_fit="contain"))
        self._planes = widgets.ToggleButtons(options=list(PLANES), style={"button_width": "80px"})
        self._slider = widgets.IntSlider(
            readout=False, layout=widgets.Layout(width="auto", flex="1 1 auto", margin="2px 0")
        )
        self._play = widgets.Play(interval=80, layout=widgets.Layout(flex="0 0 auto"))
        self._caption = widgets.HTML(layout=widgets.Layout(margin="0 8px"))
        self._presets = widgets.ToggleButtons(
            options=list(WINDOWS), value=None, style={"button_width": "auto"}, layout=widgets.Layout(width="auto")
        )
        self._level = widgets.IntSlider(min=-1200, max=1200, step=10, description="level HU", layout=wide)
        self._width = widgets.IntSlider(min=10, max=3000, step=10, description="width HU", layout=wide)
        self._overlay = widgets.ToggleButtons(options=["outline", "fill"], style={"button_width": "80px"})
        self._opacity = widgets.FloatSlider(min=0, max=1, step=0.05, description="opacity", layout=wide)
        colors = {**mask_colors(list(self.masks)), **({"heat": "#ff7800"} if self.heat is not None else {})}
        self._checks = {name: widgets.Checkbox(description=name, indent=False) for name in colors}
        legend = [
            widgets.HBox([widgets.HTML(_swatch(color)), self._checks[name]], layout=widgets.Layout(height="30px"))
            for name, color in colors.items()
        ]
        self._planes.observe(lambda change: self._asked("plane", change.new), "value")
        for control in (self._slider, self._play):
            control.observe(lambda change: self._asked("index", change.new), "value")
        self._presets.observe(lambda change: self._asked("window", change.new), "value")
        self._overlay.observe(lambda change: self._asked("overlay", change.new), "value")
        self._opacity.observe(lambda change: self._asked("opacity", change.new), "value")
        for slider in (self._level, self._width):
            slider.observe(lambda _: self._asked("window", (self._level.value, self._width.value)), "value")
        for check in self._checks.values():
            check.observe(
                lambda _: self._asked("shown", tuple(name for name, box in self._checks.items() if box.value)), "value"
            )
        picture = widgets.VBox(
            [
                self._planes,
                self._image,
                self._slider,
                widgets.HBox([self._play, self._caption], layout=widgets.Layout(align_items="center")),
            ],
            layout=widgets.Layout(width=f"{size + 4}px", max_width="100%"),
        )
        side = [widgets.HTML("<b>window</b>"), self._presets, self._level, self._width]
        if legend:
            side += [widgets.HTML("<b>overlays</b>"), *legend]
            side += [self._overlay] if self.masks else []
            side += [self._opacity]
        self.children = (
            widgets.HTML(_title(self.scan)),
            widgets.HBox(
                [picture, widgets.VBox(side, layout=widgets.Layout(width=_SIDE_WIDTH))],
                layout=widgets.Layout(flex_flow="row wrap", grid_gap="8px 18px"),
            ),
        )

    def _follow(self) -> None:
        """Bring every control in line with the state."""
        with self._quietly():
            last = self.scan.shape[PLANES[self.plane][0]] - 1
            self._planes.value = self.plane
            for control in (self._slider, self._play):
                control.max = last
                control.value = self.index
            self._presets.value = self.window if isinstance(self.window, str) else None
            level, width = as_window(self.window)
            self._level.value, self._width.value = round(level), round(width)
            for name, check in self._checks.items():
                check.value = name in self.shown
            self._overlay.value, self._opacity.value = self.overlay, self.opacity

    def _render(self) -> None:
        frame = self.frame()
        if self._strip is not None and self.plane == "axial":
            frame = np.vstack([frame, self._strip.draw(self.index)])
        self._image.value = encode(frame)
        lines = "<br>".join(html.escape(line) for line in self._captions())
        self._caption.value = f'<div style="line-height:1.4">{lines}</div>'

    def _captions(self) -> tuple[str, str]:
        """Where the slice is, and what the curve says of it."""
        axis = PLANES[self.plane][0]
        start = ("above the lowest slice", "behind the front edge", "from the patient's right edge")[axis]
        distance = self.index * self.scan.spacing[axis]
        place = f"{self.plane} {self.index} of 0–{self.scan.shape[axis] - 1} · {distance:.0f} mm {start}"
        if self.plane != "axial" or self.curve is None or not np.isfinite(self.curve[self.index]):
            return place, ""
        value = self.curve[self.index]
        said = f"curve: {value:.3g}" if self._own_curve else f"lesions fill {value:.0%} of the lung in this slice"
        return place, said

    # How it is displayed

    def __repr__(self) -> str:
        return f"SliceViewer({self.scan.name!r}, {self._captions()[0]})"

    def _repr_html_(self) -> str:
        """A still picture, for places without a kernel: GitHub, a printed page."""
        picture = base64.b64encode(encode(self.frame())).decode()
        caption = html.escape(f"{self.scan.name}: {self._captions()[0]}")
        image = f'<img alt="{caption}" src="data:image/jpeg;base64,{picture}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _swatch(color: str) -> str:
    place = "display:inline-block;width:14px;height:14px;margin:2px 4px;vertical-align:middle"
    return f'<span style="{place};background:{color}"></span>'


def _title(scan: Scan) -> str:
    voxels = " × ".join(str(n) for n in scan.shape)
    steps = " × ".join(f"{step:.3g}" for step in scan.spacing)
    grey = "" if scan.is_hu else " · grey values, not HU"
    return f"<b>{html.escape(scan.name)}</b> · {voxels} voxels of {steps} mm{grey}"
