"""The HU-fraction baseline: thresholds from the train split, ordered probabilities."""

import numpy as np
import pandas as pd
import pytest

import ggo_lab as gl


def split_of(n, seed, split):
    """A cohort's split whose fractions follow involvement with some noise, and these fractions."""
    rng = np.random.default_rng(seed)
    involvement = rng.uniform(0.03, 0.95, n)
    names = [f"{split}-{i}" for i in range(n)]
    table = pd.DataFrame({"name": names, "patient": names, "split": split})
    table["label"] = [gl.GGO_SEVERITY.label_from_involvement(share) for share in involvement]
    measured = np.clip(0.05 + 0.8 * involvement + rng.normal(0, 0.02, n), 0, 1)
    return gl.Cohort(table, open_row=None, identify_row=None), dict(zip(names, measured, strict=True))


@pytest.fixture(scope="module")
def splits():
    (train, learnt), (test, unseen) = split_of(120, 0, "train"), split_of(80, 1, "test")
    return train, test, {**learnt, **unseen}


def test_the_hu_fraction_grades_what_follows_it(splits):
    train, test, fractions = splits
    found = gl.evaluation.ggo_baseline(fractions, train, test)
    report = gl.evaluate(found, {"HU fraction": found}, draws=20)
    assert found.made_by == "HU fraction" and report.scores.loc["accuracy", "value"] > 0.85
    assert report.scores.loc["macro-F1", "HU fraction"] == report.macro_f1
    order = np.argsort([fractions[name] for name in found.names])
    assert (np.diff(found.predicted[order]) >= 0).all()  # more haze never means a lower grade
    expected = found.probabilities @ np.arange(4)
    assert (np.diff(expected[order]) >= -1e-9).all()


def test_it_agrees_with_the_shares_it_learnt_from(splits):
    train, _, fractions = splits
    twin = gl.Cohort(train.table.assign(patient="other-" + train.table["patient"]), None, None)
    found = gl.evaluation.ggo_baseline(fractions, train, twin)
    assert found.probabilities.mean(axis=0) == pytest.approx(np.bincount(found.labels) / 120, abs=0.03)


def test_grades_that_do_not_occur_in_train_are_never_predicted(splits):
    train, test, fractions = splits
    two = train.subset((train.table["label"] <= 1).to_numpy(bool))
    found = gl.evaluation.ggo_baseline(fractions, two, test)
    assert found.probabilities.min() >= 0 and set(found.predicted) == {0, 1}


def test_unknown_grades_teach_nothing_and_are_predicted(splits):
    train, test, fractions = splits
    table = pd.concat([train.table, train.table.assign(name="u" + train.table["name"], label=pd.NA)])
    table["patient"] = table["name"]
    more = gl.Cohort(table, None, None)
    extra = {**fractions, **{f"u{name}": 0.5 for name in train.names}}
    unknown = gl.Cohort(test.table.assign(label=pd.NA), None, None)
    found = gl.evaluation.ggo_baseline(extra, more, unknown)
    assert np.allclose(found.probabilities, gl.evaluation.ggo_baseline(fractions, train, test).probabilities)
    assert (found.labels == -1).all()


def test_what_cannot_teach_or_be_judged_is_refused(splits):
    train, test, fractions = splits
    with pytest.raises(gl.CohortError, match="120 patients are in more than one of the scans"):
        gl.evaluation.ggo_baseline(fractions, train, train)
    with pytest.raises(gl.CohortError, match="1 scans have no fraction from 0 to 1, such as test-3"):
        gl.evaluation.ggo_baseline({**fractions, "test-3": np.nan}, train, test)
    with pytest.raises(gl.CohortError, match="1 known classes"):
        gl.evaluation.ggo_baseline(fractions, train.subset((train.table["label"] == 2).to_numpy(bool)), test)
