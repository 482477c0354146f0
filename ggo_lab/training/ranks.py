"""Several processes that train one network: what `torchrun` starts, and what they tell each other.

Every rank holds all images and draws the same batches; each takes its share of a batch, and DistributedDataParallel
averages the gradients, so the steps are those of one process. What differs is BatchNorm while it learns, which sees a
rank's share, not the batch (its running averages are the first rank's), and dropout, which every rank draws itself.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes that torchrun has started; where there are none, do nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """Give the number of this process, from 0, and how many there are; (0, 1) where there is one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def share(batch: Tensor) -> Tensor:
    """Give this rank's share of a batch; shares differ by one image at most."""
    rank, size = rank_and_size()
    return batch.tensor_split(size)[rank]


def summed(values: Tensor) -> Tensor:
    """Add up over all ranks."""
    if rank_and_size()[1] > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def gathered(value: object) -> list:
    """Give every rank's value to all, in order."""
    size = rank_and_size()[1]
    if size == 1:
        return [value]
    values = [None] * size
    distributed.all_gather_object(values, value)
    return values


class Shared(nn.Module):
    """A model that learns together with those of the other ranks, in its place: gradients are averaged."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.name = model, model.name
        self.parallel = DistributedDataParallel(_Outputs(model))

    def outputs(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """As of the model."""
        return self.parallel(images)

    def forward(self, images: Tensor) -> Tensor:
        """As of the model; nothing is shared."""
        return self.model(images)

    def train(self, mode: bool = True) -> "Shared":
        """Switch the model; before it is judged, all ranks take over the first one's running averages."""
        self.model.train(mode)
        if not mode:
            for buffer in self.model.buffers():
                distributed.broadcast(buffer, 0)
        return self


class _Outputs(nn.Module):
    """DistributedDataParallel knows `forward` only."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[tuple[float, Tensor]]:
        return self.model.outputs(images)
