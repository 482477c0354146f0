"""Read the involvement of single slices with the networks that learnt it on phantoms."""

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


def read_slices(scan: Scan, n: int = 15, network: str = "resnet18") -> pd.DataFrame:
    """Estimate the involvement of single slices, with the network whose inside is weights="phantom".

    Args:
        scan: any; the networks have seen phantoms only.
        n: slices, spread evenly over the scan; a multiple of 3, because the network reads three at once.
        network: a name in PHANTOM_WEIGHTS.

    Returns:
        A row a slice: slice (index into axis 0); right and left, the involvement of each lung there, 0..1; right_lung
        and left_lung, the share of the picture that each lung fills. Their product is lesion: `added` sums it up.

    Raises:
        ChoiceError: another number of slices, or a network that has no such weights.
    """
    if n < _AT_ONCE or n % _AT_ONCE:
        raise ChoiceError(f"n={n} slices cannot be read three at once; give a multiple of 3, such as 15.", n)
    reader, cut = _reader(network), Recipe(slices=n, size=_SIZE).cut(scan)
    # Each picture holds one slice of each third of the scan, as the network learnt it.
    order = np.arange(n).reshape(_AT_ONCE, -1).T
    with settled(), torch.inference_mode():
        said = reader(torch.tensor(cut.image()[order])).numpy()
    by_slice = np.empty((n, 2 * _LUNGS))
    by_slice[order.ravel()] = said.transpose(0, 2, 1, 3).reshape(n, -1)
    table = pd.DataFrame(by_slice, columns=["right", "left", "right_lung", "left_lung"])
    table.insert(0, "slice", cut.slices)
    return table


def added(table: pd.DataFrame) -> float:
    """Add slices up to the involvement of the scan, 0..1: all lesion found, over all lung found."""
    lung = table[["right_lung", "left_lung"]].to_numpy()
    return float((table[["right", "left"]].to_numpy() * lung).sum() / max(lung.sum(), 1e-9))


def reader_network(name: str) -> nn.Module:
    """Return torchvision's network, with random weights and an output for each slice, lung and question."""
    network = get_model(name, weights=None, num_classes=2 * _AT_ONCE * _LUNGS)
    if isinstance(network, SqueezeNet):
        network.classifier[2] = nn.Identity()  # its last ReLU would leave no share below a half
    return network


class _SliceReader(nn.Module):
    """A network that names involvement and lung of three slices."""

    mean: Tensor
    sd: Tensor

    def __init__(self, name: str):
        super().__init__()
        spec = BACKBONES[name]
        self.network = reader_network(name)
        self.network.load_state_dict(load_file(SHIPPED / f"{name}.safetensors"))
        self.register_buffer("mean", 255 * torch.tensor(spec.mean).view(3, 1, 1))
        self.register_buffer("sd", 255 * torch.tensor(spec.sd).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Give float (B, 2, 3, 2) of uint8 images (B, 3, H, W): involvement and lung, of each slice and lung."""
        outputs = self.network((images.float() - self.mean) / self.sd)
        return outputs.view(-1, 2, _AT_ONCE, _LUNGS).sigmoid()


@cache
def _reader(name: str) -> _SliceReader:
    check_choice('network with weights="phantom"', name, PHANTOM_WEIGHTS)
    with torch.random.fork_rng(devices=[]), settled():
        return _SliceReader(name).eval()
