"""A report as one HTML file: every number with its interval, drawn, and what to make of it in words."""

from __future__ import annotations

import html
from collections.abc import Iterable
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from ggo_lab.grades import GRADE_NAMES, Grade
from ggo_lab.webpage import asset, webpage

if TYPE_CHECKING:
    from ggo_lab.evaluation.report import Report

# What a measure means, its worst and its best value.
_MEASURES = {
    "macro-F1": ("the mean over grades of F1: every grade counts the same", 0, 1),
    "accuracy": ("the share of scans graded right", 0, 1),
    "MCC": ("agreement beyond chance, 0 is none", -1, 1),
    "AUC": ("how well probabilities order scans, 0.5 is chance", 0, 1),
    "weighted kappa": ("agreement that forgives near misses, 0 is chance", -1, 1),
    "mean grade error": ("how many grades off on average; less is better", 3, 0),
    "two grades off": ("the share of scans two or three grades off; less is better", 1, 0),
}
_SHADES = 10  # of the confusion matrix; classes in report.css


def report_html(report: Report) -> str:
    """Make one self-contained page of a report; all names in it are escaped, and it needs no script."""
    body = Template(asset("report.html")).substitute(
        title=html.escape(f"Report: {report.predictions.made_by}"),
        subtitle=f"{len(report.predictions)} scans of {len(set(report.predictions.patients))} patients",
        reading="".join(f"<p>{html.escape(line)}</p>" for line in reading(report)),
        scores="".join(_score_row(report, name) for name in report.scores.index),
        baselines="".join(f"<th scope=col>{html.escape(name)}</th>" for name in report.scores.columns[3:]),
        confusion=_confusion(report),
        grades="".join(_grade_row(report, grade) for grade in Grade),
        cautions="".join(f"<li>{html.escape(caution)}</li>" for caution in report.cautions),
        mistakes=_mistakes(report),
        wrong=int((report.predictions.predicted != report.predictions.indices).sum()),
        bootstrap=f"{report.draws} draws over patients, seed {report.seed}",
    )
    return webpage(f"Report: {report.predictions.made_by}", body, "base.css report.css")


def reading(report: Report) -> Iterable[str]:
    """What the numbers say, in sentences for somebody who reads no tables."""
    counts, n = report.confusion.to_numpy(), len(report.predictions)
    off = np.abs(np.subtract.outer(np.arange(len(Grade)), np.arange(len(Grade))))
    right, near, far = (int(counts[mask].sum()) for mask in (off == 0, off == 1, off > 1))
    yield f"Of {n} scans {right} were graded right, {near} one grade off, and {far} two or three grades off."
    low, high = report.interval()
    majority = float(report.scores.loc["macro-F1", "majority"])
    said = (
        f"Macro-F1 is {report.macro_f1:.2f}. Other patients of the same kind would give {low:.2f} to "
        f"{high:.2f} (95% interval)"
    )
    if low > majority:
        yield f"{said}: more than the {majority:.2f} of always answering the commonest grade, so something was learnt."
    else:
        yield f"{said}, and always answering the commonest grade gives {majority:.2f}: nothing shows that it learnt."
    # A true grade a row: right of the diagonal the prediction is the higher grade.
    too_severe, too_mild = int(np.triu(counts, 1).sum()), int(np.tril(counts, -1).sum())
    yield f"Its mistakes: {too_mild} too mild, {too_severe} too severe."


def _score_row(report: Report, name: str) -> str:
    low, high = report.interval(name)
    value = float(report.scores.loc[name, "value"])
    meaning, worst, best = _MEASURES[name]
    rest = {column: float(report.scores.loc[name, column]) for column in report.scores.columns[3:]}
    ticks = "".join(f'<path d="M{_x(of, worst, best):.1f} 2v14"/>' for of in rest.values() if np.isfinite(of))
    drawing = (
        f'<svg class="span" viewBox="0 0 200 18" aria-hidden="true"><path class="rail" d="M0 9H200"/>'
        f'<g class="tick">{ticks}</g>{_span(value, low, high, worst, best)}</svg>'
    )
    others = "".join(f"<td>{_number(of)}</td>" for of in rest.values())
    return (
        f'<tr><th scope="row">{html.escape(name)}<small>{meaning}</small></th><td><b>{_number(value)}</b></td>'
        f"<td>{_number(low)} to {_number(high)}</td><td>{drawing}</td>{others}</tr>"
    )


def _grade_row(report: Report, grade: Grade) -> str:
    row = report.per_grade.loc[grade.label]
    cells = []
    for name in ("precision", "recall", "F1"):
        value, low, high = (float(row[column]) for column in (name, f"{name} low", f"{name} high"))
        drawing = (
            '<svg class="span" viewBox="0 0 200 18" aria-hidden="true"><path class="rail" d="M0 9H200"/>'
            f"{_span(value, low, high, 0, 1)}</svg>"
        )
        said = "–" if np.isnan(value) else f"<b>{value:.2f}</b> {low:.2f} to {high:.2f}"
        cells.append(f"<td>{said}{'' if np.isnan(value) else drawing}</td>")
    return f'<tr><th scope="row">{_swatch(grade)}{grade.label}</th><td>{int(row["scans"])}</td>{"".join(cells)}</tr>'


def _confusion(report: Report) -> str:
    """A row a true grade; shaded by the share of the row, the right answers framed."""
    rows = []
    for grade in Grade:
        counts = report.confusion.loc[grade.label]
        total = int(counts.sum())
        cells = []
        for predicted in Grade:
            count = int(counts[predicted.label])
            share = count / total if total else 0.0
            kinds = f"s{round(_SHADES * share)}" + (" right" if predicted == grade else "")
            text = f"{count}<small>{share:.0%}</small>" if count else '<span class="none">0</span>'
            cells.append(f'<td class="{kinds}">{text}</td>')
        rows.append(f'<tr><th scope="row">{_swatch(grade)}{grade.label} ({total})</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{name}</th>' for name in GRADE_NAMES)
    return f"<thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _mistakes(report: Report) -> str:
    """The scans that were graded wrong, the surest first."""
    judged = report.predictions
    sure = judged.probabilities.max(axis=1)
    wrong = np.flatnonzero(judged.predicted != judged.indices)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(judged.names[row])}</th>'
        f"<td>{_named(judged.indices[row])}</td><td>{_named(judged.predicted[row])}</td><td>{sure[row]:.0%}</td></tr>"
        for row in wrong[np.argsort(-sure[wrong], kind="stable")]
    )
    return rows or '<tr><td colspan="4">None.</td></tr>'


def _named(index: int) -> str:
    grade = Grade(int(index) + 1)
    return f"{_swatch(grade)}{grade.label}"


def _swatch(grade: Grade) -> str:
    square = f'<rect width="1" height="1" fill="{grade.color}"/>'
    return f'<svg class="swatch" viewBox="0 0 1 1" aria-hidden="true">{square}</svg>'


def _span(value: float, low: float, high: float, worst: float, best: float) -> str:
    if np.isnan(value):
        return ""
    ends = sorted(_x(end, worst, best) for end in (low, high))
    point = f'<circle cx="{_x(value, worst, best):.1f}" cy="9" r="4.5"/>'
    return f'<g class="found"><path d="M{ends[0]:.1f} 9H{ends[1]:.1f}"/>{point}</g>'


def _x(value: float, worst: float, best: float) -> float:
    """Where a value stands in a drawing 200 wide: the worst on the left, the best on the right."""
    return 5 + 190 * min(max((value - worst) / (best - worst), 0), 1)


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{round(value, 2) + 0:.2f}"  # + 0, for minus nought is no number to show
