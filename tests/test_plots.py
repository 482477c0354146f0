"""Figures: what they draw is read back from the Axes."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from judged import predictions_of
from matplotlib.colors import to_hex

import ggo_lab as gl


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def scan():
    return gl.make_phantom(grade=3, seed=1, shape=(16, 64, 64))


@pytest.fixture(scope="module")
def report():
    true = np.repeat(np.arange(4), [4, 3, 2, 1])
    shares = 0.7 * np.eye(4)[(true + (np.arange(10) == 0)) % 4] + 0.075
    names = [f"s{i}" for i in range(10)]
    return gl.evaluate(predictions_of(names, names, true, shares, "toy"), draws=50)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_slice_is_drawn_in_its_true_proportions_with_letters(scan, plane):
    ax = gl.plot_slice(scan, plane=plane)
    height, width = ax.images[0].get_array().shape
    drawn = (height * scan.spacing[0 if plane != "axial" else 1], width * scan.spacing[2])
    assert ax.get_aspect() * height / width == pytest.approx(drawn[0] / drawn[1])
    letters = {text.get_text(): text.get_position() for text in ax.texts}
    if plane != "sagittal":
        assert letters["R"][0] < 0.5 < letters["L"][0]
    else:
        assert letters["A"][0] < 0.5 < letters["P"][0]


def test_a_slice_shows_its_window_masks_and_heat(scan):
    heat = np.zeros(scan.shape[1:], np.float32)
    heat[20, 30] = 1
    ax = gl.plot_slice(scan, 8, window="bone", masks="truth", heat={8: heat})
    assert ax.images[0].get_clim() == (-500, 1300)
    assert np.array_equal(ax.images[0].get_array(), scan.hu[8]) and np.array_equal(ax.images[1].get_array(), heat)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["lungs", "lesions"]
    alpha = ax.images[1].get_alpha()
    assert alpha[20, 30] == 0.6 and alpha[0, 0] == 0  # what is low leaves the scan as it is
    assert to_hex(ax.images[1].cmap(1.0)) == "#ff7800"  # as in the viewer
    assert all(letter.get_path_effects() for letter in ax.texts)  # to be read on bright tissue
    with pytest.raises(gl.ChoiceError, match="plane='oblique'"):
        gl.plot_slice(scan, plane="oblique")


def test_an_image_is_drawn_with_all_its_channels(scan):
    image = gl.Recipe(size=64).cut(scan).image()
    drawn = gl.plot_image(image, (2, 8, 13)).images[0].get_array()
    assert drawn.shape[0] == 64 and np.array_equal(drawn[:, -64:], image[2])


def test_grade_counts_add_up_to_the_cohort():
    cohort = gl.phantom_cohort(20)
    ax = gl.plots.plot_counts(cohort)
    widths = [sum(bar.get_width() for bar in bars) for bars in ax.containers]
    assert sum(widths) == 20
    assert to_hex(ax.containers[3][0].get_facecolor()) == gl.GGO_SEVERITY.colours[3].lower()


@pytest.mark.parametrize("measure", ["loss", "accuracy"])
def test_a_history_marks_the_kept_epoch(measure):
    table = pd.DataFrame({"epoch": [1, 2, 3], "seconds": 1.0, "best": [False, True, False]})
    for split in ("train", "validation"):
        table[f"{split}_loss"], table[f"{split}_accuracy"] = [1.4, 0.9, 1.0], [0.3, 0.7, 0.6]
    history = gl.training.History(table, 2, "max_epochs", gl.TrainConfig(), None, "cpu")
    ax = gl.plot_history(history, measure=measure)
    lines = {line.get_label(): line for line in ax.lines}
    assert lines["train"].get_ydata().tolist() == table[f"train_{measure}"].tolist()
    marked = [line for line in ax.lines if line.get_markersize() == 9]
    assert (marked[0].get_xdata()[0], marked[0].get_ydata()[0]) == (2, table[f"validation_{measure}"][1])


def test_confusion_shows_every_count(report):
    ax = gl.plot_confusion(report)
    shown = {tuple(map(int, text.get_position())): int(text.get_text().split("\n")[0]) for text in ax.texts}
    counts = report.confusion.to_numpy()
    assert shown == {(column, row): n for (row, column), n in np.ndenumerate(counts) if n}


def test_scores_show_intervals_and_the_majority(report):
    ax = gl.plot_scores({"one": report, "two": report}, "accuracy")
    ends = ax.collections[0].get_segments()
    assert [tuple(end[:, 0]) for end in ends] == [tuple(report.interval("accuracy"))] * 2
    assert any(line.get_xdata()[0] == report.scores.loc["accuracy", "majority"] for line in ax.lines)


def test_a_comparison_shows_its_intervals_and_greys_what_shows_nothing(report):
    sure = predictions_of(report.predictions.names, report.predictions.patients, report.predictions.labels,
                          np.eye(4)[report.predictions.labels], "sure")  # fmt: skip
    wrong = predictions_of(sure.names, sure.patients, sure.labels, np.eye(4)[(sure.labels + 2) % 4], "wrong")
    reports = {"a": report, "b": gl.evaluate(sure, draws=9), "c": gl.evaluate(wrong, draws=9)}
    comparison = gl.compare(reports, draws=200)
    ax = gl.plot_comparison(comparison)
    ends = [tuple(segment[:, 0]) for part in ax.collections for segment in part.get_segments()]
    assert ends == list(zip(comparison.differences["low"], comparison.differences["high"], strict=True))
    shown = [text.get_text().endswith("not distinguishable") for text in ax.texts]
    assert shown == (~comparison.differences["distinguishable"]).tolist() and set(shown) == {True, False}
    grey = [to_hex(part.get_color()[0]) == "#999999" for part in ax.collections]
    assert grey == shown


def test_reliability_shows_bins_and_band(report):
    found = gl.reliability(report.predictions, draws=50)
    ax = gl.plot_reliability(found)
    points = next(line for line in ax.lines if line.get_label() == "toy")
    assert points.get_ydata().tolist() == found.table["right"].tolist()
    assert [bar.get_y() for bar in ax.patches] == pytest.approx(found.table["band_low"].tolist())
    assert [text.get_text() for text in ax.texts] == [str(n) for n in found.table["scans"]]


def test_risk_coverage_shows_every_network(report):
    curve = gl.risk_coverage(report.predictions)
    ax = gl.plots.plot_risk_coverage({"one": curve, "two": curve})
    assert [line.get_label() for line in ax.lines] == ["one", "two"]
    assert ax.lines[0].get_ydata().tolist() == curve["risk"].tolist()


def test_probabilities_frame_the_true_class():
    ax = gl.plot_probabilities(np.array([0.1, 0.2, 0.3, 0.4]), 2)
    assert [bar.get_width() for bar in ax.patches] == [0.1, 0.2, 0.3, 0.4]
    assert [bar.get_linewidth() == 2 for bar in ax.patches] == [False, False, True, False]


EVIL = ["ward$_$07", "$\\frac$", "_hidden", "a$b", "50$", "a^b", "{x}%s", "<b>&amp;", "\u05d0\u05d1"]


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("own_axes", [True, False])
def test_every_plot_draws_names_as_they_stand(name, own_axes, scan, report):
    task = gl.Task((name, "other"), bands=((0, 0.5), (0.5, 1)))
    table = pd.DataFrame({"name": [f"{name}{i}" for i in range(6)], "label": [0, 1] * 3})
    shares = np.array([[0.7, 0.3], [0.4, 0.6], [0.2, 0.8]] * 2)
    judged = gl.Predictions(table, shares, task, name)
    reports = {name: gl.evaluate(judged, draws=9), "other": gl.evaluate(judged, draws=9)}
    cohort = gl.Cohort(table.assign(patient=table["name"], split="train"), None, None, task=task)
    lungs = scan.truth.lungs
    plots = [
        lambda ax: gl.plot_slice(scan.renamed(name), masks={name: lungs}, ax=ax),
        lambda ax: gl.plots.plot_counts(cohort, ax=ax),
        lambda ax: gl.plot_confusion(reports[name], ax=ax),
        lambda ax: gl.plot_scores(reports, ax=ax),
        lambda ax: gl.plot_comparison(gl.compare(reports, draws=9), ax=ax),
        lambda ax: gl.plot_reliability(gl.reliability(judged, draws=9), ax=ax),
        lambda ax: gl.plots.plot_risk_coverage({name: gl.risk_coverage(judged)}, ax=ax),
        lambda ax: gl.plot_probabilities(shares[0], 0, ax=ax, task=task),
    ]
    for plot in plots:
        ax = plot(plt.subplots()[1] if own_axes else None)
        ax.figure.canvas.draw()  # where mathematics is parsed
        texts = [text for text in ax.findobj(matplotlib.text.Text) if name in text.get_text()]
        assert texts and not any(text.get_parse_math() for text in texts)


def test_half_a_character_in_a_name_is_drawn_as_a_question_mark(scan):
    ax = gl.plot_slice(scan.renamed("ward\ud800"))
    ax.figure.canvas.draw()
    assert ax.get_title(loc="left").startswith("ward?") or ax.get_title().startswith("ward?")


def test_every_plot_refuses_choices_it_does_not_know(scan, report):
    for ask, said in (
        (lambda: gl.plot_scores({"a": report}, "F2"), "measure='F2'"),
        (lambda: gl.plot_scores({}), "no report"),
        (lambda: gl.plot_slice(scan, 99), "index=99 is outside"),
        (lambda: gl.plot_slice(scan, 1.5), "index=1.5 is outside"),
        (lambda: gl.plot_slice(scan, window="wide"), "window='wide'"),
        (lambda: gl.plot_image(scan.hu[0]), "shape .C, H, W."),
        (lambda: gl.plot_probabilities([0.5, 0.5], 0), "2 classes|4 classes"),
        (lambda: gl.plot_probabilities([0.25] * 4, 4), "label=4"),
        (lambda: gl.plot_probabilities([0.25] * 4, 1.5), "label=1.5"),
    ):
        with pytest.raises(gl.ChoiceError, match=said):
            ask()


def test_plots_take_what_to_frame_gives(report):
    frame = gl.Predictions(report.predictions.table.assign(label=pd.NA), report.predictions.probabilities).to_frame()
    shares = frame.loc[0, list(gl.GGO_SEVERITY.names)]
    ax = gl.plot_probabilities(shares, frame.loc[0, "label"])
    assert [bar.get_width() for bar in ax.patches] == shares.tolist()
    framed = gl.plot_probabilities(shares, report.predictions.to_frame().loc[3, "label"])
    assert [bar.get_linewidth() == 2 for bar in framed.patches] == [True, False, False, False]


def test_a_score_that_is_not_defined_is_drawn_as_such():
    one = gl.evaluate(predictions_of(["a", "b"], ["a", "b"], [1, 1], np.eye(4)[[1, 0]]), draws=9)
    ax = gl.plot_scores({"one": one}, "AUC")
    assert [text.get_text() for text in ax.texts] == ["not defined"]


def test_style_is_set():
    with matplotlib.rc_context():
        gl.use_style()
        assert plt.rcParams["image.cmap"] == "gray" and plt.rcParams["figure.constrained_layout.use"]
