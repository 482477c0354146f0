"""What one run shows, in words: the prose of a notebook where its outputs differ from machine to machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # a lesson without a network does not wait for torch
    from ggo_lab.evaluation import Report
    from ggo_lab.training import History


def reading(history: History, report: Report) -> str:
    """Say what a training run and its evaluation show: what was kept, beside chance and baselines, and what went wrong.

    Args:
        history: of the run.
        report: of the network that the run kept, on scans that neither trained nor selected it.

    Returns:
        Sentences, one a line. Nothing in them is fixed: they follow from the numbers.
    """
    return "\n".join([_kept(history, report), _beside_baselines(report), *_classes(report), _worst(report)])


def _kept(history: History, report: Report) -> str:
    kept = history.table[history.table["best"]].iloc[0]
    chance = math.log(len(report.task))
    loss, gap = kept["validation_loss"], kept["validation_loss"] - kept["train_loss"]
    if loss < chance:
        beside = f"below the {chance:.2f} of giving every {report.task.noun} the same probability"
    else:
        beside = (
            f"not below the {chance:.2f} of giving every {report.task.noun} the same probability: on some scans it is "
            "confidently wrong"
        )
    memorised = f" The train loss is lower by {gap:.2f}: part of that is memorising." if gap > 0.1 else ""
    return f"Kept: epoch {history.best_epoch} of {len(history.table)}, validation loss {loss:.2f}, {beside}.{memorised}"


def _beside_baselines(report: Report) -> str:
    low, high = report.interval()
    majority = report.scores.loc["macro-F1", "majority"]
    verdict = "above" if low > majority else "not clearly above" if report.macro_f1 > majority else "no better than"
    said = f"Macro-F1 {report.macro_f1:.2f}, interval {low:.2f} to {high:.2f}: {verdict} the majority's {majority:.2f}"
    return f"{said} ({len(report.predictions)} scans)."


def _classes(report: Report) -> list[str]:
    counts = report.confusion.to_numpy()
    true, right, predicted = counts.sum(axis=1), np.diag(counts), counts.sum(axis=0)
    names = np.array(report.task.names)
    missed, unsaid = names[(true > 0) & (right == 0)], names[(true > 0) & (predicted == 0)]
    sentences = [f"Never recognised: {', '.join(missed)}."] if len(missed) else []
    if len(unsaid):
        sentences.append(f"Never answered at all: {', '.join(unsaid)}.")
    if not sentences:
        sentences.append(f"Every {report.task.noun} was recognised at least once.")
    return sentences


def _worst(report: Report) -> str:
    judged, names = report.predictions, report.task.names
    given = judged.probabilities[np.arange(len(judged)), judged.labels]
    row = int(given.argmin())
    true, said = names[judged.labels[row]], names[judged.predicted[row]]
    sure = f"was given a probability of {given[row]:.0%} for it"
    return f"Worst: {judged.names[row]}, truly {true}, {sure} and called {said}."
