"""Augmentation on the device: every image is mirrored, turned, resized and brightened by amounts of its own.

Written out, because the random transforms of torchvision draw one amount for a whole batch.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ggo_lab.training.config import TrainConfig


def augments(config: TrainConfig) -> bool:
    """Return whether anything but mirroring is asked for."""
    return bool(config.rotate or config.scale or config.intensity)


def augment(images: Tensor, config: TrainConfig, draws: torch.Generator) -> Tensor:
    """Alter each image within the limits of the settings.

    Args:
        images: uint8 or float (B, C, H, W), 0..255, on any device.
        config: the limits.
        draws: generator on the CPU, so that every device sees the same amounts.

    Returns:
        Float32, same shape and range; what comes from outside the image is black, as air is.
    """
    turn, growth, contrast, light = (2 * torch.rand(4, len(images), generator=draws) - 1).to(images.device)
    altered = images.float()
    if config.rotate or config.scale:
        angle, zoom = math.radians(config.rotate) * turn, 1 + config.scale * growth
        along, across, none = angle.cos() / zoom, angle.sin() / zoom, torch.zeros_like(zoom)
        # From each pixel of the new image to where it is looked up in the old one; images are square.
        places = torch.stack([along, -across, none, across, along, none], dim=1).view(-1, 2, 3)
        grid = affine_grid(places, list(images.shape), align_corners=False)
        altered = grid_sample(altered, grid, padding_mode="zeros", align_corners=False)
    if config.intensity:
        contrast, light = ((config.intensity * u).view(-1, 1, 1, 1) for u in (contrast, light))
        altered = (altered * (1 + contrast) + 255 * light).clamp(0, 255)
    return altered
