"""A scan to scroll through in a notebook: an anywidget around the viewer that pages use as well."""

from collections.abc import Mapping
from pathlib import Path
from threading import RLock
from uuid import uuid4

import anywidget
import numpy as np
import traitlets

from ggo_lab.page import scan_page
from ggo_lab.rendering import (
    Curve,
    FrameRenderer,
    Heat,
    check_curves,
    check_heat,
    check_marks,
    check_masks,
    encode,
    lesion_places,
    opening_slice,
    packed_slice,
    scan_header,
    sought,
)
from ggo_lab.scan import Scan, as_window
from ggo_lab.viewers.look import Look
from ggo_lab.viewers.still import figure, show
from ggo_lab.webpage import VIEWER_SCRIPTS, assets

_STILL_SIZE = 512  # pixels of the still picture's longer side, where the viewer takes what room there is


class SliceViewer(Look, anywidget.AnyWidget):
    """Scroll through a scan: slices, planes, windows, overlays, HU. Shows itself as the last expression of a cell.

    The browser draws from HU that it is sent once, slice by slice, when they are needed. The state are plain traits,
    changed by hand or by code: `viewer.index = 40`; `viewer.window = (-500, 900)`; `viewer.observe(note, "probe")`.
    `link(a, b)` makes two viewers scroll together. Without a kernel a still picture is shown, and the page that
    `to_html` writes does all of it alone. The key `?` lists keys and gestures.

    Args:
        scan: what to show. It is not copied.
        masks: bool (Z, Y, X) by name, drawn in one colour each; "truth" for the lungs and lesions of scan.truth. With
            masks the viewer opens where the lesions, or the first mask that is not the lungs, are largest.
        heat: 0..1, float (Z, Y, X), or a dict from axial slices to maps (Y, X), as Cut.lay gives them.
        window: a name of WINDOWS, or (level, width) in HU.
        curve: float (Z,), a value per axial slice to draw under the picture, nan where there is none, or several such
            by name: `curve={"GGO fraction": ggo_fraction(scan, lungs).per_slice}`. Left out, the lesions' share of the
            lungs is drawn, where both are among the masks, else the area of the mask.
        marks: axial slices to mark on the curve, such as those that a network sees.
        size: most pixels of the picture's height; 720, or what the window allows, if None.

    Attributes:
        index: of the slice, counted along the plane's axis of scan.hu.
        plane: "axial", "coronal" or "sagittal".
        cross: voxel (z, y, x): the slice of each plane, where the three meet.
        three_planes: whether all three planes are shown.
        window: as in the arguments.
        shown: names of the masks that are drawn, and "heat".
        overlay: "outline" or "fill".
        opacity: of fills and heat, 0..1.
        zoom: from 1, the whole slice, to 12.
        centre: voxel (z, y, x) in the middle of what is zoomed; the scan's middle if None.
        probe: voxel (z, y, x) whose HU is read and which a cross marks, or None. Every plane goes to its slice.
        pointer: voxel (z, y, x) under the mouse, whose HU is read too, or None.
        slab: thickness in mm of what is shown at once, rounded to an odd number of slices; 0 for one slice.
        projection: what a slab shows of its slices: "mean", "MIP" (the highest HU) or "MinIP" (the lowest).
        ruler: None, or a dict with plane, from, to (voxels), mm.
        circle: None, or a dict with plane, centre, radius_mm; the browser adds voxels, mean_hu, sd_hu, area_mm2 and
            volume_ml.
        question: what the learner is asked, above the picture; set by `ask`.
        asking: what counts as the answer: "point", "circle", or "" where nothing is asked.
        answer: the last one: a dict with voxel and hu, or a circle.
        feedback: text under the question.

    Raises:
        ChoiceError: masks or heat that do not fit the scan, an unknown window or plane, a slice outside the scan.
    """

    _esm = traitlets.Unicode(assets("viewer/stub.js")).tag(sync=True)
    _code = traitlets.Unicode(assets(f"{VIEWER_SCRIPTS} viewer/notebook.js")).tag(sync=True)
    _css = traitlets.Unicode(assets("viewer/viewer.css")).tag(sync=True)
    _scan = traitlets.Dict().tag(sync=True)
    _size = traitlets.Int(None, allow_none=True).tag(sync=True)
    _still = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        scan: Scan,
        masks: Mapping[str, np.ndarray] | str | None = None,
        heat: Heat | None = None,
        window: str | tuple[float, float] = "lung",
        *,
        curve: Curve | None = None,
        marks: tuple[int, ...] = (),
        size: int | None = None,
    ):
        """Check what is shown, and pack the first slice."""
        # JupyterLab asks for slices in another thread than the one that runs cells, which may show another scan.
        self._one_at_a_time = RLock()
        state = self._hold(scan, masks, heat, curve, marks)
        super().__init__(_size=size, _still=uuid4().hex, window=window, **state)
        self.on_msg(self._asked)

    def show(
        self,
        scan: Scan,
        masks: Mapping[str, np.ndarray] | str | None = None,
        heat: Heat | None = None,
        *,
        curve: Curve | None = None,
        marks: tuple[int, ...] = (),
        stay: bool = False,
    ) -> None:
        """Show another scan in the same place, in the same window.

        Args:
            scan: what to show.
            masks: as for a new viewer.
            heat: as for a new viewer.
            curve: as for a new viewer.
            marks: as for a new viewer.
            stay: keep plane, slice, probe and what is zoomed; the new scan has to have the shape of the old one.
        """
        before, known = set(self.shown), {*self.masks, "heat"}
        with self._one_at_a_time:
            state = self._hold(scan, masks, heat, curve, marks, self.cross[0] if stay else None)
        # What was hidden stays hidden, and heat comes when it is asked for.
        overlays = (*self.masks, *(["heat"] if self.heat is not None else []))
        shown = tuple(name for name in overlays if name in before or name not in known)
        if stay:
            state = {"_scan": state["_scan"]}
        else:
            state |= {"plane": "axial", "zoom": 1.0, "centre": None, "probe": None}
        state |= {"shown": shown, "pointer": None, "ruler": None, "circle": None, "answer": None}
        with self.hold_trait_notifications():
            for name, value in state.items():
                setattr(self, name, value)

    def _hold(
        self,
        scan: Scan,
        masks: Mapping[str, np.ndarray] | str | None,
        heat: Heat | None,
        curve: Curve | None,
        marks: tuple[int, ...],
        first: int | None = None,
    ) -> dict[str, object]:
        """Keep what is shown, and return the state to begin with, at axial slice `first`."""
        masks, heat = check_masks(scan, masks), check_heat(scan, heat)
        marks, curves = check_marks(scan, marks), check_curves(scan, curve, masks)
        self.scan, self.masks, self.heat, self.marks, self.curves = scan, masks, heat, marks, curves
        self._curve = curve
        self._serial: int = getattr(self, "_serial", 0) + 1
        _, rows, columns = scan.shape
        first = opening_slice(scan, masks, marks) if first is None else first
        header = scan_header(scan, masks, heat, curves, marks)
        header |= {"serial": self._serial, "first": {"index": first, "packed": packed_slice(scan, masks, heat, first)}}
        shown = (*masks, *(["heat"] if heat is not None else []))
        return {"_scan": header, "cross": (first, rows // 2, columns // 2), "index": first, "shown": shown}

    def _asked(self, _widget: object, content: dict, _buffers: list) -> None:
        """Answer the browser, which asks for slices, or where the lesions are."""
        with self._one_at_a_time:
            if content.get("serial") != self._serial:
                return  # of a scan that is no longer shown
            if content["kind"] == "slices":
                packed = [packed_slice(self.scan, self.masks, self.heat, z) for z in content["indices"]]
                self.send(content, packed)
            elif content["kind"] == "lesions":
                name = sought(self.masks)
                places = [] if name is None else lesion_places(self.scan, self.masks[name])
                self.send({**content, "places": places})

    # What others may ask of it

    def ask(self, question: str, kind: str = "point") -> None:
        """Ask the learner to click a voxel or draw a circle; the answer arrives as `answer`.

        Args:
            question: what to do, one sentence.
            kind: "point" or "circle".
        """
        self.answer, self.feedback = None, ""
        self.asking, self.question = kind, question

    def frame(self) -> np.ndarray:
        """Return the plane now shown as a picture, uint8 (H, W, 3), drawn by Python."""
        renderer = FrameRenderer(self.scan, self.masks, self.heat, self._size or _STILL_SIZE)
        return renderer.frame(
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
        """Return the picture of `frame` as an exact PNG file."""
        return encode(self.frame(), "PNG")

    def jpeg(self) -> bytes:
        """Return the picture of `frame` as a small file."""
        return encode(self.frame())

    def to_html(self, path: str | Path) -> Path:
        """Write one HTML file that scrolls without Python or network; see page.scan_page."""
        return scan_page(
            self.scan,
            path,
            masks=self.masks,
            heat=self.heat,
            window=self.window,
            index=self.cross[0],
            curve=self._curve,
            marks=self.marks,
            shown=self.shown,
        )

    def close(self) -> None:
        """Free the memory of the viewer, in the kernel and in the browser."""
        layout = self.layout
        if self.comm is not None:
            # Notebooks keep the state of what was closed: without the code, and the slice that came along, it is small.
            self._code, self._scan = "", {}
        super().close()
        if layout is not None:
            layout.close()

    # How it is displayed

    def __repr__(self) -> str:
        where = f"{self.plane} {self.index} of 0–{self.last_index}"
        return f"SliceViewer({self.scan.name!r}, {where})"

    def _still_html(self) -> str:
        caption = f"{self.scan.name}: {self.plane} {self.index} of 0–{self.last_index}"
        return figure(self.jpeg(), caption, self._still)

    def _ipython_display_(self) -> None:
        show(self, self)
