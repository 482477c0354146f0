"""Layers that are changed when a network takes on a task: its head, its first convolution, a transformer's grid."""

from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision.models import VisionTransformer

from ggo_lab.errors import ModelError


def put(network: nn.Module, place: str, module: nn.Module) -> None:
    """Put a module in the place, a dotted name, of another."""
    parent, _, child = place.rpartition(".")
    setattr(network.get_submodule(parent), child, module)


def load_tensors(module: nn.Module, state: Mapping[str, Tensor], assign: bool = False) -> None:
    """Load a state that safetensors kept: without the versions of layers that MNASNet, for one, asks for.

    Args:
        module: takes the state; it is of the versions that are here.
        state: its tensors by name.
        assign: whether the tensors become the module's own.

    Raises:
        RuntimeError: a state of another module.
    """
    own: Any = module.state_dict()  # torch keeps versions in an attribute that no type knows
    versioned: Any = OrderedDict(state)
    versioned._metadata = own._metadata
    module.load_state_dict(versioned, assign=assign)


def with_outputs(old: nn.Module, outputs: int) -> nn.Module:
    """Return a new layer in place of a network's last one, with so many outputs.

    Raises:
        ModelError: a layer that is neither Linear nor Conv2d.
    """
    if isinstance(old, nn.Conv2d):  # SqueezeNet ends in a 1 x 1 convolution
        return nn.Conv2d(old.in_channels, outputs, kernel_size=1)
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, outputs)
    raise ModelError(f"The head is a {type(old).__name__}; only a Linear or a Conv2d can be replaced.", old)


def fit_to_slices(network: nn.Module, place: str, slices: int) -> None:
    """Let the first convolution read so many slices in place of three colours.

    Each slice gets the sum of the colours' filters, divided by the number of slices: where all slices are equal, the
    layer answers as it did to a grey photograph. So Carreira and Zisserman (2017, arXiv:1705.07750, section 2.2)
    inflate filters along time.

    Args:
        network: changed in place.
        place: of the convolution.
        slices: channels of the new one.

    Raises:
        ModelError: there is no convolution whose filters can be spread.
    """
    old: Any = network.get_submodule(place) if place else None
    if not isinstance(old, nn.Conv2d) or old.in_channels != 3 or old.groups != 1:
        raise ModelError(
            f"{type(network).__name__} cannot be adapted to {slices} slices: it does not begin with a convolution over "
            "three colours. Use Recipe(slices=3), or sequence=True, which reads any number.",
            slices,
        )
    new = deepcopy(old)  # which keeps stride, padding and whatever a library's own convolution adds
    new.in_channels = slices
    spread = old.weight.detach().sum(dim=1, keepdim=True) / slices
    new.weight = nn.Parameter(spread.repeat(1, slices, 1, 1))
    put(network, place, new)


class AnyGridTransformer(VisionTransformer):
    """torchvision's VisionTransformer for images of any multiple of the patch size.

    Its own forward insists on 224 x 224, because it has learnt one position embedding per patch. For other grids of
    patches the learnt grid is interpolated, as Dosovitskiy et al. 2021 (section 3.2) do; at 224 nothing changes.
    """

    @classmethod
    def like(cls, other: VisionTransformer) -> "AnyGridTransformer":
        """Return one with the shape and the very weights of torchvision's."""
        attention: Any = other.encoder.layers[0]
        with torch.device("meta"):
            made = cls(
                other.image_size, other.patch_size, len(other.encoder.layers), attention.num_heads, other.hidden_dim,
                other.mlp_dim, other.dropout, other.attention_dropout, other.num_classes,
            )  # fmt: skip
        made.load_state_dict(other.state_dict(), assign=True)
        return made

    def forward(self, images: Tensor) -> Tensor:
        """Return the outputs (B, K) of normalised images (B, C, H, W)."""
        encoder, side = self.encoder, self.image_size // self.patch_size
        tokens = _tokens(self.conv_proj(images), self.class_token, encoder.pos_embedding, side)
        return self.heads(encoder.ln(encoder.layers(encoder.dropout(tokens)))[:, 0])


@fx.wrap  # one step for torch.fx, which cannot follow its `if`
def _tokens(patches: Tensor, class_token: Tensor, places: Tensor, side: int) -> Tensor:
    grid = places[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    if grid.shape[2:] != patches.shape[2:]:
        grid = nn.functional.interpolate(grid, patches.shape[2:], mode="bicubic", align_corners=False)
    tokens = (patches + grid).flatten(2).transpose(1, 2)
    return torch.cat([(class_token + places[:, :1]).expand(len(patches), -1, -1), tokens], dim=1)
