"""Build a Backbone: from torchvision's network and pretrained weights, or around the state of a model file."""

import dataclasses
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torchvision.models import GoogLeNet, Inception3, VisionTransformer, get_model

from ggo_lab.backbones.discover import SEQUENCE, check_name, describe, heads_of
from ggo_lab.backbones.network import EXTENTS, AnyGridTransformer, Backbone, SequenceBackbone, count_parameters
from ggo_lab.backbones.sequence import SliceGru
from ggo_lab.backbones.specs import BACKBONES, BackboneSpec
from ggo_lab.backbones.weights import RandomWeightsWarning, load_weights
from ggo_lab.errors import check_choice
from ggo_lab.grades import Grade


def build_backbone(name: str, extent: str = "all", weights: str | Path = "imagenet", seed: int = 0) -> Backbone:
    """Build a network with four outputs, one per grade.

    Args:
        name: a key of BACKBONES, or any classification network of torchvision, such as "convnext_tiny": its head is
            found and replaced. With _gru behind the name, such as "resnet18_gru", a GRU reads the slices of a scan
            one after another, however many the images hold.
        extent: which layers learn: "scratch" (all, from random weights whatever `weights` says), "head" (the last
            layer, or the GRU), "last_block" (also the last block of layers before it) or "all".
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
    check_name(name)
    check_choice("extent", extent, EXTENTS)
    with _random_state(seed):
        network = _torchvision_network(name.removesuffix(SEQUENCE))
        loaded = "random" if extent == "scratch" else load_weights(network, name.removesuffix(SEQUENCE), weights)
        network, spec = _for_grades(network, name)
    if loaded == "random" and extent in ("head", "last_block"):
        warnings.warn(
            f"extent={extent!r} freezes a RANDOM {name}: its features mean nothing, and what is trained on them says "
            'nothing about fine-tuning. Use extent="scratch", or give pretrained weights.',
            RandomWeightsWarning,
            stacklevel=2,
        )
    return _backbone(name, network, extent, loaded, spec)


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
    check_name(name)
    check_choice("extent", extent, EXTENTS)
    network, spec = _without_weights(name)
    if isinstance(network, Inception3) and "network.AuxLogits.fc.weight" not in state:  # unfrozen step by step
        network.AuxLogits, network.aux_logits = None, False
    model = _backbone(name, network, extent, weights, spec)
    model.ordinal = ordinal
    model.load_state_dict(state, assign=True)
    return model


def parameter_table(names: Iterable[str] = tuple(BACKBONES)) -> pd.DataFrame:
    """Count the parameters that learn, for each network and extent.

    Returns: a row a network, named by it; columns "head", "last_block" and "all" (which is "scratch" too).

    >>> parameter_table(["resnet18"]).loc["resnet18"].tolist()
    [2052, 8395780, 11178564]
    """
    rows: dict[str, dict[str, int]] = {}
    for name in names:
        check_name(name)
        rows[name] = {}
        for extent in ("head", "last_block", "all"):
            network, spec = _without_weights(name)
            rows[name][extent] = count_parameters(_backbone(name, network, extent, "none", spec))[0]
    return pd.DataFrame.from_dict(rows, orient="index")


def _backbone(name: str, network: nn.Module, extent: str, weights: str, spec: BackboneSpec) -> Backbone:
    kind = SequenceBackbone if name.endswith(SEQUENCE) else Backbone
    return kind(name, network, extent, weights, spec)


def _without_weights(name: str) -> tuple[nn.Module, BackboneSpec]:
    """Give a network for weights that are replaced at once, or for its shapes only."""
    base = name.removesuffix(SEQUENCE)
    # The course's networks can be built without memory and random numbers; some others compute while being built.
    with torch.device("meta") if base in BACKBONES else _random_state(0):
        return _for_grades(_torchvision_network(base), name)


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seed torch inside the block only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _torchvision_network(name: str) -> nn.Module:
    if name == "inception_v3":
        # Its weights come from TensorFlow, where images lie in -1..1: transform_input turns ImageNet's normalisation
        # into that one.
        return get_model(name, weights=None, aux_logits=True, transform_input=True, init_weights=True)
    if name == "googlenet":
        return get_model(name, weights=None, transform_input=True, init_weights=True)
    network = get_model(name, weights=None)
    if isinstance(network, VisionTransformer):
        network.__class__ = AnyGridTransformer
    return network


def _for_grades(network: nn.Module, name: str) -> tuple[nn.Module, BackboneSpec]:
    """Let a network as torchvision makes it answer with four grades, slice by slice where its name says so."""
    spec = describe(name.removesuffix(SEQUENCE), network)
    if isinstance(network, GoogLeNet):  # its auxiliary outputs were made for training from nothing, in 2014
        network.aux1, network.aux2, network.aux_logits = None, None, False
    if not name.endswith(SEQUENCE):
        for place in heads_of(network):
            old: Any = network.get_submodule(place)
            if isinstance(old, nn.Conv2d):  # SqueezeNet ends in a 1 x 1 convolution
                _put(network, place, nn.Conv2d(old.in_channels, len(Grade), kernel_size=1))
            else:
                _put(network, place, nn.Linear(old.in_features, len(Grade)))
        return network, spec
    if isinstance(network, Inception3):
        network.AuxLogits, network.aux_logits = None, False
    old = network.get_submodule(spec.head)
    _put(network, spec.head, nn.Identity())
    features = old.in_channels if isinstance(old, nn.Conv2d) else old.in_features
    inside = [f"slices.cnn.{place}" for place in (*spec.last_block, spec.cam)]
    spec = dataclasses.replace(spec, head="grader", last_block=tuple(inside[:-1]), cam=inside[-1])
    return SliceGru(network, features), spec


def _put(network: nn.Module, place: str, module: nn.Module) -> None:
    parent, _, child = place.rpartition(".")
    setattr(network.get_submodule(parent), child, module)
