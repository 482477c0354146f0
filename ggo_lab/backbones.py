"""The torchvision networks of the course: how each is built, which layers learn, what it looks at."""

import hashlib
import pickle
import queue
import socket
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from ggo_lab.errors import ModelError, check_choice
from ggo_lab.grades import Grade

EXTENTS = ("scratch", "head", "last_block", "all")
# Mean and standard deviation of ImageNet's red, green and blue, on 0..1: what every pretrained network expects.
_IMAGENET_MEAN, _IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_AUXILIARY_WEIGHT = 0.4  # of Inception's second output in the loss: the paper's, and torchvision's when it trained it
_AUXILIARY_SIDE = 17  # rows and columns of the maps that Inception's auxiliary classifier was built for
# Share of each batch in BatchNorm's running averages while random weights learn. They change fast, and torch's 0.1
# averages over some 20 batches, four epochs of a small cohort: validation then judges a network that is no more.
_FAST_MOMENTUM = 0.3
_ANSWER_WITHIN_S = 8  # a server that stays silent for so long counts as out of reach: a lesson cannot wait


@dataclass(frozen=True)
class BackboneSpec:
    """Where things are in one torchvision network; places are dotted module names."""

    head: str  # the last layer, replaced by one with four outputs
    last_block: tuple[str, ...]  # what learns besides the head when extent="last_block"
    cam: str  # the layer whose output Grad-CAM reads
    idea: str  # what is new about this network, in a few words
    size: int = 224  # rows and columns it was pretrained at
    least_size: int = 32  # the smallest image it can take
    step: int = 1  # rows and columns must be multiples of it


_RESNET = {"head": "fc", "last_block": ("layer4",), "cam": "layer4"}
_DENSENET = {
    "head": "classifier",
    "last_block": ("features.denseblock4", "features.norm5"),
    "cam": "features",
    "idea": "every layer sees the outputs of all before it",
}

BACKBONES: dict[str, BackboneSpec] = {
    "alexnet": BackboneSpec(
        head="classifier.6",
        last_block=("features.10", "classifier"),
        cam="features.11",
        idea="the first deep network that won",
        least_size=63,
    ),
    "vgg11_bn": BackboneSpec(
        head="classifier.6",
        last_block=("features.22", "features.23", "features.25", "features.26", "classifier"),
        cam="features.27",
        idea="small filters, many of them",
    ),
    "squeezenet1_0": BackboneSpec(
        head="classifier.1",
        last_block=("features.12",),
        cam="features.12",
        idea="few parameters: squeeze, then expand",
    ),
    "resnet18": BackboneSpec(**_RESNET, idea="shortcuts around each pair of layers"),
    "resnet50": BackboneSpec(**_RESNET, idea="shortcuts around bottlenecks"),
    "resnet152": BackboneSpec(**_RESNET, idea="the same, three times as deep"),
    "wide_resnet101_2": BackboneSpec(**_RESNET, idea="twice as wide inside the bottlenecks"),
    "densenet121": BackboneSpec(**_DENSENET),
    "densenet201": BackboneSpec(**_DENSENET),
    "inception_v3": BackboneSpec(
        head="fc",
        last_block=("Mixed_7b", "Mixed_7c"),
        cam="Mixed_7c",
        idea="several filter sizes side by side",
        size=299,
        least_size=75,
    ),
    "mobilenet_v3_small": BackboneSpec(
        head="classifier.3",
        last_block=("features.11", "features.12", "classifier"),
        cam="features.12",
        idea="made for phones",
    ),
    "vit_b_32": BackboneSpec(
        head="heads.head",
        last_block=("encoder.layers.encoder_layer_11", "encoder.ln"),
        # The tokens that the last attention reads: after it, only the class token matters to the head.
        cam="encoder.layers.encoder_layer_11.ln_1",
        idea="no convolutions: patches that attend to each other",
        step=32,
    ),
}


class RandomWeightsWarning(UserWarning):
    """Pretrained weights were asked for and are not there, or random layers were frozen."""


# Python shows a repeated warning once, so a cell run again would hide it; this one must be seen every time. Filters
# that the user has set come first.
warnings.simplefilter("always", RandomWeightsWarning, append=True)


class Backbone(nn.Module):
    """A torchvision network with four outputs that takes images as they are.

    Attributes:
        name, extent: as given to build_backbone.
        weights: what was really loaded: "imagenet", "random", or the path of a file.
        network: the torchvision module.
        recipe: the Recipe of the images it was fitted on; None before `fit`.
    """

    def __init__(self, name: str, network: nn.Module, extent: str, weights: str):
        super().__init__()
        self.name, self.extent, self.weights, self.recipe = name, extent, weights, None
        self.network = network
        self.register_buffer("mean", 255 * torch.tensor(_IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("sd", 255 * torch.tensor(_IMAGENET_SD).view(3, 1, 1), persistent=False)
        self._freeze()
        if weights == "random":
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.momentum = _FAST_MOMENTUM

    @property
    def spec(self) -> BackboneSpec:
        """Where things are in this network."""
        return BACKBONES[self.name]

    @property
    def input_size(self) -> int:
        """Rows and columns that the network was designed for."""
        return self.spec.size

    @property
    def cam_layer(self) -> nn.Module:
        """The module whose output Grad-CAM reads: maps (B, C, h, w), or tokens (see cam_is_tokens)."""
        return self.network.get_submodule(self.spec.cam)

    @property
    def cam_is_tokens(self) -> bool:
        """Whether cam_layer gives tokens (B, 1 + h * w, C): the class token, then the patches row by row."""
        return self.name.startswith("vit")

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits (B, 4) of images (B, 3, H, W), uint8 or float, both in 0..255."""
        return self.outputs(images)[0][1]

    def outputs(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """Give every output that the loss counts, as (weight, logits (B, 4)); the first is the main one.

        Only Inception has a second: its auxiliary classifier, while all its layers learn. It is there to send
        gradients into the early layers, so with a frozen trunk it has no job.
        """
        self._check(images)
        images = (images.float() - self.mean) / self.sd
        found = _see_patches(self.network, images) if self.cam_is_tokens else self.network(images)
        if isinstance(found, Tensor):
            return [(1.0, found)]
        return [(1.0, found.logits), (_AUXILIARY_WEIGHT, found.aux_logits)]

    def _check(self, images: Tensor) -> None:
        least, step, native = self.spec.least_size, self.spec.step, self.spec.size
        rows_columns = images.shape[2:]
        if images.ndim == 4 and images.shape[1] == 3 and all(n >= least and n % step == 0 for n in rows_columns):
            return
        multiples = f" that are multiples of {step}" if step > 1 else ""
        raise ModelError(
            f"{self.name} takes images of shape (B, 3, H, W) with at least {least} rows and columns{multiples}; found "
            f"{tuple(images.shape)}. Use Recipe(slices=3, size={native}).",
            tuple(images.shape),
        )

    def _freeze(self) -> None:
        """Let only the layers of the extent learn."""
        everything = self.extent in ("scratch", "all")
        self.network.requires_grad_(everything)
        if not everything:
            learning = (self.spec.head, *(self.spec.last_block if self.extent == "last_block" else ()))
            for place in learning:
                self.network.get_submodule(place).requires_grad_(True)
        if self.name == "inception_v3":
            if everything:
                self.network.AuxLogits.register_forward_pre_hook(_enlarge_for_auxiliary)
            else:
                self.network.AuxLogits, self.network.aux_logits = None, False

    def train(self, mode: bool = True) -> "Backbone":
        """Switch to training, except in frozen layers: a BatchNorm there must not go on averaging."""
        super().train(mode)
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()
        return self


def build_backbone(name: str, extent: str = "all", weights: str | Path = "imagenet", seed: int = 0) -> Backbone:
    """Build a network with four outputs, one per grade.

    Args:
        name: a key of BACKBONES.
        extent: which layers learn: "scratch" (all, from random weights whatever `weights` says), "head" (the last
            layer), "last_block" (also the last block of layers before it) or "all".
        weights: "imagenet" (torchvision's IMAGENET1K_V1, from its cache or the network; where neither has them, a
            warning and random weights), "none" (random), or a file with a torchvision state dict of this network.
        seed: of the random weights. The global random state is left as it was.
    Raises:
        ChoiceError: unknown name or extent.
        ModelError: a file of weights that is absent, damaged or of another network.

    >>> model = build_backbone("squeezenet1_0", extent="scratch")
    >>> model(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape
    torch.Size([2, 4])
    """
    check_choice("backbone", name, BACKBONES)
    check_choice("extent", extent, EXTENTS)
    with _random_state(seed):
        network = _torchvision_network(name)
        loaded = "random" if extent == "scratch" else _load_weights(network, name, weights)
        _replace_heads(network, name)
    if loaded == "random" and extent in ("head", "last_block"):
        warnings.warn(
            f"extent={extent!r} freezes a RANDOM {name}: its features mean nothing, and what is trained on them says "
            'nothing about fine-tuning. Use extent="scratch", or give pretrained weights.',
            RandomWeightsWarning,
            stacklevel=2,
        )
    return Backbone(name, network, extent, loaded)


def backbone_from_state(name: str, extent: str, weights: str, state: dict[str, Tensor]) -> Backbone:
    """Build a Backbone around its own state dict, as a model file holds it.

    Args:
        weights: what it once began with.
        state: of a Backbone of this name and extent; its tensors become the model's own.
    Raises:
        ChoiceError: unknown name or extent.
        RuntimeError: a state of another network.
    """
    check_choice("backbone", name, BACKBONES)
    check_choice("extent", extent, EXTENTS)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        network = _torchvision_network(name)
        _replace_heads(network, name)
    model = Backbone(name, network, extent, weights)
    model.load_state_dict(state, assign=True)
    return model


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count the parameters that learn, and all of them."""
    counts = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, learns in counts if learns), sum(n for n, _ in counts)


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seed torch inside the block only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _torchvision_network(name: str) -> nn.Module:
    if name != "inception_v3":
        return get_model(name, weights=None)
    # Its weights come from TensorFlow, where images lie in -1..1: transform_input turns ImageNet's normalisation
    # into that one.
    return get_model(name, weights=None, aux_logits=True, transform_input=True, init_weights=True)


def _replace_heads(network: nn.Module, name: str) -> None:
    places = [BACKBONES[name].head] + (["AuxLogits.fc"] if name == "inception_v3" else [])
    for place in places:
        old = network.get_submodule(place)
        if isinstance(old, nn.Conv2d):  # SqueezeNet ends in a 1 x 1 convolution
            new = nn.Conv2d(old.in_channels, len(Grade), kernel_size=1)
        else:
            new = nn.Linear(old.in_features, len(Grade))
        parent, _, child = place.rpartition(".")
        setattr(network.get_submodule(parent), child, new)


def _see_patches(network: nn.Module, images: Tensor) -> Tensor:
    """Run torchvision's VisionTransformer on images of any multiple of the patch size.

    Its own forward insists on 224 x 224, because it has learnt one position embedding per patch. For other grids of
    patches the learnt grid is interpolated, as Dosovitskiy et al. 2021 (section 3.2) do; at 224 nothing changes.
    """
    patches = network.conv_proj(images)
    learnt = network.encoder.pos_embedding
    side = network.image_size // network.patch_size
    grid = learnt[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    if grid.shape[2:] != patches.shape[2:]:
        grid = nn.functional.interpolate(grid, patches.shape[2:], mode="bicubic", align_corners=False)
    tokens = (patches + grid).flatten(2).transpose(1, 2)
    class_token = (network.class_token + learnt[:, :1]).expand(len(images), -1, -1)
    encoder = network.encoder
    seen = encoder.ln(encoder.layers(encoder.dropout(torch.cat([class_token, tokens], dim=1))))
    return network.heads(seen[:, 0])


def _enlarge_for_auxiliary(module: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
    """Enlarge the maps that Inception's auxiliary classifier reads, which fit it only for images of 299 and above."""
    (maps,) = given
    side = tuple(max(n, _AUXILIARY_SIDE) for n in maps.shape[2:])
    return (maps if maps.shape[2:] == side else nn.functional.interpolate(maps, side),)


# ---- pretrained weights ---------------------------------------------------------------------------------------


def _load_weights(network: nn.Module, name: str, weights: str | Path) -> str:
    """Load pretrained weights into the network as torchvision makes it; say what was loaded."""
    if weights == "none":
        return "random"
    file = _imagenet_file(name) if weights == "imagenet" else Path(weights)
    if file is None:
        return "random"
    try:
        network.load_state_dict(_without_old_names(torch.load(file, map_location="cpu", weights_only=True)))
    except FileNotFoundError:
        raise ModelError(
            f"{file}: no such file of weights; give 'imagenet', 'none' or an existing file.", file
        ) from None
    except Exception as error:  # torch raises half a dozen types for a damaged file
        # What torch says of a file with code in it is how to run that code: not what to tell a learner.
        reason = "not a plain state dict" if isinstance(error, pickle.UnpicklingError) else _brief(error)
        raise ModelError(
            f"{file}: not the weights of {name}, or damaged ({reason}). Give a file with torchvision's own state dict "
            "of this network, saved by torch.save; what save_model stored is opened by load_model.",
            file,
        ) from error
    return str(weights)


def _without_old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """DenseNet's files of 2017 say norm.1 where torchvision now says norm1."""
    return {key.replace("norm.", "norm").replace("conv.", "conv") if "denselayer" in key else key: value
            for key, value in state.items()}  # fmt: skip


def _imagenet_file(name: str) -> Path | None:
    """Find torchvision's weights in its cache, or fetch them; None, after a warning, where that fails.

    Raises:
        ModelError: a file in the cache that is not what its name promises.
    """
    url = get_model_weights(name).IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    promised = file.stem.rpartition("-")[2]  # torchvision ends names in the first digits of the content's SHA-256
    if file.exists():
        with file.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if not found.startswith(promised):
            raise ModelError(
                f"{file}: damaged, perhaps by a download that broke off (its SHA-256 begins {found[: len(promised)]}, "
                f"not {promised}). Delete it, and it will be fetched again from {url}.",
                file,
            )
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _wait_for_answer(url)
        with _patience(_ANSWER_WITHIN_S):
            # Writes to a temporary name, checks the hash, then renames: a broken download leaves nothing behind.
            torch.hub.download_url_to_file(url, str(file), hash_prefix=promised)
    except (OSError, HTTPException, RuntimeError) as error:
        warnings.warn(
            f"\n\n  *** RANDOM WEIGHTS ***  No ImageNet weights for {name}: they are not in the cache, and fetching "
            f"them failed\n  ({_brief(error)}).\n  The network starts from random weights: it learns more slowly, "
            "ends lower, and says nothing about fine-tuning.\n  To mend it, fetch the file where there is a network:\n"
            f"    {url}\n  and put it into\n    {file.parent}\n",
            RandomWeightsWarning,
            stacklevel=4,
        )
        return None
    return file


def _wait_for_answer(url: str) -> None:
    """Raise OSError unless the server answers in time.

    urlopen's own timeout is not enough: it holds for each of a server's addresses, of which there may be a dozen,
    and does not hold for looking up its name. A thread bounds all of it.
    """
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            urlopen(url, timeout=_ANSWER_WITHIN_S).close()
            answers.put(None)
        except Exception as error:
            if isinstance(error, HTTPError):  # it holds the connection open
                error.close()
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=_ANSWER_WITHIN_S)
    except queue.Empty:
        raise TimeoutError(f"no answer within {_ANSWER_WITHIN_S} s") from None
    if error is not None:
        raise error


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Limit how long new connections may be silent: torch.hub sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _brief(error: Exception) -> str:
    """The first two lines of an error as one; torch puts only a headline on the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] or type(error).__name__
