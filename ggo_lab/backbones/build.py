"""Build a Backbone: from a library's network and pretrained weights, or around the state of a model file."""

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

from ggo_lab.backbones.discover import (
    TIMM,
    check_name,
    describe,
    describe_timm,
    first_convolution,
    heads_of,
    timm_library,
)
from ggo_lab.backbones.efficientnet import EfficientNetLite0
from ggo_lab.backbones.layers import AnyGridTransformer, fit_to_slices, load_tensors, put, with_outputs
from ggo_lab.backbones.network import EXTENTS, Backbone, SequenceBackbone, count_parameters
from ggo_lab.backbones.sequence import SliceGru
from ggo_lab.backbones.specs import BACKBONES, BackboneSpec
from ggo_lab.backbones.weights import SAID, RandomWeightsWarning, load_weights, warn_every_time
from ggo_lab.errors import check_choice, check_whole
from ggo_lab.settled import settled
from ggo_lab.tasks import GGO_SEVERITY, Task


@settled()
def build_backbone(
    name: str,
    extent: str = "all",
    weights: str | Path | None = "imagenet",
    *,
    task: Task = GGO_SEVERITY,
    slices: int = 3,
    sequence: bool = False,
    seed: int = 0,
) -> Backbone:
    """Build a network with an output for each class of a task.

    Args:
        name: a key of BACKBONES, any classification network of torchvision, such as "convnext_tiny", whose head is
            found and replaced, or one of timm, such as "timm/convnext_nano".
        extent: which layers learn: "head" (the last layer, or the GRU), "last_block" (also the last block of layers
            before it) or "all".
        weights: "imagenet" (torchvision's IMAGENET1K_V1, or timm's own, from the cache or the network; where neither
            has them, a warning and random weights; those of efficientnet_lite0 are always there), "phantom" (learnt on
            slices of phantoms, and shipped, for the networks in PHANTOM_WEIGHTS), "best" ("phantom" where there are
            such, else "imagenet"; what it was is printed), None (random), or a file with a state dict of this network.
            What was really loaded stands in the model's `weights`.
        task: what is graded.
        slices: channels of an image; where there are not three, the first convolution's filters are spread over them
            (fit_to_slices).
        sequence: let a GRU read the slices of a scan one after another, however many its images hold; `slices` then
            does not matter.
        seed: of the random weights. The global random state is left as it was.

    Raises:
        ChoiceError: unknown name, extent or weights.
        ModelError: a file of weights that is absent, damaged or of another network; a network that cannot take so many
            slices.

    >>> model = build_backbone("squeezenet1_0", weights=None)
    >>> model(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape
    torch.Size([2, 4])
    """
    check_name(name)
    check_choice("extent", extent, EXTENTS)
    slices, seed = check_whole("slices", slices, 1), check_whole("seed", seed)
    with _random_state(seed):
        network = _network(name)
        loaded = load_weights(network, name, weights)
        network, spec = _for_task(network, name, task, slices, sequence)
    if weights == "best":
        print(f"{name} starts from {SAID[loaded]}.")
    if loaded == "random" and extent != "all":
        warn_every_time(
            f"extent={extent!r} freezes a RANDOM {name}: its features mean nothing, and what is trained on them says "
            'nothing about fine-tuning. Use extent="all", or give pretrained weights.',
            RandomWeightsWarning,
        )
    return (SequenceBackbone if sequence else Backbone)(name, network, extent, loaded, spec, task)


@settled()
def backbone_from_state(
    name: str,
    extent: str,
    weights: str,
    state: dict[str, Tensor],
    *,
    task: Task = GGO_SEVERITY,
    slices: int = 3,
    sequence: bool = False,
    reading: str = "logits",
) -> Backbone:
    """Build a Backbone around its own state dict, as a model file holds it.

    Args:
        name: as for build_backbone.
        extent: as for build_backbone.
        weights: what it once began with.
        state: of a Backbone of this name and extent; its tensors become the model's own.
        task: what its outputs mean.
        slices: channels of its images.
        sequence: whether a GRU reads the slices.
        reading: what its outputs stand for, a key of READINGS.

    Raises:
        ChoiceError: unknown name or extent.
        RuntimeError: a state of another network.
    """
    check_name(name)
    check_choice("extent", extent, EXTENTS)
    network, spec = _without_weights(name, task, slices, sequence)
    if isinstance(network, Inception3) and "network.AuxLogits.fc.weight" not in state:  # unfrozen step by step
        network.AuxLogits, network.aux_logits = None, False
    model = (SequenceBackbone if sequence else Backbone)(name, network, extent, weights, spec, task)
    model.reading = reading
    load_tensors(model, state, assign=True)
    return model


def parameter_table(names: Iterable[str] = tuple(BACKBONES), sequence: bool = False) -> pd.DataFrame:
    """Count the parameters that learn, for each network and extent.

    Args:
        names: of networks, as for build_backbone.
        sequence: count them with a GRU.

    Returns:
        A row a network, named by it; columns "head", "last_block" and "all".

    >>> parameter_table(["resnet18"]).loc["resnet18"].tolist()
    [2052, 8395780, 11178564]
    """
    rows: dict[str, dict[str, int]] = {}
    for name in names:
        check_name(name)
        rows[name] = {}
        for extent in EXTENTS:
            network, spec = _without_weights(name, GGO_SEVERITY, 3, sequence)
            rows[name][extent] = count_parameters(Backbone(name, network, extent, "random", spec))[0]
    return pd.DataFrame.from_dict(rows, orient="index")


def _without_weights(name: str, task: Task, slices: int, sequence: bool) -> tuple[nn.Module, BackboneSpec]:
    """Return a network for weights that are replaced at once, or for its shapes only."""
    # The course's networks can be built without memory and random numbers; some others compute while being built.
    with torch.device("meta") if name in BACKBONES else _random_state(0):
        return _for_task(_network(name), name, task, slices, sequence)


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seed torch inside the block only, and make weights of 32 bits whatever the caller has set."""
    with torch.random.fork_rng(devices=[]), settled():
        torch.manual_seed(seed)
        yield


def _network(name: str) -> nn.Module:
    """Return a network as its library makes it, with 1000 outputs and random weights."""
    if name.startswith(TIMM):
        return timm_library().create_model(name.removeprefix(TIMM), pretrained=False)
    if name == "efficientnet_lite0":
        return EfficientNetLite0()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The default weight initialization of", FutureWarning)
        if name == "inception_v3":
            # Its weights come from TensorFlow, where images lie in -1..1: transform_input turns ImageNet's
            # normalisation into that one.
            return get_model(name, weights=None, aux_logits=True, transform_input=True, init_weights=True)
        if name == "googlenet":
            return get_model(name, weights=None, transform_input=True, init_weights=True)
        network = get_model(name, weights=None)
    return AnyGridTransformer.like(network) if isinstance(network, VisionTransformer) else network


def _for_task(network: Any, name: str, task: Task, slices: int, sequence: bool) -> tuple[nn.Module, BackboneSpec]:
    """Let a network as its library makes it answer with the classes of a task, slice by slice or all at once."""
    spec = describe_timm(network) if name.startswith(TIMM) else describe(name, network)
    if isinstance(network, GoogLeNet):  # its auxiliary outputs were made for training from nothing, in 2014
        network.aux1, network.aux2, network.aux_logits = None, None, False
    first = spec.first or first_convolution(network)
    spec = dataclasses.replace(spec, first=first)
    if not sequence:
        if slices != 3:
            fit_to_slices(network, first, slices)
            if getattr(network, "transform_input", False):  # it takes three colours apart
                network.transform_input = False
            spec = spec.with_slices(slices)
        for place in [spec.head] if name.startswith(TIMM) else heads_of(network):
            put(network, place, with_outputs(network.get_submodule(place), len(task)))
        return network, spec
    if isinstance(network, Inception3):
        network.AuxLogits, network.aux_logits = None, False
    old = network.get_submodule(spec.head)
    put(network, spec.head, nn.Identity())
    features = old.in_channels if isinstance(old, nn.Conv2d) else old.in_features
    inside = [f"slices.cnn.{place}" for place in (*spec.last_block, spec.cam)]
    spec = dataclasses.replace(spec, head="grader", last_block=tuple(inside[:-1]), cam=inside[-1], first="")
    return SliceGru(network, features, len(task)), spec
