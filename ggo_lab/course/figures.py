"""Figures of a lesson: numbered, with a caption, with words for those who do not see them, and fit for a dark page."""

import base64
import io
from collections.abc import Iterator
from html import escape
from math import ceil, floor

import matplotlib.pyplot as plt
import numpy as np
from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

_UNTOLD = "Figure; the text below it says what to look at."
_DARK, _LIGHT = 0x11 / 255, 0.93  # on dark pages: JupyterLab's dark paper, and ink that does not glare
# A figure is drawn once, dark on white, and so it is saved, copied and printed. On dark pages a sheet lies over all of
# it but scans and maps. Where a page takes styles away, as from a stranger's notebook, the sheet stays hidden.
_SHEET = ".ggo-sheet { display: block !important; }"
_STYLE = f"""<style>
.ggo-figure {{ position: relative; width: fit-content; max-width: 100%; }}
.ggo-figure img {{ display: block; max-width: 100%; }}
.ggo-figure .ggo-sheet {{ display: none; position: absolute; inset: 0; width: 100%; height: 100%; }}
.ggo-sheet {{ pointer-events: none; }}
@media screen {{ :is(body[data-jp-theme-light="false"], body.vscode-dark, html[theme="dark"]) {_SHEET} }}
@media screen and (prefers-color-scheme: dark) {{ body:not([data-jp-theme-light], .vscode-light) {_SHEET} }}
</style>"""


def caption(number: int, text: str, alt: str) -> None:
    """Show the current figure with a number and a caption below it, and close it.

    The figure is one piece of HTML, because notebooks, browsers and screen readers agree on an image's alternative
    text only there.

    Args:
        number: of the figure in its notebook, from 1.
        text: the caption: what is drawn.
        alt: what one would see, for those who do not see it.

    >>> caption(1, "A healthy lung.", alt="An axial slice with two dark lungs.")  # doctest: +SKIP
    """
    figure = plt.gcf()
    picture = figure_html(figure, alt)
    plt.close(figure)
    html = f'<div role="figure">{picture}<p><b>Figure {number}.</b> {escape(text)}</p></div>'
    display({"text/plain": f"Figure {number}. {text} ({alt})", "text/html": html}, raw=True)


def figure_html(figure: Figure, alt: str = _UNTOLD) -> str:
    """Return a figure as HTML that suits light and dark pages.

    Args:
        figure: drawn as on white paper.
        alt: what one would see, for those who do not see it.
    """
    figure.canvas.draw()  # its layout is known from here on
    box = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches=box)
    light = np.asarray(Image.open(file, formats=("PNG",)).convert("RGB"))
    sheet = dark_sheet(light)
    for top, bottom, left, right in _pictures(figure, box, light.shape):
        # Pixels at a picture's edge may be of it or of the paper: neither leaves a bright seam.
        around = slice(max(0, top - 1), bottom + 1), slice(max(0, left - 1), right + 1), slice(3)
        sheet[around] = np.minimum(sheet[around], light[around])
        sheet[top:bottom, left:right] = 0
    over = io.BytesIO()
    Image.fromarray(sheet).save(over, format="png")
    return (
        f'{_STYLE}<div class="ggo-figure"><img alt="{escape(alt)}" src="{_inline(file)}">'
        f'<img class="ggo-sheet" hidden alt="" src="{_inline(over)}"></div>'
    )


def dark_sheet(light: np.ndarray) -> np.ndarray:
    """Return a chart on white paper as one on dark paper: greys are turned, strong colours stay.

    Args:
        light: uint8 (H, W, 3).

    Returns:
        uint8 (H, W, 4), opaque.

    >>> dark_sheet(np.uint8([[[255, 255, 255], [0, 0, 0], [230, 159, 0]]]))[0, :, :3].tolist()
    [[17, 17, 17], [237, 237, 237], [218, 156, 19]]
    """
    share = light / 255
    most, least = share.max(axis=-1, keepdims=True), share.min(axis=-1, keepdims=True)
    # Greys change places: L becomes 1 - L in HSL. The stronger a colour, the less: a grade is known by its colour.
    turned = share + (1 - most - least) * (1 - (most - least))
    colors = np.round(255 * (_DARK + (_LIGHT - _DARK) * turned)).astype(np.uint8)
    return np.dstack([colors, np.full(light.shape[:2], 255, np.uint8)])


def show_figures_so(shell: InteractiveShell) -> None:
    """Let figures without a caption, such as those that a slider draws again, suit dark pages, too."""
    import matplotlib_inline.backend_inline  # noqa: F401  which sets up its own way when it is first imported

    if shell.display_formatter is not None:
        formatters = shell.display_formatter.formatters
        formatters["image/png"].pop(Figure, None)
        formatters["text/html"].for_type(Figure, figure_html)


def _pictures(figure: Figure, box: Bbox, shape: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """Yield top, bottom, left and right of what of scans and maps fills whole pixels; box: what is saved, inches."""
    for axes in figure.axes:
        meshes = [part for part in axes.collections if isinstance(part, QuadMesh)]  # of a bar of colours, for one
        for image in (*axes.images, *meshes):
            values = image.get_array()
            if values is None or (values.ndim < 3 and np.mean(image.get_cmap()(0.0)[:3]) > 0.5):
                continue  # shades on white paper, such as those of a table, are part of the chart
            visible = Bbox.intersection(image.get_window_extent(), axes.bbox)
            if visible is not None:
                at = visible.transformed(figure.dpi_scale_trans.inverted())
                top, bottom = (shape[0] * (box.y1 - y) / box.height for y in (at.y1, at.y0))
                left, right = (shape[1] * (x - box.x0) / box.width for x in (at.x0, at.x1))
                yield max(0, ceil(top)), floor(bottom), max(0, ceil(left)), floor(right)


def _inline(file: io.BytesIO) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
