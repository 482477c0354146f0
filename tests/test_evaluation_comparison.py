"""Comparisons: paired, with seeds, in words; and how many scans an interval needs."""

import numpy as np
import pytest
from test_evaluation import TYPICAL, hard, toy, usual_grades

import ggo_lab as gl
from ggo_lab.evaluation import measures
from ggo_lab.evaluation.comparison import simultaneous_intervals


def report_of(true, seed, signal=1.5, **options):
    return gl.evaluate(toy(true, seed, signal), draws=20, **options)


def test_a_network_is_not_distinguishable_from_its_equal():
    true = usual_grades(60)
    found = gl.compare({"one": report_of(true, 1), "two": report_of(true, 2)}, draws=300)
    (row,) = found.differences.itertuples()
    assert row.low < 0 < row.high and not row.distinguishable
    assert "not distinguishable on these 60 scans" in found.sentences[0]
    assert "One run of training each" in found.sentences[-1]
    for text in (repr(found), found._repr_html_(), found.to_markdown()):
        assert "not distinguishable" in text


def test_a_clearly_better_network_is_said_to_be_better():
    true = usual_grades(100)
    weak, strong = report_of(true, 1, signal=0.2), report_of(true, 2, signal=4.0)
    found = gl.compare({"weak": weak, "strong": strong}, draws=300)
    assert list(found.scores.index) == ["strong", "weak"] and found.differences.index[0] == "strong - weak"
    assert found.differences["difference"].iloc[0] == pytest.approx(strong.macro_f1 - weak.macro_f1)
    assert found.sentences[0].startswith("strong is better than weak by")
    error = gl.compare({"weak": weak, "strong": strong}, "mean grade error", draws=300)
    assert error.scores.index[0] == "strong" and error.differences["high"].iloc[0] < 0
    assert error.sentences[0].startswith("strong is better than weak by")


def test_pairing_makes_the_interval_narrower():
    """Two networks that fail on the same scans: their difference is known better than either score."""
    true = usual_grades(100)
    rng = np.random.default_rng(0)
    said = np.array([rng.choice(4, p=TYPICAL[index]) for index in true])
    other = np.where(np.arange(100) % 20 == 0, (said + 1) % 4, said)
    found = gl.compare({"a": gl.evaluate(hard(true, said), draws=9), "b": gl.evaluate(hard(true, other), draws=9)})
    width = float((found.differences["high"] - found.differences["low"]).iloc[0])
    assert width < 0.75 * float((found.scores["high"] - found.scores["low"]).min())


def test_scans_are_matched_by_name_not_by_order():
    predictions = toy(usual_grades(40))
    turned = gl.evaluate(predictions.subset(np.arange(40)[::-1]), draws=9)
    found = gl.compare({"a": gl.evaluate(predictions, draws=9), "b": turned}, "accuracy", draws=50)
    assert found.differences["difference"].iloc[0] == 0


def test_seeds_add_to_the_interval():
    true = usual_grades(60)
    steady = [report_of(true, 1)] * 3
    varied = [report_of(true, seed, signal) for seed, signal in enumerate((0.3, 1.5, 4.0))]
    found = gl.compare({"steady": steady, "varied": varied}, draws=400)
    widths = found.scores["high"] - found.scores["low"]
    assert widths["varied"] > 1.5 * widths["steady"]
    assert found.scores.loc["steady", "sd_over_seeds"] == 0 and found.scores.loc["varied", "seeds"] == 3
    assert found.scores.loc["varied", "value"] == pytest.approx(np.mean([run.macro_f1 for run in varied]))
    assert not any("One run of training" in sentence for sentence in found.sentences)


def test_what_cannot_be_compared_is_refused():
    report = report_of(usual_grades(40), 0)
    fewer = gl.evaluate(report.predictions.subset(slice(0, 30)), draws=9)
    with pytest.raises(gl.CohortError, match="'b' has no prediction for 10 of the scans"):
        gl.compare({"a": report, "b": fewer})
    with pytest.raises(gl.CohortError, match="10 scans that the first network was not"):
        gl.compare({"a": fewer, "b": report})
    changed = report.predictions.subset(slice(None))
    changed.table.loc[0, "label"] = 3
    with pytest.raises(gl.CohortError, match="another true label of scan-0"):
        gl.compare({"a": report, "b": gl.evaluate(changed, draws=9)})
    with pytest.raises(gl.ChoiceError, match="two networks or more"):
        gl.compare({"a": report})
    with pytest.raises(gl.ChoiceError, match="empty list"):
        gl.compare({"a": report, "b": []})
    with pytest.raises(gl.ChoiceError, match="measure='F2'"):
        gl.compare({"a": report, "b": report}, "F2")


def test_a_measure_that_is_no_number_cannot_be_compared():
    one_grade = gl.evaluate(hard([1] * 6, [1, 1, 1, 0, 1, 1]), draws=9)
    for ask in (
        lambda: gl.compare({"a": one_grade, "b": one_grade}, "AUC", draws=20),
        lambda: gl.evaluation.how_many_scans_needed(one_grade, 0.1, "AUC"),
    ):
        with pytest.raises(gl.ChoiceError, match=r"AUC of .* is not defined: these 6 scans hold too few classes"):
            ask()
    values = np.random.default_rng(0).normal(size=(2, 400))
    holes = np.concatenate([values, [[np.nan], [0.0]]], axis=1)  # one draw in which one number is none
    assert simultaneous_intervals(holes) == simultaneous_intervals(values)


def test_one_simultaneous_interval_is_a_percentile_interval_and_many_are_wider():
    values = np.random.default_rng(0).normal(size=(12, 4000))
    (one,) = simultaneous_intervals(values[:1])
    assert one == pytest.approx(np.quantile(values[0], (0.025, 0.975)), abs=0.01)
    many = np.array(simultaneous_intervals(values))
    inside = ((values >= many[:, :1]) & (values <= many[:, 1:])).all(axis=0).mean()
    assert inside == pytest.approx(0.95, abs=0.01) and many[0, 0] < one.low


def test_intervals_of_differences_cover_the_truth():
    rng = np.random.default_rng(5)
    true, repeats, held = usual_grades(61), 100, 0
    better = 0.8 * TYPICAL + 0.2 * np.eye(4)
    shares = np.bincount(true) / len(true)
    tables = np.stack([better, TYPICAL]) * shares[:, None]
    truth = -np.diff(measures.from_counts(measures.measures_of(gl.GGO_SEVERITY)["macro-F1"], tables, np.ones(4, bool)))[
        0
    ]
    for _ in range(repeats):
        luck = rng.random(len(true))[:, None]  # the same for both: what is hard for one is hard for the other
        said = [np.minimum((luck > t.cumsum(axis=1)[true]).sum(axis=1), 3) for t in (better, TYPICAL)]
        a, b = (gl.evaluate(hard(true, s), draws=2) for s in said)
        found = gl.compare({"a": a, "b": b}, draws=200)
        low, high = found.differences[["low", "high"]].iloc[0]
        difference = truth if found.differences.index[0] == "a - b" else -truth
        held += low <= difference <= high
    assert held / repeats >= 0.9


def test_the_scans_needed_give_about_the_width_asked_for():
    report = gl.evaluate(toy(usual_grades(60), signal=1.0))
    width = report.interval().high - report.interval().low
    n = gl.evaluation.how_many_scans_needed(report, width / 2)
    assert 3.2 * 60 < n < 4.8 * 60
    copies = [toy(usual_grades(n), seed, signal=1.0) for seed in range(3)]
    ends = [gl.evaluate(copy, draws=400).interval() for copy in copies]
    assert np.mean([high - low for low, high in ends]) == pytest.approx(width / 2, rel=0.2)
    assert gl.evaluation.how_many_scans_needed(report, width / 2) == n
    with pytest.raises(gl.ChoiceError, match="width=0"):
        gl.evaluation.how_many_scans_needed(report, 0)
    with pytest.raises(gl.ChoiceError, match="measure='F2'"):
        gl.evaluation.how_many_scans_needed(report, 0.1, "F2")
