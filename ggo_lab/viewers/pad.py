"""Keys, wheel and pointer over a picture, which core ipywidgets do not have."""

import html
import json
from typing import Any, NamedTuple, Protocol

import ipywidgets as widgets
from traitlets import Bunch

from ggo_lab.webpage import asset

_STYLE = """<style>
.ggo-stage { position: relative; overflow: hidden; }
.ggo-stage > .ggo-over, .ggo-over > div, .ggo-pad { position: absolute; inset: 0; width: auto; height: auto; }
.ggo-pad { cursor: crosshair; touch-action: none; }
.ggo-pad:focus-visible { outline: 3px solid #2e8fd6; outline-offset: -3px; }
</style>"""
_NOTHING = {"turn": 0, "steps": 0, "zooms": 0, "keys": "", "gesture": None, "hover": None}


class Gesture(NamedTuple):
    """A click or drag, in shares 0..1 of the picture's width and height."""

    name: int  # the same for all that is told between pressing and letting go
    kind: str  # "down", "drag" or "click"
    start: tuple[float, float]
    end: tuple[float, float]


class Hands(Protocol):
    """What a Pad calls."""

    def step(self, slices: int) -> None: ...  # to go up
    def zoom(self, steps: int) -> None: ...  # to go in
    def press(self, keys: str) -> None: ...  # the characters typed; pad.js has the list
    def touch(self, gesture: Gesture) -> None: ...
    def hover(self, place: tuple[float, float] | None) -> None: ...  # shares of width and height; None: it left


class Pad:
    """A picture that takes keys, the wheel and the pointer.

    An HTML widget lies over the picture, and its inline handlers (assets/pad.js, no data in them) write into a hidden
    text widget. ipywidgets sends the next value of a text only when the kernel has dealt with the last one, so a slow
    kernel skips what is outdated. Where a front end forbids inline handlers, the picture shows and does nothing more.

    Args:
        image: the picture.
        label: what screen readers say of it.
        hands: called with what is done.
    Attributes:
        box: the widget to show.
    """

    def __init__(self, image: widgets.Image, label: str, hands: Hands):
        self._hands = hands
        self.wire = widgets.Text(layout=widgets.Layout(display="none"))
        self.wire.add_class("ggo-wire")
        self.wire.observe(self._told, "value")
        begin = "this.onpointerenter()"
        # An "application" gets the keys; with any other role screen readers would keep the arrows for themselves.
        pad = widgets.HTML(
            f'{_STYLE}<div class="ggo-pad" tabindex="0" role="application" aria-label="{html.escape(label)}" '
            f'onpointerenter="{html.escape(asset("pad.js"))}" onfocus="{begin}" onwheel="{begin}" '
            f'onpointerdown="{begin}"></div>',
        )
        pad.add_class("ggo-over")
        self.box = widgets.Box([image, pad, self.wire], layout=widgets.Layout(margin="2px"))
        self.box.add_class("ggo-stage")

    def _told(self, change: Bunch) -> None:
        new: dict[str, Any] = json.loads(change.new)
        old: dict[str, Any] = json.loads(change.old) if change.old else _NOTHING
        if new["steps"] != old["steps"]:
            self._hands.step(new["steps"] - old["steps"])
        if new["zooms"] != old["zooms"]:
            self._hands.zoom(new["zooms"] - old["zooms"])
        if new["keys"] != old["keys"]:
            self._hands.press(new["keys"][len(old["keys"]) :])
        if new["gesture"] != old["gesture"]:
            told = new["gesture"]
            self._hands.touch(Gesture(told["name"], told["kind"], tuple(told["from"]), tuple(told["to"])))
        if new["hover"] != old["hover"]:
            self._hands.hover(new["hover"] and tuple(new["hover"]))
