"""A grid of runs in a folder: nothing done twice, nothing lost, whoever works on it."""

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
import warnings
from dataclasses import replace
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from joblib.externals.loky.process_executor import TerminatedWorkerError
from squares import TRAIN, VALIDATION, config, tiny

import ggo_lab as gl
from ggo_lab import sweeps as room
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.sweeps import sweep, sweep_table

IMAGES = gl.images.ImageSet(
    np.concatenate([TRAIN.pixels, VALIDATION.pixels]),
    pd.concat([TRAIN.table, VALIDATION.table], ignore_index=True),
    TRAIN.recipe,
)
AXES = {"seed": [0, 1], "batch_size": [8, 16]}


@pytest.fixture(autouse=True)
def trained(monkeypatch):
    """Every backbone is the tiny one; gives the list of seeds for which one was built."""
    built = []

    def build(name, extent, weights, *, seed, **_):
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
    def build(*_, seed, **__):
        warnings.warn("RANDOM WEIGHTS", RandomWeightsWarning, stacklevel=1)
        return tiny(seed)

    monkeypatch.setattr(room, "build_backbone", build)
    with pytest.warns(RandomWeightsWarning):
        table = sweep(IMAGES, tmp_path, {"seed": [0]}, config(max_epochs=1), weights="imagenet")
    assert table["weights"].tolist() == ["random"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sweep(IMAGES, tmp_path, {"seed": [0]}, config(max_epochs=1), weights=None)


def test_workers_share_the_runs(tmp_path, trained):
    runs = room._runs(IMAGES, tmp_path, {"seed": range(12)}, config(max_epochs=2), None)
    workers = [threading.Thread(target=room._fill, args=(IMAGES, runs, config(max_epochs=2), None)) for _ in range(4)]
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

def build(name, extent, weights, *, seed, **_):
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


def test_a_run_that_another_worker_is_doing_is_waited_for(tmp_path, trained):
    (run_,) = room._runs(IMAGES, tmp_path, {"seed": [0]}, config(max_epochs=2), "imagenet")
    lock = FileLock(run_.file.with_suffix(".lock"))
    lock.acquire()
    found = []
    waiting = threading.Thread(target=lambda: found.append(run(tmp_path, {"seed": [0]})))
    waiting.start()
    waiting.join(1)
    assert waiting.is_alive() and trained == []
    lock.release()
    waiting.join()
    assert len(found[0]) == 1 and trained == [0]


# A worker that is killed in its second run; the lock that it held is free again.
DIE = """
import os, signal, sys
from pathlib import Path
from test_sweeps import *

def build(name, extent, weights, *, seed, **_):
    if seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return tiny(seed)

room.build_backbone = build
run(Path(sys.argv[1]), {"seed": [0, 1, 2]})
"""


def test_what_a_killed_worker_left_is_done_by_the_next_call(tmp_path, trained):
    tests = Path(__file__).parent
    places = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    ended = subprocess.run([sys.executable, "-c", DIE, tmp_path], env=places, capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert len(sweep_table(tmp_path)) == 1
    assert len(run(tmp_path, {"seed": [0, 1, 2]})) == 3 and trained == [1, 2]
    assert {file.suffix for file in tmp_path.iterdir()} == {".json"}


def test_runs_that_are_missing_are_said(tmp_path, monkeypatch):
    def killed(*_):
        raise TerminatedWorkerError("a worker was killed")

    monkeypatch.setattr(room, "_fill", killed)
    with pytest.raises(gl.GgoLabError, match=r"4 of 4 runs are missing, such as .*TerminatedWorkerError.*call sweep"):
        run(tmp_path)


@pytest.mark.parametrize("jobs", [-1, 2, np.int64(1), np.array(2), torch.tensor(1), -2])
def test_any_number_of_workers_gives_every_row(tmp_path, jobs):
    with joblib.parallel_config("threading"):
        assert len(run(tmp_path, {"seed": [0, 1, 2]}, jobs=jobs)) == 3


@pytest.mark.parametrize("jobs", [0, "many", None, 2.5, "2", True, np.nan, 1e400, [1]])
def test_numbers_of_workers_that_are_none_are_refused(tmp_path, jobs):
    with pytest.raises(gl.ChoiceError, match="jobs="):
        run(tmp_path, jobs=jobs)


def test_numbers_of_numpy_are_the_same_runs(tmp_path, trained):
    plain = {"lr": [1e-3, 1e-2], "batch_size": [8], "flip": [True, False], "seed": [0, 1]}
    one = run(tmp_path, plain)
    done = len(trained)
    numpys = {
        "lr": np.array([1e-3, 1e-2]),
        "batch_size": [np.int64(8)],
        "flip": np.array([True, False]),
        "seed": pd.Series([0, 1]),
    }
    pd.testing.assert_frame_equal(run(tmp_path, numpys), one)
    assert len(trained) == done == 8


@pytest.mark.parametrize(
    "values",
    [np.arange(2), np.arange(2, dtype=np.uint8), pd.Series([0, 1], index=[7, 8]), torch.arange(2), (n for n in (0, 1)),
     {0: "a", 1: "b"}, pd.array([0, 1], "Int64"), np.array([0, 1], dtype=object)],
    ids=type,
)  # fmt: skip
def test_an_axis_may_be_any_row_of_values(tmp_path, values):
    table = run(tmp_path, {"seed": values})
    assert sorted(table["seed"]) == [0, 1] and table["seed"].dtype == np.int64


def test_a_value_given_twice_is_one_run(tmp_path, trained):
    assert len(run(tmp_path, {"seed": [0, 0, np.int32(0)]})) == 1 and trained == [0]


def test_only_what_was_asked_for_is_in_the_table(tmp_path):
    run(tmp_path, {"seed": [0, 1]}, lr=1e-2)
    assert len(run(tmp_path, {"seed": [0]})) == 1
    with pytest.warns(UserWarning, match="runs of 2 sweeps"):
        assert len(sweep_table(tmp_path)) == 3


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"row": 3}', '{"row": {}}', "\0", '{"a": ' * 5000])
def test_files_that_are_no_runs_are_passed_over_and_named(tmp_path, trained, content):
    run(tmp_path, {"seed": [0]})
    (own,) = tmp_path.glob("*.json")
    (tmp_path / f"{own.stem} (conflicted copy).json").write_bytes(own.read_bytes())
    (tmp_path / "package.json").write_text(content)
    (tmp_path / "0123456789abcdef.json").write_text(content)
    with pytest.warns(UserWarning, match="3 files are no runs, or damaged"):
        assert len(sweep_table(tmp_path)) == 1
    own.write_text(content)
    assert len(run(tmp_path, {"seed": [0]})) == 1 and trained == [0, 0], "made again"


def altered(row):
    """A run's file with changes to its row, or without what is None."""

    def change(text):
        held = json.loads(text)
        held["row"] = {name: value for name, value in {**held["row"], **row}.items() if value is not None}
        return json.dumps(held)

    return change


@pytest.mark.parametrize(
    "change",
    [
        altered({"seed": 99}),
        altered({"batch_size": 8.5}),
        altered({"validation_macro_f1": math.nan}),
        altered({"validation_macro_f1": True}),
        altered({"validation_loss": "low"}),
        altered({"low": None}),
        altered({"epochs": [1]}),
        altered({"error": 5, "ended": None}),
        lambda text: text.replace('"key"', '"other"'),
        lambda text: text[: len(text) // 2],
    ],
)
def test_a_row_that_is_not_this_runs_is_made_again(tmp_path, trained, change):
    axes = {"seed": [0], "batch_size": [8]}
    good = run(tmp_path, axes)
    (own,) = tmp_path.glob("*.json")
    own.write_text(change(own.read_text()))
    pd.testing.assert_frame_equal(run(tmp_path, axes).drop(columns="seconds"), good.drop(columns="seconds"))
    assert trained == [0, 0]


@pytest.mark.parametrize("name", ["fedcba9876543210.json", "copy of ..json", ".hidden.json", "ünï.json", "a\nb.json"])
def test_a_copy_under_another_name_is_no_second_run(tmp_path, name):
    run(tmp_path, {"seed": [0]})
    (own,) = tmp_path.glob("*.json")
    (tmp_path / name).write_bytes(own.read_bytes())
    with pytest.warns(UserWarning, match="1 files are no runs"):
        assert len(sweep_table(tmp_path)) == 1


@pytest.mark.parametrize("what", ["link to nothing", "ring of links", "folder", "lock is a folder"])
def test_what_stands_in_the_place_of_a_run_is_mended_or_one_sentence(tmp_path, trained, what):
    run(tmp_path, {"seed": [0]})
    (own,) = tmp_path.glob("*.json")
    own.unlink()
    if what == "link to nothing":
        own.symlink_to(tmp_path / "nowhere")
    elif what == "ring of links":
        own.symlink_to(own)
    elif what == "folder":
        own.mkdir()
    else:
        own.with_suffix(".lock").mkdir()
    if what.endswith("folder"):
        with pytest.raises(gl.GgoLabError, match=r"directory|IsADirectory"):
            run(tmp_path, {"seed": [0]})
    else:
        assert len(run(tmp_path, {"seed": [0]})) == 1 and trained == [0, 0]


@pytest.mark.parametrize("place", [None, 3, b"runs", "x" * 300, "a\0b", "/proc/runs"], ids=str)
def test_a_place_that_is_none_is_one_sentence(place):
    for call in (lambda: run(place), lambda: sweep_table(place)):
        with pytest.raises(gl.GgoLabError):
            call()


def test_a_run_that_ended_in_an_error_is_tried_again(tmp_path, monkeypatch, trained):
    def fails(*_, **__):
        raise gl.GgoLabError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(room, "fit", fails)
        assert run(tmp_path, {"seed": [0]})["error"].tolist() == ["no space left"]
    assert run(tmp_path, {"seed": [0]})["validation_macro_f1"].notna().all()


def test_a_folder_that_cannot_be_one_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(gl.GgoLabError, match="file"):
        run(tmp_path / "file")
    with pytest.raises(gl.GgoLabError, match="no such folder"):
        sweep_table(tmp_path / "nowhere")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    run("~/runs", {"seed": [0]})
    assert len(sweep_table("~/runs")) == 1 == len(list((tmp_path / "runs").iterdir()))


def test_a_run_that_was_killed_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    real, epochs = room.fit, []

    def dies(model, train, validation, settings, progress, checkpoint):
        real(model, train, validation, config(max_epochs=1, seed=0), progress, checkpoint)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(room, "fit", dies)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, {"seed": [0]})
    assert {file.suffix for file in tmp_path.iterdir()} == {".checkpoint", ".lock"}
    monkeypatch.setattr("ggo_lab.training.loop.score", lambda *given: epochs.append(1) or (1.0, 0.5))
    assert run(tmp_path, {"seed": [0]})["epochs"].tolist() == [2] and epochs == [1], "only the second"


def test_a_run_that_fails_is_a_row_that_says_why(tmp_path):
    table = run(tmp_path, {"lr": [1e-3, 1e30]}, optimizer="sgd")
    assert len(table) == 2 and table["error"].notna().tolist() == [False, True]
    assert "lr=1e+30 is too high" in table["error"].iloc[1]


@pytest.mark.parametrize("what", [".json", ".checkpoint"])
def test_a_full_disk_is_one_sentence_and_the_next_call_does_the_rest(tmp_path, monkeypatch, what):
    """While a row is stored, and while a run is."""
    plain, left = os.replace, [3]

    def full(source, target):
        if str(target).endswith(what):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
        plain(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("ggo_lab.storage.os.replace", full)
        if what == ".json":
            with pytest.raises(gl.GgoLabError, match="No space left on device"):
                run(tmp_path)
        else:  # a run that failed is a row that says why
            assert run(tmp_path)["error"].str.contains("No space left on device").any()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".unfinished")]
    table = run(tmp_path)
    assert len(table) == 4 and table["validation_macro_f1"].notna().all()


def test_the_curves_are_kept(tmp_path):
    run(tmp_path, {"seed": [0]})
    (file,) = tmp_path.glob("*.json")
    assert len(json.loads(file.read_text(encoding="utf-8"))["curves"]["validation_loss"]) == 2


@pytest.mark.parametrize(
    "axes",
    [
        {"colour": [1]},
        {"seed": []},
        {"seed": 3},
        {"backbone": "resnet18"},
        {"backbone": ["resnet19"]},
        {"extent": [""]},
        {"batch_size": [1]},
        {"optimizer": ["lion"]},
        {"seed": np.array(3)},
        {"seed": np.array([[0, 1]])},
        {"seed": pd.array([1, None])},
        {"seed": torch.tensor([0.5])},
        {"optimizer": b"adam"},
        {"lr": np.array(["0.1"])},
        {"seed": [10**5000]},
        {3: [1]},
        [("seed", [0])],
        "seed",
        None,
    ],
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

    axes = {**AXES, "backbone": ["squeezenet1_0"], "extent": ["all"]}  # in their processes nothing is replaced
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        assert run(tmp_path, axes, jobs=2)["validation_macro_f1"].notna().sum() == 4


def test_what_is_no_run_in_the_folder_is_named(tmp_path):
    for content in ("", "[]", "{}", '{"row": 5}', '{"row": {"validation_macro_f1": "high"}}', "[" * 100_000, "\xff"):
        (tmp_path / "notes.json").write_bytes(content.encode("latin-1"))
        with pytest.warns(UserWarning, match=r"no runs, or damaged, such as notes\.json"):
            assert len(sweep_table(tmp_path)) == 0
    (tmp_path / "notes.json").unlink()
    (tmp_path / "0123456789abcdef.json").mkdir()
    with pytest.warns(UserWarning, match=r"0123456789abcdef\.json"):
        assert len(sweep_table(tmp_path)) == 0


def test_a_run_that_was_interrupted_is_not_done(tmp_path, monkeypatch):
    """`fit` keeps its best state and returns; the sweep ends, and the next call goes on there."""
    fit = room.fit

    def stopped(*arguments, **options):
        return replace(fit(*arguments, **options), ended="interrupted")

    monkeypatch.setattr(room, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep(IMAGES, tmp_path, {"seed": [0]}, config(), weights=None)
    assert not list(tmp_path.rglob("*.json")) and list(tmp_path.rglob("*.checkpoint"))
    monkeypatch.setattr(room, "fit", fit)
    assert len(sweep(IMAGES, tmp_path, {"seed": [0]}, config(), weights=None)) == 1
    assert not list(tmp_path.rglob("*.checkpoint"))
