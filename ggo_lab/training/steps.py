"""One epoch: learn from every batch once, and score the images that are not learnt from."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ggo_lab.backbones import Learner
from ggo_lab.errors import ModelError
from ggo_lab.training.config import PLAIN, Speed, TrainConfig
from ggo_lab.training.devices import bring
from ggo_lab.training.memory import Memory
from ggo_lab.training.ranks import rank_and_size, summed

_SCORE_BATCH = 64  # images at once when nothing is learnt; it changes memory and time, not the result


def train_epoch(
    model: Learner,
    batches: Iterable[tuple[Tensor, Tensor]],
    optimizer: torch.optim.Optimizer,
    speed: Speed = PLAIN,
    epoch: int = 1,
    memory: Memory | None = None,
    class_weights: Tensor | None = None,
) -> tuple[float, float]:
    """Learn from every batch once; give the mean loss and the accuracy while learning.

    Args:
        batches: images uint8 (B, 3, H, W) and targets int64 (B,), grade - 1, on the model's device.
        epoch: its number, for the message of an error.
        class_weights: float (4,), how much an image of each grade counts; None: all alike.
        memory: remembers from epoch to epoch how many images the device takes at once.
    Raises:
        ModelError: the loss is no longer a number, or two images are too many for the device's memory.
    """

    def gradients(images: Tensor, targets: Tensor, total: float | Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=speed.bf16):
            outputs = model.outputs(images)
            errors = [w * cross_entropy(y.float(), targets, class_weights, reduction="sum") for w, y in outputs]
            loss = torch.stack(errors).sum() / total
        loss.backward()
        return loss.detach(), (outputs[0][1].argmax(1) == targets).sum()

    model.train()
    memory, ranks = memory or Memory(), rank_and_size()[1]
    losses, right, sizes = [], [], []
    for images, targets in batches:
        optimizer.zero_grad()
        total: float | Tensor = len(images) if class_weights is None else class_weights[targets].sum()
        if ranks > 1:  # the mean over ranks, as gradients will be
            total = summed(torch.as_tensor(total, dtype=torch.float32, device=images.device)) / ranks
        # All at once, unless the device has run out of memory.
        loss, correct = memory.in_parts(gradients, model, images, targets, total)
        optimizer.step()
        losses.append(loss)
        right.append(correct)
        sizes.append(len(images))
    # Numbers are fetched once an epoch: each fetch makes the program wait for the GPU.
    means = (summed(torch.stack(losses)) / ranks).tolist()
    counts = summed(torch.tensor(sizes, device=images.device)).tolist()
    for step, loss in enumerate(means, 1):
        if not math.isfinite(loss):
            what = f"The training loss is {loss} at step {step} of epoch {epoch}"
            if step == epoch == 1:
                raise ModelError(
                    f"{what}, before anything was learnt: the weights of {model.name} with which it began hold values "
                    "that are no numbers, or are far too large. Build it anew, from other weights."
                )
            raise diverged(what, model, optimizer)
    # Weighted by size: the last batch may be smaller, and its images count no more than others.
    mean = sum(loss * count for loss, count in zip(means, counts, strict=True)) / sum(counts)
    return mean, summed(torch.stack(right)).sum().item() / sum(counts)


@torch.inference_mode()
def score(model: Learner, images: Tensor, targets: Tensor) -> tuple[float, float]:
    """Give the mean loss and the accuracy on images that the model does not learn from.

    Always in 32-bit arithmetic, so that the state is chosen by the numbers that `predict` will find again.

    Args:
        images: uint8 (N, 3, H, W), on the model's device or still in the memory map.
        targets: int64 (N,), grade - 1, on the model's device.
    """
    model.eval()
    loss_sum = right = 0.0
    # Each rank has some of the images, or, where there are fewer images than ranks, none.
    batches = zip(images.split(_SCORE_BATCH), targets.split(_SCORE_BATCH), strict=True) if len(images) else ()
    for batch, batch_targets in batches:
        logits = model(bring(batch, targets.device))
        loss_sum += cross_entropy(logits, batch_targets, reduction="sum").item()
        right += (logits.argmax(1) == batch_targets).sum().item()
    loss_sum, right, count = summed(
        torch.tensor([loss_sum, right, len(images)], dtype=torch.float64, device=targets.device)
    ).tolist()
    return loss_sum / count, right / count


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimizer of the parameters that learn."""
    learning = [p for p in model.parameters() if p.requires_grad]
    # All parameters in one pass, where torch has it.
    fused = all(p.device.type in ("cpu", "cuda") for p in learning)
    if config.optimizer == "adam":
        return torch.optim.Adam(learning, lr=config.lr, fused=fused)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(learning, lr=config.lr, fused=fused)
    return torch.optim.SGD(learning, lr=config.lr, momentum=0.9, fused=fused)


def diverged(what: str, model: Learner, optimizer: torch.optim.Optimizer) -> ModelError:
    """Make the error of a loss that is no number, with its likely cause."""
    lr = optimizer.param_groups[0]["lr"]
    return ModelError(
        f"{what}: the weights have grown without bound. Most likely lr={lr:g} is too high for {model.name}; build the "
        f"model anew, for its weights are spoilt, and try lr={lr / 10:g}. If that does not help, the pretrained "
        "weights may be damaged.",
        lr,
    )
