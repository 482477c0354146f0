"""Batches of one epoch: a new order, and images that are altered anew."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ggo_lab.grades import Grade
from ggo_lab.training.augment import alter
from ggo_lab.training.config import TrainConfig
from ggo_lab.training.devices import bring
from ggo_lab.training.ranks import rank_and_size


def training_batches(
    images: Tensor, targets: Tensor, config: TrainConfig, draws: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give all images once, in batches of a new order, half of them mirrored, altered as the settings say.

    With balance="sampling" as many images are drawn with replacement, each grade as often as any other. A last batch
    of a single image joins its neighbour: BatchNorm cannot learn from one.

    Args:
        images: uint8 (N, 3, H, W), on the device or still in the memory map. targets: int64 (N,), on the device.
        draws: generator of all that is random here, on the CPU, so that every device sees the same.
    """
    for rows in batch_rows(targets, config, draws):
        batch = bring(images[rows.to(images.device)], targets.device)
        yield alter(batch, config, draws), targets[rows.to(targets.device)]


def batch_rows(targets: Tensor, config: TrainConfig, draws: torch.Generator) -> list[Tensor]:
    """Draw which images stand in which batch of an epoch.

    A last batch in which a rank would have fewer than two images joins its neighbour.

    Returns: int64 (B,) each, on the CPU.
    """
    if config.balance == "sampling":
        chances = grade_weights(targets)[targets].cpu()
        order = torch.multinomial(chances, len(targets), replacement=True, generator=draws)
    else:
        order = torch.randperm(len(targets), generator=draws)
    batches = list(order.split(config.batch_size))
    if len(batches) > 1 and len(batches[-1]) < 2 * rank_and_size()[1]:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def grade_weights(targets: Tensor) -> Tensor:
    """Give the weight of each grade that lets all grades count alike, whatever their number of images.

    Args:
        targets: int64 (N,), grade - 1.
    Returns: float32 (4,), N / (grades present x images of the grade); 0 for a grade without images.
    """
    counts = torch.bincount(targets, minlength=len(Grade)).float()
    return torch.where(counts > 0, len(targets) / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)
