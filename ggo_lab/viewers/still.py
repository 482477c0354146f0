"""A still picture for places where no kernel answers: a notebook opened again, GitHub, a printed page."""

import base64
import html
from typing import Protocol

import anywidget
from IPython.display import display

_WIDGET = "application/vnd.jupyter.widget-view+json"
# The widget's own output says "model not found" where no kernel runs. It is shown once the viewer is in it; until then,
# and always in a notebook that was only opened, the still picture before it is.
_STYLE = """<style>
.jp-OutputArea-child:has(.ggo-still):has(+ .jp-OutputArea-child .ggo-viewer) { display: none; }
.jp-OutputArea-child:has(.ggo-still) + .jp-OutputArea-child:not(:has(.ggo-viewer)) { display: none; }
.ggo-still { margin: 0; } .ggo-still img { max-width: 100%; }
</style>"""


class Shown(Protocol):
    """What has a still picture and, where a kernel runs, a widget."""

    model_id: str

    def _still_html(self) -> str: ...


def figure(jpeg: bytes, caption: str, still_id: str = "") -> str:
    """Return a picture, where there is one, with its caption as HTML; the caption is plain text."""
    data, said = base64.b64encode(jpeg).decode(), html.escape(caption)
    image = f'<img alt="{said}" src="data:image/jpeg;base64,{data}">' if jpeg else ""
    return (
        f'<figure class="ggo-still" data-ggo-still="{html.escape(still_id)}">{image}'
        f"<figcaption>{said.rstrip('.')}. A still picture: run the cell to scroll.</figcaption></figure>"
    )


def show(viewer: Shown, part: anywidget.AnyWidget) -> None:
    """Show a viewer as two outputs: the still picture, and after it the widget, which takes its place.

    Args:
        viewer: what is shown.
        part: the anywidget that it is or holds; in Colab its metadata say where the manager of such widgets lies.
    """
    text = repr(viewer)
    bundle = part._repr_mimebundle_()
    metadata = bundle[1] if isinstance(bundle, tuple) else {}
    display({"text/plain": text, "text/html": _STYLE + viewer._still_html()}, raw=True)
    view = {"version_major": 2, "version_minor": 0, "model_id": viewer.model_id}
    display({"text/plain": text, _WIDGET: view}, metadata=metadata, raw=True)
