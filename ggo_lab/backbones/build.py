"""Build a Backbone: from torchvision's network and pretrained weights, or around the state of a model file."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer, get_model

from ggo_lab.backbones.network import EXTENTS, AnyGridTransformer, Backbone
from ggo_lab.backbones.specs import BACKBONES
from ggo_lab.backbones.weights import RandomWeightsWarning, load_weights
from ggo_lab.errors import check_choice
from ggo_lab.grades import Grade


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
        loaded = "random" if extent == "scratch" else load_weights(network, name, weights)
        _replace_heads(network, name)
    if loaded == "random" and extent in ("head", "last_block"):
        warnings.warn(
            f"extent={extent!r} freezes a RANDOM {name}: its features mean nothing, and what is trained on them says "
            'nothing about fine-tuning. Use extent="scratch", or give pretrained weights.',
            RandomWeightsWarning,
            stacklevel=2,
        )
    return Backbone(name, network, extent, loaded)


def backbone_from_state(
    name: str, extent: str, weights: str, state: dict[str, Tensor], ordinal: bool = False
) -> Backbone:
    """Build a Backbone around its own state dict, as a model file holds it.

    Args:
        weights: what it once began with.
        state: of a Backbone of this name and extent; its tensors become the model's own.
        ordinal: whether its outputs are read by corn_logits.
    Raises:
        ChoiceError: unknown name or extent.
        RuntimeError: a state of another network.
    """
    check_choice("backbone", name, BACKBONES)
    check_choice("extent", extent, EXTENTS)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        network = _torchvision_network(name)
        _replace_heads(network, name)
    if name == "inception_v3" and "network.AuxLogits.fc.weight" not in state:  # unfrozen step by step
        network.AuxLogits, network.aux_logits = None, False
    model = Backbone(name, network, extent, weights)
    model.ordinal = ordinal
    model.load_state_dict(state, assign=True)
    return model


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seed torch inside the block only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _torchvision_network(name: str) -> nn.Module:
    if name != "inception_v3":
        network = get_model(name, weights=None)
        if isinstance(network, VisionTransformer):
            network.__class__ = AnyGridTransformer
        return network
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
