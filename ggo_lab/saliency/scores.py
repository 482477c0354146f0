"""How far to trust a saliency map: does it lie where the truth lies, and does the network need what it shows?"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch

from ggo_lab.backbones import Backbone, backbone_of
from ggo_lab.errors import ChoiceError, check_choice, check_whole
from ggo_lab.settled import settled

_RANDOM_ORDERS = 3  # whose mean stands for "no map at all" beside a deletion curve


class InsideShare(NamedTuple):
    """How much of the heat lies inside a mask."""

    share: float  # of the heat, 0..1; nan where there is no heat at all
    chance: float  # share of the area that the mask covers: what heat spread evenly would give

    @property
    def times_chance(self) -> float:
        """How many times more heat lies inside than even heat would put there; nan where the mask is empty."""
        return self.share / self.chance if self.chance else float("nan")


def share_inside(heat: Mapping[int, np.ndarray] | np.ndarray, mask: np.ndarray) -> InsideShare:
    """Measure how much of the heat lies inside a mask, such as the true lesions.

    Args:
        heat: maps (Y, X) by axial slice, as SliceViewer takes them, or an array of the mask's shape.
        mask: bool (Z, Y, X); of the slices that `heat` names only these count.

    Raises:
        ChoiceError: shapes that do not fit.
    """
    heat, mask = _same_grid(heat, mask)
    total = float(heat.sum(dtype=np.float64))
    inside = float(heat[mask].sum(dtype=np.float64))
    return InsideShare(inside / total if total > 0 else float("nan"), float(mask.mean()))


class Hit(NamedTuple):
    """One round of the pointing game."""

    hit: bool  # whether the hottest place lies inside; False where there is no heat
    chance: float  # share of the area that the mask covers: how often a blind finger would hit


def pointing_game(heat: Mapping[int, np.ndarray] | np.ndarray, mask: np.ndarray) -> Hit:
    """Say whether the hottest place lies inside a mask (Zhang et al. 2016, arXiv:1608.00507).

    Args:
        heat: as for share_inside. Of several hottest places the first counts.
        mask: bool (Z, Y, X).

    Raises:
        ChoiceError: shapes that do not fit.
    """
    heat, mask = _same_grid(heat, mask)
    return Hit(bool(heat.max() > 0 and mask.flat[heat.argmax()]), float(mask.mean()))


def _same_grid(heat: Mapping[int, np.ndarray] | np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(heat, Mapping):
        mask, heat = mask[list(heat)], np.stack(list(heat.values()))
    if heat.shape != mask.shape:
        raise ChoiceError(f"heat {heat.shape} and mask {mask.shape} must have one shape.", heat.shape)
    return heat, mask


@settled()
@torch.inference_mode()
def deletion_insertion(
    model: Backbone, image: np.ndarray, heat: np.ndarray, label: int, steps: int = 10, seed: int = 0
) -> pd.DataFrame:
    """Take the hottest pixels away first, or put them in first, and watch the probability (Petsiuk et al. 2018).

    If the map shows what the network needs, the probability falls fast in deletion and rises fast in insertion, faster
    than when pixels are taken in a random order. It asks the network, not the truth: a network that reads a leaked
    corner passes, for the corner is what it needs.

    Args:
        model: in any mode; it is left as it was.
        image: uint8 (C, H, W). Pixels that are away are black, which is air.
        heat: (H, W) for all channels, or (C, H, W).
        label: 0..K-1, of the class whose probability is watched.
        steps: between none and all of the pixels.
        seed: of the random orders.

    Returns:
        steps + 1 rows, from none of the pixels to all; share (of the pixels, 0..1), deletion, insertion and
        random_deletion (probabilities). The mean of a column is nearly the area under its curve.

    Raises:
        ChoiceError: an unknown label, no step, or heat that does not fit.
    """
    if heat.shape not in (image.shape, image.shape[1:]):
        raise ChoiceError(f"heat {heat.shape} does not fit an image {image.shape}.", heat.shape)
    steps, rng = check_whole("steps", steps, 1), np.random.default_rng(check_whole("seed", seed))
    flat = np.broadcast_to(heat, image.shape).ravel()
    # Ties, most of all where there is no heat, are taken in a random order, not row by row.
    hottest_first = np.lexsort((rng.random(flat.size), -flat))
    model = backbone_of(model)
    learning = model.training
    model.eval()
    try:
        shares = np.linspace(0, 1, steps + 1)
        curve = {
            "share": shares,
            "deletion": _probabilities(model, image, hottest_first, shares, label, keep=False),
            "insertion": _probabilities(model, image, hottest_first, shares, label, keep=True),
        }
        blind = [rng.permutation(flat.size) for _ in range(_RANDOM_ORDERS)]
        curve["random_deletion"] = np.mean(
            [_probabilities(model, image, order, shares, label, keep=False) for order in blind], axis=0
        )
    finally:
        model.train(learning)
    return pd.DataFrame(curve)


def _probabilities(
    model: Backbone, image: np.ndarray, order: np.ndarray, shares: np.ndarray, label: int, keep: bool
) -> np.ndarray:
    """The class's probability with the first shares of the pixels kept, or taken away: (S,)."""
    rank = np.empty(order.size)
    rank[order] = np.arange(order.size)
    first = rank < shares[:, None] * order.size
    shown = np.where(first == keep, image.ravel(), 0).astype(np.uint8).reshape(-1, *image.shape)
    device = next(model.parameters()).device
    probabilities = model(torch.from_numpy(shown).to(device)).double().softmax(dim=1)
    check_choice("label", label, range(probabilities.shape[1]))
    return probabilities[:, label].cpu().numpy()
