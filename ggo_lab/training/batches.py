"""Images on their way to the network: where they lie, how the batches of an epoch come, and a batch in parts."""

import math
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ggo_lab.errors import ModelError
from ggo_lab.images import ImageSet
from ggo_lab.training.augment import augment, augments
from ggo_lab.training.config import TrainConfig
from ggo_lab.training.ranks import Gradients, rank_and_size

_SHARE_OF_FREE = 0.5  # of a GPU's free memory that a split may fill; the rest is for the network and its activations
_BATCH = 64  # images at once when nothing is learnt; it changes memory and time, not the result


class Views(NamedTuple):
    """What frozen layers make of a split's images, in the place of these."""

    views: Tensor  # float32 (V, N, ...): of each image in V views


def place(images: ImageSet, device: torch.device) -> tuple[Tensor, Tensor]:
    """Put a split where its batches are taken from: the device itself, or, where that is too small, the file on disk.

    A whole cohort is small: 600 scans at 224 x 224 are 90 MB, and moved to a GPU once. On the CPU nothing is copied:
    the operating system reads the pages of the memory map as they are needed, and forgets them where memory is short.

    Returns:
        Pixels uint8 (N, C, H, W), on the device or still in the memory map, and labels int64 (N,) on the device.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nothing here writes
        pixels = torch.from_numpy(np.ascontiguousarray(images.pixels))
    if device.type != "cuda" or pixels.nbytes <= _SHARE_OF_FREE * torch.cuda.mem_get_info(device)[0]:
        pixels = pixels.to(device)
    return pixels, torch.from_numpy(images.labels).to(device)


def training_batches(
    images: Tensor | Views, labels: Tensor, config: TrainConfig, draws: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield all images once, in batches of a new order, half of them mirrored, altered as the settings say.

    With balance="sampling" as many images are drawn with replacement, each class as often as any other. A last batch
    in which a rank would have fewer than two images joins its neighbour: BatchNorm cannot learn from one.

    Args:
        images: uint8 (N, C, H, W), on the device or still in the memory map; or views, of which one is drawn for each
            image. Where mirroring is all there is, the draws are the same, and so are the batches.
        labels: int64 (N,), on the device.
        config: the settings.
        draws: generator of all that is random here, on the CPU, so that every device sees the same.
    """
    if config.balance == "sampling":
        counts = torch.bincount(labels.cpu())
        order = torch.multinomial(1 / counts[labels.cpu()], len(labels), replacement=True, generator=draws)
    else:
        order = torch.randperm(len(labels), generator=draws)
    batches = list(order.split(config.batch_size))
    if len(batches) > 1 and len(batches[-1]) < 2 * rank_and_size()[1]:
        batches[-2:] = [torch.cat(batches[-2:])]
    for rows in batches:
        if isinstance(images, Views):
            view = (torch.rand(len(rows), generator=draws) * len(images.views)).long().to(labels.device)
            batch = images.views[view, rows.to(labels.device)]
        else:
            batch = alter(images[rows.to(images.device)].to(labels.device), config, draws)
        yield batch, labels[rows.to(labels.device)]


def alter(images: Tensor, config: TrainConfig, draws: torch.Generator) -> Tensor:
    """Mirror half of the images, left to right, and alter them further, as the settings say.

    Args:
        images: uint8 or float (B, C, H, W), 0..255, on any device.
        config: the settings.
        draws: generator on the CPU, so that every device sees the same amounts.

    Returns:
        Same shape and range; uint8 stays uint8 where images are at most mirrored.
    """
    mirrored = (torch.rand(len(images), generator=draws) < 0.5).to(images.device)
    if config.flip:
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return augment(images, config, draws) if augments(config) else images


def batches_of(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and their labels on the labels' device, in order; nothing where there is no image."""
    if len(images):  # a rank has none where there are fewer images than ranks
        for batch, truth in zip(images.split(_BATCH), labels.split(_BATCH), strict=True):
            yield batch.to(labels.device), truth


class OutOfMemoryWarning(UserWarning):
    """A batch did not fit the device's memory and goes through in parts."""


class Memory:
    """How many images go through the network at once.

    Attributes:
        images_at_once: None, the whole batch, until the device first runs out of memory; halved each time it does.
    """

    def __init__(self) -> None:
        """Begin with whole batches."""
        self.images_at_once: int | None = None

    def in_parts(self, gradients: Gradients) -> Gradients:
        """Return a function that does what `gradients` does, in as many parts of the batch as memory asks for.

        Each image has its weight in the batch's loss, so the parts' losses and gradients add up to the batch's. What
        does change is BatchNorm while it learns: it sees a part where it would have seen the batch.

        Args:
            gradients: called with the model, the loss, and images, labels and weights of a batch; adds to the
                parameters' gradients, and returns the loss and the number of right answers.

        Returns:
            A function of the same arguments. It raises ModelError where not even two images fit.
        """

        def added_up(model: nn.Module, loss_of: object, *batch: Tensor) -> tuple[Tensor, Tensor]:
            while True:
                try:
                    parts = zip(*(tensor.tensor_split(self._parts(len(tensor))) for tensor in batch), strict=True)
                    losses, rights = zip(*(gradients(model, loss_of, *part) for part in parts), strict=True)
                    return torch.stack(losses).sum(), torch.stack(rights).sum()
                except RuntimeError as error:
                    if not _is_out_of_memory(error):
                        raise
                # Only here, where the error no longer holds the activations, can memory be given back.
                self._halve(len(batch[0]), batch[0].device, model)
                model.zero_grad()

        return added_up

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
            stacklevel=3,
        )


def _is_out_of_memory(error: RuntimeError) -> bool:
    """On the CPU torch says it in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
