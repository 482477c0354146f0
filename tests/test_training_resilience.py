"""What keeps a run alive: checkpoints, and a device that runs out of memory."""

import os
import platform
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from squares import TRAIN, VALIDATION, config, curves, quick, same, squares, tiny
from torch import nn

import ggo_lab as gl
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.training import Speed, fit
from ggo_lab.training.checkpoints import changing_state
from ggo_lab.training.memory import Memory, OutOfMemoryWarning

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
    stored = torch.load(tmp_path / "c", weights_only=True)
    stored["speed"] = (True, False)
    torch.save(stored, tmp_path / "c")
    assert run(tmp_path / "c", max_epochs=2, speed="auto")[1].speed == Speed(channels_last=True)


def test_frozen_layers_are_not_stored(tmp_path):
    def frozen(seed=0):
        with pytest.warns(RandomWeightsWarning):
            return gl.build_backbone("squeezenet1_0", "head", weights="none", seed=seed)

    model = frozen()
    assert set(changing_state(model, config())) == {"network.classifier.1.weight", "network.classifier.1.bias"}
    run(tmp_path / "c", model, max_epochs=1)
    assert (tmp_path / "c").stat().st_size < 100_000
    again, _ = run(tmp_path / "c", frozen(), max_epochs=1)
    assert same(again.state_dict(), model.state_dict())
    with pytest.raises(gl.ModelError, match="another frozen weights"):
        run(tmp_path / "c", frozen(seed=1), max_epochs=1)


def test_the_statistics_of_batchnorm_are_stored_where_it_learns():
    names = set(changing_state(gl.build_backbone("resnet18", "scratch"), config()))
    assert names == set(gl.build_backbone("resnet18", "scratch").state_dict())


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


def test_no_code_runs_from_a_checkpoint(tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    torch.save({"format": 1, "facts": Trap()}, tmp_path / "c")
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
    with pytest.raises(RuntimeError, match="something else"):
        Memory().in_parts(lambda *_: (_ for _ in ()).throw(RuntimeError("something else")), tiny(), *pair(4), 4)


def pair(n):
    return torch.zeros(n, 3, 8, 8), torch.zeros(n, dtype=torch.int64)


@pytest.mark.parametrize(
    ("size", "at_once", "sizes"), [(16, 8, [8, 8]), (17, 8, [6, 6, 5]), (3, 2, [3]), (5, 2, [3, 2])]
)
def test_no_part_holds_one_image(size, at_once, sizes):
    memory, seen = Memory(), []
    memory.images_at_once = at_once

    def gradients(images, targets, total):
        seen.append(len(images))
        return torch.zeros(()), torch.zeros(())

    memory.in_parts(gradients, tiny(), *pair(size), size)
    assert seen == sizes


def test_what_was_learnt_about_memory_is_in_the_checkpoint(tmp_path):
    with pytest.warns(OutOfMemoryWarning):
        run(tmp_path / "c", small_device(tiny(dropout=0.5), 4), max_epochs=1)
    assert run(tmp_path / "c", max_epochs=2)[1].images_at_once == 4


# ---- memory of the host ---------------------------------------------------------------------------------------

# A process of its own: settings of malloc are the whole process's, and other tests have left theirs.
FAULTS = """
import resource, torch
from ggo_lab.training.devices import freed_memory_kept

def faults(large_blocks):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(large_blocks):
        torch.ones(2**24)  # 64 MiB: 16384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

torch.set_num_threads(1)
outside, start = faults(5), held()
with freed_memory_kept():
    first, _, later, kept = faults(1), faults(3), faults(5), held() - start  # a hole too small may cost one block more
print(outside, first, later, kept, held() - start, faults(5))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another malloc")
def test_memory_that_is_freed_is_used_again_and_given_back_in_the_end():
    ended = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    outside, first, later, kept, after, again = map(float, ended.stdout.split())
    assert outside > 4 * first > 0 and later <= first / 10
    assert kept > 60 and after < 10, "MiB"
    assert again > later, "as before"
