"""A scan as one HTML file that scrolls by itself: no Python, no network, nothing that runs from data."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.page.reduced import Reduced
from ggo_lab.rendering import (
    Curve,
    FrameRenderer,
    Heat,
    about,
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
from ggo_lab.scan import Scan, Window, as_window
from ggo_lab.tasks import GGO_SEVERITY, Task
from ggo_lab.webpage import VIEWER_SCRIPTS, render, webpage, write_webpage


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
    shown: Sequence[str] | None = None,
    task: Task = GGO_SEVERITY,
) -> str:
    """Make one self-contained HTML page of a scan to scroll through.

    The page forbids itself every connection and every script but its own (Content-Security-Policy), and all names and
    notes are text on it, so that no file name or table can make it do anything.

    Args:
        scan: to be shown.
        masks: as in SliceViewer.
        heat: as in SliceViewer.
        probabilities: (K,), of the task's classes, shown as bars.
        notes: sentences to show beside the scan.
        title: of the page; the scan's name if left out.
        window: as in SliceViewer.
        index: the axial slice to begin with; as in SliceViewer if left out.
        curve: as in SliceViewer.
        marks: as in SliceViewer.
        shown: names of the overlays to begin with, all of them if left out.
        task: what is graded.

    Returns:
        The page.

    Raises:
        ChoiceError: masks, heat, curve, marks, index or probabilities that do not fit.
    """
    masks, heat, grey = check_masks(scan, masks), check_heat(scan, heat), as_window(window)
    marks = check_marks(scan, marks)
    index = opening_slice(scan, masks, marks) if index is None else index
    if index not in range(scan.shape[0]):
        raise ChoiceError(
            f"index={index} is outside {scan.name}: its axial slices are 0 to {scan.shape[0] - 1}.", index
        )
    index = int(index)
    names = (*masks, *(["heat"] if heat is not None else []))
    shown = names if shown is None else tuple(shown)
    for name in shown:
        check_choice("shown", name, names)
    small = Reduced(scan, masks, heat)
    data = viewer_data(scan, small, grey if not isinstance(window, str) else window, index, curve, marks, shown)
    still = encode(FrameRenderer(scan, masks, heat, 512).frame("axial", index, grey, shown))
    body = render(
        "page.html",
        title=scan.name if title is None else title,
        about=about(scan),
        still="data:image/jpeg;base64," + base64.b64encode(still).decode(),
        still_caption=f"{scan.name}, axial slice {index}",
        grading=_grading(probabilities, scan, task),
        notes=notes,
        footnote=small.footnote,
    )
    title = scan.name if title is None else title
    return webpage(title, body, "base.css page.css viewer/viewer.css", f"{VIEWER_SCRIPTS} viewer/page.js", data)


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
    shown: Sequence[str] | None = None,
    task: Task = GGO_SEVERITY,
) -> Path:
    """Write the page of scan_html, which says what the arguments are, as one file.

    Returns:
        Its path.

    Raises:
        GgoLabError: the file cannot be written.
    """
    text = scan_html(
        scan,
        masks,
        heat,
        probabilities,
        notes,
        title,
        window=window,
        index=index,
        curve=curve,
        marks=marks,
        shown=shown,
        task=task,
    )
    return write_webpage(path, text, scan.source)


def viewer_data(
    scan: Scan,
    small: Reduced,
    window: str | Window,
    index: int,
    curve: Curve | None,
    marks: Sequence[int],
    shown: Sequence[str],
) -> dict[str, object]:
    """Return what assets/viewer/page.js shows: the state to begin with, and every slice, packed."""
    curves = check_curves(small.scan, curve, small.masks)
    packed = [
        base64.b64encode(packed_slice(small.scan, small.masks, small.heat, z, small=True)).decode()
        for z in range(scan.shape[0])
    ]
    header = scan_header(small.scan, small.masks, small.heat, curves, marks, small.step)
    header |= {"serial": 1, "first": {"index": int(index)}, "about": about(scan)}
    name = sought(small.masks)
    state = {
        "_scan": header,
        "_size": None,
        "plane": "axial",
        "index": int(index),
        "cross": [int(index), small.scan.shape[1] // 2, small.scan.shape[2] // 2],
        "window": window,
        "shown": list(shown),
        "overlay": "outline",
        "opacity": 0.4,
        "zoom": 1,
        "three_planes": False,
        "slab": 0,
        "projection": "mean",
        **dict.fromkeys(("centre", "probe", "pointer", "ruler", "circle", "answer")),
        **dict.fromkeys(("question", "asking", "feedback"), ""),
    }
    return {
        "state": state,
        "slices": packed,
        "lesions": [] if name is None else lesion_places(small.scan, small.masks[name]),
    }


def _grading(probabilities: np.ndarray | None, scan: Scan, task: Task) -> dict[str, object]:
    """Return the network's opinion and the truth, as far as they are known, for the page's template."""
    grading: dict[str, object] = {"bars": [], "noun": task.noun, "true": None, "involvement": None}
    if probabilities is not None:
        shares = [float(share) for share in probabilities]
        if len(shares) != len(task) or not all(0 <= share <= 1 for share in shares):
            raise ChoiceError(
                f"probabilities={shares} are not {len(task)} shares from 0 to 1, one each of {', '.join(task.names)}.",
                shares,
            )
        best = int(np.argmax(shares))
        grading["bars"] = [
            {"label": name, "color": color, "share": share, "best": label == best}
            for label, (name, color, share) in enumerate(zip(task.names, task.colours, shares, strict=True))
        ]
        grading["predicted"] = task.names[best]
    if scan.truth is not None:
        grading["involvement"] = scan.truth.involvement
        if task.bands:
            true = task.label_from_involvement(scan.truth.involvement)
            grading["true"] = "no lesion" if true is None else task.names[true]
    return grading
