"""Every number of the room beside a second source for it: scikit-learn, torchmetrics, scipy, or the definition."""

import warnings

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from judged import predictions_of
from scipy.optimize import brentq
from scipy.stats import binned_statistic, norm
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier

import ggo_lab as gl

EXACT = 1e-9
GRADES = range(4)


def situation(seed):
    """Predictions for 1 to 60 scans; grades may be absent among the true ones, the predicted ones, or both."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 61))
    true = rng.choice(rng.choice(4, rng.integers(1, 5), replace=False), n)
    shares = rng.dirichlet(np.full(4, rng.choice([0.3, 1.0, 5.0])), n)
    never = rng.choice(4, rng.integers(0, 4), replace=False)  # grades that this network never says
    shares[:, never] *= 1e-3
    shares += rng.choice([0, 0.5, 2]) * np.eye(4)[true] * (~np.isin(true, never))[:, None]
    names = [f"s{i}" for i in range(n)]
    return predictions_of(names, names, true, shares / shares.sum(axis=1, keepdims=True))


SITUATIONS = [situation(seed) for seed in range(100)]


def auc(found):
    present = [g for g in GRADES if 0 < (found.labels == g).sum() < len(found)]
    each = [sk.roc_auc_score(found.labels == g, found.probabilities[:, g]) for g in present]
    return np.mean(each) if each else np.nan


def weighted_kappa(found):
    if len(set(found.labels) | set(found.predicted)) == 1:
        return np.nan  # nothing to agree on but one grade
    return sk.cohen_kappa_score(found.labels, found.predicted, labels=GRADES, weights="quadratic")


def macro_f1(found):
    return sk.f1_score(found.labels, found.predicted, average="macro", zero_division=0)


SECOND_SOURCES = {
    "macro-F1": macro_f1,
    "accuracy": lambda found: sk.accuracy_score(found.labels, found.predicted),
    "MCC": lambda found: np.nan if len(set(found.labels)) == 1 else sk.matthews_corrcoef(found.labels, found.predicted),
    "AUC": auc,
    "weighted kappa": weighted_kappa,
    "mean grade error": lambda found: sk.mean_absolute_error(found.labels, found.predicted),
    "two grades off": lambda found: sk.zero_one_loss(np.abs(found.labels - found.predicted) > 1, np.zeros(len(found))),
}


@pytest.fixture(scope="module")
def reports():
    return [gl.evaluate(found, draws=1) for found in SITUATIONS]


def test_the_situations_are_hard_enough():
    assert sum(len(set(found.labels)) < 4 for found in SITUATIONS) > 30
    assert sum(bool(set(found.predicted) - set(found.labels)) for found in SITUATIONS) > 10
    assert sum(bool(set(found.labels) - set(found.predicted)) for found in SITUATIONS) > 10


@pytest.mark.filterwarnings("ignore:A single label", "ignore:invalid value")
@pytest.mark.parametrize("measure", SECOND_SOURCES)
def test_a_measure_agrees_with_a_second_source(reports, measure):
    assert list(SECOND_SOURCES) == list(reports[0].scores.index)  # none is left out
    for found, report in zip(SITUATIONS, reports, strict=True):
        theirs = SECOND_SOURCES[measure](found)
        assert report.scores.loc[measure, "value"] == pytest.approx(theirs, abs=EXACT, nan_ok=True)


def test_precision_recall_and_f1_of_each_grade_agree_with_scikit_learn(reports):
    for found, report in zip(SITUATIONS, reports, strict=True):
        *theirs, scans = sk.precision_recall_fscore_support(
            found.labels, found.predicted, labels=GRADES, zero_division=np.nan
        )
        np.testing.assert_allclose(report.per_class[["precision", "recall", "F1"]].to_numpy().T, theirs, atol=EXACT)
        assert report.per_class["scans"].tolist() == scans.tolist()
        matrix = sk.confusion_matrix(found.labels, found.predicted, labels=GRADES)
        assert np.array_equal(report.confusion, matrix)
        percent = 100 * sk.confusion_matrix(found.labels, found.predicted, labels=GRADES, normalize="true")
        np.testing.assert_allclose(report.confusion_percent.fillna(0), percent, atol=EXACT)


@pytest.mark.filterwarnings("ignore:A single label", "ignore:invalid value")
def test_the_baselines_agree_with_scikit_learn(reports):
    names = [name for name in SECOND_SOURCES if name != "AUC"]
    for found, report in zip(SITUATIONS, reports, strict=True):
        nothing = np.zeros((len(found), 1))
        dummy = DummyClassifier(strategy="most_frequent").fit(nothing, found.labels)
        said = predictions_of(found.names, found.names, found.labels, np.eye(4)[dummy.predict(nothing)])
        for name in names:
            assert report.scores.loc[name, "majority"] == pytest.approx(
                SECOND_SOURCES[name](said), abs=EXACT, nan_ok=True
            )
        # Drawing grades in their shares: every pair of true and drawn grade, weighted by its chance.
        shares = np.bincount(found.labels, minlength=4) / len(found)
        true, drawn = (part.ravel() for part in np.indices((4, 4)))
        weight = np.outer(shares, shares).ravel()
        seen = np.flatnonzero(shares)
        f1 = sk.f1_score(true, drawn, labels=seen, average="macro", zero_division=0, sample_weight=weight)
        assert report.scores.loc["macro-F1", "chance"] == pytest.approx(f1, abs=EXACT)
        accuracy = sk.accuracy_score(true, drawn, sample_weight=weight)
        assert report.scores.loc["accuracy", "chance"] == pytest.approx(accuracy, abs=EXACT)
        error = sk.mean_absolute_error(true, drawn, sample_weight=weight)
        assert report.scores.loc["mean grade error", "chance"] == pytest.approx(error, abs=EXACT)


def test_the_calibration_error_agrees_with_scipy_and_torchmetrics():
    for found in SITUATIONS:
        sure, right = found.probabilities.max(axis=1), found.predicted == found.labels
        for bins in (5, 10, 15):
            error = gl.reliability(found, bins, draws=1).error
            sums = binned_statistic(sure, [sure, right], "sum", bins, (0, 1)).statistic
            assert error == pytest.approx(np.abs(sums[0] - sums[1]).sum() / len(found), abs=EXACT)
            shares, true = torch.from_numpy(found.probabilities), torch.from_numpy(found.labels)
            theirs = tm.multiclass_calibration_error(shares, true, 4, n_bins=bins)
            assert error == pytest.approx(float(theirs), abs=1e-6)  # torchmetrics counts in float32


def _far(end, share, n, z):
    return (share - end) ** 2 - z**2 * end * (1 - end) / n


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_wilson_ends_solve_the_equation_that_defines_them(confidence):
    """At both ends the share found lies z standard errors away, the error being that of the end itself."""
    z = norm.ppf((1 + confidence) / 2)
    for n in (1, 2, 5, 23, 231):
        for successes in {0, 1, n // 2, n - 1, n}:
            share = successes / n
            # Where all or none succeed, the share itself is one end, and solves the equation too.
            low = 0.0 if successes == 0 else brentq(_far, 0, min(share, 1 - 1e-9), (share, n, z), xtol=1e-14)
            high = 1.0 if successes == n else brentq(_far, max(share, 1e-9), 1, (share, n, z), xtol=1e-14)
            assert gl.wilson(successes, n, confidence) == pytest.approx((low, high), abs=EXACT)


def test_intervals_of_a_grade_are_wilsons_and_that_of_f1_is_the_one_of_jaccard(reports):
    for found, report in zip(SITUATIONS, reports, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's, of grades that do not occur
            jaccard = sk.jaccard_score(found.labels, found.predicted, labels=GRADES, average=None)
        for label, name in enumerate(gl.GGO_SEVERITY.names):
            row, true, said = report.per_class.loc[name], found.labels, found.predicted
            right = int(((true == label) & (said == label)).sum())
            for score, of in (("precision", said == label), ("recall", true == label)):
                assert (row[f"{score}_low"], row[f"{score}_high"]) == gl.wilson(right, int(of.sum()))
            either = int(((true == label) | (said == label)).sum())
            if either:
                assert right / either == pytest.approx(jaccard[label], abs=EXACT)
                assert row["F1"] == pytest.approx(2 / (1 + 1 / jaccard[label]) if right else 0, abs=EXACT)
            low, high = gl.wilson(right, either)
            assert row["F1_low"] == pytest.approx(2 * low / (1 + low), abs=EXACT)
            assert row["F1_high"] == pytest.approx(2 * high / (1 + high), abs=EXACT)


def test_risk_and_coverage_are_what_answering_above_the_threshold_gives():
    for found in SITUATIONS:
        sure = found.probabilities.max(axis=1)
        for row in gl.risk_coverage(found).itertuples():
            kept = sure >= row.threshold
            assert row.answered == kept.sum() and row.coverage == pytest.approx(kept.mean(), abs=EXACT)
            loss = sk.zero_one_loss(found.labels[kept], found.predicted[kept])
            assert row.risk == pytest.approx(loss, abs=EXACT)


@pytest.mark.parametrize("stated", [0.5, 0.8, 0.9])
def test_conformal_thresholds_are_numpys_quantile(stated):
    """Of the strangeness 1 - p of the true grades, the quantile of level ceil((n + 1) stated) / n, rounded upwards."""
    new = predictions_of(["new"], ["new"], np.array([-1]), np.full((1, 4), 0.25))
    for found in SITUATIONS:
        n = len(found)
        level = np.ceil(np.round((n + 1) * stated, 9)) / n - 1e-12  # so that rounding names no scan too many
        strangeness = 1 - found.probabilities[np.arange(n), found.labels]
        threshold = 1 - np.quantile(strangeness, level, method="inverted_cdf") if level < 1 else 0
        assert gl.conformal_sets(new, found, stated).threshold == pytest.approx(threshold, abs=EXACT)
