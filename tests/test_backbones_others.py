"""Networks beyond the course's own: any that torchvision has, and a GRU over the slices of a scan."""

import pytest
import torch
from squares import quick, same, squares
from torch import nn

import ggo_lab as gl
from ggo_lab.backbones import BACKBONES, RandomWeightsWarning, build_backbone, count_parameters, parameter_table
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
        model = build_backbone(name, "last_block", weights="none")
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
    sum(y.logsumexp(1).sum() for _, y in model.outputs(images(64))).backward()


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
    model, _ = quick(build_backbone("shufflenet_v2_x0_5", "scratch"), max_epochs=1)
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert same(loaded.state_dict(), model.state_dict()) and loaded.spec == model.spec


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "resnet19", "resnet19_gru", "_gru", ""])
def test_what_does_not_classify_is_refused(name):
    with pytest.raises(gl.ChoiceError, match="choose one of 'alexnet'"):
        build_backbone(name, weights="none")


def test_parameters_are_counted_for_each_extent():
    table = parameter_table(["alexnet", "resnet152", "resnet18_gru"])
    assert list(table.columns) == ["head", "last_block", "all"]
    assert (table["head"] < table["last_block"]).all() and (table["last_block"] < table["all"]).all()
    assert table.loc["resnet152", "head"] == 4 * 2048 + 4
    model = build_backbone("resnet18_gru", "scratch")
    assert table.loc["resnet18_gru", "all"] == count_parameters(model)[1]
    assert table.loc["resnet18_gru", "head"] == sum(p.numel() for p in model.network.grader.parameters())


# ---- a GRU over the slices ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gru():
    return build_backbone("resnet18_gru", "scratch").eval()


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
    model = build_backbone("mobilenet_v3_small_gru", "scratch").train()
    model(images(32, 4)).logsumexp(1).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.warns(RandomWeightsWarning):
        head = build_backbone("resnet18_gru", "head", weights="none").train()
    assert {name.split(".")[1] for name, p in head.named_parameters() if p.requires_grad} == {"grader"}
    assert not any(m.training for m in head.network.slices.cnn.modules() if isinstance(m, nn.BatchNorm2d))


def test_the_gru_learns_and_comes_back_from_its_file(tmp_path):
    train, validation, test = squares(40, "train"), squares(20, "validation"), squares(20, "test", seed=2)
    model, history = quick(build_backbone("resnet18_gru", "scratch"), train, validation, max_epochs=8, lr=1e-3)
    assert history.table["train_loss"].iloc[-1] < 0.7 * history.table["train_loss"].iloc[0]
    loaded = load_model(save_model(model, tmp_path / "m"))
    assert torch.equal(loaded(torch.from_numpy(test.pixels)), model(torch.from_numpy(test.pixels)))


def test_images_without_slices_are_refused(gru):
    with pytest.raises(gl.ModelError, match=r"\(B, C, H, W\), C being the slices"):
        gru(torch.zeros(2, 0, 32, 32))
    with pytest.raises(gl.ModelError, match="at least 32 rows"):
        gru(torch.zeros(2, 5, 16, 16))
