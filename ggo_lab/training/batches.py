"""Batches of one epoch: a new order, and images that are altered anew."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ggo_lab.training.config import TrainConfig


def training_batches(
    images: Tensor, targets: Tensor, config: TrainConfig, draws: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give all images once, in batches of a new order, half of them mirrored.

    A last batch of a single image joins its neighbour: BatchNorm cannot learn from one.

    Args:
        images: uint8 (N, 3, H, W). targets: int64 (N,).
        draws: generator of the order and the mirroring, on the CPU, so that every device sees the same.
    """
    batches = list(torch.randperm(len(images), generator=draws).split(config.batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    for rows in batches:
        mirrored = torch.rand(len(rows), generator=draws) < 0.5
        rows, mirrored = rows.to(images.device), mirrored.to(images.device)
        batch = images[rows]
        if config.flip:
            batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        yield batch, targets[rows]
