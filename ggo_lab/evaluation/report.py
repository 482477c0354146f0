"""Judge predictions: every number with its interval, beside what no network at all would reach."""

import html
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ggo_lab.errors import ChoiceError, CohortError
from ggo_lab.evaluation import measures
from ggo_lab.evaluation.intervals import Interval, bootstrap_weights, imagined_scans, percentile_interval, wilson
from ggo_lab.evaluation.predictions import Predictions
from ggo_lab.grades import GRADE_NAMES, Grade
from ggo_lab.webpage import write_webpage

_FEW = 10  # scans; below this a grade's own scores are called out in words


@dataclass(frozen=True, eq=False)
class Report:
    """How well predictions agree with the truth, and how sure that is.

    Attributes:
        predictions: those judged, all of known grade.
        scores: a row a measure; value, low and high (95% interval), then a column for every baseline.
        per_grade: a row a grade; scans, then precision, recall and F1 with low and high ends.
        confusion: counts; a row a true grade, a column a predicted one.
        cautions: sentences that belong to these numbers.
        draws, seed: of the bootstrap.
    """

    predictions: Predictions
    scores: pd.DataFrame
    per_grade: pd.DataFrame
    confusion: pd.DataFrame
    cautions: tuple[str, ...]
    draws: int
    seed: int

    @property
    def macro_f1(self) -> float:
        """The challenge's score: the mean over grades of F1."""
        return float(self.scores.loc["macro-F1", "value"])

    def interval(self, measure: str = "macro-F1") -> Interval:
        """The 95% interval of a measure, a row of `scores`."""
        if measure not in self.scores.index:
            raise ChoiceError(f"measure={measure!r} is not known; choose one of {list(self.scores.index)}.", measure)
        return Interval(*map(float, self.scores.loc[measure, ["low", "high"]]))

    @property
    def confusion_percent(self) -> pd.DataFrame:
        """The confusion matrix with every true grade's row in percent."""
        return 100 * self.confusion.div(self.confusion.sum(axis=1), axis=0)

    def to_frame(self) -> pd.DataFrame:
        """The scores as one row, to stack the reports of several networks."""
        wide = {name: value for name, value in self.scores["value"].items()}
        ends = {"macro-F1 low": self.interval().low, "macro-F1 high": self.interval().high}
        return pd.DataFrame([{"made by": self.predictions.made_by, "scans": len(self.predictions), **wide, **ends}])

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
        tables = [as_markdown(self._scores_as_text()), as_markdown(self._grades_as_text()), as_markdown(self.confusion)]
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
        text["value"] = self.scores["value"].map("{:.2f}".format)
        text["95% interval"] = [str(self.interval(measure)) for measure in self.scores.index]
        for baseline in self.scores.columns[3:]:
            text[baseline] = self.scores[baseline].map("{:.2f}".format)
        return text

    def _grades_as_text(self) -> pd.DataFrame:
        text = pd.DataFrame({"scans": self.per_grade["scans"]})
        for name in ("precision", "recall", "F1"):
            ends = zip(*(self.per_grade[column] for column in (name, f"{name} low", f"{name} high")), strict=True)
            text[name] = ["–" if np.isnan(v) else f"{v:.2f} ({low:.2f} to {high:.2f})" for v, low, high in ends]
        return text

    def __repr__(self) -> str:
        tables = [self._scores_as_text(), self._grades_as_text(), self.confusion]
        parts = [self._headline(), *(table.to_string() for table in tables), _CONFUSION_SAID]
        return "\n\n".join([*parts, "\n".join(f"! {caution}" for caution in self.cautions)])

    def _repr_html_(self) -> str:
        tables = [self._scores_as_text(), self._grades_as_text(), self.confusion]
        cautions = "".join(f"<li>{caution}</li>" for caution in self.cautions)
        shown = "".join(table.to_html() for table in tables)
        return f"<p><b>{html.escape(self._headline())}</b></p>{shown}<p>{_CONFUSION_SAID}</p><ul>{cautions}</ul>"


_COLUMNS = ("value", "low", "high", "majority", "chance")  # of every report's scores; further baselines follow
_TABLES = ("scores", "per_grade", "confusion")
_CONFUSION_SAID = "Last table: scans by true grade (rows) and predicted grade (columns)."


def evaluate(
    predictions: Predictions,
    baselines: Mapping[str, Predictions] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Report:
    """Judge predictions against the truth.

    Intervals are percentile bootstrap intervals over patients, stratified by grade (Efron & Tibshirani 1993) and
    smoothed where patients are few (see bootstrap_weights); those of a grade's precision, recall and F1 are Wilson's.
    Two baselines need no network: "majority" gives every scan the commonest grade, "chance" draws grades at random in
    their true shares.

    Args:
        predictions: scans of unknown grade in it are left out, and a caution says how many.
        baselines: further predictions for the same scans, by name, to stand in the table.
        draws: of the bootstrap. seed: of its draws.
    Raises:
        CohortError: no scan of known grade, or baselines for other scans or by other true grades.
        ChoiceError: a baseline by the name of a column that is there already, or no draws.
    """
    judged = predictions.known
    if len(judged) == 0:
        raise CohortError(f"None of the {len(predictions)} scans has a known grade, so there is nothing to judge.")
    true, predicted = judged.indices, judged.predicted
    present = measures.present(true, predicted)
    weights = bootstrap_weights(judged.patients, true, draws, np.random.default_rng(seed))
    values = measures.every_measure(true, judged.probabilities, np.ones((1, len(judged))), present)
    imagined_true, imagined_probabilities = imagined_scans()
    resampled = measures.every_measure(
        np.concatenate([true, imagined_true]),
        np.concatenate([judged.probabilities, imagined_probabilities]),
        weights,
        present,
    )
    rows = {name: (values[name][0], *percentile_interval(resampled[name])) for name in values}
    scores = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])
    for name, others in _baselines(judged, baselines or {}).items():
        scores[name] = others
    counts = measures.confusion(true, predicted, np.ones((1, len(judged))))[0].astype(int)
    confusion = pd.DataFrame(counts, GRADE_NAMES, GRADE_NAMES)
    per_grade = _per_grade(counts)
    cautions = tuple(_cautions(len(predictions) - len(judged), scores, per_grade, counts))
    return Report(judged, scores, per_grade, confusion, cautions, draws, seed)


def _baselines(judged: Predictions, given: Mapping[str, Predictions]) -> dict[str, list[float]]:
    """Scores of the baselines, each in the order of measures.every_measure."""
    everyone = np.ones((1, len(judged)))
    totals = np.bincount(judged.indices, minlength=len(Grade)).astype(float)
    majority = np.tile(np.eye(len(Grade))[totals.argmax()], (len(judged), 1))
    rules = {"majority": Predictions(judged.names, judged.patients, judged.indices, majority)}
    for name, predictions in given.items():
        if name in _COLUMNS:
            raise ChoiceError(f"A baseline cannot be called {name!r}: the table has a column of that name.", name)
        rules[name] = predictions.in_order_of(judged.names, f"The baseline {name!r}")
        other = np.flatnonzero((rules[name].indices >= 0) & (rules[name].indices != judged.indices))
        if other.size:
            scan = judged.names[other[0]]
            raise CohortError(f"The baseline {name!r} was given another true grade of {scan} than the network.", scan)
    scores = {}
    for name, rule in rules.items():
        present = measures.present(judged.indices, rule.predicted)
        found = measures.every_measure(judged.indices, rule.probabilities, everyone, present)
        scores[name] = [float(values[0]) for values in found.values()]
    scores["chance"] = _chance(totals)
    return {"majority": scores.pop("majority"), "chance": scores.pop("chance"), **scores}


def _chance(totals: np.ndarray) -> list[float]:
    """What drawing grades in their true shares gives: the measures of the expected confusion matrix."""
    counts = (np.outer(totals, totals) / totals.sum())[None]
    return [
        float(value)
        for value in (
            measures.macro_f1(counts, totals > 0)[0],
            measures.accuracy(counts)[0],
            measures.matthews(counts)[0],
            0.5,
            measures.weighted_kappa(counts)[0],
            measures.mean_grade_error(counts)[0],
            measures.two_off(counts)[0],
        )
    ]


def _per_grade(counts: np.ndarray) -> pd.DataFrame:
    rows = []
    for index in range(len(Grade)):
        right, true, predicted = int(counts[index, index]), int(counts[index].sum()), int(counts[:, index].sum())
        row = {"scans": true}
        for name, n in (("precision", predicted), ("recall", true), ("F1", true + predicted - right)):
            # F1 itself is no share of anything, but J = right / (true or predicted) is, and F1 = 2J / (1 + J).
            ends = np.array([right / n if n else np.nan, *wilson(right, n)])
            row[name], row[f"{name} low"], row[f"{name} high"] = 2 * ends / (1 + ends) if name == "F1" else ends
        rows.append(row)
    return pd.DataFrame(rows, GRADE_NAMES)


def _cautions(unknown: int, scores: pd.DataFrame, per_grade: pd.DataFrame, counts: np.ndarray) -> Iterator[str]:
    if unknown:
        yield f"{unknown} scans of unknown grade were left out."
    for grade, row in per_grade.iterrows():
        if row["scans"] == 0:
            yield f"No scan is {grade}, so nothing is known about this grade."
        elif row["scans"] < _FEW:
            right = int(counts[GRADE_NAMES.index(grade), GRADE_NAMES.index(grade)])
            n = int(row["scans"])
            yield (
                f"Only {n} {'scan is' if n == 1 else 'scans are'} {grade}, {right} recognised, which fits a true "
                f"recall of anything from {row['recall low']:.2f} to {row['recall high']:.2f}."
            )
    if scores.loc["macro-F1", "low"] <= scores.loc["macro-F1", "majority"]:
        yield "The interval of macro-F1 reaches down to the majority baseline: nothing shows that anything was learnt."
    yield "The intervals say what other patients from the same source would give, not another hospital or scanner."


def as_markdown(table: pd.DataFrame) -> str:
    """Write a table as Markdown, its index as the first column."""
    header = f"| | {' | '.join(table.columns)} |\n|{'---|' * (len(table.columns) + 1)}\n"
    return header + "\n".join(f"| {name} | {' | '.join(map(str, row))} |" for name, *row in table.itertuples())
