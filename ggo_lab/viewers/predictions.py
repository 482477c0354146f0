"""A network's predictions, scan by scan, beside the truth and what the network looked at."""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np
import traitlets

from ggo_lab.cohort import Cohort
from ggo_lab.errors import CohortError, GgoLabError, check_choice
from ggo_lab.grades import GRADE_NAMES, Grade
from ggo_lab.images import choose_slices, image_to_scan_grid, scan_to_image
from ggo_lab.lungs import segment_lungs
from ggo_lab.page import scan_page
from ggo_lab.rendering import Heat, encode
from ggo_lab.scan import Scan
from ggo_lab.viewers.panel import Panel, close_tree
from ggo_lab.viewers.slices import SliceViewer

if TYPE_CHECKING:  # they import torch, which a SliceViewer alone should not wait for
    from ggo_lab.backbones import Backbone
    from ggo_lab.evaluation import Predictions, Report

_EXPLAINED = ("predicted", "nothing", *GRADE_NAMES)


class PredictionViewer(Panel):
    """Go through a network's predictions. Shows itself as the last expression of a cell.

    Args:
        cohort: opens the scans by name.
        model: the network that made the predictions; it makes the Grad-CAM maps, on images of its recipe.
        report: of evaluate; its predictions are listed.
    Attributes:
        choices: dict from the names of the lists (all, right, wrong, ...) to rows of report.predictions.
        choice: the list now shown, a key of `choices`.
        name: of the chosen scan.
        explained: whose Grad-CAM lies over the scan: "predicted", "nothing", or a grade's label.
        viewer: the SliceViewer of the chosen scan, a new one for every scan; None where it cannot be opened.
    Raises:
        CohortError: predictions without any scan.
        ChoiceError: an unknown choice, name or explained.
    """

    choice = traitlets.Unicode("all")
    name = traitlets.Unicode()
    explained = traitlets.Unicode("predicted")

    def __init__(self, cohort: Cohort, model: Backbone, report: Report):
        self.cohort, self.model, self.predictions = cohort, model, report.predictions
        if not self.predictions.names:
            raise CohortError("The report holds no predictions, so there is no scan to look at.")
        self.choices = _choices(self.predictions)
        self.viewer: SliceViewer | None = None
        self._image_of_scan: _ImageOfScan | None = None
        self._look = {"window": "lung"}  # what the user chose for one scan holds for the next
        super().__init__()
        self._build()
        self.observe(self._list_again, "choice")
        self.observe(self._open, "name")
        self.observe(self._explain_again, "explained")
        self._list_again()

    def to_html(self, path: str | Path) -> Path:
        """Write the chosen scan with its prediction as one HTML file that needs no Python; see page.scan_page."""
        if self.viewer is None:
            raise CohortError(f"{self.name} could not be opened, so there is no page to write.", self.name)
        probabilities, true = self._prediction()
        return scan_page(
            self.viewer.scan,
            path,
            masks=self.viewer.masks,
            heat=self.viewer.heat,
            probabilities=probabilities,
            notes=(sentence(probabilities, true), *self.viewer.scan.notes),
            window=self.viewer.window,
            index=self.viewer.index if self.viewer.plane == "axial" else None,
            marks=self.viewer.marks,
        )

    @traitlets.validate("choice", "name", "explained")
    def _valid(self, proposal) -> str:
        allowed = {"choice": self.choices, "name": self.predictions.names, "explained": _EXPLAINED}
        check_choice(proposal["trait"].name, proposal["value"], allowed[proposal["trait"].name])
        return proposal["value"]

    def _build(self) -> None:
        wide, narrow = widgets.Layout(width="auto"), {"description_width": "auto"}
        self._choice = widgets.Dropdown(
            options=[(f"{key} ({len(rows)})", key) for key, rows in self.choices.items()],
            description="show",
            layout=wide,
        )
        self._list = widgets.Select(rows=10, layout=wide)
        self._explained = widgets.Dropdown(options=_EXPLAINED, description="Grad-CAM of", layout=wide, style=narrow)
        self._verdict, self._seen = widgets.HTML(), widgets.HTML()
        self._jumps = widgets.ToggleButtons(style={"button_width": "82px"})
        self._place = widgets.VBox(layout=widgets.Layout(flex="1 1 530px", min_height="640px", min_width="0"))
        side = widgets.VBox(
            [self._choice, self._list, self._verdict, self._explained, self._seen, self._jumps],
            layout=widgets.Layout(width="290px"),
        )
        across = widgets.Layout(flex_flow="row wrap", grid_gap="8px 20px")
        self.children = (widgets.HBox([side, self._place], layout=across),)
        self._choice.observe(lambda change: self._asked("choice", change.new), "value")
        self._list.observe(lambda change: self._asked("name", change.new), "value")
        self._explained.observe(lambda change: self._asked("explained", change.new), "value")
        self._jumps.observe(self._jump, "value")

    def _jump(self, change) -> None:
        if not self._following and change.new is not None:
            self.viewer.plane, self.viewer.index = "axial", change.new

    def _list_again(self, _change=None) -> None:
        rows = self.choices[self.choice]
        names = [self.predictions.names[row] for row in rows]
        with self._quietly():
            self._choice.value = self.choice
            self._list.options = [(_line(self.predictions, row), name) for row, name in zip(rows, names, strict=True)]
            self._list.value = self.name if self.name in names else names[0]
        self.name = self._list.value

    def _prediction(self) -> tuple[np.ndarray, Grade | None]:
        """Probabilities (4,) and the true grade of the chosen scan."""
        row = self.predictions.names.index(self.name)
        return self.predictions.probabilities[row], _true_grade(self.predictions, row)

    def _open(self, _change=None) -> None:
        with self._quietly():
            if self.name in {name for _, name in self._list.options}:
                self._list.value = self.name
        self._verdict.value = _verdict(*self._prediction())
        self._clear(f"Opening {self.name} …")
        try:
            self._image_of_scan = _ImageOfScan(self.cohort.scan(self.name), self.model)
            self._show()
        except GgoLabError as error:  # raised in a callback it would vanish in a log
            self._image_of_scan = None
            self._clear(str(error))

    def _explain_again(self, _change=None) -> None:
        with self._quietly():
            self._explained.value = self.explained
        if self.viewer is not None:
            plane, index = self.viewer.plane, self.viewer.index
            self._clear("Looking for what moved the network …")
            self._show(plane, index)

    def _clear(self, message: str) -> None:
        if self.viewer is not None:
            self._look = {trait: getattr(self.viewer, trait) for trait in ("window", "overlay", "opacity")}
        old, self.viewer = self._place.children, None
        self._place.children = (widgets.HTML(html.escape(message)),)
        for child in old:
            close_tree(child)

    def _show(self, plane: str = "axial", index: int | None = None) -> None:
        """Put a new SliceViewer of the chosen scan in place of the message."""
        image, scan = self._image_of_scan, self._image_of_scan.scan
        heat, score = None, ""
        if self.explained != "nothing":
            grade = None if self.explained == "predicted" else Grade[self.explained.upper()]
            heat = image.explain(grade)
            score = image.score(heat)
        masks = None if scan.truth is None else "truth"
        viewer = SliceViewer(scan, masks, heat, marks=image.slices)
        for trait, value in {**self._look, "plane": plane}.items():
            setattr(viewer, trait, value)
        if index is not None:
            viewer.index = index
        old, self.viewer = self._place.children, viewer
        self._place.children = (viewer,)
        for child in old:
            close_tree(child)
        self._seen.value = _thumbnails(image.pixels, image.slices) + score
        with self._quietly():
            self._jumps.options = [(f"slice {z}", z) for z in dict.fromkeys(image.slices)]
            self._jumps.value = viewer.index if viewer.index in image.slices else None
        viewer.observe(self._scrolled, ["index", "plane"])

    def _scrolled(self, _change) -> None:
        here = self.viewer.index if self.viewer.plane == "axial" else None
        with self._quietly():
            self._jumps.value = here if here in self._image_of_scan.slices else None

    def __repr__(self) -> str:
        return f"PredictionViewer({len(self.predictions.names)} scans; {self.name}: {sentence(*self._prediction())})"

    def _repr_html_(self) -> str:
        """A still picture with its verdict, for places without a kernel."""
        still = "" if self.viewer is None else self.viewer._repr_html_()
        return f"<div>{_verdict(*self._prediction())}{still}</div>"


class _ImageOfScan:
    """A scan, the image a network sees of it, and where on it the network looks."""

    def __init__(self, scan: Scan, model: Backbone):
        self.scan, self.model = scan, model
        self.recipe = model.recipe
        self.lungs = segment_lungs(scan) if self.recipe.needs_lungs else None
        self.slices = choose_slices(scan, self.recipe, self.lungs)
        self.pixels = scan_to_image(scan, self.recipe, self.lungs, self.slices)

    def explain(self, grade: Grade | None) -> Heat:
        """The Grad-CAM map of a grade (of the predicted one if None), laid on each slice the network sees."""
        from ggo_lab.saliency import grad_cam

        heat = grad_cam(self.model, self.pixels, grade)
        laid = image_to_scan_grid(heat, self.scan, self.recipe, self.lungs)
        return dict.fromkeys(self.slices, laid)

    def score(self, heat: Heat) -> str:
        """One sentence, HTML: how much of the heat lies in lesions, and what chance would give."""
        if self.scan.truth is None:
            return ""
        from ggo_lab.saliency import share_inside

        inside = share_inside(heat, self.scan.truth.lesions)
        if np.isnan(inside.share):
            return _paragraph("Nothing in the image speaks for this grade, so there is no heat.")
        return _paragraph(
            f"{inside.share:.0%} of the heat lies in lesions, which cover {inside.chance:.0%} of these slices."
        )


def sentence(probabilities: np.ndarray, true: Grade | None) -> str:
    """Say a prediction in words, beside the truth where it is known.

    >>> sentence(np.array([0.1, 0.2, 0.61, 0.09]), Grade.MODERATE)
    'Predicted severe (61%), true moderate: one grade off.'
    """
    predicted = Grade(int(np.argmax(probabilities)) + 1)
    said = f"Predicted {predicted.label} ({probabilities[predicted.index]:.0%})"
    if true is None:
        return f"{said}; the true grade is not known."
    off = abs(predicted - true)
    how = ("right", "one grade off", "two grades off", "three grades off")[off]
    return f"{said}, true {true.label}: {how}."


def _true_grade(predictions: Predictions, row: int) -> Grade | None:
    index = int(predictions.indices[row])
    return None if index < 0 else Grade(index + 1)


def _choices(predictions: Predictions) -> dict[str, np.ndarray]:
    """Name -> rows of the lists one may look through; those without a scan are left out."""
    true, predicted = predictions.indices, predictions.probabilities.argmax(axis=1)
    known, off = true >= 0, np.abs(predicted - true)
    lists = {
        "all": np.ones(len(true), bool),
        "right": known & (off == 0),
        "wrong": known & (off > 0),
        "more than one grade off": known & (off > 1),
        **{f"true {grade.label}": true == grade.index for grade in Grade},
        **{f"predicted {grade.label}": predicted == grade.index for grade in Grade},
    }
    return {key: np.flatnonzero(rows) for key, rows in lists.items() if rows.any()}


def _line(predictions: Predictions, row: int) -> str:
    predicted = Grade(int(predictions.probabilities[row].argmax()) + 1)
    true = _true_grade(predictions, row)
    sign = "·" if true is None else "✓" if true == predicted else "✗"
    was = "" if true in (None, predicted) else f" (true {true.label})"
    return f"{sign} {predictions.names[row]}: {predicted.label}{was}"


def _verdict(probabilities: np.ndarray, true: Grade | None) -> str:
    """The prediction as a sentence and bars, HTML; a frame marks the true grade."""
    rows = []
    for grade in Grade:
        share = float(probabilities[grade.index])
        mark = "outline:2px solid currentColor;outline-offset:1px;" if grade == true else ""
        label = f"<b>{grade.label}</b>" if grade == true else grade.label
        rows.append(
            '<div style="display:grid;grid-template-columns:72px 1fr 40px;gap:8px;align-items:center;line-height:20px">'
            f'<span>{label}</span><span style="height:12px;background:rgba(128,128,128,.25);{mark}">'
            f'<span style="display:block;height:12px;width:{100 * share:.1f}%;background:{grade.color}"></span></span>'
            f'<span style="text-align:right">{share:.0%}</span></div>'
        )
    framed = "" if true is None else '<div style="opacity:.7;font-size:90%">framed: the true grade</div>'
    return _paragraph(f"<b>{sentence(probabilities, true)}</b>") + "".join(rows) + framed


def _thumbnails(pixels: np.ndarray, slices: tuple[int, ...]) -> str:
    """What the network sees, a small picture for each channel of uint8 (C, H, W), HTML."""
    pictures = []
    for z, channel in zip(slices, pixels, strict=True):
        data = base64.b64encode(encode(np.repeat(channel[:, :, None], 3, axis=2))).decode()
        pictures.append(
            f'<img alt="what the network sees of slice {z}" width="90" height="90" src="data:image/jpeg;base64,{data}">'
        )
    said = _paragraph(f"What the network sees, {pixels.shape[1]} × {pixels.shape[2]} pixels each:")
    return f'{said}<div style="display:flex;flex-wrap:wrap;gap:4px">{"".join(pictures)}</div>'


def _paragraph(text: str) -> str:
    return f'<p style="line-height:1.4;margin:6px 0">{text}</p>'
