"""Several processes that train one network: what `torchrun` starts, and what they tell each other.

Every rank holds all images and draws the same batches; each takes its share of a batch, and DistributedDataParallel
averages the gradients, and BatchNorm its statistics, so the steps are those of one process. What differs is dropout,
which every rank draws itself.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from ggo_lab.backbones import Learner


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
    values: list = [None] * size
    distributed.all_gather_object(values, value)
    return values


class Shared(Learner):
    """A model that learns together with those of the other ranks, in its place: gradients are averaged."""

    def __init__(self, model: Learner):
        super().__init__()
        self.model, self.name = model, model.name
        for module in model.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = _BatchNormOfAll
        self.parallel = DistributedDataParallel(_Outputs(model))

    def outputs(self, images: Tensor) -> list[tuple[float, Tensor]]:
        """As of the model."""
        return self.parallel(images)

    def forward(self, images: Tensor) -> Tensor:
        """As of the model; nothing is shared."""
        return self.model(images)

    def train(self, mode: bool = True) -> "Shared":
        """Switch the model; it leaves frozen layers as they are."""
        self.model.train(mode)
        return self


class _Outputs(nn.Module):
    """DistributedDataParallel knows `forward` only."""

    def __init__(self, model: Learner):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[tuple[float, Tensor]]:
        return self.model.outputs(images)


class _BatchNormOfAll(nn.BatchNorm2d):
    """BatchNorm over the whole batch, of which each rank has a share; torch's SyncBatchNorm is for GPUs only."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, maps: Tensor) -> Tensor:
        """Give normalised maps (B, C, H, W); while not learning, as BatchNorm2d does."""
        if not self.training or rank_and_size()[1] == 1:
            return super().forward(maps)
        maps32 = maps.float()
        share_of = maps32.new_tensor([maps.numel() / maps.shape[1]])
        sums = all_reduce(torch.cat([maps32.sum((0, 2, 3)), share_of]))
        count, mean = sums[-1], (sums[:-1] / sums[-1]).view(-1, 1, 1)
        # Around the mean, in a second round: the difference of two large sums would lose digits.
        variance = all_reduce((maps32 - mean).square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.flatten(), self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return ((maps32 - mean) * scale.view(-1, 1, 1) + self.bias.view(-1, 1, 1)).to(maps.dtype)
