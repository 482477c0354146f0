"""Read the involvement of single slices with the networks that learnt it on phantoms."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import SqueezeNet, get_model

from ggo_lab.backbones.specs import BACKBONES
from ggo_lab.backbones.weights import PHANTOM_WEIGHTS, SHIPPED
from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.images import Recipe
from ggo_lab.scan import Scan
from ggo_lab.settled import settled

_AT_ONCE, _LUNGS = 3, 2  # slices in a picture, and lungs in a slice: right, then left
_SIZE = 96  # rows and columns; it learnt at 64 and 96
_NEIGHBOUR_MM = 6.0  # distance of the slices beside the one that is read, in the world "wide"
# In the world "wide": share of a place's lung from which it counts as ill, and the least of a place that is lung.
# At the lungs' border, where less is, doubt means little: with it, slices with and without little disease look alike.
_ILL_FROM, _LEAST_LUNG = 0.35, 0.15
# That learnt in each world, the one to use first.
_NETWORKS = {"people": sorted(PHANTOM_WEIGHTS, key=lambda name: name != "resnet18"), "wide": ["squeezenet1_0"]}


def read_slices(scan: Scan, n: int = 15, network: str | None = None, world: str = "people") -> pd.DataFrame:
    """Estimate the involvement of single slices, with a network that learnt it on phantoms.

    In the world "people" it is the network whose inside is weights="phantom": good on the course's phantoms, and wrong
    on patients who did not hold their breath. In the world "wide" it learnt on phantoms of any breath, kernel and dose,
    changed at random: less exact on the course's phantoms, it takes an eighth as much of healthy patients for disease,
    and reads less in the ill, too (benchmarks/README.md).

    Args:
        scan: any; the networks have seen phantoms only.
        n: slices, spread evenly over the scan; a multiple of 3, because the network looks at three at once.
        network: a name in PHANTOM_WEIGHTS, "resnet18" if not given; in the world "wide" "squeezenet1_0", the only one.
        world: of the phantoms that the network learnt on: "people" or "wide".

    Returns:
        A row a slice: slice (index into axis 0); right and left, the involvement of each lung there, 0..1; right_lung
        and left_lung, the share of the picture that each lung fills. Their product is lesion: `added` sums it up.

    Raises:
        ChoiceError: another number of slices, another world, or a network that has no weights of that world.
    """
    if n < _AT_ONCE or n % _AT_ONCE:
        raise ChoiceError(f"n={n} slices cannot be read three at once; give a multiple of 3, such as 15.", n)
    networks = _NETWORKS[check_choice("world", world, _NETWORKS)]
    name = check_choice(f"network of the world {world!r}", networks[0] if network is None else network, networks)
    reader, cut = _reader(name, world), Recipe(slices=n, size=_SIZE).cut(scan)
    by_slice = np.empty((n, 2 * _LUNGS))
    if world == "people":
        # Each picture holds one slice of each third of the scan, as the network learnt it.
        order = np.arange(n).reshape(_AT_ONCE, -1).T
        by_slice[order.ravel()] = reader.read(cut.image()[order]).transpose(0, 2, 1, 3).reshape(n, -1)
    else:
        # Each picture holds a slice between two neighbours, whose own shares are not asked for.
        gap = max(1, round(_NEIGHBOUR_MM / scan.spacing[0]))
        beside = np.clip(np.array(cut.slices)[:, None] + (-gap, 0, gap), 0, scan.shape[0] - 1)
        pictures = replace(cut, slices=tuple(int(z) for z in beside.ravel())).image()
        by_slice[:] = reader.read(pictures.reshape(n, _AT_ONCE, _SIZE, _SIZE))[:, :, 1].reshape(n, -1)
    table = pd.DataFrame(by_slice, columns=["right", "left", "right_lung", "left_lung"])
    table.insert(0, "slice", cut.slices)
    return table


def added(table: pd.DataFrame) -> float:
    """Add slices up to the involvement of the scan, 0..1: all lesion found, over all lung found."""
    lung = table[["right_lung", "left_lung"]].to_numpy()
    return float((table[["right", "left"]].to_numpy() * lung).sum() / max(lung.sum(), 1e-9))


def reader_network(name: str, world: str = "people") -> nn.Module:
    """Return torchvision's network, with random weights and an output for each slice, lung and question."""
    network = get_model(name, weights=None, num_classes=2 * _AT_ONCE * _LUNGS)
    if isinstance(network, SqueezeNet):
        network.classifier[2] = nn.Identity()  # its last ReLU would leave no share below a half
        if world == "wide":
            network.features[11] = nn.Identity()  # its last pooling: 11 x 11 places of 96 pixels instead of 5 x 5
            network.classifier[3] = _SharesOfPlaces()
    return network


class _SharesOfPlaces(nn.Module):
    """What is said of each place, put together over the picture: how much of it is lung, how much of the lung is ill.

    Averaging the logits, as torchvision's network does, cannot tell much haze in little lung from little in much. While
    it learns, shares are averaged. Afterwards a place is ill or not: a little doubt everywhere, as a shallow breath
    raises, would add up to much disease.
    """

    def forward(self, places: Tensor) -> Tensor:
        """Give logits (B, 12) of logits (B, 12, H, W)."""
        ill, lung = places.float().unflatten(1, (2, -1)).sigmoid().unbind(1)
        if not self.training:
            ill = ((ill > _ILL_FROM) & (lung > _LEAST_LUNG)).float()
        area = lung.mean((2, 3))
        shares = torch.stack([(ill * lung).mean((2, 3)) / area, area], 1)
        return shares.flatten(1).logit(1e-6)


class _SliceReader(nn.Module):
    """A network that names involvement and lung of three slices."""

    mean: Tensor
    sd: Tensor

    def __init__(self, name: str, world: str):
        super().__init__()
        spec = BACKBONES[name]
        file = (SHIPPED if world == "people" else SHIPPED / world) / f"{name}.safetensors"
        self.network = reader_network(name, world)
        self.network.load_state_dict(load_file(file))
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(3, 1, 1))
        self.register_buffer("sd", 255 * torch.tensor(spec.sd).view(3, 1, 1))

    def read(self, images: np.ndarray) -> np.ndarray:
        """Give float (B, 2, 3, 2) of uint8 images (B, 3, H, W): involvement and lung, of each slice and lung."""
        with settled(), torch.inference_mode():
            outputs = self.network((torch.tensor(images).float() - self.mean) / self.sd)
            return outputs.view(-1, 2, _AT_ONCE, _LUNGS).sigmoid().numpy()


@cache
def _reader(name: str, world: str) -> _SliceReader:
    with torch.random.fork_rng(devices=[]), settled():
        return _SliceReader(name, world).eval()
