"""The frozen prefix, computed once: the same result as computing it in every step, and never where it would differ."""

import gc
import os

import numpy as np
import pandas as pd
import pytest
import torch
from squares import TRAIN, VALIDATION, config, curves, quick, same, squares, tensors, tiny
from torch import nn

import ggo_lab as gl
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.storage import cache_folder
from ggo_lab.training import PLAIN, Speed, TrainConfig, fit, prefix, training_batches
from ggo_lab.training.batches import Views
from ggo_lab.training.prefix import Rest, frozen_once, split_at_frozen

# One of each kind: dropout in the head, convolution as the head, shortcuts, dense blocks, branches, attention.
KINDS = ["alexnet", "squeezenet1_0", "resnet18", "densenet121", "inception_v3", "mobilenet_v3_small", "vit_b_32"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "cache"))


def frozen(name="resnet18", extent="head", seed=0, **choices):
    with pytest.warns(RandomWeightsWarning):
        return gl.build_backbone(name, extent, weights=None, seed=seed, **choices)


def learnt(model):
    return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def images(size, count=2):
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("extent", ["head", "last_block"])
@pytest.mark.parametrize("name", KINDS)
def test_prefix_and_rest_are_the_network(name, extent):
    model = frozen(name, extent)
    prefix, rest = split_at_frozen(model)
    learning = {id(p) for p in model.parameters() if p.requires_grad}
    assert learning == {id(p) for p in rest.layers.parameters() if p.requires_grad}
    assert not any(p.requires_grad for p in prefix.parameters())
    model.eval()
    batch = images(model.spec.least_size)
    features = prefix(model.normalise(batch))
    assert torch.equal(rest(features), model(batch))
    rest.train()
    rest(features).logsumexp(1).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.parameters())


def test_chance_stays_in_the_rest():
    model = frozen("alexnet")
    prefix, rest = split_at_frozen(model)
    features = prefix(model.normalise(images(64)))
    with torch.no_grad():
        rest.train()
        assert not torch.equal(rest(features), rest(features)), "dropout draws anew"
        rest.eval()
        assert torch.equal(rest(features), rest(features))


def test_a_network_without_frozen_layers_in_front_is_not_cut():
    assert split_at_frozen(gl.build_backbone("squeezenet1_0", weights=None)) is None
    model = frozen("resnet18", "last_block")
    model.network.conv1.requires_grad_(True)
    assert split_at_frozen(model) is None


def test_a_shortcut_around_the_cut_moves_it_forward():
    class Shortcut(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = (nn.Conv2d(3, 3, 1) for _ in range(3))

        def forward(self, x):
            x = self.first(x)
            return (self.head(self.second(x)) + x).mean((2, 3))

    model = frozen()
    model.network = Shortcut().requires_grad_(False)
    model.network.head.requires_grad_(True)
    prefix, rest = split_at_frozen(model)
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(prefix(x), model.network.first(x)) and torch.equal(rest.layers(prefix(x)), model.network(x))


@pytest.mark.parametrize("settings", [{"flip": False}, {"flip": True}, {"balance": "sampling"}])
@pytest.mark.parametrize("extent", ["head", "last_block"])
def test_training_gives_what_it_gives_without_the_cache(extent, settings):
    settings = {"optimizer": "sgd", "lr": 1e-2, "max_epochs": 3, **settings}
    cached, history = quick(frozen(extent=extent), **settings)
    whole, expected = quick(frozen(extent=extent), reuse_frozen=False, **settings)
    assert history.views == (2 if settings.get("flip", True) else 1) and expected.views == 0
    # Rounding moves the loss in its fourth digit where BatchNorm scales what hardly varies; another order or view of
    # the images moves the weights below by a tenth and more of their way.
    pd.testing.assert_frame_equal(curves(history), curves(expected), rtol=1e-2, atol=1e-3)
    start, one, two = (learnt(model) for model in (frozen(extent=extent), cached, whole))
    assert (one - two).norm() < 0.005 * (two - start).norm(), "a rounding error beside what was learnt"


def test_frozen_layers_see_each_view_once(monkeypatch):
    model, seen = frozen(), []
    model.network.conv1.register_forward_hook(lambda layer, given, result: seen.append(len(given[0])))
    _, history = quick(model, max_epochs=5, rotate=10, views=3)
    assert history.views == 3
    assert sum(seen) == 3 * len(TRAIN) + len(VALIDATION) + 1  # one to see how large an output is


def once(model, speed=PLAIN, train=TRAIN, validation=VALIDATION, **settings):
    """What the frozen layers make of both splits: views (V, N, ...) and features (N, ...)."""
    rest, views, judged = frozen_once(model, tensors(train)[0], tensors(validation)[0], config(**settings), speed)
    assert isinstance(rest, Rest) and isinstance(views, Views)
    return views.views, judged


def test_batches_of_features_are_those_of_the_images():
    model, (pixels, labels) = frozen(), tensors(TRAIN)
    views, _ = once(model)
    prefix, _ = split_at_frozen(model)
    model.eval()
    batches = [training_batches(pixels, labels, config(), torch.Generator().manual_seed(3))]
    batches += [training_batches(Views(views), labels, config(), torch.Generator().manual_seed(3))]
    for (batch, truth), (features, same_truth) in zip(*batches, strict=True):
        assert torch.equal(truth, same_truth)
        torch.testing.assert_close(prefix(model.normalise(batch)), features, rtol=1e-4, atol=1e-4)


def test_views_are_altered_and_seeded():
    settings = {"rotate": 10, "scale": 0.1, "views": 3}
    (one, judged), (two, _) = (once(frozen(), **settings) for _ in range(2))
    assert one.shape == (3, 40, 512) and torch.equal(one, two)
    assert not torch.allclose(one[0], one[1]), "each view is another"
    other, same_judged = once(frozen(), **settings, seed=5)
    assert not torch.allclose(one, other) and torch.equal(judged, same_judged)


def test_features_that_would_fill_the_memory_are_computed_in_every_step(monkeypatch):
    monkeypatch.setattr("ggo_lab.training.prefix._MOST_BYTES", 100 * 512 * 4 - 1)
    assert quick(frozen(), max_epochs=1)[1].views == 0
    assert quick(frozen(), max_epochs=1, flip=False)[1].views == 1


def test_a_resumed_run_with_frozen_layers_gives_the_same_bits(tmp_path):
    def run(checkpoint, epochs):
        model = frozen("mobilenet_v3_small")
        settings = TrainConfig(batch_size=8, max_epochs=epochs, speed="plain", rotate=5, views=2)
        return model, fit(model, TRAIN, VALIDATION, settings, False, checkpoint)

    whole, history = run(None, 4)
    run(tmp_path / "c", 2)
    resumed, went_on = run(tmp_path / "c", 4)
    assert same(whole.state_dict(), resumed.state_dict())
    pd.testing.assert_frame_equal(curves(history), curves(went_on), check_exact=True)


def test_bf16_is_for_what_is_learnt_from_only():
    (exact, judged), (rough, as_judged) = (once(frozen(), Speed(True, bf16)) for bf16 in (False, True))
    assert torch.equal(judged, as_judged) and rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert (exact - rough).norm() < 0.02 * exact.norm()


# ---- on disk --------------------------------------------------------------------------------------------------


def files():
    return sorted(cache_folder().glob("features/*/*.npz"))


@pytest.fixture
def computed(monkeypatch):
    """The number of images that frozen layers were computed for."""
    seen, compute = [], prefix._features

    def counted(model, layers, images, *rest):
        seen.append(len(images))
        return compute(model, layers, images, *rest)

    monkeypatch.setattr(prefix, "_features", counted)
    return seen


def test_another_run_finds_the_features_on_disk_and_gives_the_same_bits(computed):
    one, first = quick(frozen(), max_epochs=2)
    assert sum(computed) == 2 * len(TRAIN) + len(VALIDATION)
    two, second = quick(frozen(), max_epochs=2)
    assert sum(computed) == 2 * len(TRAIN) + len(VALIDATION), "nothing was computed again"
    pd.testing.assert_frame_equal(curves(first), curves(second), check_exact=True)
    assert same(one.state_dict(), two.state_dict())


def test_predictions_are_made_from_the_features_on_disk_also_of_a_model_that_was_stored(computed, tmp_path):
    model, _ = quick(frozen(), max_epochs=1)
    as_usual, before = gl.predict(model, VALIDATION).probabilities, sum(computed)
    assert np.allclose(gl.predict(model, VALIDATION, reuse_frozen=True).probabilities, as_usual, atol=1e-5)
    assert sum(computed) == before, "fit had kept them"
    unseen = squares(6, "test", seed=9)
    for each in (model, gl.load_model(gl.save_model(model, tmp_path / "m"))):
        found = gl.predict(each, unseen, reuse_frozen=True)
        assert np.allclose(found.probabilities, gl.predict(each, unseen).probabilities, atol=1e-5)
    assert sum(computed) == before + len(unseen) and not model.training
    everywhere = gl.build_backbone("squeezenet1_0", weights=None)
    assert len(gl.predict(everywhere, unseen, reuse_frozen=True)) == len(unseen)


@pytest.mark.parametrize(
    "other",
    [
        {"model": lambda: frozen(seed=1)},
        {"model": lambda: frozen("mobilenet_v3_small")},
        {"train": squares(40, "train", seed=5), "validation": squares(20, "validation", seed=6)},
        {"speed": Speed(bf16=True), "validation": squares(20, "validation", seed=6)},
        {"rotate": 5, "views": 2, "validation": squares(20, "validation", seed=6)},
    ],
    ids=["weights", "network", "images", "precision", "views"],
)
def test_other_features_have_another_key(other, computed):
    once(frozen())
    before = sum(computed)
    once(**{**other, "model": other.get("model", frozen)()})
    assert sum(computed) == 2 * before


def test_a_run_that_was_stopped_goes_on_with_the_features_it_had(computed, monkeypatch):
    whole, _ = once(frozen("mobilenet_v3_small"), rotate=5, views=2)
    for file in files()[1::2]:
        file.unlink()
    before = sum(computed)
    again, _ = once(frozen("mobilenet_v3_small"), rotate=5, views=2)
    assert torch.equal(whole, again) and 0 < sum(computed) - before < before


def test_damaged_features_are_computed_again():
    whole, _ = once(frozen())
    rng = np.random.default_rng(0)
    for round in range(10):
        for file in files():
            data = bytearray(file.read_bytes())
            data[rng.integers(len(data))] ^= 1 << (round % 8)
            file.write_bytes(data if round else data[: len(data) // 2])
        again, _ = once(frozen())
        assert torch.equal(whole, again)


@pytest.mark.filterwarnings("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["cut", "empty", "text", "no end", "foreign array", "folder"])
def test_damaged_features_are_left_closed(damage):
    whole, _ = once(frozen())
    for file in files():
        data = file.read_bytes()
        if damage == "folder":
            file.unlink()
            file.mkdir()
        elif damage == "foreign array":
            np.save(file.with_suffix(".npy"), np.zeros(3))
            os.replace(file.with_suffix(".npy"), file)
        else:
            parts = {"cut": data[: len(data) // 2], "empty": b"", "text": b"features", "no end": data[:-22]}
            file.write_bytes(parts[damage])
    again, _ = once(frozen())
    gc.collect()
    assert torch.equal(whole, again)


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path / "file"))
    assert quick(frozen(), max_epochs=1)[1].views == 2


def test_what_was_not_used_for_longest_goes_first(monkeypatch):
    once(frozen())
    old = {file.parent for file in files()}
    for folder in old:
        for file in folder.iterdir():
            os.utime(file, (0, 0))
    monkeypatch.setattr("ggo_lab.training.features._MOST_BYTES", sum(file.stat().st_size for file in files()))
    once(frozen(seed=1))
    assert files() and not old & {file.parent for file in files()}


def test_one_s_own_network_is_not_kept_on_disk():
    model = tiny()
    model.extent = "head"
    model._freeze()
    assert quick(model, max_epochs=1)[1].views == 2 and files() == []


# ---- what cannot be cut ---------------------------------------------------------------------------------------


def test_a_network_that_cannot_be_followed_is_computed_in_every_step():
    model = frozen("resnet18", "last_block")
    model.network.layer4.register_forward_hook(lambda layer, given, result: 2 * result if result.mean() > 0 else result)
    assert split_at_frozen(model) is None
    model, history = quick(frozen(sequence=True), max_epochs=1)
    assert history.views == 2 and model.extent == "head"
    assert quick(frozen(extent="last_block", sequence=True), max_epochs=1)[1].views == 0
