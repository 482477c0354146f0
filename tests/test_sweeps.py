"""A grid of runs in a folder: nothing done twice, nothing lost, whoever works on it."""

import json
import os
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from squares import TRAIN, VALIDATION, config, tiny

import ggo_lab as gl
from ggo_lab import sweeps as room
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.sweeps import sweep, sweep_table

IMAGES = gl.ImageSet(
    np.concatenate([TRAIN.pixels, VALIDATION.pixels]),
    pd.concat([TRAIN.table, VALIDATION.table], ignore_index=True),
    TRAIN.recipe,
)
AXES = {"seed": [0, 1], "batch_size": [8, 16]}


@pytest.fixture(autouse=True)
def trained(monkeypatch):
    """Every backbone is the tiny one; gives the list of seeds for which one was built."""
    built = []

    def build(name, extent, weights, seed):
        built.append(seed)
        return tiny(seed)

    monkeypatch.setattr(room, "build_backbone", build)
    return built


def run(folder, axes=AXES, jobs=1, **settings):
    return sweep(IMAGES, folder, axes, config(max_epochs=2, **settings), jobs=jobs)


def test_every_combination_is_a_row(tmp_path, trained):
    table = run(tmp_path)
    assert sorted(zip(table["seed"], table["batch_size"], strict=True)) == [(0, 8), (0, 16), (1, 8), (1, 16)]
    assert table["validation_macro_f1"].is_monotonic_decreasing
    assert ((table["low"] <= table["validation_macro_f1"]) & (table["validation_macro_f1"] <= table["high"])).all()
    assert {file.suffix for file in tmp_path.iterdir()} == {".json"}, "claims and checkpoints are cleared away"
    single = gl.fit(model := tiny(1), TRAIN, VALIDATION, config(max_epochs=2, seed=1, batch_size=8), False)
    row = table[(table["seed"] == 1) & (table["batch_size"] == 8)].iloc[0]
    assert row["validation_loss"] == single.table.loc[single.table["best"], "validation_loss"].item()
    assert row["validation_macro_f1"] == gl.evaluate(gl.predict(model, VALIDATION)).macro_f1


def test_what_is_done_is_not_done_again(tmp_path, trained):
    run(tmp_path, {"seed": [0], "batch_size": [8]})
    assert trained == [0]
    table = run(tmp_path)
    assert len(trained) == 4 and len(table) == 4
    run(tmp_path)
    assert len(trained) == 4
    run(tmp_path, lr=1e-2)
    assert len(trained) == 8, "other settings are other runs"


def test_other_images_of_the_same_names_are_other_runs(tmp_path, trained):
    brighter = replace(IMAGES, pixels=IMAGES.pixels + np.uint8(1))
    for images in (IMAGES, brighter, IMAGES):
        sweep(images, tmp_path, {"seed": [0]}, config(max_epochs=1))
    assert trained == [0, 0]


def test_random_weights_in_the_place_of_pretrained_ones_are_said_and_stand_in_the_table(tmp_path, monkeypatch):
    def build(*_, seed):
        warnings.warn("RANDOM WEIGHTS", RandomWeightsWarning, stacklevel=1)
        return tiny(seed)

    monkeypatch.setattr(room, "build_backbone", build)
    with pytest.warns(RandomWeightsWarning):
        table = sweep(IMAGES, tmp_path, {"seed": [0]}, config(max_epochs=1), weights="imagenet")
    assert table["weights"].tolist() == ["random"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(IMAGES, tmp_path, {"seed": [0]}, config(max_epochs=1), weights="none")


def test_workers_share_the_runs(tmp_path, trained):
    runs = room._combinations({"seed": list(range(12))})
    given = (IMAGES, tmp_path, runs, config(max_epochs=2), "none")
    workers = [threading.Thread(target=room._fill, args=given) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(trained) == list(range(12)) and len(sweep_table(tmp_path)) == 12


# Forked from a fresh Python, which has no threads yet: importing torch takes longer than all the runs.
WORK = """
import os, sys
from pathlib import Path
from test_sweeps import *

def build(name, extent, weights, seed):
    with open(sys.argv[2], "a") as log:
        log.write(f"{seed} {os.getpid()}\\n")
    return tiny(seed)

room.build_backbone = build
for worker in range(3):
    if os.fork() == 0:
        run(Path(sys.argv[1]), {"seed": list(range(12))})
        os._exit(0)
sys.exit(any(os.wait()[1] for _ in range(3)))
"""


def test_three_processes_share_a_grid_without_doing_a_run_twice(tmp_path):
    tests = Path(__file__).parent
    places = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", WORK, tmp_path / "grid", tmp_path / "log"], env=places, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    done = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(int(seed) for seed, _ in done) == list(range(12)), "each once"
    assert len({worker for _, worker in done}) == 3, "by all three"
    assert sorted(sweep_table(tmp_path / "grid")["seed"]) == list(range(12))


def claims(tmp_path, monkeypatch):
    """The claim's name of the only run."""
    seen = []
    monkeypatch.setattr(room, "_train", lambda *given: seen.append(given[-1]) or {"row": {}})
    run(tmp_path / "once", {"seed": [0]})
    return tmp_path / "shared" / seen[0].with_suffix(".claim").name


def test_a_run_that_is_claimed_is_left_alone_until_its_worker_is_dead(tmp_path, monkeypatch):
    claim = claims(tmp_path, monkeypatch)
    claim.parent.mkdir()
    claim.touch()
    assert len(run(tmp_path / "shared", {"seed": [0]})) == 0 and claim.exists()
    long_ago = time.time() - room._DEAD_AFTER_S - 5
    os.utime(claim, (long_ago, long_ago))
    assert len(run(tmp_path / "shared", {"seed": [0]})) == 1 and not claim.exists()


def test_a_worker_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "_SIGN_OF_LIFE_S", 0.02)
    with room._claim(tmp_path / "c.claim") as ours:
        assert ours
        os.utime(tmp_path / "c.claim", (0, 0))
        deadline = time.time() + 5
        while (tmp_path / "c.claim").stat().st_mtime == 0 and time.time() < deadline:
            time.sleep(0.01)
        assert (tmp_path / "c.claim").stat().st_mtime > 0
    assert not (tmp_path / "c.claim").exists()


def test_a_run_that_was_killed_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    real, epochs = room.fit, []

    def dies(model, train, validation, settings, progress, checkpoint):
        real(model, train, validation, config(max_epochs=1, seed=0), progress, checkpoint)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, "fit", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, {"seed": [0]})
    assert {file.suffix for file in tmp_path.iterdir()} == {".checkpoint"}
    monkeypatch.setattr("ggo_lab.training.loop.train_epoch", lambda *given: epochs.append(given[4]) or (1.0, 0.5))
    assert run(tmp_path, {"seed": [0]})["epochs"].tolist() == [2] and epochs == [2]


def test_a_run_that_fails_is_a_row_that_says_why(tmp_path):
    table = run(tmp_path, {"lr": [1e-3, 1e30]}, optimizer="sgd")
    assert len(table) == 2 and table["error"].notna().tolist() == [False, True]
    assert "lr=1e+30 is too high" in table["error"].iloc[1]


def test_the_curves_are_kept(tmp_path):
    run(tmp_path, {"seed": [0]})
    (file,) = tmp_path.glob("*.json")
    assert len(json.loads(file.read_text(encoding="utf-8"))["curves"]["validation_loss"]) == 2


@pytest.mark.parametrize(
    "axes", [{"colour": [1]}, {"seed": []}, {"backbone": "resnet18"}, {"batch_size": [1]}, {"optimizer": ["lion"]}]
)
def test_axes_that_make_no_sense_are_refused_before_anything_is_trained(tmp_path, trained, axes):
    with pytest.raises(gl.ChoiceError):
        run(tmp_path, axes)
    assert not trained


def test_images_without_splits_are_refused(tmp_path):
    with pytest.raises(gl.CohortError, match="needs a validation split"):
        sweep(TRAIN, tmp_path, AXES)


def test_an_empty_folder_is_an_empty_table(tmp_path):
    assert len(sweep_table(tmp_path)) == 0


def test_a_dask_cluster_drives_it(tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
    import joblib

    axes = {**AXES, "backbone": ["squeezenet1_0"], "extent": ["scratch"]}  # in their processes nothing is replaced
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        assert run(tmp_path, axes, jobs=2)["validation_macro_f1"].notna().sum() == 4
