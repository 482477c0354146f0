"""Networks beyond the course's own: any that torchvision has, and a GRU over the slices of a scan."""

import copy
import sys
import warnings

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from squares import TRAIN, VALIDATION, quick, same, squares
from torch import nn
from torch.nn.utils import prune

import ggo_lab as gl
from ggo_lab.backbones import BACKBONES, RandomWeightsWarning, build_backbone, count_parameters, parameter_table
from ggo_lab.saliency.maps import METHODS
from ggo_lab.tasks import MOSMED, Task
from ggo_lab.training import load_model, save_model

# One of each family that is quick to build: head, and the last block that is found.
FOUND = {
    "convnext_tiny": ("classifier.2", {"features.7", "classifier"}),
    "efficientnet_b0": ("classifier.1", {"features.8", "classifier"}),
    "googlenet": ("fc", {"inception5b"}),
    "mnasnet0_5": ("classifier.1", {"layers.15", "layers.14", "classifier"}),
    "mobilenet_v2": ("classifier.1", {"features.18", "classifier"}),
    "regnet_y_400mf": ("fc", {"trunk_output.block4"}),
    "shufflenet_v2_x0_5": ("fc", {"conv5"}),
}


def images(size, channels=3, count=2, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=draws)


@pytest.mark.parametrize("name", FOUND)
def test_the_head_of_any_network_is_found_and_replaced(name):
    with pytest.warns(RandomWeightsWarning):
        model = build_backbone(name, "last_block", weights=None)
    assert (model.spec.head, set(model.spec.last_block)) == FOUND[name]
    assert not any(getattr(module, "out_features", 0) == 1000 for module in model.modules())
    places = tuple(f"network.{place}." for place in (model.spec.head, *model.spec.last_block))
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad == parameter_name.startswith(places)
    seen = {}
    model.cam_layer.register_forward_hook(lambda layer, given, result: seen.update(maps=result))
    logits = model.eval()(images(64))
    assert logits.shape == (2, 4) and seen["maps"].ndim == 4 and seen["maps"].shape[2] == seen["maps"].shape[3] == 2
    model.train()
    model(images(64)).logsumexp(1).sum().backward()


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t"])
def test_transformers_are_described(name):
    from torchvision.models import get_model

    from ggo_lab.backbones.discover import describe

    with torch.device("meta") if name.startswith("vit") else torch.device("cpu"):
        spec = describe(name, get_model(name, weights=None))
    if name == "vit_b_16":  # as the course describes its sister, but for the head's branch
        sister = BACKBONES["vit_b_32"]
        assert set(spec.last_block) == {*sister.last_block, "heads"} and (spec.head, spec.cam) == (
            sister.head,
            sister.cam,
        )
        assert spec.step == spec.least_size == 16
    else:
        assert (spec.head, spec.cam, spec.step) == ("head", "permute", 224)
        assert set(spec.last_block) == {"norm", "features.7"}


def test_any_network_comes_back_from_its_file(tmp_path):
    model, _ = quick(build_backbone("shufflenet_v2_x0_5", weights=None), max_epochs=1)
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert same(loaded.state_dict(), model.state_dict()) and loaded.spec == model.spec


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "resnet19", "timm/resnet19", "timm/", ""])
def test_what_does_not_classify_is_refused(name):
    with pytest.raises(gl.ChoiceError, match="choose one of 'alexnet'"):
        build_backbone(name, weights=None)


def test_parameters_are_counted_for_each_extent():
    table = parameter_table(["alexnet", "resnet152"])
    assert list(table.columns) == ["head", "last_block", "all"]
    assert (table["head"] < table["last_block"]).all() and (table["last_block"] < table["all"]).all()
    assert table.loc["resnet152", "head"] == 4 * 2048 + 4
    model = build_backbone("resnet18", weights=None, sequence=True)
    table = parameter_table(["resnet18"], sequence=True)
    assert table.loc["resnet18", "all"] == count_parameters(model)[1]
    assert table.loc["resnet18", "head"] == sum(p.numel() for p in model.network.grader.parameters())


# ---- a GRU over the slices ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gru():
    return build_backbone("resnet18", weights=None, sequence=True).eval()


@pytest.mark.parametrize("slices", [1, 2, 7])
def test_any_number_of_slices_is_read(gru, slices):
    assert gru(images(32, slices)).shape == (2, 4)


def test_the_order_of_slices_matters(gru):
    scan = images(32, 6)
    assert not torch.allclose(gru(scan), gru(scan.flip(1)), atol=1e-4)


def test_scans_of_different_lengths_share_a_batch(gru):
    short, long = images(32, 3, count=1), images(32, 5, count=1, seed=1)
    padded = torch.cat([short, torch.zeros(1, 2, 32, 32, dtype=torch.uint8)], dim=1)
    together = gru(torch.cat([padded, long]))
    torch.testing.assert_close(together, torch.cat([gru(short), gru(long)]), rtol=1e-4, atol=1e-5)
    other = gru(torch.cat([short, short[:, :2]], dim=1))
    assert not torch.allclose(other, together[:1], atol=1e-4), "real slices would have been read"


def test_an_empty_scan_gets_an_answer_and_an_empty_slice_between_others_is_passed_over(gru):
    assert gru(torch.zeros(1, 4, 32, 32, dtype=torch.uint8)).isfinite().all()
    scan = images(32, 4)
    scan[:, 1] = 0
    assert gru(scan).isfinite().all() and not torch.allclose(gru(scan), gru(scan[:, [0, 2, 3]]), atol=1e-5)


def test_every_layer_of_the_gru_learns_and_the_cnn_only_where_it_should():
    model = build_backbone("mobilenet_v3_small", weights=None, sequence=True).train()
    model(images(32, 4)).logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.warns(RandomWeightsWarning):
        head = build_backbone("resnet18", "head", weights=None, sequence=True).train()
    assert {name.split(".")[1] for name, p in head.named_parameters() if p.requires_grad} == {"grader"}
    assert not any(m.training for m in head.network.slices.cnn.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_gru_learns_and_comes_back_from_its_file(tmp_path):
    train, validation, test = squares(40, "train"), squares(20, "validation"), squares(20, "test", seed=2)
    model, history = quick(
        build_backbone("resnet18", weights=None, sequence=True), train, validation, max_epochs=8, lr=1e-3
    )
    assert history.table["train_loss"].iloc[-1] < 0.7 * history.table["train_loss"].iloc[0]
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert torch.equal(loaded(torch.from_numpy(test.pixels)), model(torch.from_numpy(test.pixels)))


def test_images_without_slices_are_refused(gru):
    with pytest.raises(gl.ModelError, match=r"\(B, C, H, W\), C being the slices"):
        gru(torch.zeros(2, 0, 32, 32))
    with pytest.raises(gl.ModelError, match="at least 32 rows"):
        gru(torch.zeros(2, 5, 16, 16))


# ---- other tasks, other numbers of slices ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_0", "inception_v3", "vit_b_32", "timm/resnet10t"])
def test_the_outputs_are_the_classes_of_the_task(name):
    yes_no = Task(("no", "yes"))
    model = build_backbone(name, weights=None, task=yes_no).eval()
    assert model(images(96)).shape == (2, 2) and model.task == yes_no
    assert build_backbone("resnet18", weights=None, task=MOSMED, sequence=True).eval()(images(32)).shape == (2, 5)


@pytest.mark.parametrize("slices", [1, 5])
@pytest.mark.parametrize("name", ["resnet18", "inception_v3", "vit_b_32", "timm/resnet10t"])
def test_a_first_convolution_for_other_slices_answers_to_equal_slices_as_to_a_grey_photograph(name, slices):
    three, other = (build_backbone(name, weights=None, slices=n, seed=3) for n in (3, slices))
    first, second = (model.network.get_submodule(model.spec.first) for model in (three, other))
    grey = torch.rand(2, 1, 64, 64)
    answers = first(grey.expand(-1, 3, -1, -1)), second(grey.expand(-1, slices, -1, -1))
    torch.testing.assert_close(*answers, rtol=1e-4, atol=1e-4)
    assert other.eval()(images(96, slices)).shape == (2, 4)
    with pytest.raises(gl.ModelError, match=rf"shape \(B, {slices}, H, W\).*slices=3\)"):
        other(images(96))


@pytest.mark.parametrize("slices", [0, 2.5, True, "three"])
def test_numbers_of_slices_that_are_none_are_refused(slices):
    with pytest.raises(gl.ChoiceError, match="slices="):
        build_backbone("resnet18", weights=None, slices=slices)


# ---- timm, and networks of one's own --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["timm/convnext_atto", "timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224"]
)
def test_timm_says_where_things_are(name):
    with pytest.warns(RandomWeightsWarning):
        model = build_backbone(name, "last_block", weights=None)
    assert not any(getattr(module, "out_features", 0) == 1000 for module in model.modules())
    places = tuple(f"network.{place}." for place in (model.spec.head, *model.spec.last_block))
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad == parameter_name.startswith(places)
    heat = gl.grad_cam(model, images(model.spec.size, count=1)[0].numpy())
    assert heat.shape == (model.spec.size, model.spec.size)


def test_a_timm_network_learns_and_comes_back_from_its_file(tmp_path):
    model, _ = quick(build_backbone("timm/resnet10t", weights=None, seed=2), max_epochs=1)
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert loaded.name == "timm/resnet10t" and same(loaded.state_dict(), model.state_dict())
    pixels = torch.from_numpy(TRAIN.pixels)
    torch.testing.assert_close(loaded(pixels), model.to(memory_format=torch.contiguous_format)(pixels))


def test_without_timm_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(gl.ModelError, match=r"pip install ggo_lab\[timm\]"):
        build_backbone("timm/resnet10t")


class OwnNetwork(nn.Module):
    def __init__(self, slices=3, outputs=7):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(slices, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3))
        self.fc = nn.Linear(8, outputs)

    def forward(self, images):
        return self.fc(self.body(images).mean((2, 3)))


def test_a_network_of_ones_own_is_trained_stored_loaded_and_explained(tmp_path):
    model, _ = quick(gl.Backbone.around(OwnNetwork(), head="fc", last_block=("body.3",), extent="last_block"))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        f"network.{place}.{part}" for place in ("body.3", "fc") for part in ("weight", "bias")
    }
    file = save_model(model, tmp_path / "m")
    loaded = load_model(file, OwnNetwork())
    expected = gl.predict(model, TRAIN).probabilities
    assert (gl.predict(loaded, TRAIN).probabilities == expected).all() and loaded.spec == model.spec
    assert gl.grad_cam(loaded, TRAIN.pixels[0]).shape == (32, 32)
    with pytest.raises(gl.ModelError, match=r"network=\.\.\."):
        load_model(file)
    with pytest.raises(gl.ModelError, match="damaged"):
        load_model(file, nn.Sequential(nn.Linear(3, 4)))


def test_a_network_of_ones_own_may_take_other_slices():
    model = gl.Backbone.around(OwnNetwork(slices=5, outputs=4), head="fc")
    assert model.spec.slices == 5 and model(images(32, 5)).shape == (2, 4)
    with pytest.raises(gl.ModelError, match="5, H, W"):
        model(images(32))


@pytest.mark.parametrize(
    "wrong", [{"head": "nowhere"}, {"head": "fc", "cam": "x"}, {"head": "fc", "last_block": ("y",)}]
)
def test_places_that_are_not_there_are_named(wrong):
    with pytest.raises(gl.ModelError, match=r"has no module|has no attribute"):
        gl.Backbone.around(OwnNetwork(), **wrong)


def test_what_is_no_backbone_is_refused_in_one_sentence():
    for door in (lambda m: gl.fit(m, TRAIN, TRAIN), lambda m: gl.predict(m, TRAIN), lambda m: save_model(m, "m")):
        with pytest.raises(gl.ModelError, match=r"Backbone is needed.*Backbone\.around"):
            door(OwnNetwork())


# ---- wrapped and converted models -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return quick(build_backbone("squeezenet1_0", weights=None), max_epochs=1, speed="plain")[0]


WRAPS = {
    "compiled": torch.compile,
    "parallel": nn.DataParallel,
    "both": lambda model: nn.DataParallel(torch.compile(model)),
    "averaged": torch.optim.swa_utils.AveragedModel,
    "training": lambda model: copy.deepcopy(model).train(),
    "channels last": lambda model: copy.deepcopy(model).to(memory_format=torch.channels_last),
    "frozen": lambda model: copy.deepcopy(model).requires_grad_(False),
    "made in inference mode": lambda model: torch.inference_mode()(copy.deepcopy)(model),
}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_wrapped_models_predict_and_are_stored_as_what_they_wrap(fitted, wrap, tmp_path):
    def like(found, expected, atol=1e-5):  # in another order in memory sums are rounded otherwise
        return np.allclose(found, expected, atol=atol, rtol=0)

    expected, image = gl.predict(fitted, VALIDATION).probabilities, VALIDATION.pixels[0]
    assert like(gl.predict(wrap(fitted), VALIDATION).probabilities, expected)
    loaded = load_model(save_model(wrap(fitted), tmp_path / "m"))
    assert (gl.predict(loaded, VALIDATION).probabilities == expected).all()
    shown = [gl.saliency.occlusion(model, image, 1, cells=2) for model in (wrap(fitted), fitted)]
    assert like(*shown, atol=1e-3), "maps are stretched to 0..1, and what was rounded with them"


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_converted_models_predict_what_they_did_and_come_back(fitted, kind, tmp_path):
    expected = gl.predict(fitted, VALIDATION).probabilities
    model = copy.deepcopy(fitted).to(kind)
    found = gl.predict(model, VALIDATION).probabilities
    assert abs(found - expected).max() < 0.02
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert next(loaded.parameters()).dtype == kind
    # The same bits but in 64 bits, whose sums the BLAS orders by where arrays happen to lie in memory.
    tolerance = 1e-12 if kind == torch.float64 else 0
    np.testing.assert_allclose(gl.predict(loaded, VALIDATION).probabilities, found, rtol=tolerance, atol=0)
    if kind != torch.float64:
        with pytest.raises(gl.ModelError, match=r"model\.float\(\)"):
            quick(model)


def changed_layer(model):
    model.network.features[0] = nn.Conv2d(3, 96, 3, padding=1)


def lost_head(model):
    model.network.classifier[1] = nn.Identity()


def not_numbers(model):
    with torch.no_grad():
        model.network.features[0].weight[0] = torch.nan


def weight_norm(model):
    nn.utils.parametrizations.weight_norm(model.network.features[0])


def old_weight_norm(model):
    nn.utils.weight_norm(model.network.features[0])


def spectral_norm(model):
    nn.utils.parametrizations.spectral_norm(model.network.features[0])


def pruned(model):
    prune.l1_unstructured(model.network.features[0], "weight", 0.3)


def hooked(model):
    model.network.features[0].register_forward_hook(lambda layer, given, result: 2 * result)


def wrapped_layer(model):
    model.network.features[0] = nn.Sequential(model.network.features[0])


UNLOADABLE = [changed_layer, lost_head, not_numbers, weight_norm, old_weight_norm, spectral_norm, pruned, hooked,
              wrapped_layer]  # fmt: skip


@pytest.mark.parametrize("damage", UNLOADABLE)
def test_what_could_not_be_loaded_is_not_stored(fitted, damage, tmp_path):
    model = copy.deepcopy(fitted)
    damage(model)
    with pytest.raises(gl.ModelError, match="nothing was stored"):
        save_model(model, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def shared_weights(model):
    model.network.features[4].expand1x1.weight = model.network.features[3].expand1x1.weight


def pruned_for_good(model):
    pruned(model)
    prune.remove(model.network.features[0], "weight")


def other_strides(model):
    weight = model.network.features[0].weight
    weight.data = weight.data.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)


@pytest.mark.parametrize("change", [shared_weights, pruned_for_good, other_strides])
def test_changed_weights_are_stored_and_predict_alike(fitted, change, tmp_path):
    model = copy.deepcopy(fitted)
    change(model)
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert (gl.predict(loaded, VALIDATION).probabilities == gl.predict(model, VALIDATION).probabilities).all()


def halves(model):
    model.network.classifier.half()
    return model


def without_weights(model):
    return model.to("meta")


def whole_numbers(model):
    for part in model.requires_grad_(False).parameters():
        part.data = part.data.to(torch.int32)
    return model


def complex_numbers(model):
    return model.to(torch.complex64)


def traced(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing
        return torch.jit.trace(model, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


NO_MODELS = [halves, without_weights, whole_numbers, complex_numbers, traced, lambda model: model.network,
             lambda model: nn.Sequential(model), lambda model: model.state_dict(), lambda model: None]  # fmt: skip


@pytest.mark.parametrize("change", NO_MODELS)
def test_what_is_no_model_any_more_is_one_sentence_at_every_door(fitted, change, tmp_path):
    model, image = change(copy.deepcopy(fitted)), VALIDATION.pixels[0]
    doors = [
        lambda: gl.predict(model, VALIDATION),
        lambda: save_model(model, tmp_path / "m"),
        lambda: quick(model, max_epochs=1) if model is not None else gl.fit(None, TRAIN, VALIDATION),
        lambda: gl.explain(model, None),
        *(lambda method=method: method(model, image) for method in METHODS.values()),
    ]
    for door in doors:
        with pytest.raises(gl.ModelError):
            door()
    assert not list(tmp_path.iterdir())


def test_what_cannot_learn_is_refused_where_something_is_learnt(fitted):
    quantised = torch.ao.quantization.quantize_dynamic(build_backbone("resnet18", weights=None), {nn.Linear})
    inside, image = WRAPS["made in inference mode"](fitted), VALIDATION.pixels[0]
    learning = [lambda model: quick(model, max_epochs=1)]
    learning += [lambda model, method=METHODS[name]: method(model, image)
                 for name in ("grad_cam", "integrated_gradients")]  # fmt: skip
    for model, said in ((quantised, "quantised"), (inside, "inference_mode")):
        for door in learning:
            with pytest.raises(gl.ModelError, match=said):
                door(model)
    with pytest.raises(gl.ModelError, match="No layer of squeezenet1_0 learns"):
        quick(WRAPS["frozen"](fitted), max_epochs=1)


def test_a_map_that_is_no_number_is_refused(fitted):
    model = copy.deepcopy(fitted)
    not_numbers(model)
    for method in METHODS.values():
        with pytest.raises(gl.ModelError, match="no numbers"):
            method(model, VALIDATION.pixels[0], 1)


def test_a_network_that_asks_for_the_version_of_a_state_is_stored_and_loaded(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)
        model = build_backbone("mnasnet0_5", "head", weights=None)
    quick(model, max_epochs=1)
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert np.array_equal(gl.predict(loaded, VALIDATION).probabilities, gl.predict(model, VALIDATION).probabilities)
    whole = torchvision.models.mnasnet0_5(weights=None).state_dict()
    torch.save(whole, tmp_path / "w.pth")
    save_file({name: value.contiguous() for name, value in whole.items()}, tmp_path / "w.safetensors")
    for file in ("w.pth", "w.safetensors"):
        begun = build_backbone("mnasnet0_5", weights=tmp_path / file)
        assert torch.equal(begun.network.layers[0].weight, whole["layers.0.weight"])


@pytest.mark.long
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_classifier_of_torchvision_is_built_fitted_stored_loaded_and_predicts_alike(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)
        model = build_backbone(name, "head", weights=None)
    size = model.spec.step if model.spec.step > 1 else max(64, model.spec.least_size)
    few, times = [], -(-size // 32)
    for images in (TRAIN, VALIDATION):
        pixels = images.pixels[:4].repeat(times, 2).repeat(times, 3)[..., :size, :size]
        few.append(gl.images.ImageSet(pixels, images.table.iloc[:4].reset_index(drop=True), gl.Recipe(size=size)))
    quick(model, *few, max_epochs=1, batch_size=4, flip=False)
    loaded = load_model(save_model(model, tmp_path / "m"))
    # RegNet-Y weighs channels by 1 x 1 convolutions of 1 x 1 maps. For them torch takes another kernel where strides of
    # weights, which mean nothing there, come from a file: measured, 2e-8 apart.
    found, expected = (gl.predict(each, few[1]).probabilities for each in (loaded, model))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=0)
