"""What a viewer and a slider leave on a page that no kernel stands behind; runs in the kernel of a notebook."""

import base64
import html
from collections.abc import Collection
from pathlib import Path

import ipywidgets as widgets
from IPython import get_ipython
from IPython.display import FileLink, display
from IPython.utils.capture import RichOutput, capture_output

from ggo_lab.viewers import PredictionViewer, SliceViewer


def show_on_pages(folder: str | Path, prefix: str) -> None:
    """From now on show viewers as pages that scroll by themselves, and sliders as what they show at first.

    Args:
        folder: where the viewers' pages are written.
        prefix: of their names; a number and .html follow.
    """
    folder = Path(folder)
    written: list[Path] = []

    def show(viewer: SliceViewer | PredictionViewer) -> None:
        written.append(viewer.to_html(folder / f"{prefix}-{len(written) + 1}.html"))
        source = html.escape(f"{folder.name}/{written[-1].name}")
        # A page of its own origin, whatever it is asked to do.
        frame = f'<iframe src="{source}" title="{html.escape(repr(viewer))}" sandbox="allow-scripts" loading="lazy">'
        display({"text/plain": repr(viewer), "text/html": f"{frame}</iframe>"}, raw=True)

    formatter = get_ipython().display_formatter
    for kind in (SliceViewer, PredictionViewer):
        formatter.ipython_display_formatter.for_type(kind, show)
    formatter.mimebundle_formatter.for_type(widgets.interactive, _at_first)
    formatter.mimebundle_formatter.for_type(FileLink, _without_link)


def _at_first(
    slider: widgets.interactive, include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> dict[str, str]:
    from matplotlib_inline.backend_inline import show as show_figures

    with capture_output() as captured:
        slider.f(**slider.kwargs)
        show_figures(True)
    values = ", ".join(f"{name} = {value}" for name, value in slider.kwargs.items())
    said = f"Shown for {values}. In JupyterLab you can move {'them' if len(slider.kwargs) > 1 else 'it'}."
    parts = [f'<p class="fine">{html.escape(said)}</p>', *map(_as_html, captured.outputs)]
    if captured.stdout:
        parts.insert(1, f"<pre>{html.escape(captured.stdout)}</pre>")
    return {"text/plain": said, "text/html": "".join(parts)}


def _without_link(
    link: FileLink, include: Collection[str] | None = None, exclude: Collection[str] | None = None
) -> dict[str, str]:
    """Name a file that a lesson wrote: it lies with the notebook, not with the page."""
    return {"text/plain": link.path}


def _as_html(output: RichOutput) -> str:
    data = output.data
    if "image/png" in data:
        png = data["image/png"]
        text = png if isinstance(png, str) else base64.b64encode(png).decode()
        return f'<img alt="Figure; the text below it says what to look at." src="data:image/png;base64,{text}">'
    return data.get("text/html") or f"<pre>{html.escape(data.get('text/plain', ''))}</pre>"
