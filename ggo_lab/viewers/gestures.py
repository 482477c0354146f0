"""What keys, wheel and pointer on the picture do to a SliceViewer, all of it through its plain traits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggo_lab.rendering import PLANES, View, picture_shape
from ggo_lab.scan import WINDOWS
from ggo_lab.viewers.look import MOST_ZOOM
from ggo_lab.viewers.pad import Gesture

if TYPE_CHECKING:
    from ggo_lab.viewers.slices import SliceViewer

_ZOOM_STEP = 1.25
_PIXELS_A_SLICE = 7  # of a drag on the picture, as on the page


class Gestures:
    """The hands on a viewer: a Pad calls its methods.

    Args:
        viewer: whose traits are set.
        size: the longer side of its picture, pixels.
    """

    def __init__(self, viewer: SliceViewer, size: int):
        self._viewer, self._size = viewer, size
        self._drag: tuple[int, int] | None = None  # the gesture's name, and the slice where it began
        self._dragged_to = (0.0, 0.0)

    def step(self, slices: int) -> None:
        """Go so many slices up, or down to the first or last one."""
        self._viewer.index = min(max(self._viewer.index + slices, 0), self._viewer.last_index)

    def zoom(self, steps: int) -> None:
        """Zoom in by so many steps, or out."""
        self.zoom_to(self._viewer.zoom * _ZOOM_STEP**steps)

    def zoom_to(self, zoom: float) -> None:
        """Zoom around the probe, where it is in view."""
        around = {"centre": self._viewer.probe} if self._viewer.zoom == 1 else {}
        self._viewer.look = {"zoom": min(max(zoom, 1.0), MOST_ZOOM), **around}

    def press(self, keys: str) -> None:
        """Do what characters stand for, one after another; controls.KEYS lists them."""
        viewer = self._viewer
        for key in keys:
            if key in "acs":
                viewer.plane = next(plane for plane in PLANES if plane.startswith(key))
            elif key in "1234":
                viewer.window = list(WINDOWS)[int(key) - 1]
            elif key == "o":
                viewer.shown = () if viewer.shown else tuple(viewer.controls.checks)
            elif key == " ":
                viewer.controls.play_or_pause()
            elif key == "0":
                self.zoom_to(1.0)
            elif key in "[]":
                viewer.index = 0 if key == "[" else viewer.last_index
            else:
                self._move_probe(key)

    def touch(self, gesture: Gesture) -> None:
        """Click: read the HU there. Drag: scroll, or move what is zoomed. Both on the curve: jump."""
        viewer, view = self._viewer, self._view()
        height, whole = self._heights()
        strip = viewer.strip_shown
        if self._drag is None or self._drag[0] != gesture.name:
            self._drag, self._dragged_to = (gesture.name, viewer.index), gesture.start
        (across, down), before = gesture.end, self._dragged_to
        self._dragged_to = gesture.end
        if strip is not None and gesture.start[1] * whole > height:
            viewer.index = strip.index_at(across)
        elif gesture.kind == "click":
            viewer.probe = view.voxel(viewer.index, across, down * whole / height)
        elif gesture.kind == "drag" and viewer.zoom > 1:
            viewer.centre = view.shifted(viewer.index, across - before[0], (down - before[1]) * whole / height)
        elif gesture.kind == "drag":
            slices = round((down - gesture.start[1]) * whole / _PIXELS_A_SLICE)
            viewer.index = min(max(self._drag[1] - slices, 0), viewer.last_index)

    def hover(self, place: tuple[float, float] | None) -> None:
        """Read the HU under the pointer, given in shares 0..1 of the picture's width and height; None: it has left."""
        height, whole = self._heights()
        voxel = None
        if place is not None and place[1] * whole < height:
            voxel = self._view().voxel(self._viewer.index, place[0], place[1] * whole / height)
        self._viewer.pointer = voxel

    def _view(self) -> View:
        return View(self._viewer.scan, self._viewer.plane, self._viewer.zoom, self._viewer.centre)

    def _heights(self) -> tuple[int, int]:
        """Rows of the frame, and of the frame with the curve under it."""
        height = picture_shape(self._viewer.scan, self._viewer.plane, self._size)[0]
        strip = self._viewer.strip_shown
        return height, height + (strip.height if strip else 0)

    def _move_probe(self, key: str) -> None:
        """Put the probe in the middle of the view, take it away, or move it by a voxel on the picture."""
        viewer, view = self._viewer, self._view()
        if key == "p" and viewer.probe is not None:
            viewer.probe = None
            return
        left, top, right, bottom = view.box
        across, down = (0.5, 0.5) if viewer.probe is None else view.point(viewer.probe)
        across += {"<": -1, ">": 1}.get(key, 0) / (right - left)
        down += {"^": -1, "v": 1}.get(key, 0) / (bottom - top)
        viewer.probe = view.voxel(viewer.index, across, down)
