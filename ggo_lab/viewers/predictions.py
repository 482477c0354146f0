"""A network's predictions, scan by scan, beside the truth and what the network looked at."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np
import traitlets

from ggo_lab.cohort import Cohort
from ggo_lab.errors import ChoiceError, CohortError, GgoLabError, check_choice
from ggo_lab.grades import GRADE_NAMES, Grade
from ggo_lab.images import ImageSet
from ggo_lab.page import scan_page
from ggo_lab.viewers.controls import columns
from ggo_lab.viewers.lists import confidence, line, lists, true_grade
from ggo_lab.viewers.names import named
from ggo_lab.viewers.panel import Panel, close_tree
from ggo_lab.viewers.seen import SeenScan
from ggo_lab.viewers.similar import Similar
from ggo_lab.viewers.slices import SliceViewer
from ggo_lab.viewers.verdicts import bars, channels, paragraph, sentence
from ggo_lab.viewers.what_if import MOST_INVOLVED, STEPS, WhatIf, can_be_remade, remake

if TYPE_CHECKING:  # they import torch, which a SliceViewer alone should not wait for
    from ggo_lab.backbones import Backbone
    from ggo_lab.evaluation import Report

_EXPLAINED = ("predicted", "nothing", *GRADE_NAMES)
_HOW, _WHERE = ("window", "overlay", "opacity"), ("plane", "index", "zoom", "centre", "probe")
_LEAST_SURE = 1 / len(Grade)  # the highest of four probabilities is never less


class PredictionViewer(Panel):
    """Go through a network's predictions. Shows itself as the last expression of a cell.

    Args:
        cohort: opens the scans by name.
        model: the network that made the predictions; it makes the Grad-CAM maps, on images of its recipe.
        report: of evaluate; its predictions are listed.
        train: the images that the model was fitted on, such as `images.train`. Given, the two most similar of them
            are shown beside each scan: nearest in the numbers that the network's last layer reads (see Similar). They
            go through the network once, when the viewer is made.
    Attributes:
        choices: dict from the names of the lists (all, right, wrong, ...) to rows of report.predictions. Wrong ones
            come the surest first.
        choice: the list now shown, a key of `choices`.
        confidence: (least, most), 0..1: only scans whose predicted grade has a probability in this range are listed.
        name: of the chosen scan.
        explained: whose Grad-CAM lies over the scan: "predicted", "nothing", or a grade's label.
        involvement: what a phantom is remade with, 0..0.9; None for the scan as it is. The same patient, scanner and
            noise with more or less disease, which shows how the answer moves. Takes as long as making a phantom:
            about 0.3 s of one core for 32 x 128 x 128 voxels, 0.9 s for 64 x 256 x 256.
        answers: dict from involvement to the model's probabilities (4,) for the chosen phantom, as far as they have
            been computed; `trace` computes the whole curve.
        viewer: the SliceViewer of the chosen scan, a new one for every scan; None where it cannot be opened.
    Raises:
        CohortError: predictions without any scan.
        ModelError: a model without a recipe, or `train` holds images of another one.
        ChoiceError: an unknown choice, name or explained, a range that is none, or an involvement for what is no
            phantom.
    """

    choice = traitlets.Unicode("all")
    confidence = traitlets.Tuple(traitlets.Float(), traitlets.Float(), default_value=(0.0, 1.0))
    name = traitlets.Unicode()
    explained = traitlets.Unicode("predicted")
    involvement = traitlets.Float(None, allow_none=True)

    def __init__(self, cohort: Cohort, model: Backbone, report: Report, train: ImageSet | None = None):
        self.cohort, self.model, self.predictions = cohort, model, report.predictions
        if not self.predictions.names:
            raise CohortError("The report holds no predictions, so there is no scan to look at.")
        model.fitted_recipe  # noqa: B018 (refuses a model without one)
        self.choices: dict[str, np.ndarray] = lists(self.predictions)
        self.answers: dict[float, np.ndarray] = {}
        self.viewer: SliceViewer | None = None
        self._similar: Similar | None = None if train is None else Similar(model, train)
        self._seen: SeenScan | None = None
        self._seconds: float = 0.0  # that it takes to open a scan
        self._look: dict[str, object] = {}  # of the viewer before, as far as it holds for the next one
        super().__init__()
        self._build()
        self.observe(self._list_again, ["choice", "confidence"])
        self.observe(self._choose, "name")
        self.observe(lambda _: None if self._following else self._open(stay=True), "involvement")
        self.observe(self._explain_again, "explained")
        self._list_again()

    def to_html(self, path: str | Path) -> Path:
        """Write the scan now shown with its prediction as one HTML file that needs no Python; see page.scan_page."""
        if self.viewer is None:
            raise CohortError(f"{self.name} could not be opened, so there is no page to write.", self.name)
        probabilities, _ = self._prediction()
        return scan_page(
            self.viewer.scan,
            path,
            masks=self.viewer.masks,
            heat=self.viewer.heat,
            probabilities=probabilities,
            notes=(self._sentence(), *self.viewer.scan.notes),
            window=self.viewer.window,
            index=self.viewer.index if self.viewer.plane == "axial" else None,
            marks=self.viewer.marks,
        )

    def trace(self) -> dict[float, np.ndarray]:
        """Remake the chosen phantom with ten involvements and ask the model each time; give `answers`.

        Raises:
            ChoiceError: the chosen scan is no phantom.
        """
        self._check_phantom()
        for involvement in STEPS:
            if involvement not in self.answers:
                seen = SeenScan(remake(self.cohort, self.name, involvement), self.model)
                self.answers[involvement] = seen.probabilities()
                self._show_what_if()
        return self.answers

    @traitlets.validate("choice", "name", "explained")
    def _valid(self, proposal: traitlets.Bunch) -> str:
        allowed = {"choice": self.choices, "name": self.predictions.names, "explained": _EXPLAINED}
        check_choice(proposal["trait"].name, proposal["value"], allowed[proposal["trait"].name])
        return proposal["value"]

    @traitlets.validate("confidence")
    def _valid_range(self, proposal: traitlets.Bunch) -> tuple[float, float]:
        least, most = proposal["value"]
        if not 0 <= least <= most <= 1:
            raise ChoiceError(f"confidence={(least, most)} is no range within 0..1, such as (0.9, 1).", (least, most))
        return least, most

    @traitlets.validate("involvement")
    def _valid_involvement(self, proposal: traitlets.Bunch) -> float | None:
        if proposal["value"] is not None:
            self._check_phantom()
            if not 0 <= proposal["value"] <= MOST_INVOLVED:
                raise ChoiceError(
                    f"involvement={proposal['value']} is outside 0..{MOST_INVOLVED}; give 0.3 for 30% of the lungs.",
                    proposal["value"],
                )
        return proposal["value"]

    def _check_phantom(self) -> None:
        if not can_be_remade(self.cohort, self.name):
            raise ChoiceError(
                f"{self.name} is no phantom of a phantom_cohort, so it cannot be remade with more or less disease.",
                self.name,
            )

    def _build(self) -> None:
        wide, narrow = widgets.Layout(width="auto"), {"description_width": "auto"}
        self._choice = widgets.Dropdown(
            options=[(f"{key} ({len(rows)})", key) for key, rows in self.choices.items()],
            description="show",
            layout=wide,
            style=narrow,
        )
        self._sure = widgets.FloatRangeSlider(
            min=_LEAST_SURE, max=1, step=0.01, value=(_LEAST_SURE, 1), description="how sure", readout_format=".0%",
            continuous_update=False, layout=wide, style=narrow,
        )  # fmt: skip
        self._list = named(widgets.Select(rows=10, layout=wide), "scans")
        self._explained = widgets.Dropdown(options=_EXPLAINED, description="Grad-CAM of", layout=wide, style=narrow)
        self._verdict, self._image, self._alike = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self._jumps = named(widgets.ToggleButtons(style={"button_width": "82px"}), "slices the network sees")
        self._place = widgets.VBox(layout=widgets.Layout(min_height="640px"))
        self._what_if = WhatIf(self._ask_for, self.trace)
        side = columns(
            [self._choice, self._sure, self._list, self._verdict],
            [self._explained, self._image, self._jumps, self._alike],
        )
        # Beside the list the scan takes all the room there is; where there is none, it goes below.
        main = widgets.VBox([self._place, self._what_if.box], layout=widgets.Layout(flex="1000 1 530px", min_width="0"))
        self._arrange(widgets.HBox([side, main], layout=widgets.Layout(flex_flow="row wrap", grid_gap="8px 20px")))
        self._choice.observe(lambda change: self._asked("choice", change.new), "value")
        self._sure.observe(self._sure_asked, "value")
        self._list.observe(lambda change: self._asked("name", change.new), "value")
        self._explained.observe(lambda change: self._asked("explained", change.new), "value")
        self._jumps.observe(self._jump, "value")

    def _sure_asked(self, change: traitlets.Bunch) -> None:
        least, most = change.new
        self._asked("confidence", (0.0 if least <= _LEAST_SURE else least, most))

    def _ask_for(self, involvement: float | None) -> None:
        self.involvement = involvement

    def _jump(self, change: traitlets.Bunch) -> None:
        if not self._following and change.new is not None and self.viewer is not None:
            self.viewer.plane, self.viewer.index = "axial", change.new

    def _list_again(self, _change: traitlets.Bunch | None = None) -> None:
        """List the chosen scans; stay with the one that is shown where it is among them, or where none is."""
        sure, (least, most) = confidence(self.predictions), self.confidence
        rows = [row for row in self.choices[self.choice] if least <= sure[row] <= most]
        names = [self.predictions.names[row] for row in rows]
        chosen = self.name if self.name in names or not names else names[0]
        with self._quietly():
            self._choice.value = self.choice
            self._sure.value = (max(least, _LEAST_SURE), max(most, _LEAST_SURE))
            self._list.options = [(line(self.predictions, row), name) for row, name in zip(rows, names, strict=True)]
            self._list.value = chosen if chosen in names else None
        if chosen:
            self.name = chosen

    def _choose(self, _change: traitlets.Bunch) -> None:
        with self._quietly():
            self._list.value = self.name if self.name in {name for _, name in self._list.options} else None
            self.involvement = None
        self.answers = {}
        self._open()

    def _open(self, stay: bool = False) -> None:
        """Open the chosen scan, or remake it, and show all there is of it; see _clear for `stay`."""
        self._clear(f"Opening {self.name} …" if self.involvement is None else f"Making {self.name} again …", stay)
        start = time.perf_counter()
        if self.involvement is None:
            self._verdict.value = self._verdict_said()
        try:
            scan = (
                self.cohort.scan(self.name)
                if self.involvement is None
                else remake(self.cohort, self.name, self.involvement)
            )
            self._seen = seen = SeenScan(scan, self.model)
            if can_be_remade(self.cohort, self.name):
                self.answers[self._involvement_now()] = seen.probabilities()
            self._seconds = time.perf_counter() - start
            self._show(seen)
        except GgoLabError as error:  # raised in a callback it would vanish in a log
            self._seen = None
            self._clear(str(error))
        self._show_what_if()

    def _involvement_now(self) -> float:
        """Of the phantom that is shown, as asked for."""
        own = float(self.cohort.row(self.name)["involvement"])
        return own if self.involvement is None else self.involvement

    def _prediction(self) -> tuple[np.ndarray, Grade | None]:
        """Probabilities (4,) and the true grade of the scan that is shown."""
        if self.involvement is not None and self._seen is not None and self._seen.scan.truth is not None:
            return self.answers[self.involvement], self._seen.scan.truth.grade
        row = self.predictions.names.index(self.name)
        return self.predictions.probabilities[row], true_grade(self.predictions, row)

    def _sentence(self) -> str:
        if self.involvement is None:
            return sentence(*self._prediction())
        said = sentence(*self._prediction(), unknown="there is no disease, a grade that it does not know")
        return f"Remade with {self.involvement:.0%} of the lungs involved. {said}"

    def _verdict_said(self) -> str:
        return paragraph(f"<b>{html.escape(self._sentence())}</b>") + bars(*self._prediction())

    def _show_what_if(self) -> None:
        shows = self._seen is not None and bool(self.answers)
        self._what_if.box.layout.display = None if shows else "none"
        if shows:
            own = float(self.cohort.row(self.name)["involvement"])
            self._what_if.show(self.answers, own, self._involvement_now(), self._seconds)

    def _explain_again(self, _change: traitlets.Bunch | None = None) -> None:
        with self._quietly():
            self._explained.value = self.explained
        if self._seen is not None:
            self._clear("Looking for what moved the network …", stay=True)
            self._show(self._seen)

    def _clear(self, message: str, stay: bool = False) -> None:
        """Show a message instead of the viewer, and keep how its user looks at scans; if `stay`, also where."""
        look = self._look if self.viewer is None else self.viewer.look
        self._look = {trait: look[trait] for trait in (*_HOW, *(_WHERE if stay else ())) if trait in look}
        old, self.viewer = self._place.children, None
        self._place.children = (widgets.HTML(html.escape(message)),)
        for child in old:
            close_tree(child)

    def _show(self, seen: SeenScan) -> None:
        """Put a new SliceViewer of the chosen scan in place of the message."""
        scan, heat, score = seen.scan, None, ""
        if self.explained != "nothing":
            heat = seen.explain(None if self.explained == "predicted" else Grade[self.explained.upper()])
            score = paragraph(seen.score(heat))
        viewer = SliceViewer(scan, None if scan.truth is None else "truth", heat, marks=seen.slices)
        viewer.look = self._look
        old, self.viewer = self._place.children, viewer
        self._place.children = (viewer,)
        for child in old:
            close_tree(child)
        self._verdict.value = self._verdict_said()
        self._image.value = channels(seen.pixels, seen.slices) + score
        if self._similar is not None:
            patient = self.predictions.patients[self.predictions.names.index(self.name)]
            self._alike.value = self._similar.show(self._similar.to(seen.pixels, patient))
        with self._quietly():
            self._jumps.options = [(f"slice {z}", z) for z in dict.fromkeys(seen.slices)]
            self._jumps.value = viewer.index if viewer.index in seen.slices else None

        def scrolled(_change: traitlets.Bunch) -> None:
            here = viewer.index if viewer.plane == "axial" else None
            with self._quietly():
                self._jumps.value = here if here in seen.slices else None

        viewer.observe(scrolled, ["index", "plane"])

    def __repr__(self) -> str:
        return f"PredictionViewer({len(self.predictions.names)} scans; {self.name}: {self._sentence()})"

    def _repr_html_(self) -> str:
        """A still picture with its verdict, for places without a kernel."""
        still = "" if self.viewer is None else self.viewer._repr_html_()
        return f"<div>{self._verdict_said()}{still}</div>"
