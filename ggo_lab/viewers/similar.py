"""The training scans that a network takes for most alike to a scan."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.spatial.distance import cdist, pdist

from ggo_lab.errors import ModelError
from ggo_lab.images import ImageSet
from ggo_lab.viewers.verdicts import thumbnail

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ggo_lab.backbones import Backbone

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
        """Send the training images through the network once."""
        if train.recipe != model.recipe:
            raise ModelError(
                f"train holds images made by {train.recipe}, and the model was fitted on {model.recipe}; give the "
                "images.train that it was fitted on.",
                train.recipe,
            )
        self.model: Backbone = model
        self.train: ImageSet = train
        self._features: np.ndarray = features(model, train.pixels)
        some = self._features[:: -(-len(train) // _MOST_PAIRED)]
        self._unit: float = float(np.median(pdist(some))) if len(some) > 1 else 1.0

    def to(self, pixels: np.ndarray, patient: str, n: int = 2) -> list[Neighbour]:
        """The n training scans nearest to an image uint8 (C, H, W), the nearest first, without the patient's own."""
        (distances,) = cdist(features(self.model, pixels[None]), self._features)
        distances[np.array(self.train.patients) == patient] = np.inf
        nearest = np.argsort(distances, kind="stable")[:n]
        return [Neighbour(int(row), distances[row] / self._unit) for row in nearest if np.isfinite(distances[row])]

    def cards(self, found: list[Neighbour]) -> list[dict[str, object]]:
        """Return neighbours with name, class, distance and a small picture of their middle channel."""
        cards = []
        for row, distance in found:
            label, task = int(self.train.labels[row]), self.train.task
            cards.append(
                {
                    "name": self.train.names[row],
                    "label": f"{task.noun} not known" if label < 0 else task.names[label],
                    "distance": float(distance),
                    "picture": thumbnail(self.train.pixels[row][self.train.pixels.shape[1] // 2]),
                }
            )
        return cards


def features(model: Backbone, pixels: np.ndarray) -> np.ndarray:
    """The numbers that the network's last layer reads of each image: pixels uint8 (N, C, H, W) -> float32 (N, D).

    Maps are averaged over their places, and what a recurrent head reads over the slices.
    """
    import torch

    from ggo_lab.backbones import backbone_of, batches_for
    from ggo_lab.settled import settled

    model, caught = backbone_of(model), []
    learning = model.training

    def catch(_head: nn.Module, given: tuple[Tensor]) -> None:
        (read,) = given
        caught.append(read.mean((2, 3)) if read.ndim == 4 else read.mean(1) if read.ndim == 3 else read)

    hook = model.network.get_submodule(model.spec.head).register_forward_pre_hook(catch)
    try:
        with settled(), torch.inference_mode():
            for batch in batches_for(model, pixels):
                model(batch)
    finally:
        hook.remove()
        model.train(learning)
    return torch.cat(caught).float().cpu().numpy()
