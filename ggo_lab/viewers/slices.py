"""A scan to scroll through in JupyterLab and Colab, with core ipywidgets only."""

import base64
import html
import operator
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import traitlets
from traitlets import Bunch

from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.page import scan_page
from ggo_lab.rendering import (
    PLANES,
    CurveStrip,
    FrameRenderer,
    Heat,
    View,
    check_heat,
    check_masks,
    encode,
    lesion_share,
    mask_colors,
    picture_shape,
)
from ggo_lab.scan import PADDING_HU, WINDOWS, Scan, Window, as_window
from ggo_lab.viewers.controls import MOST_ZOOM, Controls
from ggo_lab.viewers.pad import Gesture, Pad
from ggo_lab.viewers.panel import Panel

# The state, in the order in which it can be taken over: which slices there are depends on the plane.
LOOK = ("plane", "index", "window", "shown", "overlay", "opacity", "zoom", "centre", "probe")
_ZOOM_STEP = 1.25
_PIXELS_A_SLICE = 7  # of a drag on the picture, as on the page


class SliceViewer(Panel):
    """Scroll through a scan: slices, planes, windows, overlays, HU. Shows itself as the last expression of a cell.

    Its state are plain traits, so code can steer it: `viewer.index = 40`; `viewer.window = (-500, 900)`;
    `viewer.probe = (30, 120, 80)`. `link(a, b)` makes two viewers scroll together.

    What works where: sliders, buttons and the number box are core ipywidgets and work wherever those do, Colab and
    ipywidgets 7.7 included, and so does the state. Keys, wheel, clicks and drags on the picture, and the click on the
    curve, need a front end that runs inline handlers, as JupyterLab, Notebook 7 and Colab do (see pad.Pad). Click the
    picture or tab to it first; its keys are listed under the controls. Without a kernel a still picture is shown, and
    the page that `to_html` writes does all of it alone.

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
        zoom: from 1, the whole slice, to 12.
        centre: voxel (z, y, x) in the middle of what is zoomed; the scan's middle if None.
        probe: voxel (z, y, x) whose HU is read and which a cross marks, or None. Every plane goes to its slice.
    Raises:
        ChoiceError: masks or heat that do not fit the scan, an unknown window or plane, a slice outside the scan.
    """

    index = traitlets.Int()
    plane = traitlets.Unicode("axial")
    window = traitlets.Any("lung")
    shown = traitlets.Tuple()
    overlay = traitlets.Unicode("outline")
    opacity = traitlets.Float(0.4, min=0.0, max=1.0)
    zoom = traitlets.Float(1.0, min=1.0, max=MOST_ZOOM)
    centre = traitlets.Any(None)
    probe = traitlets.Any(None)

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
        self.observe(self._state_changed, list(LOOK))
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

    @traitlets.validate("centre", "probe")
    def _valid_voxel(self, proposal) -> tuple[float, float, float] | None:
        name, value = proposal["trait"].name, proposal["value"]
        if value is None:
            return None
        voxel = tuple(value)
        if len(voxel) != 3 or not all(0 <= at < n for at, n in zip(voxel, self.scan.shape, strict=True)):
            raise ChoiceError(f"{name}={value!r} is no voxel (z, y, x) of {self.scan.name}, {self.scan.shape}.", value)
        return voxel if name == "centre" else tuple(operator.index(at) for at in voxel)

    @traitlets.validate("shown")
    def _valid_shown(self, proposal) -> tuple[str, ...]:
        for name in proposal["value"]:
            check_choice("shown", name, [*self.masks, "heat"])
        return proposal["value"]

    def _state_changed(self, change) -> None:
        if self._following:
            return
        with self._quietly():
            if change.name == "probe" and self.probe is not None:
                self._index_in = dict(zip(PLANES, self.probe, strict=True))
                self.index = self._index_in[self.plane]
            elif change.name == "plane":
                self._index_in[change.old] = self.index
                self.index = self._index_in[self.plane]
        self._follow()
        self._render()

    @property
    def look(self) -> dict[str, object]:
        """The whole state, to give to another viewer of the same scan's shape: `other.look = viewer.look`."""
        return {trait: getattr(self, trait) for trait in LOOK}

    @look.setter
    def look(self, look: Mapping[str, object]) -> None:
        with self._quietly():
            for trait in LOOK:  # the plane first, since the index is one of its slices
                if trait in look:
                    setattr(self, trait, look[trait])
        self._follow()
        self._render()

    def _build(self, size: int) -> None:
        """Make the controls and let them ask; _follow gives them their values."""
        colors = {**mask_colors(list(self.masks)), **({"heat": "#ff7800"} if self.heat is not None else {})}
        controls = self.controls = Controls(self.scan, colors, bool(self.masks), size)
        self.pad = Pad(
            controls.image,
            f"CT picture of {self.scan.name}. Arrow keys move one slice, page keys five; A, C and S choose the plane.",
            lambda steps: self._go(self.index + steps),
            lambda steps: self._zoom_to(self.zoom * _ZOOM_STEP**steps),
            self._typed,
            self._touched,
        )
        self._drag: tuple[int, int] | None = None  # the gesture's name, and the slice where it began
        self._dragged_to = (0.0, 0.0)
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
        controls.zoom.observe(lambda change: self._following or self._zoom_to(change.new), "value")
        for slider in (controls.level, controls.width):
            slider.observe(lambda _: self._asked("window", (controls.level.value, controls.width.value)), "value")
        for check in controls.checks.values():
            check.observe(
                lambda _: self._asked("shown", tuple(name for name, box in controls.checks.items() if box.value)),
                "value",
            )
        self.children = controls.arranged(self.pad)

    def _follow(self) -> None:
        """Bring every control in line with the state."""
        controls = self.controls
        with self._quietly():
            controls.planes.value = self.plane
            for control in (controls.slider, controls.play, controls.number):
                control.max = self._last
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
        if self._strip_shows:
            frame = np.vstack([frame, self._strip.draw(self.index)])
        self.controls.image.value = encode(frame)
        lines = "<br>".join(html.escape(line) for line in self._captions() if line)
        self.controls.caption.value = f'<div role="status" style="line-height:1.4">{lines}</div>'

    @property
    def _last(self) -> int:
        return self.scan.shape[PLANES[self.plane][0]] - 1

    @property
    def _strip_shows(self) -> bool:
        return self._strip is not None and self.plane == "axial"

    # What is done on the picture

    def _go(self, index: int) -> None:
        self.index = min(max(index, 0), self._last)

    def _zoom_to(self, zoom: float) -> None:
        """Zoom around the probe, where it is in view."""
        before = self.zoom
        with self._quietly():
            if before == 1:
                self.centre = self.probe
            self.zoom = min(max(zoom, 1.0), MOST_ZOOM)
        self._follow()
        self._render()

    def _typed(self, keys: str) -> None:
        for key in keys:
            if key in "acs":
                self.plane = next(plane for plane in PLANES if plane.startswith(key))
            elif key in "1234":
                self.window = list(WINDOWS)[int(key) - 1]
            elif key == "o":
                self.shown = () if self.shown else tuple(self.controls.checks)
            elif key == "0":
                self._zoom_to(1.0)
            elif key in "[]":
                self._go(0 if key == "[" else self._last)
            else:
                self._move_probe(key)

    def _move_probe(self, key: str) -> None:
        """Put the probe in the middle of the view, take it away, or move it by a voxel on the picture."""
        if key == "p" and self.probe is not None:
            self.probe = None
            return
        view = View(self.scan, self.plane, self.zoom, self.centre)
        left, top, right, bottom = view.box
        across, down = (0.5, 0.5) if self.probe is None else view.point(self.probe)
        across += {"<": -1, ">": 1}.get(key, 0) / (right - left)
        down += {"^": -1, "v": 1}.get(key, 0) / (bottom - top)
        self.probe = view.voxel(self.index, across, down)

    def _touched(self, gesture: Gesture) -> None:
        height = picture_shape(self.scan, self.plane, self._renderer.size)[0]
        whole = height + (self._strip.height if self._strip_shows else 0)
        view = View(self.scan, self.plane, self.zoom, self.centre)
        if self._drag is None or self._drag[0] != gesture.name:
            self._drag, self._dragged_to = (gesture.name, self.index), gesture.start
        (across, down), before = gesture.end, self._dragged_to
        self._dragged_to = gesture.end
        if gesture.start[1] * whole > height:
            self.index = self._strip.index_at(across)
        elif gesture.kind == "click":
            self.probe = view.voxel(self.index, across, down * whole / height)
        elif gesture.kind == "drag" and self.zoom > 1:
            self.centre = view.shifted(self.index, across - before[0], (down - before[1]) * whole / height)
        elif gesture.kind == "drag":
            self._go(self._drag[1] - round((down - gesture.start[1]) * whole / _PIXELS_A_SLICE))

    def _captions(self) -> tuple[str, str, str]:
        """Where the slice is, what the curve says of it, and what the probe reads."""
        axis = PLANES[self.plane][0]
        start = ("above the lowest slice", "behind the front edge", "from the patient's right edge")[axis]
        distance = self.index * self.scan.spacing[axis]
        place = f"{self.plane} {self.index} of 0–{self.scan.shape[axis] - 1} · {distance:.0f} mm {start}"
        said = ""
        if self.plane == "axial" and self.curve is not None and np.isfinite(self.curve[self.index]):
            value = self.curve[self.index]
            said = f"curve: {value:.3g}" if self._own_curve else f"lesions fill {value:.0%} of the lung in this slice"
        return place, said, self._reading()

    def _reading(self) -> str:
        """The HU at the probe, its place, and the masks it lies in."""
        if self.probe is None:
            return ""
        hu = int(self.scan.hu[self.probe])
        unit = "HU" if self.scan.is_hu else "(estimated HU)"
        value = f"{hu} {unit}" if hu != PADDING_HU else "outside the scanner's field"
        at = ", ".join(
            f"{axis} {n * step:.0f}" for axis, n, step in zip("zyx", self.probe, self.scan.spacing, strict=True)
        )
        inside = [name for name, mask in self.masks.items() if mask[self.probe]]
        return f"{value} at {at} mm, voxel {self.probe}" + (f" · in {', '.join(inside)}" if inside else "")

    # How it is displayed

    def __repr__(self) -> str:
        return f"SliceViewer({self.scan.name!r}, {self._captions()[0]})"

    def _repr_html_(self) -> str:
        """A still picture, for places without a kernel: GitHub, a printed page."""
        picture = base64.b64encode(encode(self.frame())).decode()
        caption = html.escape(f"{self.scan.name}: {self._captions()[0]}")
        image = f'<img alt="{caption}" src="data:image/jpeg;base64,{picture}">'
        return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def link(one: SliceViewer, *others: SliceViewer) -> Callable[[], None]:
    """Let viewers of scans on one grid show the same slice, plane, part and probe, whichever of them is moved.

    Returns: a function that ends it.
    Raises:
        ChoiceError: viewers of scans with different shapes.
    """
    viewers = (one, *others)
    for other in others:
        if other.scan.shape != one.scan.shape:
            raise ChoiceError(
                f"{one.scan.name} has the shape {one.scan.shape} and {other.scan.name} {other.scan.shape}; viewers "
                "can be linked where the scans have one grid.",
                other.scan.shape,
            )
    names = ["plane", "index", "zoom", "centre", "probe"]

    following = False  # while one viewer is brought in line, what it reports is no wish

    def follow(change) -> None:
        nonlocal following
        if following:
            return
        following = True
        try:
            for viewer in viewers:
                if viewer is not change.owner:
                    viewer.look = {name: getattr(change.owner, name) for name in names}
        finally:
            following = False

    for viewer in viewers:
        viewer.observe(follow, names)
    follow(Bunch(owner=one))

    def unlink() -> None:
        for viewer in viewers:
            viewer.unobserve(follow, names)

    return unlink
