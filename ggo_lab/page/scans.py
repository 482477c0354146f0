"""A scan as one HTML file that scrolls by itself: no Python, no network, nothing that runs from data."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np

from ggo_lab.errors import ChoiceError
from ggo_lab.grades import Grade
from ggo_lab.page.packing import Reduced, deflate, pack_heat, pack_hu
from ggo_lab.rendering import (
    HEAT_COLD,
    HEAT_HOT,
    Curve,
    FrameRenderer,
    Heat,
    check_curves,
    check_heat,
    check_marks,
    check_masks,
    encode,
    mask_colors,
)
from ggo_lab.scan import WINDOWS, Scan, as_window
from ggo_lab.webpage import asset, webpage, write_webpage


def scan_html(
    scan: Scan,
    masks: Mapping[str, np.ndarray] | str | None = None,
    heat: Heat | None = None,
    probabilities: np.ndarray | None = None,
    notes: Sequence[str] = (),
    title: str | None = None,
    *,
    window: str | tuple[float, float] = "lung",
    index: int | None = None,
    curve: Curve | None = None,
    marks: Sequence[int] = (),
) -> str:
    """Make one self-contained HTML page of a scan to scroll through.

    The page forbids itself every connection and every script but its own (Content-Security-Policy), and all names and
    notes are escaped, so that no file name or table can make it do anything.

    Args:
        masks, heat, window, curve, marks: as in SliceViewer.
        probabilities: (4,), of the grades mild to critical, shown as bars.
        notes: sentences to show beside the scan.
        title: of the page; the scan's name if left out.
        index: the axial slice to begin with; the middle if left out.
    Raises:
        ChoiceError: masks, heat, curve, marks, index or probabilities that do not fit.
    """
    masks, heat, grey = check_masks(scan, masks), check_heat(scan, heat), as_window(window)
    curves = check_curves(scan, curve, masks)
    marks = check_marks(scan, marks)
    index = scan.shape[0] // 2 if index is None else index
    if index not in range(scan.shape[0]):
        raise ChoiceError(
            f"index={index} is outside {scan.name}: its axial slices are 0 to {scan.shape[0] - 1}.", index
        )
    title = scan.name if title is None else title
    small = Reduced(scan)
    colors, curve_colors = mask_colors(list(masks)), mask_colors(list(curves))
    data = {
        "shape": small.shape,
        "spacing": small.spacing,
        "isHu": scan.is_hu,
        "step": small.step,
        "hu": deflate(pack_hu(small.hu)),
        "masks": [
            {"name": name, "color": colors[name], "bits": deflate(np.packbits(small.pick(mask)))}
            for name, mask in masks.items()
        ],
        "heat": None if heat is None else pack_heat(heat, small),
        "heatEnds": [HEAT_COLD, HEAT_HOT],
        "windows": WINDOWS,
        "start": {"index": int(index), "level": grey.level, "width": grey.width},
        "curves": [
            {"name": name, "color": curve_colors[name], "values": _plain(values)} for name, values in curves.items()
        ],
        "marks": marks,
    }
    still = encode(FrameRenderer(scan, masks, heat, 512).frame("axial", index, grey, (*masks, "heat")))
    body = Template(asset("page.html")).substitute(
        title=html.escape(title),
        subtitle=html.escape(_subtitle(scan)),
        still="data:image/jpeg;base64," + base64.b64encode(still).decode(),
        still_caption=html.escape(f"{scan.name}, axial slice {index}"),
        grading=_grading(probabilities, scan),
        notes=_notes(notes),
        footnote=html.escape(small.footnote),
    )
    return webpage(title, body, "base.css page.css", "volume.js picture.js controls.js", data)


def scan_page(
    scan: Scan,
    path: str | Path,
    masks: Mapping[str, np.ndarray] | str | None = None,
    heat: Heat | None = None,
    probabilities: np.ndarray | None = None,
    notes: Sequence[str] = (),
    title: str | None = None,
    *,
    window: str | tuple[float, float] = "lung",
    index: int | None = None,
    curve: Curve | None = None,
    marks: Sequence[int] = (),
) -> Path:
    """Write the page of scan_html, which says what the arguments are, as one file; give its path.

    Raises:
        GgoLabError: the file cannot be written.
    """
    text = scan_html(
        scan, masks, heat, probabilities, notes, title, window=window, index=index, curve=curve, marks=marks
    )
    return write_webpage(path, text)


def _plain(curve: np.ndarray) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in curve]


def _subtitle(scan: Scan) -> str:
    voxels = " × ".join(str(n) for n in scan.shape)
    steps = " × ".join(f"{step:.3g}" for step in scan.spacing)
    return f"{voxels} voxels of {steps} mm{'' if scan.is_hu else ' · grey values, not HU'}"


def _grading(probabilities: np.ndarray | None, scan: Scan) -> str:
    """The network's opinion as bars, and the truth where it is known, as HTML that needs no script."""
    parts = []
    if probabilities is not None:
        shares = [float(share) for share in probabilities]
        if len(shares) != len(Grade) or not all(0 <= share <= 1 for share in shares):
            raise ChoiceError(f"probabilities={shares} are not four shares from 0 to 1, mild to critical.", shares)
        best = Grade(int(np.argmax(shares)) + 1)
        rows = "".join(
            f'<tr{" class=chosen" if grade == best else ""}><th scope="row">{grade.label}</th>'
            '<td><svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect width="{100 * shares[grade.index]:.1f}" height="12" fill="{grade.color}"/></svg></td>'
            f"<td>{shares[grade.index]:.0%}</td></tr>"
            for grade in Grade
        )
        parts.append(f"<h2>Predicted: {best.label}</h2><table>{rows}</table>")
    if scan.truth is not None:
        label = "no lesion" if scan.truth.grade is None else scan.truth.grade.label
        parts.append(f"<p>True grade: <b>{label}</b>, {scan.truth.involvement:.0%} of the lungs involved.</p>")
    if probabilities is not None:
        parts.append(
            '<p class="fine">A probability from a network is no certainty, least of all on scans unlike those it '
            "learnt from.</p>"
        )
    return f'<section class="grading" aria-label="Grade">{"".join(parts)}</section>' if parts else ""


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    return f'<section class="notes"><h2>Notes</h2><ul class="fine">{items}</ul></section>'
