"""Several processes that train one network: what `torchrun` starts, and what they tell each other.

Every rank holds all images and draws the same batches; each takes its share of a batch, and DistributedDataParallel
averages the gradients, and BatchNorm its statistics, so the steps are those of one process. What differs is dropout,
which every rank draws itself.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

Gradients = Callable[..., tuple[Tensor, Tensor]]  # of a batch: it adds to them, and returns the loss and who was right


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
    """Return the number of this process, from 0, and how many there are; (0, 1) where there is one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def share(*batch: Tensor) -> tuple[Tensor, ...]:
    """Return this rank's share of each part of a batch; shares differ by one image at most."""
    rank, size = rank_and_size()
    return tuple(part.tensor_split(size)[rank] for part in batch)


def summed(values: Tensor) -> Tensor:
    """Return the sum over all ranks."""
    if rank_and_size()[1] > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def gathered(value: object) -> list:
    """Return every rank's value to all, in order."""
    size = rank_and_size()[1]
    if size == 1:
        return [value]
    values: list = [None] * size
    distributed.all_gather_object(values, value)
    return values


def with_other_ranks(model: nn.Module, gradients: Gradients) -> tuple[nn.Module, Gradients]:
    """Return a model that learns together with those of the other ranks, and what gives it its share of each batch.

    Both are returned as they are where there is no other rank.

    Args:
        model: what learns.
        gradients: called with the model, the loss, and images, labels and weights of a batch.
    """
    if rank_and_size()[1] == 1:
        return model, gradients

    def of_this_share(model: nn.Module, loss_of: object, *batch: Tensor) -> tuple[Tensor, Tensor]:
        return gradients(model, loss_of, *share(*batch))

    return Shared(model), of_this_share


class Shared(nn.Module):
    """A model that learns together with those of the other ranks, in its place: gradients are averaged."""

    def __init__(self, model: nn.Module):
        """Put a model inside, and let its BatchNorm see the batches of all ranks."""
        super().__init__()
        of_all: dict[nn.Module, nn.Module] = {}
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.BatchNorm2d:
                    # The same module may have several parents, where a model is cut at its frozen layers.
                    setattr(parent, name, of_all.setdefault(child, _BatchNormOfAll.like(child)))
        self.model = model
        self._parallel: list[DistributedDataParallel] = []  # in a list, so that it is no module of this one
        self._learning: list[nn.Parameter] = []

    def forward(self, images: Tensor) -> Any:
        """Return the model's outputs; only while learning are gradients shared."""
        if not self.training:
            return self.model(images)
        learning = [p for p in self.model.parameters() if p.requires_grad]
        if len(learning) != len(self._learning):  # at first, and where more layers have begun to learn
            self._learning, self._parallel = learning, [DistributedDataParallel(self.model)]
        return self._parallel[0](images)


class _BatchNormOfAll(nn.BatchNorm2d):
    """BatchNorm over the whole batch, of which each rank has a share; torch's SyncBatchNorm is for GPUs only."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    @classmethod
    def like(cls, other: nn.BatchNorm2d) -> "_BatchNormOfAll":
        """Return one with the very weights and averages of another."""
        made: Any = cls(other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats)
        made.weight, made.bias = other.weight, other.bias
        made.running_mean, made.running_var = other.running_mean, other.running_var
        made.num_batches_tracked = other.num_batches_tracked
        return made.train(other.training)

    def _get_name(self) -> str:
        return "BatchNorm2d"  # to people, and in a model file, it is no other layer

    def forward(self, maps: Tensor) -> Tensor:
        """Return normalised maps (B, C, H, W); while not learning, as BatchNorm2d does."""
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
