"""Nothing is left open after fit, explain, predict, plots and viewers: hooks, modes, figures, widgets, files."""

import copy
import gc
import os
from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from squares import TRAIN, VALIDATION, config, tiny

import ggo_lab as gl


def living_widgets() -> set:
    return set(widgets.widget._instances)


def counted(model: torch.nn.Module) -> dict[str, object]:
    """What could be left open."""
    gc.collect()
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    files = Path("/proc/self/fd")
    return {
        "hooks": sum(len(getattr(part, name)) for part in model.modules() for name in hooks),
        "modes": [part.training for part in model.modules()],
        "learning": [part.requires_grad for part in model.parameters()],
        "gradients": sum(part.grad is not None for part in model.parameters()),
        "figures": plt.get_fignums(),
        "widgets": len(living_widgets()),
        "files": sorted(os.listdir(files)) if files.exists() else [],
        "torch": (torch.is_grad_enabled(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()),
    }


@pytest.fixture(scope="module")
def scan() -> gl.Scan:
    return gl.make_phantom(grade=2, seed=1, shape=(12, 48, 48))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    network = tiny()
    gl.fit(network, TRAIN, VALIDATION, config(max_epochs=1), progress=False)
    network.recipe = gl.Recipe(size=32)
    return network


def fitted(model, scan):
    gl.fit(model, TRAIN, VALIDATION, config(max_epochs=1), progress=False)


def fit_that_fails(model, scan):
    with pytest.raises(gl.GgoLabError):
        gl.fit(model, TRAIN, VALIDATION, config(max_epochs=1, lr=1e30, optimizer="sgd"), progress=False)


def unknown_method(model, scan):
    with pytest.raises(gl.GgoLabError):
        gl.explain(model, scan, method="seance")


def viewed(model, scan):
    gl.SliceViewer(scan, "truth", heat=np.zeros(scan.shape)).close()


def linked(model, scan):
    viewers = [gl.SliceViewer(scan) for _ in range(2)]
    gl.link(*viewers)
    for viewer in viewers:
        viewer.close()


def predictions_viewed(model, scan):
    cohort = gl.phantom_cohort(4, shape=(12, 48, 48), second_scans=0)
    report = gl.evaluate(gl.Predictions(cohort.table, np.full((4, 4), 0.25)), draws=9)
    train = gl.images.ImageSet(TRAIN.pixels[:6], TRAIN.table.iloc[:6].reset_index(drop=True), TRAIN.recipe)
    viewer = gl.PredictionViewer(cohort, model, report, train)
    viewer.explained = "predicted"
    viewer.name = cohort.names[2]
    viewer.involvement = 0.5
    viewer.close()


def predictions_that_fail(model, scan):
    cohort = gl.phantom_cohort(4, shape=(12, 48, 48), second_scans=0)
    report = gl.evaluate(gl.Predictions(cohort.table, np.full((4, 4), 0.25)), draws=9)
    other = gl.images.ImageSet(TRAIN.pixels, TRAIN.table, gl.Recipe(size=32, pick="middle"))
    with pytest.raises(gl.GgoLabError):
        gl.PredictionViewer(cohort, model, report, other).close()


WORK: dict[str, Callable] = {
    "fit": fitted,
    "fit that fails": fit_that_fails,
    "predict": lambda model, scan: gl.predict(model, VALIDATION),
    "predict with flips": lambda model, scan: gl.predict(model, VALIDATION, flips=True),
    "Grad-CAM": lambda model, scan: gl.explain(model, scan, method="grad_cam"),
    "occlusion": lambda model, scan: gl.explain(model, scan, method="occlusion"),
    "integrated gradients": lambda model, scan: gl.explain(model, scan, method="integrated_gradients"),
    "a method that is not known": unknown_method,
    "a viewer": viewed,
    "linked viewers": linked,
    "a viewer of predictions": predictions_viewed,
    "a viewer of predictions that is refused": predictions_that_fail,
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("work", WORK)
def test_nothing_is_left_open(model, scan, work, training):
    model = copy.deepcopy(model)
    model.train(training)
    for part in model.parameters():
        part.grad = None
    before = counted(model)
    WORK[work](model, scan)
    after = counted(model)
    if work.startswith("fit"):  # after which a model is ready to be asked
        before.pop("modes"), after.pop("modes"), before.pop("gradients"), after.pop("gradients")
    assert after == before
