"""Names for screen readers, which core ipywidgets have only where a label is seen."""

import html
from typing import TypeVar

import ipywidgets as widgets

from ggo_lab.webpage import asset

Named = TypeVar("Named", bound=widgets.DOMWidget)


def named(widget: Named, name: str) -> Named:
    """Name a control that has no visible label; assets/names.js reads the name from the class."""
    widget.add_class("ggo-name-" + name.replace(" ", "-"))
    return widget


def naming() -> widgets.HTML:
    """Make the widget that names all controls of the Panel it is put in.

    An animation that shows nothing starts when the browser displays it, and its inline handler is assets/names.js, with
    no data in it. Where a front end forbids inline handlers, the controls work and have no other names than ipywidgets
    gives them.
    """
    return widgets.HTML(
        "<style>@keyframes ggo-shown { from { opacity: 1; } } "
        ".ggo-panel .widget-readout { max-width: none; flex-shrink: 0; }</style>"
        f'<i style="animation:ggo-shown 1ms" onanimationstart="{html.escape(asset("names.js"))}"></i>'
    )
