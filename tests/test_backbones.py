import copy
import hashlib
import io
import json
import socket
import subprocess
import sys
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.models import VisionTransformer, get_model
from torchvision.models.inception import InceptionOutputs

from ggo_lab import backbones
from ggo_lab.backbones import (
    BACKBONES,
    PHANTOM_WEIGHTS,
    RandomWeightsWarning,
    backbone_from_state,
    build_backbone,
    count_parameters,
)
from ggo_lab.backbones.efficientnet import EfficientNetLite0, imagenet_state
from ggo_lab.errors import ChoiceError, ModelError

EVERY = list(BACKBONES)


def images(size, count=2, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=draws)


def frozen(name, extent):
    with pytest.warns(RandomWeightsWarning, match="freezes a RANDOM"):
        return build_backbone(name, extent, weights=None)


def is_in(name, places):
    return any(name.startswith(f"network.{place}.") for place in places)


# ---- what every network must do -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_network_takes_its_smallest_image_learns_everywhere_and_can_be_explained(name):
    model = build_backbone(name, weights=None)
    assert model.weights == "random" and model.recipe is None and model.spec.size in (224, 299)
    seen = {}
    model.cam_layer.register_forward_hook(lambda layer, given, result: seen.update(maps=result))

    model.train()
    outputs = model(images(model.spec.least_size))
    assert isinstance(outputs, InceptionOutputs if name == "inception_v3" else torch.Tensor)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    assert all(logits.shape == (2, 4) for logits in outputs)
    sum(logits.logsumexp(1).sum() for logits in outputs).backward()
    assert all(p.grad is not None for p in model.parameters())

    model.eval()
    logits = model(images(model.spec.least_size))
    assert logits.shape == (2, 4) and logits.isfinite().all()
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), seen["maps"])
    assert gradient.ndim == (3 if model.spec.layout == "tokens" else 4) and gradient.abs().sum() > 0


@pytest.mark.parametrize("name", EVERY)
def test_only_the_layers_of_the_extent_learn(name):
    spec, learnable = BACKBONES[name], {}
    with torch.device("meta"):  # names and shapes are enough, and the large networks cost nothing
        for extent, places in (("head", [spec.head]), ("last_block", [spec.head, *spec.last_block])):
            model = frozen(name, extent)
            for parameter_name, parameter in model.named_parameters():
                assert parameter.requires_grad == is_in(parameter_name, places), (extent, parameter_name)
            learnable[extent] = count_parameters(model)[0]
        learnable["all"], total = count_parameters(build_backbone(name, "all", weights=None))
    assert 0 < learnable["head"] < learnable["last_block"] < learnable["all"] == total


@pytest.mark.parametrize("extent", ["head", "last_block"])
def test_training_steps_leave_frozen_layers_as_they_are(extent):
    model = frozen("resnet18", extent).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for seed in range(2):
        model(images(64, count=4, seed=seed)).logsumexp(1).sum().backward()
        optimizer.step()
    learning = ["fc"] if extent == "head" else ["fc", "layer4"]
    for name, value in model.state_dict().items():  # buffers too: the statistics of BatchNorm
        assert torch.equal(value, before[name]) != is_in(name, learning), name


def test_a_network_of_which_nothing_learns_can_be_put_to_use():
    model = build_backbone("squeezenet1_0", weights=None)
    model.requires_grad_(False)
    model.train()  # this once called itself without end
    assert not any(module.training for module in model.network.modules())


def test_statistics_move_where_everything_learns():
    model = build_backbone("resnet18", "all", weights=None).train()
    before = model.network.bn1.running_mean.clone()
    model(images(64))
    assert not torch.equal(model.network.bn1.running_mean, before)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small"])
def test_from_random_weights_the_statistics_catch_up_within_an_epoch_of_a_few_steps(name):
    model, seen = build_backbone(name, weights=None).train(), {}
    first = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    first.register_forward_pre_hook(lambda layer, given: seen.update(mean=given[0].mean((0, 2, 3))))
    for _ in range(5):
        model(images(64))
    assert (first.running_mean - seen["mean"]).norm() < 0.2 * seen["mean"].norm()


def test_counts_of_resnet18():
    model = frozen("resnet18", "head")
    assert count_parameters(model) == (512 * 4 + 4, 11_176_512 + 512 * 4 + 4)


# ---- images ---------------------------------------------------------------------------------------------------


def test_normalisation_happens_inside_and_uint8_is_as_good_as_float():
    model = build_backbone("squeezenet1_0", weights=None).eval()
    given = {}
    model.network.register_forward_pre_hook(lambda network, inputs: given.update(images=inputs[0]))
    image = images(40)
    logits = model(image)
    expected = (image[:, 0] / 255 - 0.485) / 0.229
    torch.testing.assert_close(given["images"][:, 0], expected)
    assert torch.equal(logits, model(image.float()))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet18", (1, 3, 31, 64)),
        ("resnet18", (1, 1, 64, 64)),
        ("resnet18", (3, 64, 64)),
        ("alexnet", (1, 3, 62, 62)),
        ("inception_v3", (1, 3, 74, 74)),
        ("vit_b_32", (1, 3, 100, 96)),
    ],
)
def test_images_of_another_shape_are_refused_in_words(name, shape):
    model = build_backbone(name, weights=None)
    with pytest.raises(ModelError, match=r"takes images of shape \(B, 3, H, W\)") as caught:
        model(torch.zeros(shape))
    assert str(shape) in str(caught.value) and ("multiples of 32" in str(caught.value)) == (name == "vit_b_32")


def test_a_vision_transformer_sees_other_sizes_and_at_224_it_is_torchvisions():
    model = build_backbone("vit_b_32", weights=None).eval()
    nn.init.normal_(model.network.heads.head.weight)
    image = images(224, count=1)
    assert torch.equal(model(image), VisionTransformer.forward(model.network, model.normalise(image)))
    assert model(image[..., :96, :160]).shape == (1, 4)


def test_a_vision_transformer_keeps_a_sense_of_place_at_other_sizes():
    model = build_backbone("vit_b_32", weights=None).eval()
    nn.init.normal_(model.network.heads.head.weight)
    nn.init.normal_(model.network.encoder.pos_embedding)
    image = images(64, count=1)
    assert not torch.allclose(model(image), model(image.roll(32, dims=-1)), atol=1e-2)


def test_inceptions_second_output_is_there_only_while_all_layers_learn():
    model = build_backbone("inception_v3", weights=None)
    assert model.train()(images(75)).aux_logits.shape == (2, 4)
    assert isinstance(model.eval()(images(75)), torch.Tensor)
    assert isinstance(frozen("inception_v3", "head").train()(images(75)), torch.Tensor)
    native = torch.rand(1, 768, 17, 17)
    assert backbones.network._enlarge_for_auxiliary(model.network.AuxLogits, (native,))[0] is native


# ---- seeds ----------------------------------------------------------------------------------------------------


def test_the_seed_decides_and_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    one, same, other = (build_backbone("squeezenet1_0", weights=None, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["network.classifier.1.weight"], other["network.classifier.1.weight"])


@pytest.mark.parametrize("wrong", [{"name": "resnet19"}, {"name": None}, {"name": "resnet18", "extent": "tail"}])
def test_unknown_choices_are_refused(wrong):
    with pytest.raises(ChoiceError, match="choose one of"):
        build_backbone(**wrong, weights=None)


def test_no_weights_are_asked_for_by_none_and_other_things_are_refused():
    assert build_backbone("squeezenet1_0", weights=None).weights == "random"
    with pytest.raises(ChoiceError, match="weights=7 is not known; give 'best', 'imagenet'"):
        build_backbone("squeezenet1_0", weights=7)


# ---- weights that come with the package -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photograph", "classes"),
    [("cat", {281, 282, 285}), ("coffee", {967, 968, 504}), ("camera", {872}), ("rocket", {657, 744, 812})],
)  # tabby, tiger and Egyptian cat; espresso, cup and mug; tripod; missile, projectile and space shuttle
def test_efficientnet_names_photographs_where_there_is_no_network(photograph, classes):
    picture = Image.fromarray(getattr(skimage.data, photograph)()).convert("RGB")
    side = min(picture.size)
    left, top = ((n - side) // 2 for n in picture.size)
    square = picture.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    spec, network = BACKBONES["efficientnet_lite0"], EfficientNetLite0().eval()
    network.load_state_dict(imagenet_state())
    normal = (np.asarray(square) / 255 - spec.mean) / spec.sd
    with torch.inference_mode():
        said = network(torch.tensor(normal, dtype=torch.float32).permute(2, 0, 1)[None])[0]
    assert classes & set(said.topk(5).indices.tolist())


def test_efficientnet_is_a_backbone_with_those_weights_and_its_own_normalisation(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("it asked the network"))
    model = build_backbone("efficientnet_lite0", "head").eval()
    assert model.weights == "imagenet"
    stored = imagenet_state()
    assert all(torch.equal(model.network.state_dict()[key], stored[key]) for key in stored if "fc." not in key)
    given = {}
    model.network.register_forward_pre_hook(lambda network, inputs: given.update(images=inputs[0]))
    image = images(40)
    model(image)
    torch.testing.assert_close(given["images"], (image.float() - 127) / 128)


@pytest.mark.parametrize("name", PHANTOM_WEIGHTS)
def test_weights_learnt_on_phantoms_are_loaded_and_only_the_head_is_new(name, capsys):
    model = build_backbone(name, weights="best")
    assert model.weights == "phantom" and capsys.readouterr().out.endswith("learnt on slices of phantoms.\n")
    file = Path(backbones.__file__).parent / "weights" / f"{name}.safetensors"
    made = json.loads((file.parent / "made.json").read_text())[name]
    assert hashlib.sha256(file.read_bytes()).hexdigest() == made["sha256"]
    own = model.network.state_dict()
    for key, value in load_file(file).items():
        if not key.startswith(model.spec.head):
            torch.testing.assert_close(own[key], value.to(own[key].dtype))
    assert build_backbone(name, weights="phantom", sequence=True).weights == "phantom"


def test_a_network_without_weights_of_phantoms_says_which_have_them():
    with pytest.raises(ChoiceError, match=r"vgg11_bn.*resnet18"):
        build_backbone("vgg11_bn", weights="phantom")


def test_the_best_weights_are_said(capsys):
    assert build_backbone("efficientnet_lite0", weights="best").weights == "imagenet"
    assert capsys.readouterr().out == "efficientnet_lite0 starts from weights learnt on ImageNet's photographs.\n"


# ---- weights from a file --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained():
    """The state dict of a squeezenet with 1000 outputs, as torchvision offers it, and its bytes in a file."""
    torch_random = torch.get_rng_state()
    state = get_model("squeezenet1_0", weights=None).state_dict()
    torch.set_rng_state(torch_random)
    file = io.BytesIO()
    torch.save(state, file)
    return SimpleNamespace(state=state, data=file.getvalue())


def test_a_file_of_weights_is_loaded_and_only_the_head_is_new(tmp_path, pretrained):
    file = tmp_path / "weights.pth"
    file.write_bytes(pretrained.data)
    model = build_backbone("squeezenet1_0", "head", weights=file)
    assert model.weights == str(file)
    state = model.network.state_dict()
    assert all(torch.equal(state[n], v) for n, v in pretrained.state.items() if not n.startswith("classifier.1"))
    assert state["classifier.1.weight"].shape[0] == 4


def test_densenet_files_with_names_of_2017_are_understood(tmp_path):
    state = get_model("densenet121", weights=None).state_dict()
    old = {
        n.replace("norm1", "norm.1").replace("conv2", "conv.2") if "denselayer" in n else n: v for n, v in state.items()
    }
    assert old.keys() != state.keys()
    torch.save(old, tmp_path / "old.pth")
    model = build_backbone("densenet121", "head", weights=tmp_path / "old.pth")
    name = "features.denseblock2.denselayer3.conv2.weight"
    assert torch.equal(model.network.state_dict()[name], state[name])


class Trap:
    """A pickle that leaves a file behind if anyone runs its code."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_runs_from_a_file_of_weights(tmp_path):
    torch.save({"conv": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(ModelError, match="not a plain state dict") as caught:
        build_backbone("squeezenet1_0", weights=tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()
    assert "weights_only" not in str(caught.value), "torch's advice on how to run the code must not be passed on"


@pytest.mark.parametrize("damage", ["absent", "empty", "text", "cut", "other network", "list"])
def test_files_that_are_not_this_networks_weights_are_refused(tmp_path, pretrained, damage):
    file = tmp_path / "weights.pth"
    if damage == "other network":
        torch.save(get_model("mobilenet_v3_small", weights=None).state_dict(), file)
    elif damage == "list":
        torch.save([1, 2], file)
    elif damage != "absent":
        file.write_bytes({"empty": b"", "text": b"hello", "cut": pretrained.data[: len(pretrained.data) // 2]}[damage])
    with pytest.raises(ModelError, match=r"weights\.pth") as caught:
        build_backbone("squeezenet1_0", weights=file)
    assert caught.value.subject == file and "\n" not in str(caught.value)


# ---- ImageNet weights: the cache, the network, and neither ----------------------------------------------------


@pytest.fixture
def offer(monkeypatch, tmp_path, pretrained):
    """Pretend that torchvision's weights lie at a given address; gives the file they would be cached in."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(backbones.weights, "_ANSWER_WITHIN_S", 1)
    digest = hashlib.sha256(pretrained.data).hexdigest()[:8]

    def at(base="http://127.0.0.1:9", digest=digest):
        weights = SimpleNamespace(IMAGENET1K_V1=SimpleNamespace(url=f"{base}/squeezenet-{digest}.pth"))
        monkeypatch.setattr(backbones.weights, "get_model_weights", lambda name: weights)
        return tmp_path / "hub" / "hub" / "checkpoints" / f"squeezenet-{digest}.pth"

    return at


@pytest.fixture
def server(pretrained):
    """A web server whose `behaviour` a test may change."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if server.behaviour == "missing":
                self.send_error(404)
                return
            data = b"<html>Please log in</html>" if server.behaviour == "portal" else pretrained.data
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data[: len(data) // 2] if server.behaviour in ("cut", "stall") else data)
            except OSError:
                return  # the client only wanted to know whether anyone is here
            if server.behaviour == "stall":
                self.wfile.flush()
                released.wait(20)

        def log_message(self, *arguments):
            pass

    released = threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.behaviour, server.url = "good", f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def assert_random(cached):
    """Building falls back on random weights, within seconds, says so, and leaves no file behind."""
    start = time.perf_counter()
    with pytest.warns(RandomWeightsWarning, match=r"\*\*\* RANDOM WEIGHTS \*\*\*") as caught:
        model = build_backbone("squeezenet1_0")
    assert time.perf_counter() - start < 40  # left to themselves, sockets wait for minutes
    assert model.weights == "random"
    message = str(caught[0].message)
    assert str(cached.parent) in message and cached.name in message, "what to fetch and where to put it"
    assert caught[0].filename == __file__, "the warning points at the caller's line"
    assert not cached.parent.exists() or list(cached.parent.iterdir()) == []
    return message


def test_weights_come_from_the_cache_without_any_network(offer, pretrained):
    cached = offer()
    cached.parent.mkdir(parents=True)
    cached.write_bytes(pretrained.data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = build_backbone("squeezenet1_0", "head")
    assert model.weights == "imagenet"
    assert torch.equal(model.network.features[0].weight, pretrained.state["features.0.weight"])


def test_a_damaged_file_in_the_cache_is_named(offer, pretrained):
    cached = offer()
    cached.parent.mkdir(parents=True)
    flipped = bytearray(pretrained.data)
    flipped[len(flipped) // 2] ^= 1
    cached.write_bytes(flipped)
    with pytest.raises(ModelError, match=r"damaged.*Delete it") as caught:
        build_backbone("squeezenet1_0")
    assert caught.value.subject == cached


def test_weights_are_fetched_once_and_kept(offer, server, pretrained):
    cached = offer(server.url)
    assert build_backbone("squeezenet1_0").weights == "imagenet"
    assert [file.name for file in cached.parent.iterdir()] == [cached.name]
    assert cached.read_bytes() == pretrained.data
    server.behaviour = "missing"
    assert build_backbone("squeezenet1_0").weights == "imagenet"


@pytest.mark.parametrize("behaviour", ["missing", "portal", "cut", "stall"])
def test_a_bad_download_ends_in_random_weights_and_a_warning(offer, server, behaviour):
    server.behaviour = behaviour
    assert "written" not in assert_random(offer(server.url))


def test_offline_ends_in_random_weights_and_a_warning(offer):
    assert "written" not in assert_random(offer()), "the disk is not what is missing"


def test_the_warning_is_seen_every_time():
    # In a Python of its own: pytest has other filters for warnings than a notebook.
    code = "from ggo_lab import build_backbone\nfor _ in range(2): build_backbone('squeezenet1_0', 'head', None)"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stderr.count("RandomWeightsWarning") == 2


def test_a_network_that_swallows_everything_does_not_hang_a_lesson(offer):
    assert backbones.weights._ANSWER_WITHIN_S <= 8
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and never says a word
        message = assert_random(offer(f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert "no answer" in message or "timed out" in message


def test_names_that_are_looked_up_for_ever_do_not_hang_a_lesson(offer, monkeypatch):
    # urlopen's timeout does not cover this part.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(5))
    assert "no answer within 1 s" in assert_random(offer("http://nowhere.invalid"))


def test_random_weights_ask_nobody(monkeypatch):
    monkeypatch.setattr(backbones.weights, "_imagenet_file", lambda name: pytest.fail("looked for weights"))
    assert build_backbone("squeezenet1_0", weights=None).weights == "random"


def test_nothing_of_the_process_is_changed_by_a_download(offer, server):
    before = socket.getdefaulttimeout(), list(warnings.filters)
    offer(server.url)
    build_backbone("squeezenet1_0")
    assert (socket.getdefaulttimeout(), list(warnings.filters)) == before


# ---- a model from its own state -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["squeezenet1_0", "inception_v3"])
def test_a_backbone_is_rebuilt_from_its_state(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RandomWeightsWarning)
        model = build_backbone(name, "last_block", weights=None).eval()
    again = backbone_from_state(name, "last_block", "random", copy.deepcopy(model.state_dict())).eval()
    assert torch.equal(again(images(80)), model(images(80)))
    assert count_parameters(again) == count_parameters(model)
    with pytest.raises(RuntimeError):
        backbone_from_state("resnet18", "last_block", "random", model.state_dict())
