"""Tasks of two, three, four and five classes: from a cohort to a model file, a report, a viewer and the terminal."""

import warnings

import numpy as np
import pytest

import ggo_lab as gl
from ggo_lab.cli import main
from ggo_lab.page import scan_page

THREE = gl.Task(("low <b>", "middle", "high"), ordered=True, bands=((0, 0.3), (0.3, 0.6), (0.6, 1)))
YES_NO = gl.Task(("no", "yes"), bands=((0, 0.5), (0.5, 1)))
UNORDERED = gl.Task(("a", "b", "c"), bands=((0, 0.3), (0.3, 0.6), (0.6, 1)))


@pytest.mark.parametrize(
    ("task", "healthy"),
    [
        (YES_NO, 0),
        (gl.tasks.COVID_DETECTION, 0.3),
        (UNORDERED, 0),
        (THREE, 0),
        (gl.GGO_SEVERITY, 0),
        (gl.tasks.MOSMED, 0.2),
    ],
    ids=["yes or no", "detection", "three, no order", "three", "four", "five"],
)
def test_a_task_goes_all_the_way(task, healthy, tmp_path, capsys):
    cohort = gl.phantom_cohort(24, seed=3, shape=(8, 48, 48), healthy=healthy, task=task)
    assert cohort.counts().columns.tolist() == list(task.names) and "no label" not in repr(cohort.check())
    images = gl.prepare(cohort, gl.Recipe(size=32), jobs=1, progress=False)
    assert images.task == task and set(images.labels) <= set(range(len(task)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random weights are called so
        model = gl.build_backbone("squeezenet1_0", weights=None, task=task, seed=1)
    gl.fit(model, images.train, images.validation, gl.TrainConfig(max_epochs=1, batch_size=8), progress=False)
    file = gl.save_model(model, tmp_path / "model.safetensors")
    again = gl.load_model(file)
    assert again.task == task
    predictions = gl.predict(again, images.test)
    # Fitting may leave the weights in another order in memory, in which sums round otherwise.
    np.testing.assert_allclose(predictions.probabilities, gl.predict(model, images.test).probabilities, atol=1e-5)
    assert predictions.probabilities.shape == (len(images.test), len(task)) and predictions.task == task

    baseline = {"hand": gl.Predictions(images.test.table, np.eye(len(task))[images.test.labels], task)}
    report = gl.evaluate(predictions, baseline, draws=20)
    ordinal = {"weighted kappa", "mean grade error", "two grades off"}
    assert (ordinal & set(report.scores.index)) == (ordinal if task.ordered else set())
    assert report.scores.loc["macro-F1", "hand"] == 1 and report.confusion.shape == (len(task),) * 2
    page = report.to_html(tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(name.replace("<b>", "&lt;b&gt;") in page for name in task.names) and "low <b>" not in page
    gl.compare({"net": report, "hand": gl.evaluate(baseline["hand"], draws=20)}, draws=20)

    viewer = gl.PredictionViewer(cohort, again, report)
    assert viewer.name in images.test.names and any(name in repr(viewer) for name in task.names)
    viewer.explained = task.names[0]
    saliency = gl.explain(again, cohort.scan(viewer.name), task.label_of(task.names[1]), steps=2)
    assert task.names[1] in saliency.sentence

    scan = gl.write_nifti(cohort.scan(viewer.name), tmp_path / "scan.nii.gz")
    assert main(["grade", str(scan), "--model", str(file), "--html", str(tmp_path / "scan.html")]) == 0
    said = capsys.readouterr().out
    shares = predictions.probabilities[predictions.names.index(viewer.name)]
    best = int(shares.argmax())
    assert f"{task.noun.capitalize()}: {task.numbers[best]} ({task.names[best]})" in said
    assert all(f"{number} {name}" in said for number, name in zip(task.numbers, task.names, strict=True))
    assert "low <b>" not in (tmp_path / "scan.html").read_text(encoding="utf-8")


def test_models_and_images_of_different_tasks_do_not_meet():
    cohort = gl.phantom_cohort(12, seed=3, shape=(8, 48, 48), task=YES_NO)
    images = gl.prepare(cohort, gl.Recipe(size=32), jobs=1, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        four = gl.build_backbone("squeezenet1_0", weights=None, seed=1)
        two = gl.build_backbone("squeezenet1_0", weights=None, task=YES_NO, seed=1)
    with pytest.raises(gl.GgoLabError, match=r"task=images\.task"):
        gl.fit(four, images.train, images.validation, gl.TrainConfig(max_epochs=1), progress=False)
    with pytest.raises(gl.ModelError, match="The model tells mild, moderate, severe, critical"):
        gl.predict(four, images)
    with pytest.raises(gl.ChoiceError, match="order"):
        corn = gl.TrainConfig(max_epochs=1, loss="corn")
        gl.fit(two, images.train, images.validation, corn, progress=False)


def test_a_page_of_another_task_escapes_its_names(tmp_path):
    scan = gl.make_phantom(seed=1, shape=(8, 32, 32))
    page = scan_page(scan, tmp_path / "p.html", probabilities=[0.2, 0.5, 0.3], task=THREE).read_text(encoding="utf-8")
    assert "Predicted: middle" in page and "low <b>" not in page and "low &lt;b&gt;" in page
