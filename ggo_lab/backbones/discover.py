"""Find where things are in a torchvision network that the course does not describe."""

from itertools import takewhile

import torchvision
from torch import nn
from torchvision.models import VisionTransformer, WeightsEnum, get_model_weights, list_models

from ggo_lab.backbones.specs import BACKBONES, BackboneSpec
from ggo_lab.errors import ChoiceError

IMAGENET_CLASSES = 1000
_LEAST_SIZE = 32  # rows and columns; some networks could do with fewer, but none would see anything
SEQUENCE = "_gru"  # ends the name of a network that reads a scan's slices one after another


def check_name(name: str) -> None:
    """Raise ChoiceError unless torchvision classifies images with a network of this name, with or without SEQUENCE."""
    if not isinstance(name, str) or name.removesuffix(SEQUENCE) not in {
        *BACKBONES,
        *list_models(module=torchvision.models),
    }:
        listed = ", ".join(repr(known) for known in BACKBONES)
        raise ChoiceError(
            f"backbone={name!r} is not known; choose one of {listed}, any other classification network of torchvision "
            f"(torchvision.models.list_models), or one of these with {SEQUENCE} behind its name.",
            name,
        )


def heads_of(network: nn.Module) -> list[str]:
    """Give the places of the layers with one output per ImageNet class: auxiliary ones first, the head last."""
    return [
        place
        for place, module in network.named_modules()
        if getattr(module, "out_features", getattr(module, "out_channels", 0)) == IMAGENET_CLASSES
    ]


def describe(name: str, network: nn.Module) -> BackboneSpec:
    """Describe a network as torchvision makes it: as the course does, or by looking at it.

    The last block is the last part before the head that is more than a normalisation; where nearly all of the network
    is in one part, as in `features`, the last part of that.

    Args:
        network: still with its ImageNet head.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    *_, head = heads_of(network)
    branch = head.split(".")[0]
    trunk = dict(takewhile(lambda child: child[0] != branch, _parts(network).items()))
    last, prefix, whole = [], "", sum(p.numel() for part in trunk.values() for p in part.parameters())
    while True:
        for place, part in reversed(trunk.items()):
            last.append(f"{prefix}{place}")
            if not _only_normalises(part):
                break
        inner = _parts(part)
        if sum(p.numel() for p in part.parameters()) < 0.9 * whole or len(inner) < 2:
            break
        trunk, prefix = inner, f"{last.pop()}."
    meta = _weights(name)
    step = network.patch_size if isinstance(network, VisionTransformer) else _step(meta)
    return BackboneSpec(
        head=head,
        last_block=(*last, branch) if branch != head else tuple(last),
        cam=_cam(network, last[-1]),
        idea="see its page in torchvision's documentation",
        size=meta.transforms.keywords["crop_size"],
        least_size=step if step > 1 else max(meta.meta["min_size"][0], _LEAST_SIZE),
        step=step,
    )


def _weights(name: str) -> WeightsEnum:
    """The weights that describe a network's images: of ImageNet's first version, where there is one."""
    weights = get_model_weights(name)
    return getattr(weights, "IMAGENET1K_V1", weights.DEFAULT)


def _step(weights: WeightsEnum) -> int:
    """1, or, of a network that takes images of one size only, that size."""
    only = weights.meta["min_size"][0]
    return only if only == weights.transforms.keywords["crop_size"] else 1


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    """The children that hold parameters, except auxiliary classifiers."""
    children = module.named_children()
    return {name: child for name, child in children if list(child.parameters()) and not name.lower().startswith("aux")}


def _only_normalises(module: nn.Module) -> bool:
    return all("norm" in type(part).__name__.lower() for part in module.modules() if not list(part.children()))


def _cam(network: nn.Module, last: str) -> str:
    """Where the last maps (B, C, h, w), or of a transformer the last tokens, come out."""
    if isinstance(network, VisionTransformer):
        return f"{last}.ln_1"
    if hasattr(network, "permute"):  # Swin: maps become (B, C, h, w) only there
        return "permute"
    top = last.split(".")[0]
    return last if isinstance(network.get_submodule(top), nn.ModuleList) else top
