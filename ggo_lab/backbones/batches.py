"""Images on their way through a network that does not learn: the one place that cuts them into batches."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ggo_lab.backbones.network import Backbone

_AT_ONCE = 64  # images; it changes memory and time, not the result


def batches_for(model: Backbone, pixels: np.ndarray) -> Iterator[Tensor]:
    """Yield images uint8 (N, C, H, W), which may lie on disk, as batches (B, C, H, W) on the model's device.

    The model is put into evaluation mode. Each batch is a copy, so that nothing can be written to the images.
    """
    model.eval()
    device = next(model.parameters()).device
    for start in range(0, len(pixels), _AT_ONCE):
        yield torch.from_numpy(np.array(pixels[start : start + _AT_ONCE])).to(device)
