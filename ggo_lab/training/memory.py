"""A device that runs out of memory: the batch goes through in parts, and the step stays the same."""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ggo_lab.errors import ModelError
from ggo_lab.training.ranks import rank_and_size


class OutOfMemoryWarning(UserWarning):
    """A batch did not fit the device's memory and goes through in parts."""


class Memory:
    """How many images go through the network at once.

    Attributes:
        images_at_once: None, the whole batch, until the device first runs out of memory; halved each time it does.
    """

    def __init__(self) -> None:
        self.images_at_once: int | None = None

    def in_parts(
        self,
        gradients: Callable[[Tensor, Tensor, float | Tensor], tuple[Tensor, Tensor]],
        model: nn.Module,
        images: Tensor,
        targets: Tensor,
        total: float | Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Add up the gradients, the loss and the right answers of a batch, in as many parts as memory asks for.

        Each part's sum of losses is divided by the same total, so the parts' gradients add up to the batch's. What
        does change is BatchNorm while it learns: it sees a part where it would have seen the batch.

        Args:
            gradients: given images, targets and the total, adds to the parameters' gradients; gives the part's share
                of the loss and its number of right answers.
            total: what a sum of losses is divided by, such as the number of images.
        Raises:
            ModelError: not even two images fit.
        """
        while True:
            try:
                count = self._parts(len(images))
                done = [
                    gradients(part, truth, total)
                    for part, truth in zip(images.tensor_split(count), targets.tensor_split(count), strict=True)
                ]
                losses, rights = zip(*done, strict=True)
                return torch.stack(losses).sum(), torch.stack(rights).sum()
            except RuntimeError as error:
                if not _is_out_of_memory(error):
                    raise
            # Only here, where the error no longer holds the activations, can memory be given back.
            self._halve(len(images), images.device, model)
            model.zero_grad()

    def _parts(self, size: int) -> int:
        if self.images_at_once is None:
            return 1
        # BatchNorm cannot learn from one image, so no part holds fewer than two.
        return max(1, min(math.ceil(size / self.images_at_once), size // 2))

    def _halve(self, size: int, device: torch.device, model: nn.Module) -> None:
        if rank_and_size()[1] > 1:
            raise ModelError(
                f"The memory of {device} does not hold this rank's share of a batch, {size} images; give a smaller "
                "batch_size, or start more processes.",
                size,
            )
        tried = math.ceil(size / self._parts(size))
        if tried <= 3:
            raise ModelError(
                f"The memory of {device} does not hold a training step of {tried} images. Use smaller images "
                "(Recipe(size=...)), a smaller backbone, or fewer layers that learn (extent).",
                tried,
            )
        self.images_at_once = tried // 2
        if device.type == "cuda":
            torch.cuda.empty_cache()
        learning_norm = any(
            isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training for module in model.modules()
        )
        caveat = " Except that BatchNorm averages over a part, not over the batch." if learning_norm else ""
        warnings.warn(
            f"{device} ran out of memory with {tried} images: from now on {self.images_at_once} go through at once, "
            f"and their gradients are added up before each step, so that the steps stay the same.{caveat}",
            OutOfMemoryWarning,
            stacklevel=4,
        )


def _is_out_of_memory(error: RuntimeError) -> bool:
    """On the CPU torch says it in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
