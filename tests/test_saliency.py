"""Saliency maps against captum, their scores, and the checks that tell a map from an edge detector."""

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam, Occlusion

import ggo_lab as gl
from ggo_lab.saliency import similarity
from ggo_lab.saliency.maps import METHODS, _integrated

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 96, 96), np.uint8)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "squeezenet1_0", "mobilenet_v3_small", "vgg11_bn"])
def test_grad_cam_is_that_of_captum(name):
    model = gl.build_backbone(name, weights=None, seed=2).eval()
    batch = torch.from_numpy(IMAGE)[None].float()
    compared = 0
    for label in range(4):
        maps = LayerGradCam(model, model.cam_layer).attribute(batch, label, relu_attributions=True).detach()
        theirs = LayerAttribution.interpolate(maps, (96, 96), "bilinear")[0, 0].numpy()
        found = gl.grad_cam(model, IMAGE, label)
        compared += theirs.max() > 0  # with random weights nothing may speak for a grade
        np.testing.assert_allclose(found, theirs / max(theirs.max(), 1e-30), atol=1e-4)
    assert compared


@pytest.mark.parametrize("name", gl.BACKBONES)
@pytest.mark.parametrize("extent", ["all", "head"])
@pytest.mark.filterwarnings("ignore:.*RANDOM")
def test_every_backbone_gives_a_map(name, extent):
    if name in ("resnet152", "wide_resnet101_2", "densenet201") and extent == "head":
        pytest.skip("large, and alike to its smaller sister")
    model = gl.build_backbone(name, extent, weights=None).train()
    heat = gl.grad_cam(model, IMAGE)
    assert heat.shape == (96, 96) and heat.dtype == np.float32
    assert heat.min() >= 0 and (heat.max() == pytest.approx(1) or heat.max() == 0)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not model.cam_layer._forward_hooks


def test_heat_lies_where_the_evidence_lies():
    """A network that only adds up the brightness of a place must look at the bright place."""
    model = gl.build_backbone("resnet18", weights=None).eval()
    layer = model.cam_layer

    def brightness(_module, given, out):
        cells = torch.nn.functional.adaptive_avg_pool2d(given[0].new_tensor(IMAGE_BRIGHT)[None, None], out.shape[2:])
        return cells.expand_as(out) * torch.ones_like(out)

    hook = layer.register_forward_hook(brightness)
    with torch.no_grad():
        model.network.fc.weight[0].fill_(1.0)
    heat = gl.grad_cam(model, IMAGE, label=0)
    hook.remove()
    assert np.unravel_index(heat.argmax(), heat.shape)[0] < 40 and heat[80:, 80:].max() < 0.3


IMAGE_BRIGHT = np.zeros((96, 96), np.float32)
IMAGE_BRIGHT[:32, :32] = 255


SMALL = IMAGE[:, :64, :64].copy()


@pytest.fixture(scope="module")
def model():
    """A network that is small and quick; its random weights do for maps as well as others."""
    return gl.build_backbone("resnet18", weights=None, seed=3).eval()


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_label_is_refused_and_the_model_left_as_it_was(model, method):
    model.train()
    with pytest.raises(gl.ChoiceError, match="label=5"):
        METHODS[method](model, SMALL, label=5)
    assert model.training
    METHODS[method](model, SMALL, 1)
    assert model.training and all(p.grad is None for p in model.parameters())
    model.eval()


def test_integrated_gradients_are_those_of_captum(model):
    batch = torch.from_numpy(SMALL)[None].float()
    theirs = IntegratedGradients(model).attribute(
        batch, 0 * batch, 2, n_steps=8, method="riemann_middle", internal_batch_size=1
    )
    theirs = theirs[0].clamp(min=0).detach().numpy()
    found = gl.saliency.integrated_gradients(model, SMALL, 2, steps=8)
    np.testing.assert_allclose(found, theirs / theirs.max(), atol=1e-4)


def test_integrated_gradients_add_up_to_the_rise_of_the_logit(model):
    with torch.inference_mode():
        ends = model(torch.from_numpy(np.stack([0 * SMALL, SMALL])))[:, 0]
    total = float(_integrated(model, SMALL, 0, steps=64).sum())
    assert total == pytest.approx(float(ends[1] - ends[0]), rel=0.05)


def test_occlusion_is_that_of_captum(model):
    batch = torch.from_numpy(SMALL)[None].float()
    theirs = Occlusion(model).attribute(batch, (1, 16, 16), (1, 16, 16), baselines=0, target=1)[0].clamp(min=0).numpy()
    found = gl.occlusion(model, SMALL, 1, cells=4)
    assert theirs.max() > 0
    np.testing.assert_allclose(found, theirs / theirs.max(), atol=1e-4)
    with pytest.raises(gl.ChoiceError, match="cells=65"):
        gl.occlusion(model, SMALL, cells=65)


class Brightness(gl.Backbone):
    """A network whose logit of moderate is the brightness of the upper left corner of channel 1."""

    training = False
    recipe = gl.Recipe(size=64)
    name = "brightness"

    def __init__(self):
        torch.nn.Module.__init__(self)
        self.network = torch.nn.Identity()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        seen = images.float()[:, 1, :16, :16].mean(dim=(1, 2)) * self.weight / 255
        return torch.stack([0 * seen, 6 * seen, 0 * seen, 0 * seen], dim=1)


def test_maps_show_the_pixels_that_count():
    for heat in (
        gl.occlusion(Brightness(), SMALL, 1, cells=4),
        gl.saliency.integrated_gradients(Brightness(), SMALL, 1),
    ):
        assert heat[1, :16, :16].sum() == pytest.approx(heat.sum()) and heat.sum() > 0


def test_taking_away_what_counts_lowers_the_probability_first():
    heat = gl.occlusion(Brightness(), SMALL, 1, cells=4)
    curves = gl.saliency.deletion_insertion(Brightness(), SMALL, heat, 1)
    areas = curves.mean()
    assert areas["deletion"] < areas["random_deletion"] - 0.1 and areas["insertion"] > areas["random_deletion"] + 0.1
    assert curves["deletion"].iloc[0] == curves["insertion"].iloc[-1] and curves["deletion"].iloc[-1] == 0.25
    nowhere = gl.saliency.deletion_insertion(Brightness(), SMALL, np.zeros((64, 64)), 1).mean()
    assert nowhere["deletion"] == pytest.approx(nowhere["random_deletion"], abs=0.03)
    with pytest.raises(gl.ChoiceError, match="does not fit"):
        gl.saliency.deletion_insertion(Brightness(), SMALL, np.zeros((9, 9)), 1)


def test_the_pointing_game():
    mask = np.zeros((4, 10, 10), bool)
    mask[2, :5] = True
    heat = np.zeros((10, 10), np.float32)
    heat[3, 3], heat[8, 8] = 1, 0.9
    assert gl.saliency.pointing_game({2: heat}, mask) == (True, 0.5)
    assert gl.saliency.pointing_game({2: heat[::-1]}, mask) == (False, 0.5)
    assert not gl.saliency.pointing_game({2: 0 * heat}, mask).hit


@pytest.fixture(scope="module")
def scan():
    return gl.make_phantom(grade=3, seed=1, shape=(16, 64, 64))


@pytest.mark.parametrize("method", METHODS)
def test_a_map_comes_with_its_score(model, scan, method):
    model.recipe = gl.Recipe(size=64)
    found = gl.explain(model, scan, 3, method)
    assert found.volume.shape == scan.shape and sorted(found.heat) == [2, 8, 13]
    assert (
        found.volume[found.volume.any(axis=(1, 2))].shape[0] <= 3 and 0 <= found.volume.min() <= found.volume.max() <= 1
    )
    assert found.in_lesions == gl.share_inside(found.heat, scan.truth.lesions)
    assert found.pointed == gl.saliency.pointing_game(found.heat, scan.truth.lesions)
    for text in (repr(found), found._repr_html_()):
        assert f"{method} for critical" in text and "lesions" in text and "random order" in text
    planes = list(found.heat.values())
    assert np.array_equal(planes[0], planes[1]) == (method == "grad_cam")


def test_a_scan_without_truth_is_scored_by_its_lungs(model, scan):
    from dataclasses import replace

    model.recipe = gl.Recipe(size=64)
    found = gl.explain(model, replace(scan, truth=None))
    assert found.in_lesions is None and found.pointed is None and "lesion" not in found.sentence
    assert found.in_lungs.chance == pytest.approx(scan.truth.lungs[[2, 8, 13]].mean(), abs=0.05)  # found ones
    with pytest.raises(gl.ChoiceError, match="method='magic'"):
        gl.explain(model, scan, method="magic")
    with pytest.raises(gl.ModelError, match="not been fitted"):
        gl.explain(gl.build_backbone("squeezenet1_0", weights=None), scan)


def test_forgetting_layer_by_layer_changes_the_map_and_not_the_model(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    table = gl.saliency.randomise_layers(model, SMALL, 0, "integrated_gradients", stages=2)
    assert table["down_to"].tolist()[0] == "nothing" and table["down_to"].iloc[-1] == "conv1"
    assert table["similarity"].iloc[0] == pytest.approx(1) and table["similarity"].iloc[-1] < 0.7
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    again = gl.saliency.randomise_layers(model, SMALL, 0, "integrated_gradients", stages=2)
    assert again.equals(table)
    with pytest.raises(gl.ChoiceError, match="stages=0"):
        gl.saliency.randomise_layers(model, SMALL, 0, stages=0)


def test_similarity_of_maps():
    ramp = np.arange(12.0).reshape(3, 4)
    assert similarity(ramp, ramp**3) == pytest.approx(1) and similarity(ramp, -ramp) == pytest.approx(-1)
    assert np.isnan(similarity(ramp, 0 * ramp))
    with pytest.raises(gl.ChoiceError, match="cannot be compared"):
        similarity(ramp, ramp.T)


def test_shuffled_labels_keep_images_and_counts():
    import pandas as pd

    names = [f"s{i}" for i in range(40)]
    table = pd.DataFrame({"name": names, "patient": names, "label": np.repeat([0, 1, 2, 3], 10), "split": "train"})
    images = gl.images.ImageSet(np.zeros((40, 3, 8, 8), np.uint8), table, gl.Recipe(size=8))
    dealt = gl.saliency.shuffle_labels(images, seed=1)
    assert dealt.names == names and sorted(dealt.labels) == sorted(images.labels)
    assert (dealt.labels == images.labels).mean() < 0.6 and images.labels[0] == 0


def test_share_inside_counts_heat_and_area():
    mask = np.zeros((4, 10, 10), bool)
    mask[2, :5] = True
    heat = np.zeros((10, 10), np.float32)
    heat[:5, :4], heat[5:, :2] = 0.5, 1.0
    found = gl.share_inside({2: heat}, mask)
    assert found.share == pytest.approx(0.5) and found.chance == 0.5 and found.times_chance == pytest.approx(1)
    both = gl.share_inside({2: heat, 3: heat}, mask)
    assert both.share == pytest.approx(0.25) and both.chance == 0.25
    assert gl.share_inside(np.zeros(mask.shape), mask).share != gl.share_inside(np.zeros(mask.shape), mask).share  # nan
    assert np.isnan(gl.share_inside({0: heat}, np.zeros_like(mask)).times_chance)
    with pytest.raises(gl.ChoiceError, match="one shape"):
        gl.share_inside(heat, mask)


def test_where_a_gru_reads_every_slice_has_its_map():
    """An empty slice, which the network never sees, has none; a map moves with its slice."""
    model = gl.build_backbone("resnet18", weights=None, seed=2, sequence=True).eval()
    image = np.random.default_rng(1).integers(0, 256, (5, 64, 64), np.uint8)
    image[3] = 0
    found = {label: gl.grad_cam(model, image, label) for label in range(4)}
    assert all(heat.shape == image.shape and not heat[3].any() for heat in found.values())
    heat = max(found.values(), key=lambda each: each.sum())
    assert heat.max() == pytest.approx(1)
    assert len({heat[z].tobytes() for z in (0, 1, 2, 4)}) == 4
    grads = gl.saliency.integrated_gradients(model, image, steps=2)
    assert grads.shape == image.shape and np.isfinite(grads).all()


def test_steps_and_stages_are_whole_numbers():
    model = gl.build_backbone("resnet18", weights=None)
    heat = np.ones((96, 96))
    for wrong in (0, 2.5, "2"):
        with pytest.raises(gl.ChoiceError, match="steps"):
            gl.saliency.deletion_insertion(model, IMAGE, heat, 0, steps=wrong)
        with pytest.raises(gl.ChoiceError, match="stages"):
            gl.saliency.randomise_layers(model, IMAGE, 0, stages=wrong)
