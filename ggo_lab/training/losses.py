"""What a network is asked to make small: functions of its outputs and the labels. A new loss is one entry of LOSSES."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ggo_lab.training.ranks import rank_and_size

_AUXILIARY_WEIGHT = 0.4  # of Inception's second output: the paper's, and torchvision's when it trained it


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return minus the logarithm of the probability of each image's label, (B,); guessing among K costs ln K."""
    return functional.cross_entropy(logits.float(), labels, reduction="none")


@dataclass(frozen=True)
class Loss:
    """A loss, called with what a model gives for images and with their labels (B,): the loss of each image, (B,).

    Attributes:
        of: computes it from logits (B, K) and labels (B,).
        reading: what the network's outputs stand for (Backbone.reading): "corn" and "involvement" make of them
            log-probabilities of classes in an order.
    """

    of: Callable[[Tensor, Tensor], Tensor]
    reading: str = "logits"

    def __call__(self, outputs: Tensor | tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """Return the loss of each image; the auxiliary output, which only Inception has, counts 0.4."""
        if isinstance(outputs, Tensor):
            return self.of(outputs, labels)
        return self.of(outputs[0], labels) + _AUXILIARY_WEIGHT * self.of(outputs[1], labels)


LOSSES = {
    "cross_entropy": Loss(cross_entropy),
    # The cross-entropy of CORN's log-probabilities is the loss of its paper (equation 5), but for a factor.
    "corn": Loss(cross_entropy, reading="corn"),
    # The network regresses the involvement, and the bands turn it into a grade.
    "involvement": Loss(cross_entropy, reading="involvement"),
}


def main_logits(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return the logits (B, K) of the main output."""
    return outputs if isinstance(outputs, Tensor) else outputs[0]


class Weights:
    """How much each image of a batch counts in the batch's mean loss; the weights of a batch add up to one.

    All count alike, or, where balanced, so that all classes do. Of several ranks each has a part of the batch,
    and its weights are multiplied by the number of ranks, since gradients will be averaged over them.
    """

    def __init__(self, labels: Tensor, classes: int, balanced: bool):
        """Look at how frequent the classes are.

        Args:
            labels: int64 (N,), of the train split.
            classes: of the task.
            balanced: whether all classes count alike, not all images.
        """
        self._of_class = class_weights(labels, classes) if balanced else None

    def __call__(self, labels: Tensor) -> Tensor:
        """Return the weights of a batch, float (B,).

        Args:
            labels: int64 (B,), of the whole batch.
        """
        alike = torch.ones(len(labels), device=labels.device)
        weights = alike if self._of_class is None else self._of_class[labels]
        return weights * rank_and_size()[1] / weights.sum()


def class_weights(labels: Tensor, classes: int) -> Tensor:
    """Return the weight of each class that lets all classes count alike, whatever their number of images.

    Args:
        labels: int64 (N,).
        classes: of the task, K.

    Returns:
        Float32 (K,), N / (classes present x images of the class); 0 for a class without images.
    """
    counts = torch.bincount(labels, minlength=classes).float()
    return torch.where(counts > 0, len(labels) / ((counts > 0).sum() * counts.clamp(min=1)), 0.0)
