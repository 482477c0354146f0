"""The paper's log: what the course quotes of it agrees with itself."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from ggo_lab.course import paper_confusions, paper_log

VALIDATION = [31, 20, 45, 5]  # scans of each grade, README of lisatwyw/cov19


def test_the_log_has_its_runs_with_optimizer_and_rate():
    log = paper_log()
    assert len(log) == 24 and not log[["images", "backbone", "optimizer", "lr", "batch_size"]].isna().any(axis=None)
    assert set(log.loc[log["optimizer"] == "sgd", "backbone"]) == {"inception_v3"}
    assert log.loc[log["lr"] != 0.001, "backbone"].tolist() == ["vit_b_32"]
    assert (log["epochs_used"] == 499).sum() == 16 and (log["epochs_used"] < 499).sum() == 3


def test_the_confusion_matrices_give_the_scores_of_the_log():
    log = paper_log().set_index(["backbone", "batch_size", "lr"]).query("images == 'all2'")["val_macro_f1"]
    for run, counts in paper_confusions().items():
        assert counts.sum(axis=1).tolist() == VALIDATION
        true, predicted = np.nonzero(counts)
        weights = counts[true, predicted]
        assert f1_score(np.repeat(true, weights), np.repeat(predicted, weights), average="macro") == pytest.approx(
            log[run], abs=0.0006
        )
