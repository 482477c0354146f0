"""The training scans that a network takes for most alike to a scan."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist, pdist

from ggo_lab.errors import ModelError
from ggo_lab.grades import Grade
from ggo_lab.images import ImageSet
from ggo_lab.viewers.verdicts import fine, paragraph, picture

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ggo_lab.backbones import Backbone

_BATCH = 64  # images at once; it changes memory and time, not the result
_MOST_PAIRED = 500  # training scans whose distances from each other are measured, for the unit


class Neighbour(NamedTuple):
    """A training scan near another scan."""

    row: int  # of the training set
    distance: float  # 1: as far apart as two training scans usually are


class Similar:
    """Finds the nearest training scans by the numbers that the network's last layer reads.

    What is near is alike to this network, which is not the same as alike to a physician: where the two look different
    to you, ask what the network may have gone by.

    Args:
        train: the images that the model learnt from, of its own recipe. They go through the network once, here.
    Raises:
        ModelError: images of another recipe than the model's.
    """

    def __init__(self, model: Backbone, train: ImageSet):
        if train.recipe != model.recipe:
            raise ModelError(
                f"train holds images made by {train.recipe}, and the model was fitted on {model.recipe}; give the "
                "images.train that it was fitted on.",
                train.recipe,
            )
        self.model: Backbone = model
        self.train: ImageSet = train
        self._features: np.ndarray = features(model, train.pixels)
        some = self._features[:: max(1, len(train) // _MOST_PAIRED)]
        self._unit: float = float(np.median(pdist(some))) if len(some) > 1 else 1.0

    def to(self, pixels: np.ndarray, patient: str, n: int = 2) -> list[Neighbour]:
        """The n training scans nearest to an image uint8 (C, H, W), the nearest first, without the patient's own."""
        (distances,) = cdist(features(self.model, pixels[None]), self._features)
        distances[np.array(self.train.patients) == patient] = np.inf
        nearest = np.argsort(distances, kind="stable")[:n]
        return [Neighbour(int(row), distances[row] / self._unit) for row in nearest if np.isfinite(distances[row])]

    def show(self, found: list[Neighbour]) -> str:
        """Neighbours as small pictures of their middle channel, with name, grade and distance, HTML."""
        cards = []
        for row, distance in found:
            name, index = self.train.names[row], int(self.train.indices[row])
            grade = "grade not known" if index < 0 else Grade(index + 1).label
            middle = self.train.pixels[row][self.train.pixels.shape[1] // 2]
            cards.append(
                f'<div style="width:136px">{picture(middle, f"{name}, {grade}", 136)}'
                f'<div style="line-height:1.35;overflow-wrap:anywhere"><b>{grade}</b><br>{html.escape(name)}<br>'
                f"distance {distance:.2f}</div></div>"
            )
        return (
            paragraph("<b>The most similar training scans</b>")
            + f'<div style="display:flex;gap:8px">{"".join(cards)}</div>'
            + fine(
                "Similar to the network: nearest in the numbers that its last layer reads. 1 is how far two training "
                "scans usually lie apart."
            )
        )


def features(model: Backbone, pixels: np.ndarray) -> np.ndarray:
    """The numbers that the network's last layer reads of each image: pixels uint8 (N, C, H, W) -> float32 (N, D).

    Maps are averaged over their places, and what a recurrent head reads over the slices.
    """
    import torch

    caught = []

    def catch(_head: nn.Module, given: tuple[Tensor]) -> None:
        (read,) = given
        caught.append(read.mean((2, 3)) if read.ndim == 4 else read.mean(1) if read.ndim == 3 else read)

    hook = model.network.get_submodule(model.spec.head).register_forward_pre_hook(catch)
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(pixels), _BATCH):
                model(torch.from_numpy(np.array(pixels[start : start + _BATCH])).to(device))
    finally:
        hook.remove()
    return torch.cat(caught).float().cpu().numpy()
