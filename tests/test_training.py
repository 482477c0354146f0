import contextlib
import dataclasses
import inspect
import json
import math
import os
import shutil
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from squares import SIZE, TRAIN, VALIDATION, config, copied, curves, quick, same, squares, tensors, tiny
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torchvision.models.inception import InceptionOutputs

import ggo_lab as gl
from ggo_lab.backbones import Backbone, RandomWeightsWarning
from ggo_lab.saliency.maps import METHODS
from ggo_lab.training import (
    PLAIN,
    Speed,
    TrainConfig,
    fastest,
    fit,
    load_model,
    loop,
    save_model,
    score,
    set_speed,
    training_batches,
)
from ggo_lab.training.batches import place
from ggo_lab.training.losses import LOSSES, Loss
from ggo_lab.training.speed import suited
from ggo_lab.training.tally import Tally


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# ---- the loop -------------------------------------------------------------------------------------------------


def test_a_task_that_can_be_learnt_is_learnt():
    model, history = quick(max_epochs=30, patience=30, lr=1e-2)
    assert score(model, *tensors(squares(40, "test", seed=2)))[1] >= 0.9
    assert history.table["train_loss"].iloc[-1] < 0.5 * history.table["train_loss"].iloc[0]
    assert not model.training and model.recipe == TRAIN.recipe


def test_a_real_backbone_learns_too():
    _, history = quick(gl.build_backbone("resnet18", weights=None), max_epochs=12, patience=12, flip=False)
    assert history.table["validation_accuracy"].max() >= 0.7


def test_the_history_is_a_tidy_table_and_reads_as_a_sentence():
    _, history = quick()
    columns = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "seconds", "best"]
    assert history.table.columns.tolist() == columns
    assert history.table["epoch"].tolist() == [1, 2, 3] and not history.table.isna().any(axis=None)
    assert history.table.loc[history.table["best"], "epoch"].tolist() == [history.best_epoch]
    assert history.ended == "max_epochs" and not history.stopped_early and history.speed == PLAIN
    assert repr(history).startswith("History: 3 epochs in ") and f"kept epoch {history.best_epoch}" in repr(history)


def test_the_numbers_of_the_best_epoch_are_found_again():
    model, history = quick(speed=Speed(channels_last=True, bf16=True))
    best = history.table[history.table["best"]].iloc[0]
    assert score(model, *tensors(VALIDATION)) == (best["validation_loss"], best["validation_accuracy"])


def script(monkeypatch, scores, model):
    """Let the validation split give these (loss, accuracy) in turn; gives the list of states they were given for."""
    states = []

    def scripted(*_):
        states.append(copied(model))
        result = scores[len(states) - 1]
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr("ggo_lab.training.loop.score", scripted)
    return states


@pytest.mark.parametrize(
    ("losses", "settings", "stops_after"),
    [
        ([1.0, 0.9, 0.95, 0.91, 0.92, 0.5], {"patience": 3}, 5),
        ([1.0, 0.9, 0.95, 0.91, 0.89, 0.95, 0.95, 0.95], {"patience": 3}, 8),
        ([1.0, 1.0, 1.0, 1.0], {"patience": 1}, 2),  # no better is no better
        ([1.0, 0.99, 0.98, 0.97, 0.96, 0.95], {"patience": 2}, None),
        ([1.0, 0.99, 0.98, 0.97, 0.96, 0.95], {"patience": 2, "min_delta": 0.05}, 3),
        ([1.0, 0.96, 0.94, 0.94, 0.94, 0.88], {"patience": 3, "min_delta": 0.05}, None),  # small steps add up
    ],
)
def test_it_stops_when_the_validation_loss_has_not_fallen_for_patience_epochs(
    monkeypatch, losses, settings, stops_after
):
    model = tiny()
    script(monkeypatch, [(loss, 0.5) for loss in losses], model)
    _, history = quick(model, max_epochs=len(losses), **settings)
    assert len(history.table) == (stops_after or len(losses))
    assert history.stopped_early == (stops_after is not None)
    assert ("no lower validation loss" in repr(history)) == history.stopped_early


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(1.0, 0.5), (0.9, 0.7), (0.5, 0.6), (0.4, 0.6)], 2),  # accuracy first, whatever the loss
        ([(1.0, 0.7), (0.8, 0.7), (0.9, 0.7), (0.8, 0.7)], 2),  # ties: the lower loss; ties of both: the earlier
    ],
)
def test_the_best_state_is_a_copy_and_is_put_back(monkeypatch, scores, best):
    model = tiny()
    states = script(monkeypatch, scores, model)
    _, history = quick(model, max_epochs=len(scores))
    assert history.best_epoch == best and same(model.state_dict(), states[best - 1])
    assert not same(states[best - 1], states[-1]), "training went on after the best epoch"


def test_an_interruption_keeps_the_best_state_so_far(monkeypatch):
    model = tiny()
    states = script(monkeypatch, [(1.0, 0.5), (0.9, 0.4), KeyboardInterrupt()], model)
    _, history = quick(model, max_epochs=9)
    assert history.ended == "interrupted" and len(history.table) == 2 and history.best_epoch == 1
    assert same(model.state_dict(), states[0]) and not model.training


def test_an_interruption_before_there_is_any_state_goes_through(monkeypatch):
    model = tiny()
    script(monkeypatch, [KeyboardInterrupt()], model)
    with pytest.raises(KeyboardInterrupt):
        quick(model)


# ---- the numbers are right ------------------------------------------------------------------------------------


def test_losses_are_weighted_by_batch_size():
    model = tiny()
    model.network[1] = nn.Identity()  # without BatchNorm an image's loss does not depend on its batch
    images, labels = tensors(squares(70, "train"))  # score cuts it into 64 + 6
    expected = cross_entropy(model(images), labels).item()
    right = (model(images).argmax(1) == labels).float().mean().item()
    tally = Tally()
    parts = [(model(x), y) for x, y in zip(images.split([40, 27, 3]), labels.split([40, 27, 3]), strict=True)]
    for logits, truth in parts:
        tally.add(cross_entropy(logits, truth).detach(), (logits.argmax(1) == truth).sum(), len(truth))
    assert tally.means(1, model, torch.optim.SGD(model.parameters())) == pytest.approx((expected, right), rel=1e-5)
    assert score(model, images, labels) == pytest.approx((expected, right), rel=1e-5)
    unweighted = np.mean([cross_entropy(logits, truth).item() for logits, truth in parts])
    assert abs(unweighted - expected) > 1e-3, "the test could not tell"


def test_the_auxiliary_output_counts_two_fifths():
    labels = torch.arange(8) % 4
    main, other = torch.randn(2, 8, 4)
    loss_of = LOSSES["cross_entropy"]
    expected = cross_entropy(main, labels, reduction="none") + 0.4 * cross_entropy(other, labels, reduction="none")
    torch.testing.assert_close(loss_of(InceptionOutputs(main, other), labels), expected)
    torch.testing.assert_close(loss_of(main, labels), cross_entropy(main, labels, reduction="none"))


def test_a_new_loss_is_one_entry(monkeypatch):
    def squared(logits, labels):
        return (logits.softmax(1) - torch.nn.functional.one_hot(labels, 4)).square().sum(1)

    monkeypatch.setitem(LOSSES, "brier", Loss(squared))
    model, history = quick(max_epochs=15, patience=15, lr=1e-2, loss="brier")
    images, labels = tensors(VALIDATION)
    with torch.no_grad():
        best = history.table.loc[history.table["best"], "validation_loss"].item()
        assert squared(model(images), labels).mean().item() == pytest.approx(best, rel=1e-5) and best < 0.5


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("n", "sizes"), [(16, [8, 8]), (18, [8, 8, 2]), (17, [8, 9]), (9, [9]), (5, [5])])
def test_batches_hold_every_image_once_and_none_stands_alone(n, sizes):
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 4, 4)
    batches = list(training_batches(images, torch.arange(n), config(), draws()))
    assert [len(targets) for _, targets in batches] == sizes
    order = torch.cat([targets for _, targets in batches])
    assert sorted(order.tolist()) == list(range(n)) and order.tolist() != list(range(n))
    assert torch.equal(torch.cat([batch[:, 0, 0, 0] for batch, _ in batches]), order.to(torch.uint8))


def test_half_of_the_images_are_mirrored_left_to_right():
    images, _ = tensors(squares(200, "train"))
    rows = torch.arange(200)

    def mirrored(settings, generator):
        ((batch, order),) = training_batches(images, rows, config(batch_size=200, **settings), generator)
        kept = (batch == images[order]).flatten(1).all(1)
        assert torch.equal(kept | (batch == images[order].flip(-1)).flatten(1).all(1), torch.ones(200, dtype=bool))
        return order[~kept].sort().values

    generator = draws()
    first, second = mirrored({}, generator), mirrored({}, generator)
    assert 70 < len(first) < 130 and not torch.equal(first, second), "drawn anew every epoch"
    assert len(mirrored({"flip": False}, draws())) == 0


def test_frozen_layers_stay_as_they_are_through_fit():
    with pytest.warns(RandomWeightsWarning):
        model = gl.build_backbone("resnet18", "head", weights=None)
    before = copied(model)
    quick(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"network.fc.weight", "network.fc.bias"}


# ---- determinism ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_same_seed_gives_the_same_numbers_to_the_last_bit(optimizer):
    outside = torch.get_rng_state()
    one, first = quick(tiny(dropout=0.5), optimizer=optimizer)
    torch.rand(7)  # whatever else happens outside
    two, second = quick(tiny(dropout=0.5), optimizer=optimizer)
    pd.testing.assert_frame_equal(curves(first), curves(second), check_exact=True)
    assert same(one.state_dict(), two.state_dict())
    other, _ = quick(tiny(dropout=0.5), optimizer=optimizer, seed=102)
    assert not same(one.state_dict(), other.state_dict())
    torch.set_rng_state(outside)


def test_the_global_random_state_is_left_as_it_was():
    before = torch.get_rng_state()
    quick(tiny(dropout=0.5), speed="auto", max_epochs=20)
    assert torch.equal(torch.get_rng_state(), before)


@contextlib.contextmanager
def set_for_all(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


@pytest.mark.parametrize(
    "changed",
    [
        lambda: set_for_all(torch.set_grad_enabled, False, True),
        lambda: set_for_all(torch.set_default_dtype, torch.float64, torch.float32),
        torch.inference_mode,
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: set_for_all(torch.manual_seed, 5, 6),
        lambda: set_for_all(torch.set_default_dtype, torch.bfloat16, torch.float32),
        lambda: set_for_all(torch.set_default_device, "meta", None),
        lambda: torch.device("meta"),
        lambda: set_for_all(torch.set_float32_matmul_precision, "medium", "highest"),
        lambda: set_for_all(torch.use_deterministic_algorithms, True, False),
        torch.no_grad,
        torch.autograd.graph.save_on_cpu,
    ],
    ids=["no gradients", "64 bits", "inference mode", "autocast", "another seed", "16 bits", "device", "device block",
         "rounded products", "deterministic", "no_grad", "saved elsewhere"],
)  # fmt: skip
def test_what_is_set_for_the_whole_of_torch_does_not_matter(changed, tmp_path):
    def all_that_computes(model):
        fitted, history = quick(model)
        built = gl.build_backbone("squeezenet1_0", weights=None)
        built.recipe = gl.Recipe(size=SIZE)
        image = VALIDATION.pixels[1]
        maps = [METHODS[name](built, image, 1) for name in METHODS]
        maps.append(gl.saliency.deletion_insertion(built, image, maps[0], 1, steps=2).to_numpy())
        loaded = load_model(save_model(built, tmp_path / "m"))
        answers = [gl.predict(each, VALIDATION).probabilities for each in (fitted, built, loaded)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RandomWeightsWarning)
            head = gl.build_backbone("squeezenet1_0", "head", weights=None)
        quick(head, max_epochs=1)
        answers.append(gl.predict(head, VALIDATION, reuse_frozen=True).probabilities)
        states = [tensor.numpy() for each in (fitted, built, head) for tensor in each.state_dict().values()]
        return curves(history), [*maps, *answers, *states]

    history, expected = all_that_computes(tiny(dropout=0.5))
    shutil.rmtree(os.environ["GGO_LAB_CACHE"])  # where the features of frozen layers are
    model = tiny(dropout=0.5)
    with changed():
        before = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.is_inference_mode_enabled()
        curve, found = all_that_computes(model)
        assert before == (torch.get_default_dtype(), torch.get_float32_matmul_precision(),
                          torch.is_inference_mode_enabled())  # fmt: skip
    pd.testing.assert_frame_equal(curve, history, check_exact=True)
    assert len(found) == len(expected) and all(map(np.array_equal, found, expected))


# ---- a loop to be read ---------------------------------------------------------------------------------------


def places_of_images(model, **settings):
    """(file, function) of the package, in order, that get train images or a batch of them before the first step."""
    found, validation = {}, len(VALIDATION)

    def is_train(value):
        return isinstance(value, torch.Tensor) and value.dtype == torch.uint8 and len(value) != validation

    def look(frame, event, _):
        file, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if event == "call" and "ggo_lab" in file.parts and not name.startswith(("<", "__")):
            given = frame.f_locals.values()
            if any(is_train(value) or (isinstance(value, tuple) and any(map(is_train, value))) for value in given):
                found.setdefault((file.name, name))

    def stop(*_):
        raise KeyboardInterrupt

    hook = register_optimizer_step_pre_hook(stop)
    sys.setprofile(look)
    try:
        with pytest.raises(KeyboardInterrupt):
            quick(model, **settings)
    finally:
        sys.setprofile(None)
        hook.remove()
    return list(found)


def test_images_pass_few_places_before_the_first_step():
    ways = places_of_images(tiny())
    assert ways == [
        ("batches.py", "training_batches"),
        ("batches.py", "alter"),
        ("batches.py", "added_up"),
        ("loop.py", "gradients"),
        ("network.py", "forward"),
        ("network.py", "normalise"),
    ], "besides `fit` and `place`, which it calls with the split itself"


WRAPPERS = {
    "compiled": "learner = compiled(",
    "parts": "gradients_of = memory.in_parts(",
    "ranks": "learner, gradients_of = with_other_ranks(",
    "frozen": "learner, inputs, judged = frozen_once(",
    "speed": "set_speed(model.to(device), speed)",
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_each_wrapper_can_be_taken_away_by_deleting_its_line(name):
    text = inspect.getsource(loop)
    (line,) = [line for line in text.splitlines() if line.strip().startswith(WRAPPERS[name])]
    without = {"__name__": "without"}
    # What stands alone in an `if` needs something in its place.
    exec(compile(text.replace(line, line[: len(line) - len(line.lstrip())] + "pass"), "without", "exec"), without)
    extent = "head" if name == "frozen" else "all"
    whole, found = (Backbone.around(tiny().network, head="6", size=SIZE, extent=extent) for _ in range(2))
    history = fit(whole, TRAIN, VALIDATION, config(optimizer="sgd"), progress=False)
    expected = without["fit"](found, TRAIN, VALIDATION, config(optimizer="sgd"), progress=False)
    pd.testing.assert_frame_equal(curves(history), curves(expected), rtol=1e-3)


# ---- speed ----------------------------------------------------------------------------------------------------


def test_sixteen_bits_learn_what_thirty_two_do():
    _, exact = quick(optimizer="sgd", lr=1e-2, max_epochs=8, patience=8)
    _, rough = quick(optimizer="sgd", lr=1e-2, max_epochs=8, patience=8, speed=Speed(channels_last=True, bf16=True))
    pd.testing.assert_frame_equal(
        curves(rough)[["train_loss", "validation_loss"]], curves(exact)[["train_loss", "validation_loss"]], rtol=0.03
    )
    assert exact.table["train_loss"].iloc[-1] < 0.8 * exact.table["train_loss"].iloc[0], "the test could not tell"


def has_bf16(monkeypatch, there):
    monkeypatch.setattr("ggo_lab.training.speed._has_bf16", lambda device: there)


@pytest.mark.parametrize(
    ("name", "without", "with_bf16"),
    [
        ("resnet18", Speed(channels_last=True), Speed(channels_last=True, bf16=True)),
        ("densenet121", Speed(channels_last=True), Speed(bf16=True)),
        ("vit_b_32", PLAIN, Speed(bf16=True)),
    ],
)
def test_speed_follows_from_the_network_and_the_processor(monkeypatch, name, without, with_bf16):
    with torch.device("meta"):
        model = gl.build_backbone(name, weights=None)
    for there, expected in ((False, without), (True, with_bf16)):
        has_bf16(monkeypatch, there)
        assert suited(model, torch.device("cpu")) == expected


def test_nothing_is_measured_unless_asked_for(monkeypatch, own_cache):
    monkeypatch.setattr("ggo_lab.training.speed._step_seconds", lambda *_: pytest.fail("measured"))
    model, history = quick(speed="auto", max_epochs=20)
    assert history.speed == suited(model, torch.device("cpu")) and not own_cache.exists()
    again, _ = quick(speed="auto", max_epochs=20)
    assert same(again.state_dict(), model.state_dict())


def test_fastest_measures_every_setting_and_leaves_the_model_as_it_was():
    model = tiny(dropout=0.5).train()
    before = copied(model)
    seconds = fastest(model, TRAIN, config())
    assert set(seconds) == {Speed(True, True), Speed(True, False), Speed(False, True), PLAIN}
    assert list(seconds.values()) == sorted(seconds.values()) and all(0 < s < 5 for s in seconds.values())
    assert same(model.state_dict(), before) and all(p.grad is None for p in model.parameters()) and model.training
    assert quick(speed=next(iter(seconds)), max_epochs=1)[1].speed == next(iter(seconds))


def test_where_nothing_can_be_compiled_it_is_never_fastest_and_a_choice_says_so(monkeypatch):
    def no_compiler(*_, **__):
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    found = fastest(tiny(), TRAIN, config(), compile=True)
    (compiled,) = [setting for setting in found if setting.compile]
    assert found[compiled] == math.inf and list(found)[-1] == compiled
    with pytest.raises(gl.ModelError, match="cannot compile the network here"):
        quick(speed=Speed(compile=True))


def test_compiled_steps_learn_what_others_learn():
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang")):
        pytest.skip("no C++ compiler")
    one, plain = quick(optimizer="sgd")
    two, compiled = quick(optimizer="sgd", speed=Speed(compile=True))
    assert compiled.speed.compile and set(one.state_dict()) == set(two.state_dict())
    pd.testing.assert_frame_equal(curves(plain), curves(compiled), rtol=1e-3)


def test_a_loop_of_ones_own_learns_in_the_arithmetic_of_fit(monkeypatch):
    has_bf16(monkeypatch, True)
    _, history = quick(speed="auto", flip=False)
    model = set_speed(tiny())
    assert model.bf16 and history.speed.bf16
    images, labels = tensors(TRAIN)
    optimizer, draws = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True), torch.Generator().manual_seed(101)
    for loss in history.table["validation_loss"]:
        model.train()
        for batch, truth in training_batches(images, labels, config(flip=False), draws):
            optimizer.zero_grad()
            cross_entropy(model(batch), truth).backward()
            optimizer.step()
        assert score(model, *tensors(VALIDATION))[0] == loss
    seen = []
    model.network[0].register_forward_hook(lambda layer, given, result: seen.append(result.dtype))
    assert model.train()(images).dtype == model.eval()(images).dtype == torch.float32
    assert seen == [torch.bfloat16, torch.float32]


# ---- images that stay on disk ---------------------------------------------------------------------------------


def mapped(images, path, mode):
    images.pixels.tofile(path)
    return dataclasses.replace(images, pixels=np.memmap(path, np.uint8, mode, shape=images.pixels.shape))


@pytest.mark.parametrize("mode", ["r", "c"])
def test_a_memory_map_is_read_in_place(tmp_path, mode):
    images = mapped(TRAIN, tmp_path / "pixels", mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels, _ = place(images, torch.device("cpu"))
    assert pixels.data_ptr() == images.pixels.ctypes.data
    one, two = quick(train=images)[0], quick()[0]
    assert same(one.state_dict(), two.state_dict())


def test_images_too_many_for_the_gpu_stay_in_the_memory_map(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * TRAIN.pixels.nbytes - 1, 0))
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: tensor if tensor.dtype == torch.int64 else "moved")
    assert place(TRAIN, torch.device("cuda"))[0].device.type == "cpu"
    assert place(VALIDATION, torch.device("cuda"))[0] == "moved"


# ---- what is refused ------------------------------------------------------------------------------------------


def with_column(images, column, values):
    return dataclasses.replace(images, table=images.table.assign(**{column: values}))


def faulty_splits():
    unknown = VALIDATION.table["label"].copy()
    unknown[3] = pd.NA
    shared = [*TRAIN.patients[:1], *VALIDATION.patients[1:]]
    return {
        "train split is empty": (TRAIN.subset([]), VALIDATION),
        "validation split is empty": (TRAIN, VALIDATION.subset([])),
        "holds one scan": (TRAIN.subset([0]), VALIDATION),
        "1 scans of the validation split have no label, such as validation0-3": (
            TRAIN,
            with_column(VALIDATION, "label", unknown),
        ),
        "1 patient is in more than one of train, validation, such as train0-0": (
            TRAIN,
            with_column(VALIDATION, "patient", shared),
        ),
        "prepared differently": (TRAIN, dataclasses.replace(VALIDATION, recipe=gl.Recipe(size=SIZE, pick="middle"))),
    }


@pytest.mark.parametrize("message", faulty_splits())
def test_splits_that_would_mislead_are_refused(message):
    train, validation = faulty_splits()[message]
    model = tiny()
    before = copied(model)
    with pytest.raises(gl.CohortError, match=message):
        quick(model, train, validation)
    assert same(model.state_dict(), before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "lion"},
        {"lr": 0.0},
        {"lr": math.nan},
        {"batch_size": 1},
        {"max_epochs": 0},
        {"patience": 0},
        {"speed": "fast"},
        {"min_delta": -0.1},
        {"max_epochs": 2.5},
        {"batch_size": 8.0},
        {"patience": math.inf},
        {"lr": "0.1"},
        {"flip": "no"},
        {"unfreeze_at": 3},
        {"min_delta": 8},  # the paper's public code: early stopping never fired
    ],
)
def test_settings_that_cannot_work_are_refused(wrong):
    with pytest.raises(gl.ChoiceError, match=next(iter(wrong))):
        TrainConfig(**wrong)


NUMPYS = {
    "lr": np.float64(1e-2),
    "batch_size": np.int64(8),
    "max_epochs": np.array(2),
    "patience": np.uint8(3),
    "min_delta": np.float32(0.25),
    "flip": np.bool_(False),
    "seed": np.int32(7),
    "unfreeze_at": np.array([5, 10]),
    "optimizer": np.str_("sgd"),
    "rotate": 5,
    "speed": Speed(np.bool_(True), np.bool_(False)),
}


def test_settings_from_numpy_are_pythons_own():
    plain = {**{name: value.item() for name, value in NUMPYS.items() if hasattr(value, "item") and value.ndim == 0},
             "unfreeze_at": (5, 10), "rotate": 5.0, "speed": Speed(True, False)}  # fmt: skip
    found, expected = TrainConfig(**NUMPYS), TrainConfig(**plain)
    assert repr(found) == repr(expected) and found == expected
    for field in dataclasses.fields(found):
        assert type(getattr(found, field.name)) is type(getattr(expected, field.name)), field.name
        assert type(getattr(found, field.name)).__module__ in ("builtins", "ggo_lab.training.config")


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": np.float64(8.5)},
        {"batch_size": True},
        {"max_epochs": np.array([3])},
        {"lr": np.nan},
        {"flip": np.int64(1)},
        {"unfreeze_at": (np.float64(2.5),)},
        {"seed": -1},
        {"speed": Speed("yes")},
    ],
)
def test_settings_from_numpy_of_another_kind_are_refused(wrong):
    with pytest.raises(gl.ChoiceError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_a_run_with_settings_from_numpy_is_resumed_and_stored(tmp_path):
    settings = {"lr": np.float64(1e-2), "batch_size": np.int64(8), "seed": np.int64(3)}
    model = gl.build_backbone("squeezenet1_0", weights=None)
    gl.fit(model, TRAIN, VALIDATION, config(**settings, max_epochs=1), False, tmp_path / "c")
    again = gl.build_backbone("squeezenet1_0", weights=None)
    history = gl.fit(
        again, TRAIN, VALIDATION, config(lr=1e-2, batch_size=8, seed=3, max_epochs=np.int64(2)), False, tmp_path / "c"
    )
    assert len(history.table) == 2
    assert load_model(save_model(again, tmp_path / "m", history)).name == "squeezenet1_0"


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(gl.ChoiceError, match=device):
        quick(device=device)


def test_images_with_other_channels_are_refused():
    five = [dataclasses.replace(s, pixels=np.repeat(s.pixels[:, :1], 5, axis=1)) for s in (TRAIN, VALIDATION)]
    with pytest.raises(gl.ModelError, match="3, H, W"):
        quick(tiny(), *five)


def test_a_loss_that_is_no_number_stops_with_the_step_and_the_cause():
    with pytest.raises(gl.ModelError, match=r"step \d of epoch \d.*lr=1e\+30 is too high.*anew") as caught:
        quick(optimizer="sgd", lr=1e30)
    assert caught.value.subject == 1e30


def test_weights_that_were_no_numbers_from_the_start_are_not_blamed_on_the_learning_rate():
    model = tiny()
    with torch.no_grad():
        model.network[0].weight[0] = math.nan
    with pytest.raises(gl.ModelError, match="before anything was learnt: the weights of own tiny"):
        quick(model)


def test_grades_of_which_the_train_split_has_none_do_no_harm():
    three = TRAIN.subset(np.flatnonzero(TRAIN.labels != 2))
    for balance in ("none", "loss", "sampling"):
        assert quick(train=three, max_epochs=1, balance=balance)[1].table["train_loss"].notna().all()


def test_the_smallest_splits_and_batches_larger_than_them_work():
    _, history = quick(train=TRAIN.subset([0, 1]), validation=VALIDATION.subset([0]), batch_size=512)
    assert len(history.table) == 3


def test_a_validation_loss_that_is_no_number_stops_too(monkeypatch):
    model = tiny()
    script(monkeypatch, [(1.0, 0.5), (math.nan, 0.5)], model)
    with pytest.raises(gl.ModelError, match="validation loss is nan after epoch 2"):
        quick(model)


# ---- model files ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GGO_LAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        model = gl.build_backbone("squeezenet1_0", weights=None)
        return quick(model, max_epochs=1, speed=Speed(channels_last=True))


@pytest.fixture
def file(fitted, tmp_path):
    return save_model(fitted[0], tmp_path / "model.safetensors", fitted[1])


def test_a_stored_model_gives_the_same_answers(fitted, file):
    model, loaded = fitted[0], load_model(file)
    images, _ = tensors(VALIDATION)
    model.to(memory_format=torch.contiguous_format)
    with torch.inference_mode():
        assert torch.equal(loaded(images), model(images))
    assert (loaded.name, loaded.extent, loaded.weights) == ("squeezenet1_0", "all", "random")
    assert loaded.recipe == TRAIN.recipe and not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())


def metadata(file):
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["ggo_lab"])


def test_a_model_file_says_where_it_comes_from(fitted, file):
    facts = metadata(file)
    assert facts["task"]["names"] == ["mild", "moderate", "severe", "critical"]
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["config"]["batch_size"] == 8
    assert facts["history"]["table"]["validation_loss"] == fitted[1].table["validation_loss"].tolist()


def test_a_model_is_stored_without_a_history_too(fitted, tmp_path):
    path = save_model(fitted[0], tmp_path / "new" / "model.safetensors")
    assert "history" not in metadata(path) and load_model(path).name == "squeezenet1_0"


def test_frozen_models_come_back_frozen(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)
        model, _ = quick(gl.build_backbone("squeezenet1_0", "head", weights=None), max_epochs=1)
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert gl.count_parameters(loaded) == gl.count_parameters(model)


def test_a_model_that_was_not_fitted_is_not_stored(tmp_path):
    with pytest.raises(gl.ModelError, match="call fit first"):
        save_model(tiny(), tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.9999])
def test_a_truncated_file_is_refused(file, share):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(gl.ModelError, match=r"model\.safetensors.*damaged") as caught:
        load_model(file)
    assert caught.value.subject == file


@pytest.mark.parametrize("where", [0, 3, 40, -1, -100_000])
def test_a_flipped_bit_is_noticed(file, where):
    data = bytearray(file.read_bytes())
    data[where] ^= 4
    file.write_bytes(data)
    with pytest.raises(gl.ModelError):
        load_model(file)


def test_foreign_files_are_refused_and_run_no_code(tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    with pytest.raises(gl.ModelError, match="not a model stored by ggo_lab"):
        load_model(foreign)
    torch.save({"weight": torch.zeros(3)}, foreign)
    with pytest.raises(gl.ModelError, match="not a model stored by ggo_lab"):
        load_model(foreign)
    for absent in (tmp_path, tmp_path / "absent"):
        with pytest.raises(gl.ModelError, match="no such model file"):
            load_model(absent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "another version of ggo_lab"),
        ({"backbone": "resnet18"}, "not a model stored by ggo_lab"),
        ({"backbone": "fasterrcnn_resnet50_fpn"}, "not a model stored by ggo_lab"),
        ({"recipe": {"size": 4}}, "not a model stored by ggo_lab"),
        ({"recipe": {"size": 20_000}}, "not a model stored by ggo_lab"),
        ({"recipe": {"size": "64"}}, "not a model stored by ggo_lab"),
        ({"recipe": {"slices": 5}}, "not a model stored by ggo_lab"),
        ({"task": {"names": ["a", "b"]}}, "not a model stored by ggo_lab"),
        ({"task": None}, "not a model stored by ggo_lab"),
        ({"reading": "yes"}, "not a model stored by ggo_lab"),
        ({"sequence": 1}, "not a model stored by ggo_lab"),
        ({"backbone": 7}, "not a model stored by ggo_lab"),
        ({"weights": None}, "not a model stored by ggo_lab"),
        ({"spec": {"head": "../x"}}, "not a model stored by ggo_lab"),
        ({"slices": 10**9}, "not a model stored by ggo_lab"),
        ({"crc32": "0"}, "not a model stored by ggo_lab"),
        ({"extent": None}, "not a model stored by ggo_lab"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(fitted, file, change, message):
    state = {name: value.contiguous() for name, value in fitted[0].state_dict().items()}
    save_file(state, file, {"ggo_lab": json.dumps({**metadata(file), **change})})
    with pytest.raises(gl.ModelError, match=message):
        load_model(file)


def test_a_file_that_cannot_be_written_leaves_the_old_one_whole(fitted, file, monkeypatch):
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ggo_lab.storage.os.replace", full)
    with pytest.raises(gl.GgoLabError, match="No space left"):
        save_model(fitted[0], file)
    assert file.read_bytes() == before and len(list(file.parent.glob("*.safetensors"))) == 1
