"""Maps of where a network looked: Grad-CAM, occlusion, integrated gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    seen: list[Tensor] = []

    def watch(_layer: nn.Module, _given: tuple[Tensor], features: Tensor) -> Tensor:
        # Features of frozen layers carry no gradient unless told to. The network goes on with a copy, since a layer
        # that works in place may follow.
        seen.append(features if features.requires_grad else features.requires_grad_())
        return features.clone()

    with _asked(model, image) as batch, torch.enable_grad():
        hook = model.cam_layer.register_forward_hook(watch)
        try:
            logits = model(batch)
        finally:
            hook.remove()
        (gradients,) = torch.autograd.grad(logits[0, _index(grade, logits)], seen)
    maps, gradients = (_as_maps(model, batch, part) for part in (seen[0].detach(), gradients))
    weights = gradients.mean(dim=(1, 2), keepdim=True)
    heat = (weights * maps).sum(dim=0).clamp(min=0)
    heat = interpolate(heat[None, None], image.shape[1:], mode="bilinear", align_corners=False)[0, 0]
    return _as_heat(heat)


def occlusion(model: Backbone, image: np.ndarray, grade: int | None = None, cells: int = 8) -> np.ndarray:
    """Map how much a grade loses when a square of a channel is painted black (Zeiler & Fergus 2014).

    It asks the network itself, needs no gradient and shows each slice on its own, but takes C x cells x cells answers.
    Black is air, so a lesion that is painted over looks like emptier lung, and a rib like nothing that ever was.

    Args:
        model, image, grade: as for grad_cam.
        cells: squares along each side of the image.
    Returns: float32 (C, H, W), 0..1 as for grad_cam: the loss in the grade's logit.
    Raises:
        ChoiceError: an unknown grade, or more cells than pixels.
    """
    channels, *sides = image.shape
    if not 1 <= cells <= min(sides):
        raise ChoiceError(f"cells={cells} does not fit an image of {sides} pixels; give 1 to {min(sides)}.", cells)
    edges = [np.linspace(0, side, cells + 1).round().astype(int) for side in sides]
    with _asked(model, image) as batch, torch.inference_mode():
        logits = model(batch)
        index = _index(grade, logits)
        heat = torch.zeros(image.shape, device=batch.device)
        for channel in range(channels):
            for top, bottom in zip(edges[0], edges[0][1:], strict=False):
                covered = batch.repeat(cells, 1, 1, 1)
                columns = list(zip(edges[1], edges[1][1:], strict=False))
                for row, (left, right) in enumerate(columns):
                    covered[row, channel, top:bottom, left:right] = 0
                for (left, right), logit in zip(columns, model(covered)[:, index], strict=True):
                    heat[channel, top:bottom, left:right] = logits[0, index] - logit
    return _as_heat(heat.clamp(min=0))


def integrated_gradients(model: Backbone, image: np.ndarray, grade: int | None = None, steps: int = 32) -> np.ndarray:
    """Map what each pixel adds to a grade on the way from a black image to this one (Sundararajan et al. 2017).

    The finest of the maps, and the noisiest: single pixels, edges first.

    Args:
        model, image, grade: as for grad_cam.
        steps: along the way; more are more exact and take longer.
    Returns: float32 (C, H, W), 0..1 as for grad_cam; what speaks against the grade is cut off.
    Raises:
        ChoiceError: an unknown grade, or no step.
    """
    return _as_heat(_integrated(model, image, grade, steps).clamp(min=0))


def _integrated(model: Backbone, image: np.ndarray, grade: int | None, steps: int) -> Tensor:
    """Integrated gradients with their signs (C, H, W); they sum to the logit's rise from black to the image."""
    if steps < 1:
        raise ChoiceError(f"steps={steps}: at least one is needed.", steps)
    with _asked(model, image) as batch, torch.enable_grad():
        with torch.no_grad():
            index = _index(grade, model(batch))
        batch, total = batch.float(), torch.zeros_like(batch, dtype=torch.float32)
        for step in range(steps):
            place = (batch * (step + 0.5) / steps).requires_grad_()
            (gradients,) = torch.autograd.grad(model(place)[0, index], place)
            total += gradients
        return (batch * total / steps)[0]


METHODS: dict[str, Callable[..., np.ndarray]] = {
    "grad_cam": grad_cam,
    "occlusion": occlusion,
    "integrated_gradients": integrated_gradients,
}


def predicted_grade(model: Backbone, image: np.ndarray) -> Grade:
    """The grade that a model gives an image uint8 (C, H, W)."""
    with _asked(model, image) as batch, torch.inference_mode():
        return Grade(_index(None, model(batch)) + 1)


@contextmanager
def _asked(model: Backbone, image: np.ndarray) -> Iterator[Tensor]:
    """The image as a batch on the model's device, and the model in evaluation mode, inside the block only."""
    learning = model.training
    model.eval()
    try:
        yield torch.from_numpy(np.array(image))[None].to(next(model.parameters()).device)
    finally:
        model.train(learning)


def _index(grade: int | None, logits: Tensor) -> int:
    """The output that belongs to a grade; to the predicted one if None."""
    if grade is None:
        return int(logits.argmax())
    check_choice("grade", grade, list(Grade))
    return Grade(grade).index


def _as_heat(heat: Tensor) -> np.ndarray:
    return (heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)).float().cpu().numpy()


def _as_maps(model: Backbone, batch: Tensor, features: Tensor) -> Tensor:
    """Features of one image as maps (C, h, w); a transformer's patch tokens are laid back on their grid."""
    if not model.cam_is_tokens:
        return features[0]
    height, width = (n // model.spec.step for n in batch.shape[2:])
    return features[0, 1:].T.unflatten(1, (height, width))
