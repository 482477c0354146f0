"""What keeps a run alive: checkpoints, and a device that runs out of memory."""

import errno
import hashlib
import io
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from squares import TRAIN, VALIDATION, config, copied, curves, quick, same, squares, tiny
from torch import nn

import ggo_lab as gl
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.training import Speed, fit, score
from ggo_lab.training.batches import Memory, OutOfMemoryWarning
from ggo_lab.training.checkpoints import changing_state

# ---- checkpoints ----------------------------------------------------------------------------------------------

LONG = {"max_epochs": 6, "patience": 3, "lr": 3e-3}


def run(checkpoint, model=None, train=TRAIN, **settings):
    model = model or tiny(dropout=0.5)
    return model, fit(model, train, VALIDATION, config(**{**LONG, **settings}), progress=False, checkpoint=checkpoint)


def die_at_step(step):
    """Kill this process, as a power cut would, in the middle of a training step."""
    model, seen = tiny(dropout=0.5), []

    def count(*_):
        seen.append(model.training)
        if sum(seen) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    model.network[2].register_forward_hook(count)
    return model


def die_while_writing():
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    return None


def store(path, content):
    """Write a checkpoint whose checksum is right, whatever it holds."""
    stored = io.BytesIO()
    torch.save(content, stored)
    digest = hashlib.sha256(stored.getvalue()).hexdigest().encode()
    path.write_bytes(b"ggo_lab checkpoint 2 " + digest + b"\n" + stored.getvalue())


def change(path, how):
    """Change what a checkpoint holds."""
    content = torch.load(io.BytesIO(path.read_bytes().split(b"\n", 1)[1]), weights_only=True)
    how(content)
    store(path, content)


# Forked from a fresh Python, which has no threads yet: importing torch takes longer than all the runs.
KILL = """
import os, sys
from test_training_resilience import *
checkpoint = Path(sys.argv[1])
for how in sys.argv[2:]:
    child = os.fork()
    if child == 0:
        run(checkpoint, eval(how))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), checkpoint.exists(), flush=True)
"""


def test_a_run_killed_at_any_step_goes_on_to_the_same_bits(tmp_path):
    tests = Path(__file__).parent
    places = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}"}
    # In the first epoch, when nothing is stored yet; in the third; and after it, of which then nothing is left.
    ways = ["die_at_step(3)", "die_at_step(13)", "die_while_writing()"]
    ended = subprocess.run(
        [sys.executable, "-c", KILL, tmp_path / "c", *ways], env=places, capture_output=True, text=True
    )
    assert ended.stdout.splitlines() == ["-9 False", "-9 True", "-9 True"], ended.stderr
    whole, history = run(None)
    resumed, went_on = run(tmp_path / "c")
    assert went_on.table["seconds"].iloc[0] != history.table["seconds"].iloc[0], "the test could not tell"
    assert same(whole.state_dict(), resumed.state_dict())
    pd.testing.assert_frame_equal(curves(history), curves(went_on), check_exact=True)
    assert went_on.ended == history.ended


@pytest.mark.parametrize("settings", [{"max_epochs": 2}, {"max_epochs": 6, "patience": 1, "lr": 1e-6, "min_delta": 1}])
def test_a_run_that_has_ended_is_not_run_again(tmp_path, settings):
    one, history = run(tmp_path / "c", **settings)
    two, again = run(tmp_path / "c", **settings)
    assert same(one.state_dict(), two.state_dict()) and again.ended == history.ended
    pd.testing.assert_frame_equal(history.table, again.table, check_exact=True)


def test_a_run_may_be_given_more_epochs(tmp_path):
    run(tmp_path / "c", max_epochs=2)
    longer, history = run(tmp_path / "c", max_epochs=5)
    whole, expected = run(None, max_epochs=5)
    assert same(longer.state_dict(), whole.state_dict())
    pd.testing.assert_frame_equal(curves(history), curves(expected), check_exact=True)


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    whole, _ = run(None)
    with monkeypatch.context() as patch:
        scores = iter([(1.0, 0.5), KeyboardInterrupt()])

        def scripted(*_):
            result = next(scores)
            if isinstance(result, BaseException):
                raise result
            return result

        patch.setattr("ggo_lab.training.loop.score", scripted)
        assert run(tmp_path / "c")[1].ended == "interrupted"
    resumed, history = run(tmp_path / "c")
    assert len(history.table) > 1 and history.table["validation_loss"][0] == 1.0
    assert set(resumed.state_dict()) == set(whole.state_dict())


def test_the_settings_of_speed_are_those_of_the_run(tmp_path):
    run(tmp_path / "c", max_epochs=1, speed="auto")
    change(tmp_path / "c", lambda stored: stored.update(speed=(True, False)))
    assert run(tmp_path / "c", max_epochs=2, speed="auto")[1].speed == Speed(channels_last=True)


def test_frozen_layers_are_not_stored(tmp_path):
    def frozen(seed=0):
        with pytest.warns(RandomWeightsWarning):
            return gl.build_backbone("squeezenet1_0", "head", weights=None, seed=seed)

    model = frozen()
    assert set(changing_state(model, config())) == {"network.classifier.1.weight", "network.classifier.1.bias"}
    run(tmp_path / "c", model, max_epochs=1)
    assert (tmp_path / "c").stat().st_size < 100_000
    again, _ = run(tmp_path / "c", frozen(), max_epochs=1)
    assert same(again.state_dict(), model.state_dict())
    with pytest.raises(gl.ModelError, match="another frozen weights"):
        run(tmp_path / "c", frozen(seed=1), max_epochs=1)


def test_the_statistics_of_batchnorm_are_stored_where_it_learns():
    names = set(changing_state(gl.build_backbone("resnet18", weights=None), config()))
    assert names == set(gl.build_backbone("resnet18", weights=None).state_dict())


@pytest.mark.parametrize("other", [{"seed": 3}, {"train": squares(40, "train", seed=5)}, {"model": tiny(seed=0)}])
def test_the_checkpoint_of_another_run_is_refused(tmp_path, other):
    run(tmp_path / "c", max_epochs=1)
    if "model" in other:
        other["model"].name = "resnet50"
    with pytest.raises(gl.ModelError, match=r"another (config|train split|backbone)\.") as caught:
        run(tmp_path / "c", **{"max_epochs": 1, **other})
    assert caught.value.subject == tmp_path / "c"


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_checkpoint_is_refused(tmp_path, share):
    run(tmp_path / "c", max_epochs=1)
    data = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(data[: int(share * len(data))])
    with pytest.raises(gl.ModelError, match="Delete it to begin anew"):
        run(tmp_path / "c", max_epochs=1)


def test_any_flipped_bit_of_a_checkpoint_is_noticed(tmp_path):
    run(tmp_path / "c", max_epochs=1)
    whole = (tmp_path / "c").read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 40):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        (tmp_path / "c").write_bytes(data)
        with pytest.raises(gl.ModelError, match="Delete it to begin anew"):
            run(tmp_path / "c", max_epochs=2)
    (tmp_path / "c").write_bytes(bytes(len(whole)))
    with pytest.raises(gl.ModelError, match="Delete it to begin anew"):
        run(tmp_path / "c", max_epochs=2)


def without(*path):
    def how(content):
        for part in path[:-1]:
            content = content[part]
        del content[path[-1]]

    return how


def put(value, *path):
    def how(content):
        for part in path[:-1]:
            content = content[part]
        content[path[-1]] = value

    return how


WEIGHT = "network.6.weight"


@pytest.mark.parametrize(
    "how",
    [
        *(without(part) for part in ("facts", "speed", "changing", "optimizer", "draws", "images_at_once", "random")),
        without("progress"),
        without("facts", "backbone"),
        without("changing", WEIGHT),
        put(torch.zeros(4, 3), "changing", WEIGHT),
        put(torch.zeros(4, 128, dtype=torch.float64), "changing", WEIGHT),
        put(torch.full((4, 128), math.nan), "changing", WEIGHT),
        put(7, "changing", WEIGHT),
        put(torch.zeros(4), "changing", "network.7.weight"),
        without("progress", "best_state", WEIGHT),
        put({}, "progress", "best_state"),
        without("progress", "rows"),
        put([], "progress", "rows"),
        put(9, "progress", "best_epoch"),
        put((0.99, 0.0), "progress", "best"),
        put(-1, "progress", "waited"),
        put(None, "progress", "least_loss"),
        put(3, "progress", "another"),
        without("optimizer", "state"),
        put({}, "optimizer", "param_groups"),
        put(1e9, "optimizer", "param_groups", 0, "lr"),
        without("optimizer", "state", 0, "exp_avg"),
        put(torch.zeros(3), "optimizer", "state", 0, "exp_avg"),
        put(torch.zeros(3), "draws"),
        put(torch.zeros(5056, dtype=torch.uint8), "draws"),
        put([], "random"),
        put(0, "images_at_once"),
        put("all", "images_at_once"),
        put(3, "speed"),
    ],
)
def test_a_checkpoint_with_wrong_parts_is_one_error_and_changes_nothing(tmp_path, how):
    run(tmp_path / "c", max_epochs=1)
    change(tmp_path / "c", how)
    model = tiny(dropout=0.5)
    before = copied(model)
    with pytest.raises(gl.ModelError, match="Delete it to begin anew") as caught:
        run(tmp_path / "c", model, max_epochs=2)
    assert caught.value.subject == tmp_path / "c" and same(model.state_dict(), before)


@pytest.mark.parametrize(
    ("place", "other"),
    [
        ("c", {"seed": 2}),
        ("c", {"lr": 1e-2}),
        ("c", {"optimizer": "sgd"}),
        ("link", {"seed": 2}),
        ("d/../c", {"seed": 2}),
    ],
)
def test_two_trainings_do_not_overwrite_each_others_checkpoint(tmp_path, monkeypatch, place, other):
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "c")
    calls, inside = [], []

    def scored(*arguments):
        calls.append(1)
        if len(calls) == 1:  # while the first is in its first epoch, another begins, on the same path
            inside.append(run(tmp_path / place, max_epochs=2, **other))
        return score(*arguments)

    monkeypatch.setattr("ggo_lab.training.loop.score", scored)
    with pytest.raises(gl.ModelError, match="another training has written"):
        run(tmp_path / "c", max_epochs=2)
    monkeypatch.undo()
    _, again = run(tmp_path / "c", max_epochs=2, **other)
    pd.testing.assert_frame_equal(again.table, inside[0][1].table, check_exact=True)


def test_a_disk_that_is_full_is_one_sentence_and_the_last_checkpoint_stays(tmp_path, monkeypatch):
    run(tmp_path / "c", max_epochs=1)
    before = (tmp_path / "c").read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ggo_lab.storage.os.replace", full)
    with pytest.raises(gl.GgoLabError, match="No space left on device"):
        run(tmp_path / "c", max_epochs=2)
    assert (tmp_path / "c").read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["c"]


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    run("~/c", max_epochs=1)
    assert (tmp_path / "c").is_file()


def test_no_code_runs_from_a_checkpoint(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    store(tmp_path / "c", {"facts": Trap()})
    with pytest.raises(gl.ModelError, match="not a checkpoint"):
        run(tmp_path / "c")
    assert not (tmp_path / "sprung").exists()


# ---- out of memory --------------------------------------------------------------------------------------------


def small_device(model, images, error=torch.OutOfMemoryError):
    """Let the network fail with more than so many images while it learns."""

    def check(network, given):
        if network.training and len(given[0]) > images:
            raise error("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    model.network.register_forward_pre_hook(check)
    return model


def without_batchnorm():
    model = tiny()
    model.network[1] = nn.Identity()
    return model


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
def test_out_of_memory_halves_what_goes_through_and_the_steps_stay_the_same(error):
    # Gradient descent without averages of squares, so that a rounding error stays one.
    whole, expected = quick(without_batchnorm(), optimizer="sgd", max_epochs=4)
    with warnings.catch_warnings(record=True) as caught:
        parts, history = quick(small_device(without_batchnorm(), 3, error), optimizer="sgd", max_epochs=4)
    said = [str(w.message) for w in caught if w.category is OutOfMemoryWarning]
    assert ["8 images: from now on 4 go" in said[0], "4 images: from now on 2 go" in said[1]] == [True, True]
    assert len(said) == 2 and "BatchNorm" not in said[0], "then it knows"
    assert history.images_at_once == 2 and expected.images_at_once is None
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    pd.testing.assert_frame_equal(curves(expected), curves(history), rtol=1e-4)


def test_the_caveat_of_batchnorm_is_said():
    with pytest.warns(OutOfMemoryWarning, match="Except that BatchNorm averages over a part"):
        quick(small_device(tiny(), 4), max_epochs=1)


def test_a_device_for_which_two_images_are_too_many_is_named():
    with (
        pytest.warns(OutOfMemoryWarning),
        pytest.raises(gl.ModelError, match="cpu does not hold a training step of 2 images") as caught,
    ):
        quick(small_device(tiny(), 1), max_epochs=1)
    assert caught.value.subject == 2


def test_other_errors_pass_through():
    def fail(*_):
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        Memory().in_parts(fail)(tiny(), None, *batch_of(4))


def batch_of(n):
    return torch.zeros(n, 3, 8, 8), torch.zeros(n, dtype=torch.int64), torch.full((n,), 1 / n)


@pytest.mark.parametrize(
    ("size", "at_once", "sizes"), [(16, 8, [8, 8]), (17, 8, [6, 6, 5]), (3, 2, [3]), (5, 2, [3, 2])]
)
def test_no_part_holds_one_image(size, at_once, sizes):
    memory, seen = Memory(), []
    memory.images_at_once = at_once

    def gradients(model, loss_of, images, labels, weights):
        assert len(images) == len(labels) == len(weights)
        seen.append(len(images))
        return weights.sum(), torch.ones(())

    loss, right = memory.in_parts(gradients)(tiny(), None, *batch_of(size))
    assert seen == sizes and right == len(sizes) and loss.item() == pytest.approx(1)


def test_what_was_learnt_about_memory_is_in_the_checkpoint(tmp_path):
    with pytest.warns(OutOfMemoryWarning):
        run(tmp_path / "c", small_device(tiny(dropout=0.5), 4), max_epochs=1)
    assert run(tmp_path / "c", max_epochs=2)[1].images_at_once == 4
