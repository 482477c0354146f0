"""Reliability, temperature, abstention and conformal sets, by simulation."""

import numpy as np
import pytest
from judged import predictions_of
from scipy.special import softmax
from test_evaluation import toy, usual_grades

import ggo_lab as gl


def honest(n, seed, temperature=1.0, prefix="s"):
    """Predictions whose true grades are drawn from the very probabilities they state, then sharpened."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 4))
    shares = softmax(logits, axis=1)
    true = (rng.random(n)[:, None] > shares.cumsum(axis=1)).sum(axis=1)
    names = [f"{prefix}{i}" for i in range(n)]
    return predictions_of(names, names, true, softmax(logits / temperature, axis=1), "toy")


# Reliability


def test_a_calibrated_network_stays_within_chance_and_its_band():
    inside, errors, by_chance = [], [], []
    below = 0
    for seed in range(60):
        found = gl.reliability(honest(100, seed), draws=300)
        table = found.table
        inside += ((table["right"] >= table["band_low"]) & (table["right"] <= table["band_high"])).tolist()
        below += found.error <= found.chance_high
        errors.append(found.error)
        by_chance.append(found.by_chance)
    assert np.mean(inside) > 0.92 and below / 60 > 0.88
    assert np.mean(errors) == pytest.approx(np.mean(by_chance), rel=0.1) and np.mean(errors) > 0.04


def test_an_overconfident_network_is_called_so():
    found = gl.reliability(honest(200, 0, temperature=0.3))
    assert found.error > found.chance_high and "are not calibrated" in repr(found)
    assert (found.table["right"] < found.table["band_low"]).any() and found.table["scans"].sum() == 200
    assert "nothing shows" in gl.reliability(honest(200, 0)).sentence
    with pytest.raises(gl.ChoiceError, match="bins=1"):
        gl.reliability(honest(9, 0), bins=1)
    with pytest.raises(gl.CohortError, match="None of the 2 scans"):
        gl.reliability(toy([-1, -1]))


def test_certain_predictions_stand_in_the_last_bin():
    names = ["a", "b"]
    found = gl.reliability(predictions_of(names, names, np.array([0, 1]), np.eye(4)[[0, 0]]))
    assert found.table["scans"].tolist() == [2] and found.table["high"].tolist() == [1] and found.error == 0.5


# Temperature


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_is_found_again(temperature):
    assert gl.fit_temperature(honest(3000, 1, temperature)) == pytest.approx(1 / temperature, rel=0.1)


def test_the_temperature_is_the_one_of_least_loss():
    predictions = honest(60, 4, 0.4)
    logs, rows = np.log(predictions.probabilities), np.arange(60)

    def loss(t):
        return -np.log(softmax(logs / t, axis=1)[rows, predictions.labels]).mean()

    found = gl.fit_temperature(predictions)
    assert all(loss(found) <= loss(t) + 1e-9 for t in np.geomspace(0.1, 10, 200))


def test_calibrating_keeps_grades_and_mends_probabilities():
    validation, test = honest(300, 1, 0.3, "v"), honest(300, 2, 0.3, "t")
    mended = gl.calibrate(test, validation)
    assert np.array_equal(mended.predicted, test.predicted) and mended.names == test.names
    assert gl.reliability(mended).error < 0.5 * gl.reliability(test).error
    assert "temperature" in mended.made_by and test.made_by == "toy"
    with pytest.raises(gl.CohortError, match="300 patients are in more than one"):
        gl.calibrate(test, test)


def test_a_probability_of_zero_is_no_infinite_loss():
    names = ["a", "b"]
    sure = predictions_of(names, names, np.array([0, 1]), np.eye(4)[[0, 0]])
    assert 20 < gl.fit_temperature(sure) < 30  # 27.6 / ln 3: the loss is ln(1 + 3 exp(-x)) + x / 2 with x = 27.6 / t


@pytest.mark.parametrize(
    ("predicted", "said"), [([0, 1, 2], "3 are right.*the surer"), ([1, 2, 0], "0 are right.*less")]
)
def test_scans_that_set_no_temperature_are_refused(predicted, said):
    names, shares = ["a", "b", "c"], np.full((3, 4), 0.16) + 0.36 * np.eye(4)[predicted]
    validation = predictions_of(names, names, [0, 1, 2], shares)
    with pytest.raises(gl.CohortError, match=f"validation split, of which {said}.*without end"):
        gl.fit_temperature(validation)
    with pytest.raises(gl.CohortError, match="set no temperature"):
        gl.calibrate(predictions_of(["d"], ["d"], [0], shares[:1]), validation)


@pytest.mark.parametrize(
    ("labels", "shares", "said"),
    [
        ([0], [[1, 0, 0, 0]], "the surer, the better"),
        ([0, 1, 2, 3], np.eye(4), "the surer, the better"),
        ([0, 1, 2, 3], 0.99 * np.eye(4) + 0.0025, "the surer, the better"),
        ([1, 2, 3, 0], np.eye(4), "the less sure, the better"),
        ([0, 1, 2, 3], np.full((4, 4), 0.25), "every one fits as well"),
    ],
)
def test_where_no_temperature_is_best_none_is_given(labels, shares, said):
    names = [str(place) for place in range(len(labels))]
    with pytest.raises(gl.CohortError, match=f"set no temperature: {said}"):
        gl.fit_temperature(predictions_of(names, names, labels, shares))


# Abstention


def test_risk_falls_where_confidence_means_something():
    table = gl.risk_coverage(honest(400, 0))
    assert table["coverage"].is_monotonic_increasing and table["coverage"].iloc[-1] == 1
    everything = table["risk"].iloc[-1]
    assert everything == pytest.approx(np.mean(honest(400, 0).predicted != honest(400, 0).labels))
    half = table[table["coverage"] <= 0.5].iloc[-1]
    assert half["risk"] < 0.7 * everything and half["low"] <= half["risk"] <= half["high"]


def test_bands_of_risk_cover_the_truth():
    crowd = honest(200_000, 99, 0.5)
    confidence = crowd.probabilities.max(axis=1)
    wrong = crowd.predicted != crowd.labels
    held = []
    for seed in range(150):
        curve = gl.risk_coverage(honest(60, seed, 0.5))
        for coverage in (0.25, 0.5, 1):
            row = curve.iloc[np.searchsorted(curve["coverage"], coverage - 1e-9)]
            risk = wrong[confidence >= row["threshold"]].mean()  # of endlessly many scans as sure as these
            held.append(row["low"] <= risk <= row["high"])
    assert 0.92 < np.mean(held) < 0.99


def test_scans_equally_sure_are_answered_together():
    names = list("abcd")
    shares = np.array([[0.7, 0.1, 0.1, 0.1]] * 3 + [[0.4, 0.2, 0.2, 0.2]])
    table = gl.risk_coverage(predictions_of(names, names, np.array([0, 0, 1, 1]), shares))
    assert table["answered"].tolist() == [3, 4] and table["risk"].tolist() == pytest.approx([1 / 3, 1 / 2])


# Conformal sets


@pytest.mark.parametrize(("n", "coverage"), [(39, 0.9), (100, 0.8)])
def test_sets_cover_what_they_state(n, coverage):
    """On average over 200 repeats, within 2 points, and for a network that is far from calibrated."""
    found = []
    for seed in range(200):
        sets = gl.conformal_sets(honest(200, 2 * seed, 0.3, "t"), honest(n, 2 * seed + 1, 0.3, "v"), coverage)
        right, of = sets.covered
        found.append(right / of)
    assert np.mean(found) == pytest.approx(coverage, abs=0.02)


def test_surer_networks_make_smaller_sets():
    true = usual_grades(100)
    sizes = []
    for signal in (0.5, 5.0):
        other = toy(true, 1, signal, patients=[f"q{i}" for i in range(len(true))])
        sizes.append(gl.conformal_sets(toy(true, 0, signal), other).mean_size)
    assert sizes[1] < 1.2 < sizes[0]


def test_too_few_scans_give_sets_of_everything_and_say_so():
    few = gl.conformal_sets(honest(10, 0, prefix="t"), honest(8, 1, prefix="v"), 0.9)
    assert few.sets.all() and "every set holds everything" in repr(few)
    nine = gl.conformal_sets(honest(10, 0, prefix="t"), honest(9, 1, prefix="v"), 0.9)
    assert nine.threshold == honest(9, 1).probabilities[np.arange(9), honest(9, 1).labels].min()


def test_sets_in_words():
    names = ["a", "b"]
    new = predictions_of(names, names, np.array([0, -1]), np.array([[0.6, 0.3, 0.1, 0.0], [0.25] * 4]))
    old = predictions_of(["c"], ["c"], np.array([1]), np.array([[0.5, 0.3, 0.2, 0.0]]))
    found = gl.conformal_sets(new, old, 0.5)
    assert found.to_frame()["set"].tolist() == ["mild, moderate", "none"]
    assert found.covered == (1, 1) and "1 of 1" in found._repr_html_()
    with pytest.raises(gl.ChoiceError, match="coverage=1"):
        gl.conformal_sets(new, old, 1)
    with pytest.raises(gl.CohortError, match="2 patients"):
        gl.conformal_sets(new, new)
    with pytest.raises(gl.CohortError, match="no scan to make a set for"):
        gl.conformal_sets(new.subset([]), old)
