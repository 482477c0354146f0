"""Measures against scikit-learn and torchmetrics, intervals against simulation, reports in words and tables."""

import json

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as tm
from hypothesis import given, settings
from hypothesis import strategies as st
from judged import predictions_of
from sklearn import metrics as sk

import ggo_lab as gl
from ggo_lab.evaluation import measures
from ggo_lab.evaluation.intervals import bootstrap_weights, percentile_interval, pseudo_scans

# A network that is good, and twice as often wrong about the rare critical grade: rows true, columns predicted.
TYPICAL = np.array(
    [[0.80, 0.15, 0.05, 0.00], [0.15, 0.70, 0.14, 0.01], [0.03, 0.17, 0.75, 0.05], [0.0, 0.05, 0.35, 0.60]]
)
SHARES = np.array([0.29, 0.27, 0.36, 0.08])


def toy(true, seed=0, signal=1.5, patients=None, made_by="toy"):
    """Predictions for scans of the given indices, right more often than not."""
    rng = np.random.default_rng(seed)
    true = np.asarray(true)
    logits = signal * np.eye(4)[np.maximum(true, 0)] + rng.normal(0, 0.7, (len(true), 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = [f"scan-{i}" for i in range(len(true))]
    return predictions_of(names, patients or [f"p{i}" for i in range(len(true))], true, shares, made_by)


def hard(true, predicted):
    """Predictions that are sure of themselves."""
    true, predicted = np.asarray(true), np.asarray(predicted)
    names = [f"scan-{i}" for i in range(len(true))]
    return predictions_of(names, names, true, np.eye(4)[predicted])


def usual_grades(n):
    return np.repeat(np.arange(4), np.maximum(1, np.round(SHARES * n)).astype(int))


# Measures


def value(name, counts, present=np.ones(4, bool)):
    return measures.from_counts(measures.measures_of(gl.GGO_SEVERITY)[name], counts, present)


@pytest.mark.filterwarnings("ignore:A single label")
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=40), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_measure_agrees_with_scikit_learn(pairs, seed):
    true, predicted = (np.array(part) for part in zip(*pairs, strict=True))
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 4, (3, len(true))).astype(float)
    weights[:, 0] += 1
    counts = measures.confusion(true, predicted, weights, 4)
    present = np.bincount(np.concatenate([true, predicted]), minlength=4) > 0
    for k, row in enumerate(weights):
        labels = np.flatnonzero(present)
        f1 = sk.f1_score(true, predicted, labels=labels, average="macro", zero_division=0, sample_weight=row)
        assert value("macro-F1", counts, present)[k] == pytest.approx(f1, abs=1e-9)
        assert value("accuracy", counts)[k] == pytest.approx(sk.accuracy_score(true, predicted, sample_weight=row))
        mcc = sk.matthews_corrcoef(true, predicted, sample_weight=row)
        mcc = mcc if np.count_nonzero(counts[k].sum(axis=1)) > 1 else np.nan  # one true class: nothing to agree on
        assert value("MCC", counts)[k] == pytest.approx(mcc, abs=1e-6, nan_ok=True)
        error = sk.mean_absolute_error(true, predicted, sample_weight=row)
        assert value("mean grade error", counts)[k] == pytest.approx(error, abs=1e-9)
        far = np.average(np.abs(true - predicted) >= 2, weights=row)
        assert value("two grades off", counts)[k] == pytest.approx(far, abs=1e-9)
        spread = np.abs(np.subtract.outer(np.arange(4), np.arange(4))) ** 2
        if (counts[k].sum(axis=1)[:, None] * counts[k].sum(axis=0) * spread).sum() > 0:
            kappa = sk.cohen_kappa_score(true, predicted, labels=range(4), weights="quadratic", sample_weight=row)
            assert value("weighted kappa", counts)[k] == pytest.approx(kappa, abs=1e-9)
        else:
            assert np.isnan(value("weighted kappa", counts)[k])


def test_auc_agrees_with_scikit_learn_ties_and_weights_included():
    rng = np.random.default_rng(3)
    true = np.concatenate([np.arange(4), rng.integers(0, 4, 60)])
    shares = np.round(rng.dirichlet(np.ones(4), 64), 1) + 0.05  # rounded: many ties
    shares /= shares.sum(axis=1, keepdims=True)
    weights = rng.integers(1, 4, (5, 64)).astype(float)
    auc, present = measures.measures_of(gl.GGO_SEVERITY)["AUC"].compute, np.ones(4, bool)
    found = auc(measures.resampled(true, shares, weights, present))
    for k, row in enumerate(weights):
        each = [sk.roc_auc_score(true == g, shares[:, g], sample_weight=row) for g in range(4)]
        assert found[k] == pytest.approx(np.mean(each), abs=1e-9)
    assert np.isnan(auc(measures.resampled(np.zeros(5, int), shares[:5], np.ones((1, 5)), present))[0])


def test_measures_agree_with_torchmetrics():
    predictions = toy(usual_grades(80))
    report = gl.evaluate(predictions, draws=10)
    shares, true = torch.from_numpy(predictions.probabilities), torch.from_numpy(predictions.labels)
    theirs = {
        "macro-F1": tm.multiclass_f1_score(shares, true, 4, average="macro"),
        "accuracy": tm.multiclass_accuracy(shares, true, 4, average="micro"),
        "MCC": tm.multiclass_matthews_corrcoef(shares, true, 4),
        "AUC": tm.multiclass_auroc(shares, true, 4, average="macro"),
        "weighted kappa": tm.multiclass_cohen_kappa(shares, true, 4, weights="quadratic"),
    }
    for name, value in theirs.items():
        assert report.scores.loc[name, "value"] == pytest.approx(float(value), abs=1e-6), name  # they count in float32


def test_f1_of_a_grade_that_never_occurs_is_no_part_of_the_mean():
    report = gl.evaluate(hard([0, 0, 1, 1], [0, 0, 1, 1]), draws=10)
    assert report.macro_f1 == 1
    assert any("No scan is severe" in caution for caution in report.cautions)
    assert gl.evaluate(hard([0, 0, 1, 1], [0, 0, 1, 2]), draws=10).macro_f1 < 2 / 3  # severe was predicted: it counts


# Intervals


def test_wilson_is_the_papers_example():
    low, high = gl.wilson(3, 5)
    assert (round(low, 2), round(high, 2)) == (0.23, 0.88)
    assert gl.wilson(0, 0) == (0, 1)
    for successes, n in ((6, 5), (-1, 5), (1.5, 3)):
        with pytest.raises(gl.ChoiceError, match=f"{successes} of {n}"):
            gl.wilson(successes, n)
    with pytest.raises(gl.ChoiceError, match=r"confidence=1\.5"):
        gl.wilson(1, 3, 1.5)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_wilson_covers_on_average(share):
    # Exact: the interval of every possible outcome, weighted by how probable it is; averaged over sample sizes, for
    # coverage of a discrete outcome jumps from one to the next.
    from scipy.stats import binom

    sizes = range(5, 60)
    covered = [
        sum(binom.pmf(k, n, share) for k in range(n + 1) if gl.wilson(k, n).low <= share <= gl.wilson(k, n).high)
        for n in sizes
    ]
    assert 0.93 < np.mean(covered) < 0.97


@pytest.mark.parametrize("n", [24, 100])
def test_intervals_of_the_report_cover_the_truth(n):
    rng = np.random.default_rng(n)
    expected = (TYPICAL * SHARES[:, None])[None]
    truth = {name: value(name, expected)[0] for name in ("macro-F1", "accuracy", "weighted kappa", "mean grade error")}
    true, repeats = usual_grades(n), 150
    covered = dict.fromkeys(truth, 0)
    for _ in range(repeats):
        predicted = np.array([rng.choice(4, p=TYPICAL[index]) for index in true])
        report = gl.evaluate(hard(true, predicted), draws=300)
        for name, true_value in truth.items():
            covered[name] += report.interval(name).low <= true_value <= report.interval(name).high
    for name, count in covered.items():
        assert count / repeats >= 0.90, (name, count / repeats)


def test_intervals_of_each_grade_cover_the_truth():
    rng = np.random.default_rng(7)
    true, repeats = usual_grades(61), 150
    counts = TYPICAL * (np.bincount(true) / len(true))[:, None]
    right = np.diagonal(counts)
    truth = {
        "precision": right / counts.sum(axis=0),
        "recall": right / counts.sum(axis=1),
        "F1": 2 * right / (counts.sum(axis=0) + counts.sum(axis=1)),
    }
    covered = {name: np.zeros(4) for name in truth}
    for _ in range(repeats):
        luck = rng.random(len(true))[:, None]
        predicted = np.minimum((luck > TYPICAL.cumsum(axis=1)[true]).sum(axis=1), 3)
        table = gl.evaluate(hard(true, predicted), draws=1).per_class
        for name, value in truth.items():
            covered[name] += ((table[f"{name}_low"] <= value) & (value <= table[f"{name}_high"])).to_numpy()
    for name, count in covered.items():
        assert (count / repeats >= 0.88).all() and count.mean() / repeats > 0.92, (name, count / repeats)


def test_two_scans_of_a_patient_are_drawn_together():
    weights = bootstrap_weights(
        ["a", "a", "b", "c"], np.array([0, 1, 1, 1]), gl.GGO_SEVERITY, 50, np.random.default_rng(0)
    )
    assert weights.shape == (50, 4 + 16)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 2] != weights[:, 3]).any()


def test_doubled_scans_do_not_make_the_interval_narrower():
    once = toy(usual_grades(40))
    twice = predictions_of(
        [*once.names, *(f"{name}-again" for name in once.names)],
        once.patients * 2,
        np.tile(once.labels, 2),
        np.tile(once.probabilities, (2, 1)),
    )
    narrow, wide = (gl.evaluate(p).interval() for p in (twice, once))
    assert narrow.high - narrow.low > 0.9 * (wide.high - wide.low)


@pytest.mark.parametrize("task", [gl.GGO_SEVERITY, gl.tasks.MOSMED, gl.tasks.DIAGNOSIS, gl.tasks.SEVERE_OUTCOME])
def test_pseudo_scans_have_every_pair_of_classes_once(task):
    true, shares = pseudo_scans(task)
    assert len(set(zip(true, shares.argmax(axis=1), strict=True))) == len(task) ** 2
    assert np.allclose(shares.sum(axis=1), 1)
    assert task.ordered or set(np.round(shares[0] / shares[0, 0], 9)) == {1, 0.5}  # no class is nearer than another


def test_percentile_interval_of_nothing_is_nan():
    assert np.isnan(percentile_interval(np.array([np.nan]))).all()


# Reports


def test_baselines_stand_in_the_table():
    predictions = toy(usual_grades(60))
    report = gl.evaluate(predictions, {"twin": toy(usual_grades(60), seed=1)}, draws=50)
    assert list(report.scores.columns) == ["value", "low", "high", "majority", "chance", "twin"]
    majority = sk.f1_score(predictions.labels, np.full(len(predictions), 2), average="macro")
    assert report.scores.loc["macro-F1", "majority"] == pytest.approx(majority)
    assert report.scores.loc["AUC", "majority"] == 0.5
    with pytest.raises(gl.CohortError, match="'twin' has no prediction for"):
        gl.evaluate(predictions, {"twin": predictions.subset(slice(5))})


@pytest.mark.parametrize("name", ["value", "low", "high", "majority", "chance"])
def test_a_baseline_cannot_take_the_place_of_a_column(name):
    predictions = toy(usual_grades(24))
    with pytest.raises(gl.ChoiceError, match=f"cannot be called '{name}'"):
        gl.evaluate(predictions, {name: predictions}, draws=5)


def test_a_baseline_with_another_truth_is_refused_and_one_without_is_not():
    predictions = hard([0, 1], [0, 1])
    with pytest.raises(gl.CohortError, match="another true label of scan-1"):
        gl.evaluate(predictions, {"other": hard([0, 2], [0, 1])}, draws=5)
    assert gl.evaluate(predictions, {"blind": hard([-1, -1], [0, 1])}, draws=5).scores.loc["accuracy", "blind"] == 1


@pytest.mark.parametrize("draws", [0, -1])
def test_no_draws_are_refused(draws):
    predictions = hard([0, 1], [0, 1])
    report = gl.evaluate(predictions, draws=5)
    for ask in (
        lambda: gl.evaluate(predictions, draws=draws),
        lambda: gl.compare({"a": report, "b": report}, draws=draws),
        lambda: gl.evaluation.how_many_scans_needed(report, 0.1, draws=draws),
        lambda: gl.reliability(predictions, draws=draws),
    ):
        with pytest.raises(gl.ChoiceError, match=f"draws={draws}"):
            ask()


def test_baselines_are_matched_by_name_not_by_order():
    predictions = toy(usual_grades(40))
    turned = predictions.subset(np.arange(len(predictions))[::-1])
    report = gl.evaluate(predictions, {"same": turned}, draws=10)
    assert np.allclose(report.scores["same"], report.scores["value"])


def test_few_scans_of_a_grade_are_called_out_in_words():
    report = gl.evaluate(hard([0] * 12 + [3, 3], [0] * 12 + [3, 3]), draws=50)
    assert any("Only 2 scans are critical, 2 recognised" in caution for caution in report.cautions)
    assert not any("are mild" in caution for caution in report.cautions)
    row = report.per_class.loc["critical"]
    assert (row["recall_low"], row["recall_high"]) == pytest.approx(gl.wilson(2, 2))


def test_a_network_that_learnt_nothing_is_told_so():
    rng = np.random.default_rng(0)
    report = gl.evaluate(hard(usual_grades(24), rng.integers(0, 4, len(usual_grades(24)))))
    assert any("nothing shows that anything was learnt" in caution for caution in report.cautions)


def test_a_measure_that_is_not_defined_says_so_with_interval_and_chance():
    report = gl.evaluate(hard([1] * 6, [1] * 6), draws=9)
    undefined = ["MCC", "AUC", "weighted kappa"]
    assert report.scores.index[report.scores["value"].isna()].tolist() == undefined
    assert report.scores.loc[undefined, ["low", "high", "chance"]].isna().all(axis=None)
    assert any("Not defined on these scans" in c and ", ".join(undefined) in c for c in report.cautions)
    for text in (repr(report), report.to_markdown(), report._repr_html_()):
        assert "nan" not in text and text.count("not defined") >= 3 * len(undefined)


def test_unknown_grades_are_left_out_and_counted():
    report = gl.evaluate(toy([0, 1, -1, 2, 3, -1]), draws=20)
    assert len(report.predictions) == 4 and report.cautions[0].startswith("2 scans of unknown grade")
    with pytest.raises(gl.CohortError, match="None of the 2 scans"):
        gl.evaluate(toy([-1, -1]))


def test_the_same_seed_gives_the_same_interval():
    predictions = toy(usual_grades(30))
    assert gl.evaluate(predictions).interval() == gl.evaluate(predictions).interval()
    assert gl.evaluate(predictions).interval() != gl.evaluate(predictions, seed=1).interval()


def test_report_as_text_html_markdown_json_and_frame():
    report = gl.evaluate(toy(usual_grades(40), made_by="resnet18"), draws=50)
    for text in (repr(report), report._repr_html_(), report.to_markdown()):
        assert f"macro-F1 {report.macro_f1:.2f} (95% interval" in text and "another hospital" in text
    stored = json.loads(report.to_json())
    assert stored["made_by"] == "resnet18" and stored["scores"]["macro-F1"]["value"] == pytest.approx(report.macro_f1)
    assert stored["confusion"]["mild"]["mild"] == report.confusion.loc["mild", "mild"]
    frame = report.to_frame()
    assert len(frame) == 1 and frame["macro-F1"][0] == report.macro_f1
    assert report.confusion_percent.sum(axis=1).to_numpy() == pytest.approx(100)
    with pytest.raises(gl.ChoiceError, match="measure='F2'"):
        report.interval("F2")


def test_names_from_outside_are_escaped_in_notebooks():
    html = gl.evaluate(toy([0, 1, 2, 3], made_by="<script>x</script>"), draws=5)._repr_html_()
    assert "<script>" not in html


# Predictions


def test_predictions_must_be_probabilities():
    with pytest.raises(gl.CohortError, match="softmax"):
        predictions_of(["a"], ["a"], np.array([0]), np.array([[2.0, -1.0, 0.0, 0.0]]))
    with pytest.raises(gl.CohortError, match="do not fit together"):
        predictions_of(["a"], ["a"], np.array([0]), np.ones((2, 4)) / 4)


@pytest.mark.parametrize(
    "labels", [[4, 0], [-2, 0], [0.5, 0.0], ["mild", 0], [np.inf, 0], [1j, 0], [[1], 0], [10**30, 0]]
)
def test_labels_that_the_task_does_not_have_are_refused(labels):
    with pytest.raises(gl.CohortError, match=r"it must be 0 .mild., 1 .moderate., 2 .severe., 3 .critical., or empty"):
        predictions_of(["a", "b"], ["a", "b"], labels, np.eye(4)[[0, 0]])


def test_a_scan_has_one_prediction():
    with pytest.raises(gl.CohortError, match="1 scans have more than one prediction, such as a"):
        predictions_of(["a", "b", "a"], ["a", "b", "a"], np.array([0, 1, 2]), np.eye(4)[[0, 1, 2]])


def test_plain_lists_become_arrays():
    found = predictions_of(["a"], ["a"], [2], [[0, 0, 1, 0]])
    assert found.labels.tolist() == [2] and found.probabilities.dtype == np.float64


def test_predictions_as_a_frame():
    frame = toy([0, -1, 3], signal=9).to_frame()
    assert frame["label"].tolist()[::2] == [0, 3] and frame["label"].isna().tolist() == [False, True, False]
    assert frame["predicted"].tolist()[::2] == [0, 3]
    assert list(frame.columns[-4:]) == list(gl.GGO_SEVERITY.names)


@pytest.fixture(scope="module")
def model():
    model = gl.build_backbone("squeezenet1_0", weights=None).eval()
    model.recipe = gl.Recipe(size=64)
    return model


@pytest.fixture(scope="module")
def images():
    import pandas as pd

    pixels = np.random.default_rng(0).integers(0, 256, (70, 3, 64, 64), np.uint8)
    names = [f"s{i}" for i in range(70)]
    table = pd.DataFrame({"name": names, "patient": names, "label": 1, "split": "test"})
    return gl.images.ImageSet(pixels, table, gl.Recipe(size=64))


def test_predict_gives_the_networks_probabilities_in_order(model, images):
    predictions = gl.predict(model, images)
    assert predictions.names == images.names and predictions.made_by == "squeezenet1_0"
    with torch.inference_mode():
        expected = model(torch.from_numpy(images.pixels[66:68])).softmax(1)
    assert predictions.probabilities[66:68] == pytest.approx(expected.numpy(), abs=1e-5)


def test_flips_make_a_mirrored_scan_get_the_same_answer(model, images):
    mirrored = gl.images.ImageSet(images.pixels[..., ::-1].copy(), images.table, images.recipe)
    a, b = (gl.predict(model, i, flips=True).probabilities for i in (images, mirrored))
    assert a == pytest.approx(b, abs=1e-6)
    assert gl.predict(model, images).probabilities != pytest.approx(a, abs=1e-6)


def test_predict_refuses_images_of_another_recipe(model, images):
    other = gl.images.ImageSet(images.pixels, images.table, gl.Recipe(size=64, pick="middle"))
    with pytest.raises(gl.ModelError, match="were made by"):
        gl.predict(model, other)
    with pytest.raises(gl.CohortError, match="no image"):
        gl.predict(model, images.subset(slice(0)))
