"""A network's predictions, scan by scan, beside the truth and what the network looked at."""

from __future__ import annotations

from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import anywidget
import ipywidgets as widgets
import numpy as np
import traitlets

from ggo_lab.cohort import Cohort
from ggo_lab.errors import ChoiceError, CohortError, GgoLabError, check_choice
from ggo_lab.images import ImageSet
from ggo_lab.page import scan_page
from ggo_lab.tasks import Task
from ggo_lab.viewers.detail import Detail
from ggo_lab.viewers.lists import confidence, line, lists, true_label
from ggo_lab.viewers.seen import SeenScan
from ggo_lab.viewers.similar import Similar
from ggo_lab.viewers.slices import SliceViewer
from ggo_lab.viewers.still import figure, show
from ggo_lab.viewers.what_if import MOST_INVOLVED, STEPS
from ggo_lab.webpage import assets

if TYPE_CHECKING:  # they import torch, which a SliceViewer alone should not wait for
    from ggo_lab.backbones import Backbone
    from ggo_lab.evaluation import Report


class Side(anywidget.AnyWidget):
    """The panel beside the picture: shows plain values, and sends back what is chosen."""

    _esm = traitlets.Unicode(assets("viewer/stub.js")).tag(sync=True)
    _code = traitlets.Unicode(assets("viewer/dom.js viewer/predictions.js")).tag(sync=True)
    _css = traitlets.Unicode(assets("viewer/viewer.css")).tag(sync=True)
    listed = traitlets.Dict().tag(sync=True)
    detail = traitlets.Dict().tag(sync=True)
    at = traitlets.Int(-1).tag(sync=True)


class PredictionViewer(widgets.HBox):
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
        confidence: (least, most), 0..1: only scans whose predicted class has a probability in this range are listed.
        name: of the chosen scan.
        explained: whose Grad-CAM lies over the scan: "nothing", "predicted", or the name of a class.
        involvement: what a phantom is remade with, 0..0.9; None for the scan as it is. The same patient, scanner and
            noise with more or less disease, which shows how the answer moves. Takes as long as making a phantom:
            about 0.3 s of one core for 32 x 128 x 128 voxels, 0.9 s for 64 x 256 x 256.
        answers: dict from involvement to the model's probabilities (K,) for the chosen phantom, as far as they have
            been computed; `trace` computes the whole curve.
        viewer: the SliceViewer of the chosen scan; None where it cannot be opened.

    Raises:
        CohortError: predictions without any scan.
        ModelError: a model without a recipe, or `train` holds images of another one.
        ChoiceError: an unknown choice, name or explained, a range that is none, or an involvement for what is no
            phantom.
    """

    _detail: Detail  # of the chosen scan

    choice = traitlets.Unicode("all")
    confidence = traitlets.Tuple(traitlets.Float(), traitlets.Float(), default_value=(0.0, 1.0))
    name = traitlets.Unicode()
    explained = traitlets.Unicode("nothing")
    involvement = traitlets.Float(None, allow_none=True)

    def __init__(self, cohort: Cohort, model: Backbone, report: Report, train: ImageSet | None = None):
        """List the predictions, and open the first scan."""
        # JupyterLab sends what hands do to a subshell of the kernel, another thread than the one that runs cells.
        self._one_at_a_time = RLock()
        self.cohort, self.model, self.predictions = cohort, model, report.predictions
        if not self.predictions.names:
            raise CohortError("The report holds no predictions, so there is no scan to look at.")
        self.task: Task = self.predictions.task
        model.fitted_recipe  # noqa: B018 (refuses a model without one)
        self.choices: dict[str, np.ndarray] = lists(self.predictions)
        self._similar: Similar | None = None if train is None else Similar(model, train)
        self._pictures: SliceViewer | None = None  # made for the first scan that can be opened, and kept
        # Beside the panel the scan takes all the room there is; where there is none, it goes below.
        self.side = Side(layout=widgets.Layout(flex="1 1 310px", min_width="0"))
        super().__init__([self.side], layout=widgets.Layout(flex_flow="row wrap", grid_gap="8px 20px", width="100%"))
        self.side.on_msg(self._asked)
        self._list()

    @property
    def viewer(self) -> SliceViewer | None:
        """The SliceViewer of the chosen scan; None where it cannot be opened."""
        return None if self._detail.seen is None else self._pictures

    @property
    def answers(self) -> dict[float, np.ndarray]:
        """Probabilities (K,) by involvement, as far as they have been computed for the chosen phantom."""
        return self._detail.answers

    def to_html(self, path: str | Path) -> Path:
        """Write the scan now shown with its prediction as one HTML file that needs no Python; see page.scan_page."""
        viewer, detail = self.viewer, self._detail
        if viewer is None:
            raise CohortError(f"{self.name} could not be opened, so there is no page to write.", self.name)
        probabilities, _ = detail.prediction()
        return scan_page(
            viewer.scan,
            path,
            masks=viewer.masks,
            heat=viewer.heat,
            probabilities=probabilities,
            task=self.task,
            notes=(detail.sentence(), *viewer.scan.notes, *(detail.seen.cut.notes if detail.seen else ())),
            window=viewer.window,
            index=viewer.cross[0],
            marks=viewer.marks,
            shown=viewer.shown,
        )

    def trace(self) -> dict[float, np.ndarray]:
        """Remake the chosen phantom with ten involvements and ask the model each time.

        Returns:
            The answers.

        Raises:
            ChoiceError: the chosen scan is no phantom.
        """
        with self._one_at_a_time:
            self._check_phantom()
            for involvement in STEPS:
                self._detail.answer(involvement)
                self._tell()
            return self.answers

    def close(self) -> None:
        """Free the memory of the viewer, in the kernel and in the browser."""
        children, layout = self.children, self.layout
        for part in children:
            part.layout.close()
            part.close()
        super().close()
        if layout is not None:
            layout.close()

    # The list

    @traitlets.observe("choice", "confidence")
    def _list(self, _change: traitlets.Bunch | None = None) -> None:
        """List the chosen scans; stay with the one that is shown where it is among them, or where none is."""
        rows = self._rows()
        names = [self.predictions.names[row] for row in rows]
        chosen = self.name if self.name in names or not names else names[0]
        if chosen and chosen != self.name:
            self.name = chosen
        else:
            self._tell_list()

    def _rows(self) -> list[int]:
        sure, (least, most) = confidence(self.predictions), self.confidence
        return [int(row) for row in self.choices[self.choice] if least <= sure[row] <= most]

    def _tell_list(self) -> None:
        self.side.listed = {
            "lists": [[key, len(rows)] for key, rows in self.choices.items()],
            "choice": self.choice,
            "confidence": list(self.confidence),
            "rows": [[self.predictions.names[row], line(self.predictions, row)] for row in self._rows()],
            "name": self.name,
        }

    # The detail

    @traitlets.observe("name")
    def _choose(self, _change: traitlets.Bunch) -> None:
        row = self.predictions.names.index(self.name)
        self._detail = Detail(
            self.cohort,
            self.model,
            self.task,
            self.name,
            self.predictions.probabilities[row],
            true_label(self.predictions, row),
            self._similar,
            self.predictions.patients[row],
        )
        self._tell_list()
        if self.involvement is not None:
            self.involvement = None  # and so the scan is opened
        else:
            self._open(f"Opening {self.name} …")

    @traitlets.observe("involvement")
    def _remake(self, change: traitlets.Bunch) -> None:
        same = self._pictures is not None and self._pictures.scan.name.startswith(self.name)
        self._open(f"Opening {self.name} …" if change.new is None else f"Making {self.name} again …", stay=same)

    def _open(self, message: str, stay: bool = False) -> None:
        """Open the chosen scan, or remake it, and show all there is of it; if `stay`, where one was looking."""
        self._tell(message)
        try:
            self._explain(self._detail.open(self.involvement), stay)
        except GgoLabError as error:  # raised in a callback it would vanish in a log
            self._detail.seen = None
            if self._pictures is not None:
                self._pictures.layout.display = "none"
            self._tell(str(error))

    @traitlets.observe("explained")
    def _explain_again(self, _change: traitlets.Bunch) -> None:
        if self._detail.seen is not None:
            self._tell("Looking for what moved the network …")
            self._explain(self._detail.seen, stay=True)

    def _explain(self, seen: SeenScan, stay: bool) -> None:
        """Show the opened scan, with the heat that is asked for."""
        detail = self._detail
        detail.explain(self.explained)
        masks = None if seen.scan.truth is None else "truth"
        if self._pictures is None:
            self._pictures = SliceViewer(seen.scan, masks, detail.heat, marks=seen.slices)
            # Another layout in the place of its own would leave that one open.
            self._pictures.layout.flex, self._pictures.layout.min_width = "1000 1 560px", "0"
            self._pictures.observe(self._scrolled, ["index", "plane", "cross"])
            self.children = (self.side, self._pictures)
        else:
            had_heat = self._pictures.heat is not None
            self._pictures.layout.display = None
            self._pictures.show(seen.scan, masks, detail.heat, marks=seen.slices, stay=stay)
            if detail.heat is not None and not had_heat:  # just asked for
                self._pictures.shown = (*self._pictures.shown, "heat")
        self._scrolled()
        self._tell()

    def _scrolled(self, _change: traitlets.Bunch | None = None) -> None:
        viewer = self.viewer
        self.side.at = viewer.index if viewer is not None and viewer.plane == "axial" else -1

    def _tell(self, message: str = "") -> None:
        self.side.detail = self._detail.shown(self.explained, message)

    def _asked(self, _widget: object, content: dict, _buffers: list) -> None:
        """Take what was chosen in the panel."""
        trait, value = content["trait"], content["value"]
        with self._one_at_a_time:
            if trait == "trace":
                self.trace()
            elif trait == "slice" and self.viewer is not None:
                self.viewer.plane, self.viewer.index = "axial", value
            elif trait in ("choice", "confidence", "name", "explained", "involvement"):
                try:
                    setattr(self, trait, tuple(value) if trait == "confidence" else value)
                except ChoiceError as error:
                    self._tell_list()
                    self._tell(str(error))

    def notify_change(self, change: traitlets.Bunch) -> None:
        """Open one scan after the other, whichever thread asks."""
        with self._one_at_a_time:
            super().notify_change(change)

    # What fits

    @traitlets.validate("choice", "name", "explained")
    def _valid(self, proposal: traitlets.Bunch) -> str:
        allowed = {
            "choice": self.choices,
            "name": self.predictions.names,
            "explained": ("nothing", "predicted", *self.task.names),
        }
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
        if not self._detail.phantom:
            raise ChoiceError(
                f"{self.name} is no phantom of a phantom_cohort, so it cannot be remade with more or less disease.",
                self.name,
            )

    # How it is displayed

    def __repr__(self) -> str:
        return f"PredictionViewer({len(self.predictions.names)} scans; {self.name}: {self._detail.sentence()})"

    def _still_html(self) -> str:
        caption = self._detail.sentence()
        if self.viewer is None:
            return figure(b"", caption)
        return figure(self.viewer.jpeg(), f"{self.name}: {caption}", self.viewer._still)

    def _ipython_display_(self) -> None:
        show(self, self.side)
