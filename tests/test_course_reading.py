"""The prose that reads a run says what its numbers say."""

import numpy as np
import pandas as pd
import pytest

import ggo_lab as gl
from ggo_lab.course import reading

LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3] * 3)


def history(validation_loss, train_loss=1.0):
    rows = [
        {"epoch": epoch, "train_loss": train_loss, "validation_loss": validation_loss, "best": epoch == 2}
        for epoch in (1, 2, 3)
    ]
    return gl.training.History(pd.DataFrame(rows), 2, "early", gl.TrainConfig(), speed=None, device="cpu")


def report(predicted, sure=0.7):
    probabilities = np.full((len(LABELS), 4), (1 - sure) / 3)
    probabilities[np.arange(len(LABELS)), predicted] = sure
    table = pd.DataFrame({"name": [f"scan{i}" for i in range(len(LABELS))], "label": LABELS})
    return gl.evaluate(gl.Predictions(table, probabilities))


def test_a_good_run():
    text = reading(history(0.5, 0.45), report(LABELS))
    assert "epoch 2 of 3" in text and "below the 1.39" in text and "memorising" not in text
    assert "Macro-F1 1.00" in text and ": above the majority's" in text and "at least once" in text


def test_a_run_that_is_confidently_wrong_and_misses_a_grade():
    predicted = LABELS.copy()
    predicted[LABELS == 3] = 2
    judged = report(predicted)
    judged.predictions.probabilities[5] = [0.97, 0.01, 0.01, 0.01]
    text = reading(history(2.5), judged)
    assert "not below the 1.39" in text and "confidently wrong" in text and "lower by 1.50" in text
    assert "Never recognised: critical." in text and "Never answered at all: critical." in text
    assert "Worst: scan5, truly severe, was given a probability of 1% for it and called mild." in text


@pytest.mark.parametrize("answer", [2, 0])
def test_one_answer_for_everybody_is_not_above_the_majority(answer):
    text = reading(history(1.38), report(np.full(len(LABELS), answer)))
    assert "no better than the majority's" in text
