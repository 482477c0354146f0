"""A scan to scroll through in JupyterLab and Colab, with core ipywidgets only."""

import base64
import html
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from traitlets import Bunch

from ggo_lab.page import scan_page
from ggo_lab.rendering import (
    HEAT_HOT,
    PLANES,
    Curve,
    CurveStrip,
    FrameRenderer,
    Heat,
    check_curves,
    check_heat,
    check_marks,
    check_masks,
    encode,
    mask_colors,
    picture_shape,
    say_curve,
)
from ggo_lab.scan import Scan, as_window
from ggo_lab.viewers.captions import reading, where
from ggo_lab.viewers.controls import Controls
from ggo_lab.viewers.gestures import Gestures
from ggo_lab.viewers.look import LOOK, Look
from ggo_lab.viewers.pad import Pad
from ggo_lab.viewers.panel import Panel

_HEAT_COLOR = "#{:02x}{:02x}{:02x}".format(*HEAT_HOT)


class SliceViewer(Look, Panel):
    """Scroll through a scan: slices, planes, windows, overlays, HU. Shows itself as the last expression of a cell.

    Its state are plain traits, so code can steer it: `viewer.index = 40`; `viewer.window = (-500, 900)`;
    `viewer.probe = (30, 120, 80)`. `link(a, b)` makes two viewers scroll together.

    What works where: sliders, buttons and the number box are core ipywidgets, 7.7 or newer, and work wherever those
    do, and so does the state. Keys, wheel, clicks and drags on the picture, and the click on the curve, need a front
    end that runs inline handlers, as JupyterLab does (see pad.Pad). Click the picture or tab to it first; its keys are
    listed under the controls. Without a kernel a still picture is shown, and the page that `to_html` writes does all
    of it alone. docs/viewers.md says what was tried, and what of it not in Colab.

    Args:
        scan: what to show. It is not copied.
        masks: bool (Z, Y, X) by name, drawn in one colour each; "truth" for the lungs and lesions of scan.truth.
        heat: 0..1, float (Z, Y, X), or a dict from axial slices to maps (Y, X), as image_to_scan_grid gives them.
        window: a name of WINDOWS, or (level, width) in HU.
        curve: float (Z,), a value per axial slice to draw under the picture, nan where there is none, or several such
            by name: `curve={"GGO fraction": ggo_fraction(scan, lungs).per_slice}`. Left out, the lesions' share of the
            lungs is drawn, where both are among the masks.
        marks: axial slices to mark on the curve, such as those that a network sees.
        size: the longer side of the picture, pixels.
    Attributes:
        index: of the slice, counted along the plane's axis of scan.hu.
        plane: "axial", "coronal" or "sagittal".
        window: as in the arguments.
        shown: names of the masks that are drawn, and "heat".
        overlay: "outline" or "fill".
        opacity: of fills and heat, 0..1.
        zoom: from 1, the whole slice, to 12.
        centre: voxel (z, y, x) in the middle of what is zoomed; the scan's middle if None.
        probe: voxel (z, y, x) whose HU is read and which a cross marks, or None. Every plane goes to its slice.
        pointer: voxel (z, y, x) under the mouse, whose HU is read too, or None.
    Raises:
        ChoiceError: masks or heat that do not fit the scan, an unknown window or plane, a slice outside the scan.
    """

    def __init__(
        self,
        scan: Scan,
        masks: Mapping[str, np.ndarray] | str | None = None,
        heat: Heat | None = None,
        window: str | tuple[float, float] = "lung",
        *,
        curve: Curve | None = None,
        marks: tuple[int, ...] = (),
        size: int = 512,
    ):
        self.scan = scan
        self.masks = check_masks(scan, masks)
        self.heat = check_heat(scan, heat)
        self.marks = check_marks(scan, marks)
        self._renderer = FrameRenderer(scan, self.masks, self.heat, size)
        self._index_in = {plane: scan.shape[axis] // 2 for plane, (axis, _) in PLANES.items()}
        if self.marks:
            self._index_in["axial"] = self.marks[len(self.marks) // 2]
        self.curves = check_curves(scan, curve, self.masks)
        self.strip: CurveStrip | None = None
        if self.curves or self.marks:
            width = picture_shape(scan, "axial", size)[1]
            self.strip = CurveStrip(self.curves, scan.shape[0], width, marks=self.marks)
        super().__init__()
        self.window = window
        self.shown = (*self.masks, *(["heat"] if heat is not None else []))
        self.index = self._index_in["axial"]
        self._build(size)
        self.observe(self._state_changed, list(LOOK))
        self.observe(self._pointer_moved, "pointer")
        self._follow()
        self._render()

    # What others may ask of it

    def frame(self) -> np.ndarray:
        """The picture now shown: uint8 (H, W, 3)."""
        return self._renderer.frame(
            self.plane,
            self.index,
            as_window(self.window),
            self.shown,
            self.overlay,
            self.opacity,
            self.zoom,
            self.centre,
            self.probe,
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
            curve=self.curves or None,
            marks=self.marks,
        )

    # The state and its controls

    def _state_changed(self, change: Bunch) -> None:
        if self._following:
            return
        with self._quietly():
            if change.name == "probe" and self.probe is not None:
                self._index_in = dict(zip(PLANES, self.probe, strict=True))
                self.index = self._index_in[self.plane]
            elif change.name == "plane":
                self.pointer = None
                self._index_in[change.old] = self.index
                self.index = self._index_in[self.plane]
        self._follow()
        self._render()

    def _take(self, look: Mapping[str, object]) -> None:
        with self._quietly():
            super()._take(look)
        self._follow()
        self._render()

    def _build(self, size: int) -> None:
        """Make the controls and let them ask; _follow gives them their values."""
        colors = {**mask_colors(list(self.masks)), **({"heat": _HEAT_COLOR} if self.heat is not None else {})}
        controls = self.controls = Controls(self.scan, colors, bool(self.masks), size)
        gestures = Gestures(self, size)
        self.pad = Pad(
            controls.image,
            f"CT picture of {self.scan.name}. Arrow keys move one slice, page keys five, space plays; A, C and S choose"
            " the plane.",
            gestures,
        )
        for control, trait in (
            (controls.planes, "plane"),
            (controls.slider, "index"),
            (controls.play, "index"),
            (controls.number, "index"),
            (controls.presets, "window"),
            (controls.overlay, "overlay"),
            (controls.opacity, "opacity"),
        ):
            control.observe(lambda change, trait=trait: self._asked(trait, change.new), "value")
        controls.zoom.observe(lambda change: None if self._following else gestures.zoom_to(change.new), "value")
        for slider in (controls.level, controls.width):
            slider.observe(lambda _: self._asked("window", (controls.level.value, controls.width.value)), "value")
        for check in controls.checks.values():
            check.observe(
                lambda _: self._asked("shown", tuple(name for name, box in controls.checks.items() if box.value)),
                "value",
            )
        self._arrange(*controls.arranged(self.pad))

    def _follow(self) -> None:
        """Bring every control in line with the state."""
        controls = self.controls
        with self._quietly():
            controls.planes.value = self.plane
            for control in (controls.slider, controls.play, controls.number):
                control.max = self.last_index
                control.value = self.index
            controls.presets.value = self.window if isinstance(self.window, str) else None
            level, width = as_window(self.window)
            controls.level.value, controls.width.value = round(level), round(width)
            for name, check in controls.checks.items():
                check.value = name in self.shown
            controls.overlay.value, controls.opacity.value = self.overlay, self.opacity
            controls.zoom.value = self.zoom

    def _render(self) -> None:
        frame = self.frame()
        if strip := self.strip_shown:
            frame = np.vstack([frame, strip.draw(self.index)])
        self.controls.image.value = encode(frame)
        self.controls.say(where(self.scan, self.plane, self.index), self._curves_here(), self._probe_said())
        if self.pointer is not None:  # it rests where it is while slices go by
            axis = PLANES[self.plane][0]
            self.pointer = (*self.pointer[:axis], self.index, *self.pointer[axis + 1 :])

    def _curves_here(self) -> dict[str, str]:
        """What each curve says of the slice, by its colour; curves run over axial slices."""
        if self.plane != "axial":
            return {}
        colors = mask_colors(list(self.curves))
        return {colors[name]: say_curve(name, values[self.index]) for name, values in self.curves.items()}

    def _probe_said(self) -> str:
        return "" if self.probe is None else reading(self.scan, self.masks, self.probe, numbered=True)

    def _pointer_moved(self, _change: Bunch) -> None:
        self.controls.say_pointed("" if self.pointer is None else reading(self.scan, self.masks, self.pointer))

    @property
    def strip_shown(self) -> CurveStrip | None:
        """The strip of the curves, where it stands under the picture."""
        return self.strip if self.plane == "axial" else None

    # How it is displayed

    def __repr__(self) -> str:
        return f"SliceViewer({self.scan.name!r}, {where(self.scan, self.plane, self.index)})"

    def _repr_html_(self) -> str:
        """A still picture, for places without a kernel: GitHub, a printed page."""
        picture = base64.b64encode(encode(self.frame())).decode()
        caption = html.escape(f"{self.scan.name}: {where(self.scan, self.plane, self.index)}")
        image = f'<img alt="{caption}" src="data:image/jpeg;base64,{picture}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"
