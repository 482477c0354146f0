"""A scan as one HTML file that scrolls by itself: no Python, no network, nothing that runs from data."""

import base64
import hashlib
import html
import json
import zlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from ggo_lab.errors import ChoiceError, ScanError
from ggo_lab.grades import Grade
from ggo_lab.rendering import (
    HEAT_COLD,
    HEAT_HOT,
    FrameRenderer,
    Heat,
    check_heat,
    check_masks,
    encode,
    lesion_share,
    mask_colors,
)
from ggo_lab.scan import WINDOWS, Scan, as_window

# What keeps a page small enough for an e-mail: 64 x 256 x 256 voxels are kept whole (about 5 MB). Wider slices are
# reduced, and with more voxels the HU are rounded: both less than the noise of a scan (18-37 HU), and the page says so.
_MOST_COLUMNS = 256
_ROUNDING_HU = ((5_000_000, 1), (12_000_000, 4), (np.inf, 8))  # up to so many voxels, steps of so many HU


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
    marks: Sequence[int] = (),
) -> Path:
    """Write one self-contained HTML file of a scan to scroll through.

    The file forbids itself every connection and every script but its own (Content-Security-Policy), and all names and
    notes are escaped, so that no file name or table can make it do anything.

    Args:
        masks, heat, window, marks: as in SliceViewer. With lungs and lesions the page draws the lesions' share of the
            lung in every slice.
        probabilities: (4,), of the grades mild to critical, shown as bars.
        notes: sentences to show beside the scan.
        title: of the page; the scan's name if left out.
        index: the axial slice to begin with; the middle if left out.
    Returns: the path written.
    Raises:
        ChoiceError: masks, heat or probabilities that do not fit.
        ScanError: the file cannot be written.
    """
    masks, heat, grey = check_masks(scan, masks), check_heat(scan, heat), as_window(window)
    index = scan.shape[0] // 2 if index is None else index
    small = _Reduced(scan)
    curve = lesion_share(masks)
    if curve is None and len(marks):  # an empty strip, to put the marks on
        curve = np.full(scan.shape[0], np.nan)
    colors = mask_colors(list(masks))
    data = {
        "shape": small.shape,
        "spacing": small.spacing,
        "isHu": scan.is_hu,
        "step": small.step,
        "hu": _deflate(_pack_hu(small.hu)),
        "masks": [
            {"name": name, "color": colors[name], "bits": _deflate(np.packbits(small.pick(mask)))}
            for name, mask in masks.items()
        ],
        "heat": None if heat is None else _pack_heat(heat, small),
        "heatEnds": [HEAT_COLD, HEAT_HOT],
        "windows": WINDOWS,
        "start": {"index": int(index), "level": grey.level, "width": grey.width},
        "curve": None if curve is None else {"values": _plain(curve), "color": colors.get("lesions", "#ebebeb")},
        "marks": [int(z) for z in marks],
    }
    shown = (*masks, "heat")
    still = encode(FrameRenderer(scan, masks, heat, 512).frame("axial", index, grey, shown))
    style = _asset("page.css")
    script = "".join(_asset(name) for name in ("volume.js", "picture.js", "controls.js"))
    page = Template(_asset("page.html")).substitute(
        policy=(
            f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
            "base-uri 'none'; form-action 'none'"
        ),
        title=html.escape(scan.name if title is None else title),
        subtitle=html.escape(_subtitle(scan)),
        still="data:image/jpeg;base64," + base64.b64encode(still).decode(),
        still_caption=html.escape(f"{scan.name}, axial slice {index}"),
        grading=_grading(probabilities, scan),
        notes=_notes(notes),
        footnote=html.escape(small.footnote),
        # "<" would let a name end the data block; JSON allows it to be written so.
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        style=style,
        script=script,
    )
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise ScanError(f"{path}: the page cannot be written ({error.strerror}); choose another place.", path) from None
    return path


class _Reduced:
    """A scan as small as a page can carry it."""

    def __init__(self, scan: Scan):
        slices, rows, columns = scan.shape
        factor = max(rows, columns) / _MOST_COLUMNS
        self.rows, self.columns = (
            (rows, columns) if factor <= 1 else (max(1, round(rows / factor)), max(1, round(columns / factor)))
        )
        self.shape = (slices, self.rows, self.columns)
        self.spacing = (scan.spacing[0], scan.spacing[1] * rows / self.rows, scan.spacing[2] * columns / self.columns)
        self.step = next(step for most, step in _ROUNDING_HU if slices * self.rows * self.columns <= most)
        self.hu = np.empty(self.shape, np.int16)  # in steps of self.step
        for z, part in enumerate(scan.hu):
            self.hu[z] = np.rint(self.smooth(part) / self.step)
        changes = []
        if factor > 1:
            changes.append(f"{self.rows} × {self.columns} of the scan's {rows} × {columns} pixels a slice")
        if self.step > 1:
            changes.append(f"HU in steps of {self.step}")
        self.footnote = (
            f"This page keeps {' and '.join(changes)}." if changes else "This page keeps every voxel exactly."
        )

    def smooth(self, picture: np.ndarray) -> np.ndarray:
        """A slice's values on the page's grid: the mean of what each pixel covers."""
        if picture.shape == (self.rows, self.columns):
            return picture
        resized = Image.fromarray(picture.astype(np.float32)).resize((self.columns, self.rows), Image.Resampling.BOX)
        return np.asarray(resized)

    def pick(self, mask: np.ndarray) -> np.ndarray:
        """A mask's voxels at the centres of the page's."""
        rows = ((np.arange(self.rows) + 0.5) * mask.shape[1] / self.rows).astype(int)
        columns = ((np.arange(self.columns) + 0.5) * mask.shape[2] / self.columns).astype(int)
        return mask[:, rows[:, None], columns]


def _pack_hu(hu: np.ndarray) -> np.ndarray:
    """Code each voxel by its difference to the mean of its left and upper neighbours; volume.js undoes it.

    Args:
        hu: int16 (Z, Y, X).
    Returns: uint8, first all low bytes, then all high bytes, of the zigzag-coded differences: deflate packs the two
        apart much better, for the high ones are nearly all 0.
    """
    zigzag = np.empty(hu.shape, np.uint16)
    for z, part in enumerate(hu):
        value = part.astype(np.int32)
        guess = np.zeros_like(value)
        guess[1:, 1:] = (value[1:, :-1] + value[:-1, 1:]) >> 1
        guess[0, 1:] = value[0, :-1]
        guess[1:, 0] = value[:-1, 0]
        rest = (value - guess).astype(np.int16)  # wraps around, as does the Int16Array that takes it back
        zigzag[z] = ((rest << 1) ^ (rest >> 15)).view(np.uint16)
    return np.stack([zigzag & 255, zigzag >> 8]).astype(np.uint8)


def _pack_heat(heat: Heat, small: _Reduced) -> dict[str, object]:
    maps = heat if isinstance(heat, Mapping) else dict(enumerate(heat))
    levels = [np.rint(255 * np.clip(small.smooth(values), 0, 1)).astype(np.uint8) for values in maps.values()]
    return {"slices": [int(z) for z in maps], "maps": _deflate(np.stack(levels))}


def _deflate(values: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 6)).decode()


def _plain(curve: np.ndarray) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in curve]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return resources.files("ggo_lab").joinpath("assets", name).read_text(encoding="utf-8")


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
