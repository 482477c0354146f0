"""The sums of one epoch, kept on the device until it ends, and the error of a loss that is no number."""

import math

import torch
from torch import Tensor

from ggo_lab.backbones import Backbone
from ggo_lab.errors import ModelError
from ggo_lab.training.ranks import rank_and_size, summed


class Tally:
    """Loss and right answers of each step of an epoch; fetching each would make the program wait for the GPU."""

    def __init__(self) -> None:
        """Begin an epoch."""
        self._losses: list[Tensor] = []
        self._right: list[Tensor] = []
        self._sizes: list[int] = []

    def add(self, loss: Tensor, right: Tensor, size: int) -> None:
        """Note a step.

        Args:
            loss: the batch's mean.
            right: how many images were right, of this rank's share.
            size: images of the batch, of all ranks.
        """
        self._losses.append(loss)
        self._right.append(right)
        self._sizes.append(size)

    def means(self, epoch: int, model: Backbone, optimizer: torch.optim.Optimizer) -> tuple[float, float]:
        """Return the mean loss and the accuracy over all images of the epoch, and of all ranks.

        Args:
            epoch: its number, for the message of an error.
            model: likewise.
            optimizer: likewise.

        Raises:
            ModelError: the loss was no number at some step.
        """
        losses = (summed(torch.stack(self._losses)) / rank_and_size()[1]).tolist()
        for step, loss in enumerate(losses, 1):
            check_finite(loss, epoch, model, optimizer, step)
        # Weighted by size: the last batch may be smaller, and its images count no more than others.
        mean = sum(loss * size for loss, size in zip(losses, self._sizes, strict=True)) / sum(self._sizes)
        return mean, summed(torch.stack(self._right)).sum().item() / sum(self._sizes)


def check_finite(
    loss: float, epoch: int, model: Backbone, optimizer: torch.optim.Optimizer, step: int | None = None
) -> None:
    """Raise ModelError where a loss is no number, with the likely cause.

    Args:
        loss: of a step, or of the validation split.
        epoch: its number, from 1.
        model: that learns.
        optimizer: of it.
        step: of the epoch, from 1; None for the validation split.
    """
    if math.isfinite(loss):
        return
    what = f"The validation loss is {loss} after epoch {epoch}"
    if step is not None:
        what = f"The training loss is {loss} at step {step} of epoch {epoch}"
        if step == epoch == 1:
            raise ModelError(
                f"{what}, before anything was learnt: the weights of {model.name} with which it began hold values "
                "that are no numbers, or are far too large. Build it anew, from other weights."
            )
    lr = optimizer.param_groups[0]["lr"]
    raise ModelError(
        f"{what}: the weights have grown without bound. Most likely lr={lr:g} is too high for {model.name}; build the "
        f"model anew, for its weights are spoilt, and try lr={lr / 10:g}. If that does not help, the pretrained "
        "weights may be damaged.",
        lr,
    )
