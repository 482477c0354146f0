"""Judge predictions: every number with its interval, beside what no network at all would reach."""

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ggo_lab.errors import ChoiceError, CohortError, check_choice, check_whole
from ggo_lab.evaluation import measures
from ggo_lab.evaluation.intervals import (
    NOT_DEFINED,
    Interval,
    bootstrap_weights,
    check_draws,
    percentile_interval,
    pseudo_scans,
    wilson,
)
from ggo_lab.evaluation.predictions import Predictions, known_of
from ggo_lab.tasks import Task
from ggo_lab.webpage import write_webpage

_FEW = 10  # scans; below this a class's own scores are called out in words


@dataclass(frozen=True, eq=False)
class Report:
    """How well predictions agree with the truth, and how sure that is.

    Attributes:
        predictions: those judged, all of known label.
        scores: a row a measure; value, low and high (95% interval), then a column for every baseline. nan where these
            scans do not define it.
        per_class: a row a class; scans, then precision, recall and F1 with low and high ends.
        confusion: counts; a row a true class, a column a predicted one.
        cautions: sentences that belong to these numbers.
        draws: of the bootstrap.
        seed: of the bootstrap.
    """

    predictions: Predictions
    scores: pd.DataFrame
    per_class: pd.DataFrame
    confusion: pd.DataFrame
    cautions: tuple[str, ...]
    draws: int
    seed: int

    @property
    def task(self) -> Task:
        """What was graded."""
        return self.predictions.task

    @property
    def baselines(self) -> list[str]:
        """The columns of `scores` that are of baselines: "majority", "chance", and those given to evaluate."""
        return [column for column in self.scores.columns if column not in _OWN]

    @property
    def macro_f1(self) -> float:
        """The challenge's score: the mean over classes of F1."""
        return float(self.scores.loc["macro-F1", "value"])

    def interval(self, measure: str = "macro-F1") -> Interval:
        """The 95% interval of a measure, a row of `scores`."""
        check_choice("measure", measure, self.scores.index)
        return Interval(*map(float, self.scores.loc[measure, ["low", "high"]]))

    @property
    def confusion_percent(self) -> pd.DataFrame:
        """The confusion matrix with every true class's row in percent."""
        return 100 * self.confusion.div(self.confusion.sum(axis=1), axis=0)

    def to_frame(self) -> pd.DataFrame:
        """The scores as one row, to stack the reports of several networks."""
        wide = {name: value for name, value in self.scores["value"].items()}
        ends = {"macro-F1_low": self.interval().low, "macro-F1_high": self.interval().high}
        return pd.DataFrame([{"made_by": self.predictions.made_by, "scans": len(self.predictions), **wide, **ends}])

    def to_json(self) -> str:
        """Everything but the predictions, as JSON."""
        tables = {name: json.loads(getattr(self, name).to_json(orient="index")) for name in _TABLES}
        facts = {
            "made_by": self.predictions.made_by,
            "scans": len(self.predictions),
            "patients": self._patients,
            "cautions": self.cautions,
            "bootstrap": {"draws": self.draws, "seed": self.seed},
        }
        return json.dumps({**facts, **tables}, indent=1)

    def to_markdown(self) -> str:
        """The report as Markdown, to paste into a README or an issue."""
        tables = [
            as_markdown(self._scores_as_text()),
            as_markdown(self._classes_as_text()),
            as_markdown(self.confusion),
        ]
        cautions = "\n".join(f"- {caution}" for caution in self.cautions)
        return "\n\n".join([f"**{self._headline()}**", *tables, _CONFUSION_SAID, cautions]) + "\n"

    def to_html(self, path: str | Path) -> Path:
        """Write the report as one HTML file without scripts or network: scores, their intervals, and a reading."""
        from ggo_lab.evaluation.report_page import report_html  # only who writes a page needs it

        return write_webpage(path, report_html(self))

    @property
    def _patients(self) -> int:
        return len(set(self.predictions.patients))

    def _headline(self) -> str:
        of = f"{len(self.predictions)} scans of {self._patients} patients"
        return f"{self.predictions.made_by} on {of}: macro-F1 {self.macro_f1:.2f} (95% interval {self.interval()})"

    def _scores_as_text(self) -> pd.DataFrame:
        text = pd.DataFrame(index=self.scores.index)
        text["value"] = self.scores["value"].map(as_text)
        text["95% interval"] = [str(self.interval(measure)) for measure in self.scores.index]
        for baseline in self.baselines:
            text[baseline] = self.scores[baseline].map(as_text)
        return text

    def _classes_as_text(self) -> pd.DataFrame:
        text = pd.DataFrame({"scans": self.per_class["scans"]})
        for name in ("precision", "recall", "F1"):
            ends = zip(*(self.per_class[column] for column in (name, f"{name}_low", f"{name}_high")), strict=True)
            text[name] = [NOT_DEFINED if np.isnan(v) else f"{v:.2f} ({low:.2f} to {high:.2f})" for v, low, high in ends]
        return text

    def __repr__(self) -> str:
        tables = [self._scores_as_text(), self._classes_as_text(), self.confusion]
        parts = [self._headline(), *(table.to_string() for table in tables), _CONFUSION_SAID]
        return "\n\n".join([*parts, "\n".join(f"! {caution}" for caution in self.cautions)])

    def _repr_html_(self) -> str:
        tables = [self._scores_as_text(), self._classes_as_text(), self.confusion]
        cautions = "".join(f"<li>{html.escape(caution)}</li>" for caution in self.cautions)
        shown = "".join(table.to_html() for table in tables)
        return f"<p><b>{html.escape(self._headline())}</b></p>{shown}<p>{_CONFUSION_SAID}</p><ul>{cautions}</ul>"


_OWN = ("value", "low", "high")  # columns of every report's scores; the baselines' follow
_TABLES = ("scores", "per_class", "confusion")
_CONFUSION_SAID = "Last table: scans by true class (rows) and predicted class (columns)."


def evaluate(
    predictions: Predictions,
    baselines: Mapping[str, Predictions] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Report:
    """Judge predictions against the truth.

    Intervals are percentile bootstrap intervals over patients, stratified by class (Efron & Tibshirani 1993) and
    smoothed where patients are few (see bootstrap_weights); those of a class's precision, recall and F1 are Wilson's.
    Two baselines need no network: "majority" gives every scan the commonest class, "chance" draws labels at random in
    their true shares. The measures are those of measures.MEASURES that have a meaning for the task.

    Args:
        predictions: scans of unknown label in it are left out, and a caution says how many.
        baselines: further predictions for the same scans, by name, to stand in the table.
        draws: of the bootstrap.
        seed: of its draws.

    Raises:
        CohortError: no scan of known label, or baselines for other scans, of another task or by other true labels.
        ChoiceError: a baseline by the name of a column that is there already, or no draws.
    """
    judged, task = known_of(predictions), predictions.task
    draws, seed = check_draws(draws), check_whole("seed", seed)
    true, predicted = judged.labels, judged.predicted
    present = measures.present_in(true, predicted, len(task))
    weights = bootstrap_weights(judged.patients, true, task, draws, np.random.default_rng(seed))
    scans = measures.resampled(true, judged.probabilities, np.ones((1, len(judged))), present)
    drawn = _with_pseudo_scans(judged, weights, present)
    totals = np.bincount(true, minlength=len(task)).astype(float)
    rules = _baselines(judged, totals, baselines or {})
    rows = {}
    for name, measure in measures.measures_of(task).items():
        value = float(measure.compute(scans)[0])
        ends = percentile_interval(measure.compute(drawn)) if np.isfinite(value) else Interval(np.nan, np.nan)
        beside = {called: float(measure.compute(rule)[0]) for called, rule in rules.items()}
        beside["chance"] = measures.by_chance(measure, totals) if np.isfinite(value) else np.nan
        rows[name] = {"value": value, "low": ends.low, "high": ends.high, **beside}
    order = [*_OWN, "majority", "chance", *(baselines or {})]
    scores = pd.DataFrame.from_dict(rows, orient="index")[order]
    counts = scans.counts[0].astype(int)
    confusion = pd.DataFrame(counts, task.names, task.names)
    per_class = _per_class(counts, task)
    cautions = tuple(_cautions(len(predictions) - len(judged), scores, per_class, counts, task))
    return Report(judged, scores, per_class, confusion, cautions, draws, seed)


def _with_pseudo_scans(judged: Predictions, weights: np.ndarray, present: np.ndarray) -> measures.Resampled:
    """Put the pseudo-counts' scans behind those judged, as the columns of bootstrap_weights have them."""
    true, probabilities = pseudo_scans(judged.task)
    return measures.resampled(
        np.concatenate([judged.labels, true]), np.concatenate([judged.probabilities, probabilities]), weights, present
    )


def resample(judged: Predictions, weights: np.ndarray, measure: str) -> np.ndarray:
    """Compute one measure for every row of weights (R, N + K * K), as bootstrap_weights gives them: (R,)."""
    present = measures.present_in(judged.labels, judged.predicted, len(judged.task))
    return measures.measures_of(judged.task)[measure].compute(_with_pseudo_scans(judged, weights, present))


def _baselines(
    judged: Predictions, totals: np.ndarray, given: Mapping[str, Predictions]
) -> dict[str, measures.Resampled]:
    """What the measures of the baselines are computed from, "majority" first."""
    rules = {"majority": np.tile(np.eye(len(totals))[totals.argmax()], (len(judged), 1))}
    for name, predictions in given.items():
        if name in (*_OWN, "majority", "chance"):
            raise ChoiceError(f"A baseline cannot be called {name!r}: the table has a column of that name.", name)
        if predictions.task != judged.task:
            raise CohortError(f"The baseline {name!r} is of another task: {predictions.task}.", predictions.task)
        rule = predictions.in_order_of(judged.names, f"The baseline {name!r}")
        other = np.flatnonzero((rule.labels >= 0) & (rule.labels != judged.labels))
        if other.size:
            scan = judged.names[other[0]]
            raise CohortError(f"The baseline {name!r} was given another true label of {scan} than the network.", scan)
        rules[name] = rule.probabilities
    true, once = judged.labels, np.ones((1, len(judged)))
    return {
        name: measures.resampled(true, rule, once, measures.present_in(true, rule.argmax(axis=1), len(totals)))
        for name, rule in rules.items()
    }


def _per_class(counts: np.ndarray, task: Task) -> pd.DataFrame:
    rows = []
    for label in range(len(task)):
        right, true, predicted = int(counts[label, label]), int(counts[label].sum()), int(counts[:, label].sum())
        row = {"scans": true}
        for name, n in (("precision", predicted), ("recall", true), ("F1", true + predicted - right)):
            # F1 itself is no share of anything, but J = right / (true or predicted) is, and F1 = 2J / (1 + J).
            ends = np.array([right / n if n else np.nan, *wilson(right, n)])
            row[name], row[f"{name}_low"], row[f"{name}_high"] = 2 * ends / (1 + ends) if name == "F1" else ends
        rows.append(row)
    return pd.DataFrame(rows, task.names)


def _cautions(
    unknown: int, scores: pd.DataFrame, per_class: pd.DataFrame, counts: np.ndarray, task: Task
) -> Iterator[str]:
    if unknown:
        yield f"{unknown} scans of unknown {task.noun} were left out."
    for label, (name, row) in enumerate(per_class.iterrows()):
        n, right = int(row["scans"]), int(counts[label, label])
        if n == 0:
            yield f"No scan is {name}, so nothing is known about this {task.noun}."
        elif n < _FEW:
            yield (
                f"Only {n} {'scan is' if n == 1 else 'scans are'} {name}, {right} recognised, which fits a true "
                f"recall of anything from {row['recall_low']:.2f} to {row['recall_high']:.2f}."
            )
    if undefined := scores.index[scores["value"].isna()].tolist():
        yield f"Not defined on these scans, which hold too few classes for it: {', '.join(undefined)}."
    if scores.loc["macro-F1", "low"] <= scores.loc["macro-F1", "majority"]:
        yield "The interval of macro-F1 reaches down to the majority baseline: nothing shows that anything was learnt."
    yield "The intervals say what other patients from the same source would give, not another hospital or scanner."


def as_text(value: float) -> str:
    """Write a score with two digits; a nan is not defined."""
    return NOT_DEFINED if np.isnan(value) else f"{round(value, 2) + 0:.2f}"  # + 0 turns -0.00 into 0.00


def as_markdown(table: pd.DataFrame) -> str:
    """Write a table as Markdown, its index as the first column."""
    header = f"| | {' | '.join(table.columns)} |\n|{'---|' * (len(table.columns) + 1)}\n"
    return header + "\n".join(f"| {name} | {' | '.join(map(str, row))} |" for name, *row in table.itertuples())
