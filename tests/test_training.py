import dataclasses
import json
import math
import shutil
import struct
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from squares import SIZE, TRAIN, VALIDATION, config, copied, curves, quick, same, squares, tensors, tiny
from torch import nn
from torch.nn.functional import cross_entropy

import ggo_lab as gl
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.training import (
    PLAIN,
    Speed,
    TrainConfig,
    load_model,
    save_model,
    score,
    speed,
    train_epoch,
    training_batches,
)
from ggo_lab.training.devices import place
from ggo_lab.training.memory import Memory


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
    _, history = quick(gl.build_backbone("resnet18", "scratch"), max_epochs=12, patience=12, flip=False)
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
    images, targets = tensors(squares(70, "train"))  # score cuts it into 64 + 6
    expected = cross_entropy(model(images), targets).item()
    right = (model(images).argmax(1) == targets).float().mean().item()
    batches = list(zip(images.split([40, 27, 3]), targets.split([40, 27, 3]), strict=True))
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    assert train_epoch(model, batches, still) == pytest.approx((expected, right), rel=1e-5)
    assert score(model, images, targets) == pytest.approx((expected, right), rel=1e-5)
    unweighted = np.mean([cross_entropy(model(x), y).item() for x, y in batches])
    assert abs(unweighted - expected) > 1e-3, "the test could not tell"


def test_every_output_of_the_network_counts_by_its_weight():
    model, (images, targets) = tiny(), tensors(TRAIN)
    main, other = torch.randn(2, len(images), 4, requires_grad=True)
    model.outputs = lambda images: [(1.0, main), (0.4, other)]
    loss, _ = train_epoch(model, [(images, targets)], torch.optim.SGD(model.parameters(), lr=0.0))
    assert loss == pytest.approx((cross_entropy(main, targets) + 0.4 * cross_entropy(other, targets)).item())


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
        model = gl.build_backbone("resnet18", "head", weights="none")
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


# ---- speed ----------------------------------------------------------------------------------------------------


def test_probing_does_not_touch_the_model_and_times_every_setting():
    model = tiny(dropout=0.5).train()
    before, images, targets = copied(model), *tensors(TRAIN)
    kinds = (Speed(True, True), Speed(False, True), PLAIN)
    seconds = speed._probe(model, images[:8], targets[:8], config(), Memory(), kinds)
    assert set(seconds) == set(kinds) and all(0 < s < 5 for s in seconds.values())
    assert same(model.state_dict(), before) and all(p.grad is None for p in model.parameters())


def test_the_fastest_setting_is_taken_and_remembered(monkeypatch):
    best = Speed(channels_last=True, bf16=False)
    probes = []

    def probe(*_):
        probes.append(best if not probes else PLAIN)  # timings vary: a second probe would find otherwise
        return {PLAIN: 2.0, best: 1.0} if probes[-1] == best else {PLAIN: 1.0, best: 2.0}

    monkeypatch.setattr("ggo_lab.training.speed._probe", probe)
    one, first = quick(speed="auto", max_epochs=20)
    two, second = quick(speed="auto", max_epochs=20)
    assert first.speed == second.speed == best and len(probes) == 1
    assert first.tried == second.tried == {best: 1.0, PLAIN: 2.0} and next(iter(first.tried)) == best
    assert same(one.state_dict(), two.state_dict())
    quick(speed="auto", max_epochs=20, batch_size=4)
    assert len(probes) == 2, "other batches are another question"


@pytest.mark.parametrize(
    "damaged", ["", "{}", '{"tried": 3}', '{"tried": []}', '{"tried": [{"bf16": true}]}', "\x00\x01"]
)
def test_a_damaged_memory_is_made_again(own_cache, monkeypatch, damaged):
    quick(speed="auto", max_epochs=20)
    (file,) = (own_cache / "speed").iterdir()
    file.write_text(damaged)
    best = Speed(bf16=True)
    monkeypatch.setattr("ggo_lab.training.speed._probe", lambda *_: {PLAIN: 2.0, best: 1.0})
    assert quick(speed="auto", max_epochs=20)[1].speed == best
    assert json.loads(file.read_text(encoding="utf-8"))["tried"][0]["bf16"]


def test_a_cache_that_cannot_be_written_is_a_warning_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be remembered"):
        quick(speed="auto", max_epochs=20)


def test_only_long_runs_wait_for_a_compiler(monkeypatch):
    def probe(*given):
        return {kind: 0.5 if kind.compile else 1.0 for kind in given[-1]}

    monkeypatch.setattr("ggo_lab.training.speed._probe", probe)
    images, targets = tensors(TRAIN)
    for epochs, compiles in ((240, False), (241, True)):  # of five steps of a second: 20 minutes, and more
        chosen, tried = speed.choose_speed(tiny(), images, targets, config(max_epochs=epochs, speed="auto"), Memory())
        assert chosen.compile == compiles and len(tried) == 4 + compiles


def test_where_nothing_can_be_compiled_the_probe_goes_on_and_a_choice_says_so(monkeypatch):
    def no_compiler(*_, **__):
        raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: no_compiler)
    images, targets = tensors(TRAIN)
    found = speed._probe(tiny(), images, targets, config(), Memory(), (PLAIN, Speed(compile=True)))
    assert found[Speed(compile=True)] == math.inf and found[PLAIN] < 5
    with pytest.raises(gl.ModelError, match="cannot compile resnet18 here"):
        quick(speed=Speed(compile=True))


def test_compiled_steps_learn_what_others_learn():
    if not (shutil.which("c++") or shutil.which("g++") or shutil.which("clang")):
        pytest.skip("no C++ compiler")
    one, plain = quick(optimizer="sgd")
    two, compiled = quick(optimizer="sgd", speed=Speed(compile=True))
    assert compiled.speed.compile and set(one.state_dict()) == set(two.state_dict())
    pd.testing.assert_frame_equal(curves(plain), curves(compiled), rtol=1e-3)


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


def test_short_runs_are_not_probed(monkeypatch, own_cache):
    monkeypatch.setattr("ggo_lab.training.speed._probe", lambda *_: pytest.fail("probed"))
    assert quick(speed="auto", max_epochs=2)[1].speed == PLAIN
    assert not own_cache.exists()


# ---- what is refused ------------------------------------------------------------------------------------------


def with_column(images, column, values):
    return dataclasses.replace(images, table=images.table.assign(**{column: values}))


def faulty_splits():
    unknown = VALIDATION.table["grade"].copy()
    unknown[3] = pd.NA
    shared = [*TRAIN.patients[:1], *VALIDATION.patients[1:]]
    return {
        "train split is empty": (TRAIN.subset([]), VALIDATION),
        "validation split is empty": (TRAIN, VALIDATION.subset([])),
        "holds one scan": (TRAIN.subset([0]), VALIDATION),
        "1 scans of the validation split have no grade, such as validation0-3": (
            TRAIN,
            with_column(VALIDATION, "grade", unknown),
        ),
        "1 patients are in both train and validation, such as train0-0": (
            TRAIN,
            with_column(VALIDATION, "patient", shared),
        ),
        "prepared differently": (TRAIN, dataclasses.replace(VALIDATION, recipe=gl.Recipe(size=SIZE, where="middle"))),
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
    with pytest.raises(gl.ModelError, match="before anything was learnt: the weights of resnet18"):
        quick(model)


def test_grades_of_which_the_train_split_has_none_do_no_harm():
    three = TRAIN.subset(np.flatnonzero(TRAIN.indices != 2))
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
        model = gl.build_backbone("squeezenet1_0", "scratch")
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
    assert (loaded.name, loaded.extent, loaded.weights) == ("squeezenet1_0", "scratch", "random")
    assert loaded.recipe == TRAIN.recipe and not loaded.training
    assert all(p.requires_grad for p in loaded.parameters())


def metadata(file):
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["ggo_lab"])


def test_a_model_file_says_where_it_comes_from(fitted, file):
    facts = metadata(file)
    assert facts["grades"] == ["mild", "moderate", "severe", "critical"]
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["config"]["batch_size"] == 8
    assert facts["history"]["table"]["validation_loss"] == fitted[1].table["validation_loss"].tolist()


def test_a_model_is_stored_without_a_history_too(fitted, tmp_path):
    path = save_model(fitted[0], tmp_path / "new" / "model.safetensors")
    assert "history" not in metadata(path) and load_model(path).name == "squeezenet1_0"


def test_frozen_models_come_back_frozen(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)
        model, _ = quick(gl.build_backbone("squeezenet1_0", "head", weights="none"), max_epochs=1)
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
        ({"format": 2}, "newer ggo_lab"),
        ({"backbone": "resnet18"}, "not a model stored by ggo_lab"),
        ({"backbone": "fasterrcnn_resnet50_fpn"}, "not a model stored by ggo_lab"),
        ({"recipe": {"size": 4}}, "not a model stored by ggo_lab"),
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
