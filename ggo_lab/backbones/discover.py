"""Find where things are in a network that the course does not describe."""

from itertools import takewhile
from typing import Any

import torchvision
from torch import nn
from torchvision.models import VisionTransformer, WeightsEnum, get_model_weights, list_models

from ggo_lab.backbones.specs import BACKBONES, BackboneSpec
from ggo_lab.errors import ChoiceError, ModelError

IMAGENET_CLASSES = 1000
TIMM = "timm/"  # begins the name of a network of the library timm
_LEAST_SIZE = 32  # rows and columns; some networks could do with fewer, but none would see anything


def check_name(name: str) -> None:
    """Raise ChoiceError unless a network of this name classifies images, in torchvision or in timm.

    Raises:
        ChoiceError: unknown.
        ModelError: timm is not installed.
    """
    if isinstance(name, str) and name.startswith(TIMM):
        if timm_library().is_model(name.removeprefix(TIMM)):
            return
    elif isinstance(name, str) and name in {*BACKBONES, *list_models(module=torchvision.models)}:
        return
    listed = ", ".join(repr(known) for known in BACKBONES)
    raise ChoiceError(
        f"backbone={name!r} is not known; choose one of {listed}, any other classification network of torchvision "
        '(torchvision.models.list_models), or one of timm (timm.list_models) as "timm/" and its name.',
        name,
    )


def timm_library() -> Any:
    """Import timm, an optional dependency.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import timm
    except ImportError:
        raise ModelError(
            'A network whose name begins with "timm/" needs the library timm, which is not installed: '
            "pip install timm, or pip install ggo_lab[timm].",
            "timm",
        ) from None
    return timm


def heads_of(network: nn.Module) -> list[str]:
    """Return the places of the layers with one output per ImageNet class: auxiliary ones first, the head last."""
    return [
        place
        for place, module in network.named_modules()
        if getattr(module, "out_features", getattr(module, "out_channels", 0)) == IMAGENET_CLASSES
    ]


def first_convolution(network: nn.Module) -> str:
    """Return the place of the first convolution, which reads the slices; "" where there is none."""
    return next((place for place, module in network.named_modules() if isinstance(module, nn.Conv2d)), "")


def describe(name: str, network: nn.Module) -> BackboneSpec:
    """Describe a network as torchvision makes it: as the course does, or by looking at it.

    The last block is the last part before the head that is more than a normalisation; where nearly all of the network
    is in one part, as in `features`, the last part of that.

    Args:
        name: torchvision's.
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
    transformer = isinstance(network, VisionTransformer)
    step = int(network.patch_size) if isinstance(network, VisionTransformer) else _step(meta)
    return BackboneSpec(
        head=head,
        last_block=(*last, branch) if branch != head else tuple(last),
        cam=_cam(network, last[-1]),
        layout="tokens" if transformer else "maps",
        idea="see its page in torchvision's documentation",
        size=meta.transforms.keywords["crop_size"],
        least_size=step if step > 1 else max(meta.meta["min_size"][0], _LEAST_SIZE),
        step=step,
    )


def describe_timm(network: Any) -> BackboneSpec:
    """Describe a network as timm makes it, from what timm itself says of it.

    Raises:
        ModelError: timm does not say where its head and its features are.
    """
    facts, features = network.pretrained_cfg, getattr(network, "feature_info", None)
    head = facts.get("classifier")
    if not isinstance(head, str) or not features or "module" not in features[-1]:
        raise ModelError(
            f"timm does not say where the head and the last features of {type(network).__name__} are; build it "
            "yourself and give it to Backbone.around."
        )
    last, size = features[-1]["module"], facts["input_size"][-1]
    tokens = getattr(network, "num_prefix_tokens", None) == 1 and hasattr(network, "blocks")
    step = size if facts.get("fixed_input_size") else network.patch_embed.patch_size[0] if tokens else 1
    return BackboneSpec(
        head=head,
        last_block=(last,),
        cam=f"{last}.norm1" if tokens else last,
        layout="tokens" if tokens else "maps_last" if getattr(network, "output_fmt", "") == "NHWC" else "maps",
        idea="see its page in timm's documentation",
        size=size,
        least_size=step if step > 1 else _LEAST_SIZE,
        step=step,
        first=facts["first_conv"] if isinstance(facts.get("first_conv"), str) else "",
        mean=tuple(facts["mean"]),
        sd=tuple(facts["std"]),
    )


def _weights(name: str) -> WeightsEnum:
    """Return the weights that describe a network's images: of ImageNet's first version, where there is one."""
    weights = get_model_weights(name)
    return getattr(weights, "IMAGENET1K_V1", weights.DEFAULT)


def _step(weights: WeightsEnum) -> int:
    """Return 1, or, of a network that takes images of one size only, that size."""
    only = weights.meta["min_size"][0]
    return only if only == weights.transforms.keywords["crop_size"] else 1


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    """Return the children that hold parameters, except auxiliary classifiers."""
    children = module.named_children()
    return {name: child for name, child in children if list(child.parameters()) and not name.lower().startswith("aux")}


def _only_normalises(module: nn.Module) -> bool:
    return all("norm" in type(part).__name__.lower() for part in module.modules() if not list(part.children()))


def _cam(network: nn.Module, last: str) -> str:
    """Return where the last maps (B, C, h, w), or of a transformer the last tokens, come out."""
    if isinstance(network, VisionTransformer):
        return f"{last}.ln_1"
    if hasattr(network, "permute"):  # Swin: maps become (B, C, h, w) only there
        return "permute"
    top = last.split(".")[0]
    return last if isinstance(network.get_submodule(top), nn.ModuleList) else top
