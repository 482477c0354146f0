"""The frozen prefix, computed once: the same result as computing it in every step, and never where it would differ."""

import json

import pandas as pd
import pytest
import torch
from squares import TRAIN, VALIDATION, config, curves, quick, same, tensors
from torch import nn

import ggo_lab as gl
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.training import Speed, TrainConfig, fit, training_batches
from ggo_lab.training.prefix import compute_frozen_once, feature_batches, split_at_frozen

# One of each kind: dropout in the head, convolution as the head, shortcuts, dense blocks, branches, attention.
KINDS = ["alexnet", "squeezenet1_0", "resnet18", "densenet121", "inception_v3", "mobilenet_v3_small", "vit_b_32"]


def frozen(name="resnet18", extent="head", seed=0):
    with pytest.warns(RandomWeightsWarning):
        return gl.build_backbone(name, extent, weights="none", seed=seed)


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
    sum(logits.logsumexp(1).sum() for _, logits in rest.outputs(features)).backward()
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
    assert split_at_frozen(gl.build_backbone("squeezenet1_0", "scratch")) is None
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


def test_batches_of_features_are_those_of_the_images():
    model, (pixels, targets), (unseen, _) = frozen(), tensors(TRAIN), tensors(VALIDATION)
    once = compute_frozen_once(model, pixels, unseen, config())
    prefix, _ = split_at_frozen(model)
    model.eval()
    batches = [training_batches(pixels, targets, config(), torch.Generator().manual_seed(3))]
    batches += [feature_batches(once.views, targets, config(), torch.Generator().manual_seed(3))]
    for (batch, truth), (features, same_truth) in zip(*batches, strict=True):
        assert torch.equal(truth, same_truth)
        torch.testing.assert_close(prefix(model.normalise(batch)), features, rtol=1e-4, atol=1e-4)


def test_views_are_altered_and_seeded():
    model, (pixels, _), (unseen, _) = frozen(), tensors(TRAIN), tensors(VALIDATION)
    settings = config(rotate=10, scale=0.1, views=3)
    one, two = (compute_frozen_once(model, pixels, unseen, settings) for _ in range(2))
    assert one.views.shape == (3, 40, 512) and torch.equal(one.views, two.views)
    assert not torch.allclose(one.views[0], one.views[1]), "each view is another"
    other = compute_frozen_once(model, pixels, unseen, config(rotate=10, scale=0.1, views=3, seed=5))
    assert not torch.allclose(one.views, other.views) and torch.equal(one.unseen, other.unseen)


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
    model, (pixels, _), (unseen, _) = frozen(), tensors(TRAIN), tensors(VALIDATION)
    exact, rough = (
        compute_frozen_once(model, pixels, unseen, config(speed=Speed(True, bf16))) for bf16 in (False, True)
    )
    assert torch.equal(exact.unseen, rough.unseen) and rough.views.dtype == torch.float32
    assert not torch.equal(exact.views, rough.views)
    assert (exact.views - rough.views).norm() < 0.02 * exact.views.norm()


def test_whether_bf16_pays_is_tried_once_and_remembered(monkeypatch, tmp_path):
    monkeypatch.setenv("GGO_LAB_CACHE", str(tmp_path))
    model, (pixels, _), (unseen, _) = frozen(), tensors(TRAIN), tensors(VALIDATION)
    one = compute_frozen_once(model, pixels, unseen, config(speed="auto"))
    (file,) = (tmp_path / "speed").iterdir()
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert stored["network"] == ["frozen", "resnet18", "head"] and len(stored["tried"]) == 2
    assert torch.equal(one.views, compute_frozen_once(model, pixels, unseen, config(speed="auto")).views)
    stored["tried"].reverse()
    file.write_text(json.dumps(stored))
    assert not torch.equal(one.views, compute_frozen_once(model, pixels, unseen, config(speed="auto")).views)


def test_a_network_that_cannot_be_followed_is_computed_in_every_step():
    model = frozen("resnet18", "last_block")
    model.network.layer4.register_forward_hook(lambda layer, given, result: 2 * result if result.mean() > 0 else result)
    assert split_at_frozen(model) is None
    model, history = quick(frozen("resnet18_gru", "head"), max_epochs=1)
    assert history.views == 2 and model.extent == "head"
    assert quick(frozen("resnet18_gru", "last_block"), max_epochs=1)[1].views == 0
