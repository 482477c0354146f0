"""Grad-CAM against captum, on every backbone, and its score."""

import numpy as np
import pytest
import torch
from captum.attr import LayerAttribution, LayerGradCam

import ggo_lab as gl

IMAGE = np.random.default_rng(0).integers(0, 256, (3, 96, 96), np.uint8)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "squeezenet1_0", "mobilenet_v3_small", "vgg11_bn"])
def test_grad_cam_is_that_of_captum(name):
    model = gl.build_backbone(name, weights="none", seed=2).eval()
    batch = torch.from_numpy(IMAGE)[None].float()
    compared = 0
    for grade in gl.Grade:
        maps = LayerGradCam(model, model.cam_layer).attribute(batch, grade.index, relu_attributions=True).detach()
        theirs = LayerAttribution.interpolate(maps, (96, 96), "bilinear")[0, 0].numpy()
        found = gl.grad_cam(model, IMAGE, grade)
        compared += theirs.max() > 0  # with random weights nothing may speak for a grade
        np.testing.assert_allclose(found, theirs / max(theirs.max(), 1e-30), atol=1e-4)
    assert compared


@pytest.mark.parametrize("name", gl.BACKBONES)
@pytest.mark.parametrize("extent", ["all", "head"])
@pytest.mark.filterwarnings("ignore:.*RANDOM")
def test_every_backbone_gives_a_map(name, extent):
    if name in ("resnet152", "wide_resnet101_2", "densenet201") and extent == "head":
        pytest.skip("large, and alike to its smaller sister")
    model = gl.build_backbone(name, extent, weights="none").train()
    heat = gl.grad_cam(model, IMAGE)
    assert heat.shape == (96, 96) and heat.dtype == np.float32
    assert heat.min() >= 0 and (heat.max() == pytest.approx(1) or heat.max() == 0)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not model.cam_layer._forward_hooks


def test_heat_lies_where_the_evidence_lies():
    """A network that only adds up the brightness of a place must look at the bright place."""
    model = gl.build_backbone("resnet18", weights="none").eval()
    layer = model.cam_layer

    def brightness(_module, given, out):
        cells = torch.nn.functional.adaptive_avg_pool2d(given[0].new_tensor(IMAGE_BRIGHT)[None, None], out.shape[2:])
        return cells.expand_as(out) * torch.ones_like(out)

    hook = layer.register_forward_hook(brightness)
    with torch.no_grad():
        model.network.fc.weight[0].fill_(1.0)
    heat = gl.grad_cam(model, IMAGE, grade=1)
    hook.remove()
    assert np.unravel_index(heat.argmax(), heat.shape)[0] < 40 and heat[80:, 80:].max() < 0.3


IMAGE_BRIGHT = np.zeros((96, 96), np.float32)
IMAGE_BRIGHT[:32, :32] = 255


def test_an_unknown_grade_is_refused():
    model = gl.build_backbone("squeezenet1_0", weights="none")
    with pytest.raises(gl.ChoiceError, match="grade=5"):
        gl.grad_cam(model, IMAGE, grade=5)


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
