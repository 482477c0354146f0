"""A report as one HTML file: every number with its interval, drawn, and what to make of it in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ggo_lab.evaluation.intervals import NOT_DEFINED
from ggo_lab.evaluation.measures import measures_of
from ggo_lab.evaluation.report import as_text
from ggo_lab.webpage import render, webpage

if TYPE_CHECKING:
    from ggo_lab.evaluation.report import Report

_SHADES = 10  # of the confusion matrix; classes in report.css


def report_html(report: Report) -> str:
    """Make one self-contained page of a report; all names in it are escaped, and it needs no script."""
    judged, task = report.predictions, report.task
    title = f"Report: {judged.made_by}"
    classes = [{"name": name, "color": color} for name, color in zip(task.names, task.colours, strict=True)]
    body = render(
        "report.html",
        title=title,
        subtitle=f"{len(judged)} scans of {len(set(judged.patients))} patients",
        reading=reading(report),
        cautions=report.cautions,
        noun=task.noun,
        classes=classes,
        baselines=list(report.baselines),
        scores=[_score(report, name) for name in report.scores.index],
        confusion=_confusion(report),
        per_class=[_of_class(report, label) for label in range(len(task))],
        mistakes=_mistakes(report),
        bootstrap=f"{report.draws} draws over patients, seed {report.seed}",
    )
    return webpage(title, body, "base.css report.css")


def reading(report: Report) -> Iterable[str]:
    """Say what the numbers mean, in sentences for somebody who reads no tables."""
    counts, n, noun = report.confusion.to_numpy(), len(report.predictions), report.task.noun
    labels = np.arange(len(report.task))
    off = np.abs(labels[:, None] - labels)
    right, near, far = (int(counts[mask].sum()) for mask in (off == 0, off == 1, off > 1))
    if report.task.ordered:
        yield f"Of {n} scans {right} were graded right, {near} one grade off, and {far} two or more grades off."
    else:
        yield f"Of {n} scans {right} were classified right."
    low, high = report.interval()
    majority = float(report.scores.loc["macro-F1", "majority"])
    said = (
        f"Macro-F1 is {report.macro_f1:.2f}. Other patients of the same kind would give {low:.2f} to "
        f"{high:.2f} (95% interval)"
    )
    if low > majority:
        yield f"{said}: more than the {majority:.2f} of always answering the commonest {noun}, so something was learnt."
    else:
        yield f"{said}, and always answering the commonest {noun} gives {majority:.2f}: nothing shows that it learnt."
    if report.task.ordered:
        # A true grade a row: right of the diagonal the prediction is the higher grade.
        too_severe, too_mild = int(np.triu(counts, 1).sum()), int(np.tril(counts, -1).sum())
        yield f"Its mistakes: {too_mild} too mild, {too_severe} too severe."


def _score(report: Report, name: str) -> dict[str, object]:
    """Return a row of the scores: words, and where the value, its interval and the baselines are drawn."""
    interval = report.interval(name)
    value = float(report.scores.loc[name, "value"])
    measure = measures_of(report.task)[name]
    ends = measure.ends(report.task)
    rest = [float(report.scores.loc[name, column]) for column in report.baselines]
    return {
        "name": name,
        "meaning": measure.meaning + ("; less is better" if measure.lower_is_better else ""),
        "value": as_text(value),
        "interval": str(interval),
        "span": _span(value, *interval, *ends),
        "ticks": [f"{_x(of, *ends):.1f}" for of in rest if np.isfinite(of)],
        "rest": [as_text(of) for of in rest],
    }


def _of_class(report: Report, label: int) -> dict[str, object]:
    """Return a row of the table class by class."""
    row = report.per_class.iloc[label]
    cells: list[dict[str, object]] = []
    for name in ("precision", "recall", "F1"):
        value, low, high = (float(row[column]) for column in (name, f"{name}_low", f"{name}_high"))
        cells.append(
            {"value": NOT_DEFINED, "interval": "", "span": None}
            if np.isnan(value)
            else {
                "value": f"{value:.2f}",
                "interval": f"{low:.2f} to {high:.2f}",
                "span": _span(value, low, high, 0, 1),
            }
        )
    return {"label": label, "scans": int(row["scans"]), "cells": cells}


def _confusion(report: Report) -> list[dict[str, object]]:
    """Return a row for each true class; shaded by the share of the row, the right answers framed."""
    rows: list[dict[str, object]] = []
    for label, counts in enumerate(report.confusion.to_numpy()):
        total = int(counts.sum())
        shares = [count / total if total else 0.0 for count in counts]
        cells = [
            {"count": int(count), "share": share, "shade": round(_SHADES * share), "right": predicted == label}
            for predicted, (count, share) in enumerate(zip(counts, shares, strict=True))
        ]
        rows.append({"label": label, "total": total, "cells": cells})
    return rows


def _mistakes(report: Report) -> list[dict[str, object]]:
    """Return the scans that it got wrong, the surest first."""
    judged = report.predictions
    sure = judged.probabilities.max(axis=1)
    wrong = np.flatnonzero(judged.predicted != judged.labels)
    return [
        {
            "name": judged.names[row],
            "true": int(judged.labels[row]),
            "predicted": int(judged.predicted[row]),
            "sure": float(sure[row]),
        }
        for row in wrong[np.argsort(-sure[wrong], kind="stable")]
    ]


def _span(value: float, low: float, high: float, worst: float, best: float) -> dict[str, str] | None:
    """Return where a value and its interval stand in a drawing; nothing for a value that is not defined."""
    if np.isnan(value):
        return None
    left, right = sorted(_x(end, worst, best) for end in (low, high))
    return {"left": f"{left:.1f}", "right": f"{right:.1f}", "at": f"{_x(value, worst, best):.1f}"}


def _x(value: float, worst: float, best: float) -> float:
    """Where a value stands in a drawing 200 wide: the worst on the left, the best on the right."""
    return 5 + 190 * min(max((value - worst) / (best - worst), 0), 1)
