"""The widgets around the picture of a SliceViewer."""

import html

import ipywidgets as widgets

from ggo_lab.rendering import PLANES
from ggo_lab.scan import WINDOWS, Scan
from ggo_lab.viewers.look import MOST_ZOOM
from ggo_lab.viewers.names import named
from ggo_lab.viewers.pad import Pad

_SIDE_WIDTH = "290px"
# ipywidgets 7.7 keeps it under a name of its own.
_PLAYING = "playing" if widgets.Play.class_traits().get("playing") else "_playing"
KEYS = {
    "wheel, ↑ ↓": "next slice",
    "Page ↑ ↓": "five slices",
    "Home, End": "first, last slice",
    "A C S": "plane",
    "1 2 3 4": "window",
    "O": "overlays on and off",
    "space": "play, pause",
    "+ − 0": "zoom (also Ctrl + wheel)",
    "click": "keep reading the HU there",
    "P, Shift + arrows": "the same from the middle; move",
    "drag": "scroll; when zoomed, move",
}


class Controls:
    """Makes the controls of a viewer; it knows neither the state nor what a control does.

    Args:
        colors: #rrggbb of each overlay, by name.
        outlined: whether some overlay can be outlined or filled.
        size: the longer side of the picture, pixels.
    """

    def __init__(self, scan: Scan, colors: dict[str, str], outlined: bool, size: int):
        wide = widgets.Layout(width="auto")
        self.image = widgets.Image(
            format="jpeg", layout=widgets.Layout(max_width="100%", object_fit="contain", margin="0")
        )
        self.planes = named(widgets.ToggleButtons(options=list(PLANES), style={"button_width": "80px"}), "plane")
        self.slider = named(
            widgets.IntSlider(readout=False, layout=widgets.Layout(width="auto", margin="2px 0")), "slice"
        )
        self.play = widgets.Play(interval=80, layout=widgets.Layout(flex="0 0 auto"))
        self.number = widgets.BoundedIntText(
            description="slice", layout=widgets.Layout(width="108px"), style={"description_width": "34px"}
        )
        self.caption = widgets.HTML()
        self.caption.add_class("ggo-status")
        # Apart from the caption, which screen readers speak: what lies under the mouse is for those who see it.
        self.pointed = widgets.HTML(layout=widgets.Layout(min_height="28px"))
        self.presets = named(
            widgets.ToggleButtons(
                options=list(WINDOWS), value=None, style={"button_width": "auto"}, layout=widgets.Layout(width="auto")
            ),
            "window",
        )
        self.level = widgets.IntSlider(min=-1200, max=1200, step=10, description="level HU", layout=wide)
        self.width = widgets.IntSlider(min=10, max=3000, step=10, description="width HU", layout=wide)
        self.zoom = widgets.FloatSlider(
            min=1, max=MOST_ZOOM, step=0.25, description="zoom", layout=wide, readout_format=".2g"
        )
        self.overlay = named(
            widgets.ToggleButtons(options=["outline", "fill"], style={"button_width": "80px"}), "overlays drawn as"
        )
        self.opacity = widgets.FloatSlider(min=0, max=1, step=0.05, description="opacity", layout=wide)
        self.checks = {name: widgets.Checkbox(description=name, indent=False) for name in colors}
        self._title = widgets.HTML(_title(scan))
        self._colors, self._outlined, self._size = colors, outlined, size

    def play_or_pause(self) -> None:
        """Start to run through the slices, or stop."""
        setattr(self.play, _PLAYING, not getattr(self.play, _PLAYING))

    def say(self, place: str, curves: dict[str, str], probe: str) -> None:
        """Write the caption: the slice, what each curve (by its colour) says of it, and what the probe reads."""
        said = " · ".join(
            f'<span aria-hidden="true" style="color:{color}">▬</span> {html.escape(text)}'
            for color, text in curves.items()
            if text
        )
        lines = "<br>".join(line for line in (html.escape(place), said, html.escape(probe)) if line)
        self.caption.value = _paragraph(lines)

    def say_pointed(self, read: str) -> None:
        """Write what the pointer reads; nothing where it is elsewhere."""
        self.pointed.value = _paragraph(f"under the pointer: {html.escape(read)}") if read else ""

    def arranged(self, pad: Pad) -> tuple[widgets.Widget, ...]:
        """The children of the viewer: a title, then the picture with what moves it beside the rest."""
        moving = widgets.HBox([self.play, self.number], layout=widgets.Layout(align_items="center", grid_gap="8px"))
        picture = widgets.VBox(
            [self.planes, pad.box, self.slider, moving, self.caption, self.pointed],
            layout=widgets.Layout(width=f"{self._size + 4}px", max_width="100%"),
        )
        looks = [_heading("window"), self.presets, self.level, self.width, self.zoom]
        overlays = []
        if self.checks:
            in_line = widgets.Layout(height="30px", align_items="center")
            overlays += [_heading("overlays")]
            overlays += [
                widgets.HBox([widgets.HTML(_swatch(color)), self.checks[name]], layout=in_line)
                for name, color in self._colors.items()
            ]
            overlays += [self.overlay] if self._outlined else []
            overlays += [self.opacity]
        across = widgets.HBox(
            [picture, columns(looks, [*overlays, widgets.HTML(_keys())])],
            layout=widgets.Layout(flex_flow="row wrap", grid_gap="8px 18px"),
        )
        return self._title, across


def columns(*groups: list[widgets.Widget]) -> widgets.HBox:
    """Groups of controls one under another beside a picture, and side by side where they have a row for themselves."""
    return widgets.HBox(
        [widgets.VBox(group, layout=widgets.Layout(width=_SIDE_WIDTH)) for group in groups],
        layout=widgets.Layout(
            flex=f"1 1 {_SIDE_WIDTH}", flex_flow="row wrap", grid_gap="0 18px", align_content="flex-start"
        ),
    )


def _paragraph(lines: str) -> str:
    return f'<div style="line-height:1.4">{lines}</div>'


def _heading(text: str) -> widgets.HTML:
    return widgets.HTML(f"<b>{text}</b>")


def _swatch(color: str) -> str:
    place = "display:inline-block;width:14px;height:14px;margin:0 4px;vertical-align:middle"
    return f'<span style="{place};background:{color}"></span>'


def _keys() -> str:
    rows = "".join(f'<dt>{key}</dt><dd style="margin:0;opacity:.75">{does}</dd>' for key, does in KEYS.items())
    grid = "display:grid;grid-template-columns:auto 1fr;gap:0 12px;margin:4px 0;line-height:1.5"
    summary = '<summary style="cursor:pointer">Keys and gestures on the picture</summary>'
    return f'<details style="margin-top:6px">{summary}<dl style="{grid}">{rows}</dl></details>'


def _title(scan: Scan) -> str:
    voxels = " × ".join(str(n) for n in scan.shape)
    steps = " × ".join(f"{step:.3g}" for step in scan.spacing)
    grey = "" if scan.is_hu else " · grey values, not HU"
    return f"<b>{html.escape(scan.name)}</b> · {voxels} voxels of {steps} mm{grey}"
