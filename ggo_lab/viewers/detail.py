"""The chosen scan of a PredictionViewer: opened or made again, seen by the network, explained."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ggo_lab.cohort import Cohort
from ggo_lab.rendering import Heat
from ggo_lab.tasks import Task
from ggo_lab.viewers.seen import SeenScan
from ggo_lab.viewers.verdicts import sentence, thumbnail
from ggo_lab.viewers.what_if import MOST_INVOLVED, STEPS, can_be_remade, remake, spoken, turns

if TYPE_CHECKING:
    from ggo_lab.backbones import Backbone
    from ggo_lab.viewers.similar import Similar


class Detail:
    """One scan of the list, and all there is to say of it.

    Args:
        cohort: opens it.
        model: what it was predicted with.
        task: what is graded.
        name: of the scan.
        predicted: its probabilities in the report, (K,).
        true: its label, None where it is not known.
        similar: finds the training scans most like it, or None.
        patient: whose scans are not counted among them.

    Attributes:
        seen: the scan as the network sees it; None until it is opened, or where it cannot be opened.
        involvement: what it was made again with; None for the scan as it is.
        answers: probabilities (K,) by involvement, as far as they have been computed.
        heat: maps of the class that is explained, or None.
        score: what the truth says of the heat, one sentence.
    """

    def __init__(
        self,
        cohort: Cohort,
        model: Backbone,
        task: Task,
        name: str,
        predicted: np.ndarray,
        true: int | None,
        similar: Similar | None,
        patient: str,
    ):
        """Keep what is known of the scan; nothing is opened yet."""
        self.cohort, self.model, self.task, self.name = cohort, model, task, name
        self.predicted, self.true, self.similar, self.patient = predicted, true, similar, patient
        self.seen: SeenScan | None = None
        self.involvement: float | None = None
        self.answers: dict[float, np.ndarray] = {}
        self.heat: Heat | None = None
        self.score: str = ""
        self.phantom: bool = can_be_remade(cohort, name)
        self._seconds = 0.0
        self._neighbours: list[dict[str, object]] = []

    def open(self, involvement: float | None = None) -> SeenScan:
        """Open the scan, or make it again with another involvement.

        Returns:
            It, as the network sees it.

        Raises:
            GgoLabError: it cannot be opened.
        """
        self.seen, self.involvement, self.heat, self.score = None, involvement, None, ""
        start = time.perf_counter()
        scan = self.cohort.scan(self.name) if involvement is None else remake(self.cohort, self.name, involvement)
        self.seen = SeenScan(scan, self.model)
        if self.phantom:
            self.answers[self.shown_involvement] = self.seen.probabilities()
        self._seconds = time.perf_counter() - start
        if self.similar is not None:
            self._neighbours = self.similar.cards(self.similar.to(self.seen.pixels, self.patient))
        return self.seen

    def explain(self, explained: str) -> None:
        """Compute the heat of "predicted", "nothing", or of a class."""
        self.heat, self.score = None, ""
        if explained != "nothing" and self.seen is not None:
            self.heat = self.seen.explain(None if explained == "predicted" else self.task.names.index(explained))
            self.score = self.seen.score(self.heat)

    def answer(self, involvement: float) -> None:
        """Ask the model what it says of the phantom made again, without showing it."""
        if involvement not in self.answers:
            self.answers[involvement] = SeenScan(
                remake(self.cohort, self.name, involvement), self.model
            ).probabilities()

    @property
    def own_involvement(self) -> float:
        """Of the phantom as its cohort made it."""
        return float(self.cohort.row(self.name)["involvement"])

    @property
    def shown_involvement(self) -> float:
        """Of the phantom that is shown."""
        return self.own_involvement if self.involvement is None else self.involvement

    def prediction(self) -> tuple[np.ndarray, int | None]:
        """Return the probabilities (K,) and the true label of the scan that is shown."""
        if self.involvement is not None and self.seen is not None and self.seen.scan.truth is not None:
            true = self.task.label_from_involvement(self.seen.scan.truth.involvement) if self.task.bands else None
            return self.answers[self.involvement], true
        return self.predicted, self.true

    def sentence(self) -> str:
        """Return the prediction in words."""
        if self.involvement is None:
            return sentence(*self.prediction(), self.task)
        unknown = f"there is no disease, a {self.task.noun} that it does not know" if self.task.bands else None
        said = sentence(*self.prediction(), self.task, unknown)
        return f"Remade with {self.involvement:.0%} of the lungs involved. {said}"

    def shown(self, explained: str, message: str = "") -> dict[str, object]:
        """Return everything as plain values, for predictions.js."""
        probabilities, true = self.prediction()
        names, colours = self.task.names, self.task.colours
        slices = []
        if self.seen is not None:
            pictures = zip(self.seen.slices, self.seen.pixels, strict=True)
            slices = [{"index": int(z), "picture": thumbnail(channel)} for z, channel in pictures]
        return {
            "message": message,
            "sentence": self.sentence(),
            "noun": self.task.noun,
            "bars": [
                {"name": name, "color": color, "share": float(share), "isTrue": label == true}
                for label, (name, color, share) in enumerate(zip(names, colours, probabilities, strict=True))
            ],
            "explained": {"options": ["predicted", "nothing", *names], "value": explained, "score": self.score},
            "slices": slices,
            "similar": [] if self.seen is None else self._neighbours,
            "what_if": self._what_if() if self.answers and self.seen is not None else None,
        }

    def _what_if(self) -> dict[str, object]:
        left = sum(step not in self.answers for step in STEPS)
        bands = [None] * len(self.task) if self.task.bands is None else [list(band) for band in self.task.bands]
        return {
            "most": MOST_INVOLVED,
            "own": self.own_involvement,
            "now": self.shown_involvement,
            "left": left,
            "seconds": max(1, round(left * self._seconds)),
            "answers": [[at, [float(share) for share in self.answers[at]]] for at in sorted(self.answers)],
            "classes": [
                {"name": name, "color": color, "band": band}
                for name, color, band in zip(self.task.names, self.task.colours, bands, strict=True)
            ],
            "turns": turns(self.answers, self.task),
            "spoken": spoken(self.answers, self.task),
        }
