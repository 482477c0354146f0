"""Compare networks on the same scans: which differences are real, and how many scans would show them."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ggo_lab.errors import ChoiceError, CohortError, as_number, check_whole, shown
from ggo_lab.evaluation.intervals import (
    CONFIDENCE,
    Interval,
    add_pseudo_counts,
    bootstrap_weights,
    draw_patients,
    percentile_interval,
)
from ggo_lab.evaluation.measures import measures_of
from ggo_lab.evaluation.predictions import Predictions
from ggo_lab.evaluation.report import Report, as_markdown, resample


@dataclass(frozen=True, eq=False)
class Comparison:
    """Networks beside each other, judged on the same scans.

    Attributes:
        measure: what is compared, a row of Report.scores.
        scores: a row a network, the best first; value (mean over its seeds), low and high (95% interval), seeds, and
            sd_over_seeds (nan for one seed).
        differences: a row a pair, named "A - B" with the better one first; difference, low and high, and whether they
            are distinguishable. The 95% hold for all pairs together: in 95 of 100 such comparisons every interval of
            the table holds its true difference.
        sentences: what each row of differences means, then what these numbers do not say.
    """

    measure: str
    scores: pd.DataFrame
    differences: pd.DataFrame
    sentences: tuple[str, ...]

    def to_markdown(self) -> str:
        """The comparison as Markdown."""
        tables = [as_markdown(table) for table in self._tables()]
        return "\n\n".join([*tables, "\n".join(f"- {sentence}" for sentence in self.sentences)]) + "\n"

    def _tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        scores = pd.DataFrame(index=self.scores.index)
        scores[self.measure] = self.scores["value"].map("{:.2f}".format)
        scores["95% interval"] = _ends(self.scores)
        scores["seeds"] = self.scores["seeds"]
        scores["sd over seeds"] = ["–" if np.isnan(sd) else f"{sd:.3f}" for sd in self.scores["sd_over_seeds"]]
        differences = pd.DataFrame(index=self.differences.index)
        differences["difference"] = self.differences["difference"].map("{:+.2f}".format)
        differences["95% interval"] = _ends(self.differences)
        differences["distinguishable"] = np.where(self.differences["distinguishable"], "yes", "no")
        return scores, differences

    def __repr__(self) -> str:
        return "\n\n".join([*(table.to_string() for table in self._tables()), *self.sentences])

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.sentences)
        return "".join(table.to_html() for table in self._tables()) + f"<ul>{said}</ul>"


def compare(
    reports: Mapping[str, Report | Sequence[Report]], measure: str = "macro-F1", draws: int = 2000, seed: int = 0
) -> Comparison:
    """Compare networks that were judged on the same scans.

    In every draw all networks meet the same patients (a paired bootstrap: what makes a scan hard is hard for all, and
    cancels), and of several seeds of a network one fewer than there are is drawn, with replacement, so that the spread
    of their mean is not underestimated for few seeds (Rao & Wu 1988). Drawing both patients and seeds errs on the side
    of caution (Owen 2007, the pigeonhole bootstrap). The intervals of the differences hold together, however many
    pairs there are (Mandel & Betensky 2008): the best of nine is not called the best by luck.

    Args:
        reports: by the name to show; a list holds one report for each seed of training.
        measure: a row of Report.scores.
        draws: of the bootstrap.
        seed: of its draws.

    Raises:
        ChoiceError: fewer than two networks, an unknown measure, or one that is not defined on these scans.
        CohortError: reports on different scans or tasks, or labels that disagree.

    >>> compare({"resnet18": [report_101, report_102], "HU fraction": report})  # doctest: +SKIP
    """
    if len(reports) < 2:
        raise ChoiceError(f"{list(reports)}: a comparison needs two networks or more.", list(reports))
    seeds = {name: [given] if isinstance(given, Report) else list(given) for name, given in reports.items()}
    if empty := [name for name, runs in seeds.items() if not runs]:
        raise ChoiceError(f"{empty[0]!r} has an empty list of reports; give one for each seed of training.", empty)
    for name, runs in seeds.items():
        for report in runs:
            _check_measure(report, measure, repr(name))
    predictions = _on_same_scans(seeds)
    first = next(iter(predictions.values()))[0]
    rng = np.random.default_rng(check_whole("seed", seed))
    drawn, pseudo = draw_patients(first.patients, first.labels, first.task, draws, rng)
    rows, resampled = {}, {}
    for name, judged in predictions.items():
        weights = add_pseudo_counts(drawn, pseudo, first.task, rng)
        by_run = np.array([resample(run, weights, measure) for run in judged])
        chosen = rng.integers(len(judged), size=(max(1, len(judged) - 1), draws))
        resampled[name] = by_run[chosen, np.arange(draws)].mean(axis=0)
        values = [float(report.scores.loc[measure, "value"]) for report in seeds[name]]
        spread = np.std(values, ddof=1) if len(values) > 1 else np.nan
        rows[name] = (np.mean(values), *percentile_interval(resampled[name]), len(values), spread)
    scores = pd.DataFrame.from_dict(rows, "index", columns=["value", "low", "high", "seeds", "sd_over_seeds"])
    scores = scores.sort_values("value", ascending=measures_of(first.task)[measure].lower_is_better, kind="stable")
    differences = _differences(scores["value"], resampled)
    sentences = tuple(_sentences(measure, scores, differences, len(first)))
    return Comparison(measure, scores, differences, sentences)


def how_many_scans_needed(
    report: Report, width: float, measure: str = "macro-F1", draws: int = 2000, seed: int = 0
) -> int:
    """Estimate how many scans a test split needs for an interval of this width, from high end to low.

    It imagines larger or smaller test splits of patients like those of the report, in the same shares of classes, and
    measures how far the score varies from one to the next. The answer is as rough as the report it starts from.

    Args:
        report: to start from.
        width: of the 95% interval, such as 0.10 for 0.70 to 0.80.
        measure: a row of report.scores.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ChoiceError: a width outside 0.005 to 1, an unknown measure, or one that is not defined on these scans.
    """
    _check_measure(report, measure, "the report")
    wide = as_number(width)
    if not 0.005 <= wide <= 1:
        raise ChoiceError(
            f"width={shown(width)} is no useful width of an interval; give 0.005 to 1, such as 0.1.", width
        )
    judged, times = report.predictions, 1.0
    for _ in range(4):  # the width falls with the square root of the number, nearly: a few corrections settle it
        rng = np.random.default_rng(check_whole("seed", seed))
        weights = bootstrap_weights(judged.patients, judged.labels, judged.task, draws, rng, times)
        low, high = percentile_interval(resample(judged, weights, measure))
        times *= ((high - low) / wide) ** 2
    return math.ceil(times * len(judged))


def _check_measure(report: Report, measure: str, of: str) -> None:
    report.interval(measure)  # refuses an unknown measure
    if np.isnan(report.scores.loc[measure, "value"]):
        raise ChoiceError(
            f"The {measure} of {of} is not defined: these {len(report.predictions)} scans hold too few classes for it. "
            "Choose another measure, such as accuracy.",
            measure,
        )


def _on_same_scans(seeds: Mapping[str, Sequence[Report]]) -> dict[str, list[Predictions]]:
    """Bring the predictions of all reports into the order of the first."""
    first = next(iter(seeds.values()))[0].predictions
    ordered: dict[str, list[Predictions]] = {}
    for name, runs in seeds.items():
        ordered[name] = []
        for report in runs:
            if extra := sorted(set(report.predictions.names) - set(first.names)):
                raise CohortError(
                    f"{name!r} was judged on {len(extra)} scans that the first network was not, such as {extra[0]}; "
                    "judge all networks on the same scans.",
                    extra,
                )
            if report.task != first.task:
                raise CohortError(f"{name!r} was judged on another task than the first network: {report.task}.", name)
            run = report.predictions.in_order_of(first.names, f"{name!r}")
            if not np.array_equal(run.labels, first.labels):
                scan = first.names[int(np.flatnonzero(run.labels != first.labels)[0])]
                raise CohortError(f"{name!r} was judged by another true label of {scan} than the first network.", scan)
            ordered[name].append(run)
    return ordered


def _differences(values: pd.Series, resampled: Mapping[str, np.ndarray]) -> pd.DataFrame:
    pairs = list(combinations(values.index, 2))
    draws = np.array([resampled[a] - resampled[b] for a, b in pairs])
    rows = {
        f"{a} - {b}": (values[a] - values[b], low, high, bool(low > 0 or high < 0))
        for (a, b), (low, high) in zip(pairs, simultaneous_intervals(draws), strict=True)
    }
    return pd.DataFrame.from_dict(rows, "index", columns=["difference", "low", "high", "distinguishable"])


def simultaneous_intervals(values: np.ndarray, confidence: float = CONFIDENCE) -> list[Interval]:
    """Return percentile intervals that all hold together in the given share of draws (Mandel & Betensky 2008).

    Args:
        values: (P, R), R draws of each of P numbers; draws in which one is nan are left out. With P = 1 these are
            percentile intervals.
        confidence: the share of draws, 0..1.
    """
    values = values[:, np.isfinite(values).all(axis=0)]
    # How deep in its row's tails each value lies, 0 to 1/2; a draw is as extreme as its most extreme value.
    share = (rankdata(values, axis=1) - 0.5) / values.shape[1]
    depth = np.minimum(share, 1 - share).min(axis=0)
    tail = np.quantile(depth, 1 - confidence)
    return [Interval(*map(float, np.quantile(row, (tail, 1 - tail)))) for row in values]


def _sentences(measure: str, scores: pd.DataFrame, differences: pd.DataFrame, scans: int) -> Iterator[str]:
    pairs = combinations(scores.index, 2)
    for (better, worse), row in zip(pairs, differences.itertuples(), strict=True):
        size = f"{abs(row.difference):.2f} in {measure}"
        ends = Interval(row.low, row.high)
        if row.distinguishable:
            yield f"{better} is better than {worse} by {size} (95% interval of the difference {ends})."
        else:
            yield (
                f"{better} and {worse} are not distinguishable on these {scans} scans: they differ by {size}, and the "
                f"95% interval of the difference, {ends}, holds 0."
            )
    if single := [name for name, n in scores["seeds"].items() if n == 1]:
        yield (
            f"One run of training each stands for {', '.join(single)}: another seed may differ by more than another "
            "network does. Give a list of reports, one for each seed."
        )


def _ends(table: pd.DataFrame) -> list[str]:
    return [str(Interval(low, high)) for low, high in zip(table["low"], table["high"], strict=True)]
