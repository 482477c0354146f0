"""Maps of where a network looked: Grad-CAM, occlusion, integrated gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ggo_lab.backbones import Backbone, backbone_of
from ggo_lab.backbones.network import SequenceBackbone, check_can_learn
from ggo_lab.backbones.sequence import not_empty
from ggo_lab.errors import ModelError, check_choice, check_whole
from ggo_lab.settled import settled


def grad_cam(model: Backbone, image: np.ndarray, label: int | None = None) -> np.ndarray:
    """Map how strongly each place of an image spoke for a class (Selvaraju et al. 2017, arXiv:1610.02391).

    The last spatial feature maps are summed, each weighted by the mean gradient of the class's logit with respect to
    it, and what speaks against the class is cut off. The map is coarse: 7 x 7 cells for most networks at 224 pixels.

    Args:
        model: in any mode; it is left as it was.
        image: uint8 (C, H, W), as Cut.image() gives it. All channels share one map, but where a GRU reads the slices:
            its network sees each of them on its own.
        label: 0..K-1, of the class; the predicted one if left out.

    Returns:
        Float32 (H, W), or (C, H, W) where a GRU reads the slices; 0..1, the hottest place is 1, and all is 0 where
        nothing speaks for the class.

    Raises:
        ChoiceError: an unknown label.
    """
    model = backbone_of(model)
    captured: list[Tensor] = []

    def watch(_layer: nn.Module, _given: tuple[Tensor], features: Tensor) -> Tensor:
        # Features of frozen layers carry no gradient unless told to. The network goes on with a copy, since a layer
        # that works in place may follow.
        captured.append(features if features.requires_grad else features.requires_grad_())
        return features.clone()

    check_can_learn(model)
    with _asked(model, image) as batch, torch.enable_grad():
        hook = model.cam_layer.register_forward_hook(watch)
        try:
            logits = model(batch)
        finally:
            hook.remove()
        (gradients,) = torch.autograd.grad(logits[0, _index(label, logits)], captured)
    maps, gradients = (_as_maps(model, batch, part) for part in (captured[0].detach(), gradients))
    weights = gradients.mean(dim=(2, 3), keepdim=True)
    heat = (weights * maps).sum(dim=1, keepdim=True).clamp(min=0)
    heat = interpolate(heat, image.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    if not isinstance(model, SequenceBackbone):
        return _as_heat(heat[0])
    laid = heat.new_zeros(image.shape)
    laid[not_empty(batch)[0]] = heat
    return _as_heat(laid)


def occlusion(model: Backbone, image: np.ndarray, label: int | None = None, cells: int = 8) -> np.ndarray:
    """Map how much a class loses when a square of a channel is painted black (Zeiler & Fergus 2014).

    It asks the network itself, needs no gradient and shows each slice on its own, but takes C x cells x cells answers.
    Black is air, so a lesion that is painted over looks like emptier lung, and a rib like nothing that ever was.

    Args:
        model: in any mode; it is left as it was.
        image: uint8 (C, H, W).
        label: 0..K-1, of the class; the predicted one if left out.
        cells: squares along each side of the image.

    Returns:
        Float32 (C, H, W), 0..1 as for grad_cam: the loss in the class's logit.

    Raises:
        ChoiceError: an unknown label, or more cells than pixels.
    """
    model = backbone_of(model)
    channels, *sides = image.shape
    cells = check_whole("cells", cells, 1, min(sides))
    edges = [np.linspace(0, side, cells + 1).round().astype(int) for side in sides]
    with _asked(model, image) as batch, torch.inference_mode():
        logits = model(batch)
        index = _index(label, logits)
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


def integrated_gradients(model: Backbone, image: np.ndarray, label: int | None = None, steps: int = 32) -> np.ndarray:
    """Map what each pixel adds to a class on the way from a black image to this one (Sundararajan et al. 2017).

    The finest of the maps, and the noisiest: single pixels, edges first.

    Args:
        model: in any mode; it is left as it was.
        image: uint8 (C, H, W).
        label: 0..K-1, of the class; the predicted one if left out.
        steps: along the way; more are more exact and take longer.

    Returns:
        Float32 (C, H, W), 0..1 as for grad_cam; what speaks against the class is cut off.

    Raises:
        ChoiceError: an unknown label, or no step.
    """
    return _as_heat(_integrated(model, image, label, steps).clamp(min=0))


def _integrated(model: Backbone, image: np.ndarray, label: int | None, steps: int) -> Tensor:
    """Integrated gradients with their signs (C, H, W); they sum to the logit's rise from black to the image."""
    steps, model = check_whole("steps", steps, 1, 10_000), backbone_of(model)
    check_can_learn(model)
    with _asked(model, image) as batch, torch.enable_grad():
        with torch.no_grad():
            index = _index(label, model(batch))
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


def predicted_label(model: Backbone, image: np.ndarray) -> int:
    """The label that a model gives an image uint8 (C, H, W)."""
    with _asked(model, image) as batch, torch.inference_mode():
        return _index(None, model(batch))


@contextmanager
def _asked(model: Backbone, image: np.ndarray) -> Iterator[Tensor]:
    """The image as a batch on the model's device, and the model in evaluation mode, inside the block only."""
    model = backbone_of(model)
    learning = model.training
    model.eval()
    try:
        # cuDNN's GRU gives no gradients in evaluation mode.
        own = torch.backends.cudnn.flags(enabled=False) if isinstance(model, SequenceBackbone) else nullcontext()
        with settled(), own:
            yield torch.from_numpy(np.array(image))[None].to(next(model.parameters()).device)
    finally:
        model.train(learning)


def _index(label: int | None, logits: Tensor) -> int:
    """The output of a label; of the predicted one if None."""
    if label is None:
        return int(logits.argmax())
    check_choice("label", label, range(logits.shape[1]))
    return int(label)


def _as_heat(heat: Tensor) -> np.ndarray:
    if not heat.isfinite().all():
        raise ModelError("The map holds values that are no numbers: the network's weights do, or are far too large.")
    return (heat / heat.max().clamp(min=torch.finfo(heat.dtype).tiny)).float().cpu().numpy()


def _as_maps(model: Backbone, batch: Tensor, features: Tensor) -> Tensor:
    """Features as maps (N, C, h, w), N being 1, or the slices that a GRU reads; tokens are laid back on their grid."""
    if model.spec.layout == "maps":
        return features
    if model.spec.layout == "maps_last":
        return features.permute(0, 3, 1, 2)
    rows, columns = batch.shape[2:]
    height = round(((features.shape[1] - 1) * rows / columns) ** 0.5)  # patches are square
    return features[:, 1:].transpose(1, 2).unflatten(2, (height, -1))
