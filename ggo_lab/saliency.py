"""Where a network looked: Grad-CAM, and how much of it lies where it should."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ggo_lab.backbones import Backbone
from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.grades import Grade


def grad_cam(model: Backbone, image: np.ndarray, grade: int | None = None) -> np.ndarray:
    """Map how strongly each place of an image spoke for a grade (Selvaraju et al. 2017, arXiv:1610.02391).

    The last spatial feature maps are summed, each weighted by the mean gradient of the grade's logit with respect to
    it, and what speaks against the grade is cut off. The map is coarse: 7 x 7 cells for most networks at 224 pixels.

    Args:
        model: in any mode; it is left as it was.
        image: uint8 (C, H, W), as scan_to_image gives it. All channels share one map.
        grade: 1..4; the predicted grade if left out.
    Returns: float32 (H, W), 0..1; the hottest place is 1, and all is 0 where nothing speaks for the grade.
    Raises:
        ChoiceError: an unknown grade.
    """
    if grade is not None:
        check_choice("grade", grade, list(Grade))
    device = next(model.parameters()).device
    batch = torch.from_numpy(np.array(image))[None].to(device)
    learning = model.training
    model.eval()
    seen: list[Tensor] = []

    def watch(_layer: nn.Module, _given: tuple[Tensor], features: Tensor) -> Tensor:
        # Features of frozen layers carry no gradient unless told to. The network goes on with a copy, since a layer
        # that works in place may follow.
        seen.append(features if features.requires_grad else features.requires_grad_())
        return features.clone()

    hook = model.cam_layer.register_forward_hook(watch)
    try:
        with torch.enable_grad():
            logits = model(batch)
            index = int(logits.argmax()) if grade is None else Grade(grade).index
            (gradients,) = torch.autograd.grad(logits[0, index], seen)
    finally:
        hook.remove()
        model.train(learning)
    maps, gradients = (_as_maps(model, batch, part) for part in (seen[0].detach(), gradients))
    weights = gradients.mean(dim=(1, 2), keepdim=True)
    heat = (weights * maps).sum(dim=0).clamp(min=0)
    heat = interpolate(heat[None, None], image.shape[1:], mode="bilinear", align_corners=False)[0, 0]
    return (heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)).float().cpu().numpy()


def _as_maps(model: Backbone, batch: Tensor, features: Tensor) -> Tensor:
    """Features of one image as maps (C, h, w); a transformer's patch tokens are laid back on their grid."""
    if not model.cam_is_tokens:
        return features[0]
    height, width = (n // model.spec.step for n in batch.shape[2:])
    return features[0, 1:].T.unflatten(1, (height, width))


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
    if isinstance(heat, Mapping):
        mask, heat = mask[list(heat)], np.stack(list(heat.values()))
    if heat.shape != mask.shape:
        raise ChoiceError(f"heat {heat.shape} and mask {mask.shape} must have one shape.", heat.shape)
    total = float(heat.sum(dtype=np.float64))
    inside = float(heat[mask].sum(dtype=np.float64))
    return InsideShare(inside / total if total > 0 else float("nan"), float(mask.mean()))
