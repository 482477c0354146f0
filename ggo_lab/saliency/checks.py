"""Would the map look the same if the network had learnt nothing? The sanity checks of Adebayo et al. 2018."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import nn

from ggo_lab.backbones import Backbone, backbone_of
from ggo_lab.errors import ChoiceError, check_choice, check_whole
from ggo_lab.images import ImageSet
from ggo_lab.saliency.maps import METHODS


def similarity(heat: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of two maps, -1..1; nan where one of them is flat, which shows nothing."""
    if heat.shape != other.shape:
        raise ChoiceError(f"maps of {heat.shape} and {other.shape} cannot be compared.", other.shape)
    if np.ptp(heat) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(heat, other, axis=None).statistic)


def randomise_layers(
    model: Backbone, image: np.ndarray, label: int, method: str = "grad_cam", stages: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Forget what a network learnt, from its head down to its first layer, and watch the map change.

    A map that stays as it was shows edges of the image, not what the network learnt. Weights are not drawn anew but
    shuffled within each tensor: their spread stays, their meaning goes.

    Args:
        model: is left as it was; a copy is spoilt.
        image: uint8 (C, H, W).
        label: 0..K-1, the same for every map.
        method: "grad_cam", "occlusion" or "integrated_gradients".
        stages: into how many steps the layers are divided.
        seed: of the shuffling.

    Returns:
        A row a stage, after the untouched network; down_to (name of the lowest layer shuffled so far) and
        similarity to the untouched network's map.

    Raises:
        ChoiceError: an unknown label or method, or fewer than one stage.
    """
    check_choice("method", method, METHODS)
    stages, model = check_whole("stages", stages, 1), backbone_of(model)
    spoilt = deepcopy(model)
    original = METHODS[method](model, image, label)
    rng = torch.Generator().manual_seed(check_whole("seed", seed))
    layers = [(name, module) for name, module in spoilt.network.named_modules() if [*module.parameters(False)]][::-1]
    rows = [("nothing", similarity(original, original))]
    for stage in np.array_split(np.arange(len(layers)), min(stages, len(layers))):
        for i in stage:
            _shuffle_weights(layers[i][1], rng)
        rows.append((layers[stage[-1]][0], similarity(original, METHODS[method](spoilt, image, label))))
    return pd.DataFrame(rows, columns=["down_to", "similarity"])


def shuffle_labels(images: ImageSet, seed: int = 0) -> ImageSet:
    """The same images with their labels dealt out anew; a network fitted on them can only learn by heart.

    If its maps look like those of the real network, the maps do not show what was learnt.
    """
    order = np.random.default_rng(check_whole("seed", seed)).permutation(len(images))
    return replace(images, table=images.table.assign(label=images.table["label"].array[order]))


@torch.no_grad()
def _shuffle_weights(module: nn.Module, rng: torch.Generator) -> None:
    for parameter in module.parameters(recurse=False):
        order = torch.randperm(parameter.numel(), generator=rng).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].view_as(parameter))
