"""What a run needs before its first epoch: data on the device, layers that learn, an optimizer, speed settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ggo_lab.backbones import Backbone
from ggo_lab.images import ImageSet
from ggo_lab.training.batches import grade_weights, training_batches
from ggo_lab.training.checkpoints import Checkpoint, Progress
from ggo_lab.training.checks import check_ranks, check_splits, check_unfreezing
from ggo_lab.training.config import PLAIN, Speed, TrainConfig
from ggo_lab.training.devices import choose_device, on_device
from ggo_lab.training.memory import Memory
from ggo_lab.training.prefix import Rest, compute_frozen_once, feature_batches
from ggo_lab.training.ranks import Shared, rank_and_size, share
from ggo_lab.training.speed import choose_speed, memory_format
from ggo_lab.training.steps import make_optimizer


@dataclass
class Run:
    """The pieces of a training run, as `fit` uses them.

    Attributes:
        model: the whole network.
        learner: what takes the steps: the model, or what comes after its frozen prefix; shared where there are ranks.
        draws: generator of the order and the alterations.
        unseen, unseen_targets: the validation split, as the learner takes it; this rank's share.
        views: as in History.
    """

    model: Backbone
    learner: Backbone | Rest | Shared
    images: Tensor
    targets: Tensor
    unseen: Tensor
    unseen_targets: Tensor
    config: TrainConfig
    device: torch.device
    optimizer: torch.optim.Optimizer
    speed: Speed
    memory: Memory
    draws: torch.Generator
    class_weights: Tensor | None
    checkpoint: Checkpoint | None
    views: int

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the batches of an epoch."""
        make = feature_batches if self.views else training_batches
        for images, targets in make(self.images, self.targets, self.config, self.draws):
            yield share(images), share(targets)

    def unfreeze(self) -> None:
        """Let the next layers learn too."""
        self.optimizer.add_param_group({"params": self.model.unfreeze()})
        if isinstance(self.learner, Shared):
            self.learner = Shared(self.model)

    def resume(self) -> Progress:
        """Give the progress of the checkpoint, with everything put back as it was; a new one where there is none."""
        if self.checkpoint is None:
            return Progress()
        for epoch in self.config.unfreeze_at:
            if epoch <= self.checkpoint.epochs:
                self.unfreeze()
        return self.checkpoint.resume(self.model, self.optimizer, self.draws, self.memory)

    def store(self, progress: Progress) -> None:
        """Write the checkpoint, where one is asked for."""
        if self.checkpoint is not None:
            self.checkpoint.store(self.model, self.optimizer, self.draws, self.memory, progress, self.speed)


def set_up(
    model: Backbone,
    train: ImageSet,
    validation: ImageSet,
    config: TrainConfig,
    progress: bool,
    checkpoint: str | Path | None,
) -> Run:
    """Check what was given to `fit`, and make all that the loop needs; see `fit` for arguments and errors."""
    check_splits(train, validation)
    check_unfreezing(model, config)
    check_ranks(config)
    device = choose_device(config.device)
    kept = None if checkpoint is None else Checkpoint(checkpoint, model, train, validation, config)
    images, targets = on_device(train, device)
    unseen, unseen_targets = (share(part) for part in on_device(validation, device))
    model.to(device)
    model.ordinal = config.loss == "corn"
    learner, views = model, 0
    if model.extent in ("head", "last_block") and config.reuse_frozen and not config.unfreeze_at:
        once = compute_frozen_once(model, images, unseen, config, progress)
        if once is not None:
            learner, images, unseen, views = once.rest, once.views, once.unseen, len(once.views)
    memory = Memory()
    if kept and kept.speed:
        speed = kept.speed
    elif views and model.extent == "head" and not isinstance(config.speed, Speed):
        speed = PLAIN  # one layer is left: there is nothing to win
    else:
        speed = choose_speed(learner, images[0] if views else images, targets, config, memory)
    model.to(memory_format=memory_format(speed))
    class_weights = grade_weights(targets) if config.balance == "loss" else None
    draws = torch.Generator().manual_seed(config.seed)
    optimizer = make_optimizer(learner, config)
    if rank_and_size()[1] > 1:
        learner = Shared(learner)
    return Run(
        model, learner, images, targets, unseen, unseen_targets, config, device, optimizer, speed, memory, draws,
        class_weights, kept, views,
    )  # fmt: skip
