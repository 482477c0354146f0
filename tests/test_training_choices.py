"""How a run learns, by choice: optimizers, rare grades, ordered grades, augmentation, gradual unfreezing."""

import numpy as np
import pytest
import torch
from squares import TRAIN, VALIDATION, config, copied, quick, same, squares, tensors
from torch.nn.functional import cross_entropy, logsigmoid

import ggo_lab as gl
from ggo_lab.backbones import RandomWeightsWarning
from ggo_lab.backbones.ordinal import corn_logits, involvement_logits, involvement_of
from ggo_lab.training import TrainConfig, fit, load_model, save_model, score, training_batches
from ggo_lab.training.augment import augment
from ggo_lab.training.losses import LOSSES, Weights, class_weights

RARE = TRAIN.subset(np.flatnonzero((TRAIN.labels != 3) | (np.arange(40) < 8)))  # 10, 10, 10 and 2 of a grade


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- optimizers and rare grades -------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_the_optimizer_is_the_one_that_was_named(monkeypatch, name, kind):
    used = set()
    step = getattr(torch.optim, kind).step
    monkeypatch.setattr(getattr(torch.optim, kind), "step", lambda self, *a: used.add(type(self)) or step(self, *a))
    quick(optimizer=name, max_epochs=1)
    assert used == {getattr(torch.optim, kind)}


def test_weights_let_grades_count_alike():
    weights = class_weights(torch.tensor([0] * 6 + [1] * 3 + [3]), 4)
    assert weights[2] == 0
    assert torch.allclose(weights * torch.tensor([6, 3, 0, 1]), torch.tensor([10 / 3, 10 / 3, 0, 10 / 3]))


def test_a_weighted_loss_is_torchs():
    logits, labels = torch.randn(len(RARE), 4, generator=draws()), tensors(RARE)[1]
    losses = LOSSES["cross_entropy"](logits, labels)
    for balanced, weights in ((True, class_weights(labels, 4)), (False, None)):
        found = (Weights(labels, 4, balanced)(labels) * losses).sum()
        torch.testing.assert_close(found, cross_entropy(logits, labels, weights))


def test_balance_by_loss_uses_the_weights_of_the_train_split():
    plain, weighted = quick(train=RARE, max_epochs=1)[0], quick(train=RARE, max_epochs=1, balance="loss")[0]
    assert not same(plain.state_dict(), weighted.state_dict())
    even, still = quick(max_epochs=1)[0], quick(max_epochs=1, balance="loss")[0]
    for name, value in even.state_dict().items():  # all grades are as frequent: all weights are 1
        torch.testing.assert_close(still.state_dict()[name], value)


def test_balance_by_sampling_draws_each_grade_as_often():
    images, targets = tensors(RARE)
    settings, generator = config(balance="sampling"), draws()
    epochs = [torch.cat([y for _, y in training_batches(images, targets, settings, generator)]) for _ in range(100)]
    assert all(len(drawn) == len(RARE) for drawn in epochs)
    shares = torch.bincount(torch.cat(epochs), minlength=4) / (100 * len(RARE))
    assert (shares - 0.25).abs().max() < 0.03
    assert not torch.equal(epochs[0], epochs[1])


# ---- ordered grades -------------------------------------------------------------------------------------------


def corn_loss_of_the_paper(steps, targets):
    """Equation 5 of arXiv:2111.08851: task k sees the images that are at least at k; the mean over all answers."""
    losses, answers = 0.0, 0
    for k in range(3):
        sees = targets >= k
        higher = (targets[sees] > k).float()
        losses -= (logsigmoid(steps[sees, k]) * higher + logsigmoid(-steps[sees, k]) * (1 - higher)).sum()
        answers += sees.sum()
    return losses / answers, answers


def test_cross_entropy_of_corn_logits_is_the_papers_loss():
    outputs, targets = torch.randn(50, 4, generator=draws()), torch.arange(50) % 4
    theirs, answers = corn_loss_of_the_paper(outputs.diff(dim=1), targets)
    ours = cross_entropy(corn_logits(outputs), targets)
    assert (ours * 50 / answers).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_corn_gives_probabilities_even_for_extreme_outputs():
    outputs = torch.cat([torch.randn(20, 4, generator=draws()), 1e4 * torch.eye(4), -1e4 * torch.eye(4)])
    logits = corn_logits(outputs.bfloat16())
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(28))
    torch.testing.assert_close(logits.softmax(1), logits.exp())


def test_corn_learns_and_its_model_file_says_so(tmp_path):
    model, _ = quick(max_epochs=30, patience=30, lr=1e-2, loss="corn")
    images, targets = tensors(squares(40, "test", seed=2))
    assert score(model, images, targets)[1] >= 0.9
    torch.testing.assert_close(model(images).exp().sum(1), torch.ones(40))
    real = gl.build_backbone("squeezenet1_0", weights=None)
    quick(real, max_epochs=1, loss="corn")
    loaded = load_model(save_model(real, tmp_path / "m"))
    assert loaded.reading == "corn" and torch.equal(loaded(images), real(images))
    quick(model, max_epochs=1)
    assert model.reading == "logits", "cross-entropy again"


def test_involvement_is_graded_by_the_bands_and_a_sure_one_is_a_sure_grade():
    outputs = torch.tensor(
        [[-1.5, -9.0, 0, 0], [0.5, -9.0, 0, 0], [9.0, 9.0, 0, 0], [-1e4, -1e4, 0, 0], [1e4, 1e4, 0, 0]]
    )
    logits = involvement_logits(outputs, gl.GGO_SEVERITY)
    assert involvement_of(outputs)[:2].tolist() == [0.125, 0.625]
    assert logits.isfinite().all() and logits[:3].argmax(1).tolist() == [0, 2, 3]
    torch.testing.assert_close(logits.exp().sum(1)[:3], torch.ones(3))
    assert logits[0, 0].exp() > 0.99 and logits[2].exp().max() < 0.9
    outputs.requires_grad_(True)
    cross_entropy(involvement_logits(outputs, gl.GGO_SEVERITY), torch.arange(5) % 4).backward()
    assert outputs.grad.isfinite().all() and not outputs.grad[:, 2:].any()


def test_a_class_without_lesions_is_what_lies_below_none():
    assert involvement_logits(torch.tensor([[-3.0, -9.0, 0, 0, 0]]), gl.tasks.MOSMED).argmax() == 0


def test_involvement_is_learnt_from_grades_and_the_model_file_says_so(tmp_path):
    model, _ = quick(max_epochs=30, patience=30, lr=1e-2, loss="involvement")
    images, targets = tensors(squares(40, "test", seed=2))
    assert score(model, images, targets)[1] >= 0.9
    real = gl.build_backbone("squeezenet1_0", weights=None)
    quick(real, max_epochs=1, loss="involvement")
    loaded = load_model(save_model(real, tmp_path / "m"))
    assert loaded.reading == "involvement" and torch.equal(loaded(images), real(images))


def test_involvement_that_decides_nothing_is_not_regressed():
    images = squares(8, "train")
    table = images.table.assign(label=images.table["label"] % 3)
    one, other = (
        gl.images.ImageSet(
            images.pixels, table.assign(patient=table["name"] + split), images.recipe, task=gl.tasks.DIAGNOSIS
        )
        for split in "ab"
    )
    model = gl.build_backbone("squeezenet1_0", weights=None, task=gl.tasks.DIAGNOSIS)
    with pytest.raises(gl.ChoiceError, match="does not decide between normal"):
        gl.fit(model, one, other, gl.TrainConfig(loss="involvement"), progress=False)


# ---- augmentation ---------------------------------------------------------------------------------------------


def spot(size=65):
    """A bright spot to the right of the middle, on grey."""
    image = torch.full((1, 3, size, size), 100, dtype=torch.uint8)
    image[:, :, size // 2 - 1 : size // 2 + 2, size // 2 + 19 : size // 2 + 22] = 250
    return image.expand(200, -1, -1, -1)


def centres(images):
    """Where the spots are, in pixels from the middle: x to the right, y down."""
    grey = (images[:, 0].float() - 150).clamp(min=0)
    pixels = torch.arange(grey.shape[-1]) - grey.shape[-1] // 2
    total = grey.sum((1, 2))
    return torch.stack([(grey.sum(1) * pixels).sum(1) / total, (grey.sum(2) * pixels).sum(1) / total])


def test_images_are_turned_by_up_to_the_given_angle():
    x, y = centres(augment(spot(), TrainConfig(rotate=20), draws()))
    angles = torch.atan2(y, x).rad2deg()
    assert 18 < angles.max() < 20.5 and -20.5 < angles.min() < -18
    assert ((x**2 + y**2).sqrt() - 20).abs().max() < 0.5


def test_images_are_resized_by_up_to_the_given_share():
    x, y = centres(augment(spot(), TrainConfig(scale=0.2), draws()))
    assert y.abs().max() < 0.1
    assert 23.5 < x.max() < 24.5 and 15.5 < x.min() < 16.5


def test_intensity_changes_contrast_and_light():
    altered = augment(torch.full((500, 3, 8, 8), 100, dtype=torch.uint8), TrainConfig(intensity=0.1), draws())
    grey = altered[:, 0, 0, 0]
    assert torch.equal(altered, grey.view(-1, 1, 1, 1).expand_as(altered))
    assert 64 < grey.min() < 75 and 125 < grey.max() < 136  # 100 x 0.9 - 25.5 to 100 x 1.1 + 25.5
    bright = augment(torch.full((50, 3, 8, 8), 250, dtype=torch.uint8), TrainConfig(intensity=0.5), draws())
    assert bright.max() == 255 and bright.min() >= 0


def test_alterations_are_seeded_and_new_in_every_epoch():
    images, targets = tensors(TRAIN)
    settings = config(rotate=10, scale=0.1, intensity=0.1)

    def epoch(generator):
        return torch.cat([batch for batch, _ in training_batches(images, targets, settings, generator)])

    one, two = draws(), draws()
    first, again = epoch(one), epoch(two)
    assert torch.equal(first, again) and not torch.equal(first.sort(0).values, epoch(one).sort(0).values)
    assert first.shape == images.shape and first.min() >= 0 and first.max() <= 255


def test_no_alteration_leaves_the_images_as_they_are():
    images, _ = tensors(TRAIN)
    ((batch, order),) = training_batches(images, torch.arange(40), config(flip=False, batch_size=40), draws())
    assert batch.dtype == torch.uint8 and torch.equal(batch, images[order])


def test_what_is_learnt_with_alterations_holds_for_unseen_images():
    model, _ = quick(max_epochs=40, patience=40, lr=1e-2, rotate=10, scale=0.05, intensity=0.1)
    assert score(model, *tensors(squares(40, "test", seed=2)))[1] >= 0.85


@pytest.mark.parametrize(
    "wrong",
    [
        {"rotate": -1},
        {"scale": 1.0},
        {"intensity": 2},
        {"loss": "mse"},
        {"balance": True},
        {"unfreeze_at": (1,)},
        {"unfreeze_at": (5, 5)},
        {"unfreeze_at": (6, 5)},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(gl.ChoiceError, match=next(iter(wrong))):
        TrainConfig(**wrong)


# ---- gradual unfreezing ---------------------------------------------------------------------------------------


def frozen(name="resnet18", extent="head"):
    with pytest.warns(RandomWeightsWarning):
        return gl.build_backbone(name, extent, weights=None)


def test_layers_begin_to_learn_when_they_are_unfrozen(monkeypatch):
    model, states = frozen(), []
    scored = score

    def watch(*arguments):
        states.append(copied(model))
        return scored(*arguments)

    monkeypatch.setattr("ggo_lab.training.loop.score", watch)
    states.append(copied(model))
    quick(model, max_epochs=3, unfreeze_at=(2, 3))
    for before, after, places in zip(states, states[1:], [("fc",), ("fc", "layer4"), ("",)], strict=False):
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed and all(name.startswith(tuple(f"network.{p}" for p in places)) for name in changed)
        assert {place for place in ("fc", "layer4", "conv1") if f"network.{place}" in str(changed)} >= {
            place for place in places if place
        }
    assert any(name.startswith("network.conv1") for name in changed) and model.extent == "all"


def test_the_best_state_before_unfreezing_is_put_back_whole(monkeypatch):
    model, states = frozen("squeezenet1_0"), []
    scores = iter([(1.0, 0.9), (1.0, 0.1)])

    def scripted(*_):
        states.append(copied(model))
        return next(scores)

    monkeypatch.setattr("ggo_lab.training.loop.score", scripted)
    quick(model, max_epochs=2, unfreeze_at=(2,), lr=1e-2)
    assert same(model.state_dict(), states[0]) and not same(*states)


def test_a_run_that_unfreezes_is_resumed_to_the_same_bits(tmp_path):
    settings = config(max_epochs=4, unfreeze_at=(2, 3))

    def run(checkpoint, **changes):
        model = frozen("squeezenet1_0")
        fit(model, TRAIN, VALIDATION, TrainConfig(**{**vars(settings), **changes}), False, checkpoint)
        return model

    whole = run(None)
    for epochs in (1, 2, 3):
        run(tmp_path / "c", max_epochs=epochs)
    resumed = run(tmp_path / "c")
    assert same(whole.state_dict(), resumed.state_dict()) and resumed.extent == "all"


def test_an_unfrozen_model_comes_back_from_its_file(tmp_path):
    model = frozen("inception_v3")
    model.unfreeze()
    model.unfreeze()
    model.recipe = gl.Recipe(size=96)
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert loaded.extent == "all" and loaded.network.AuxLogits is None
    assert gl.count_parameters(loaded) == gl.count_parameters(model)
    assert gl.count_parameters(model)[0] == gl.count_parameters(model)[1]


@pytest.mark.parametrize(("extent", "epochs"), [("all", (3,)), ("last_block", (3, 4)), ("head", (2, 3, 4))])
def test_unfreezing_what_is_not_frozen_is_refused(extent, epochs):
    model = gl.build_backbone("squeezenet1_0", weights=None)
    model.extent = extent
    with pytest.raises(gl.ChoiceError, match="unfreeze_at"):
        quick(model, unfreeze_at=epochs)
