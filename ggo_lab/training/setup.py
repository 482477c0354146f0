"""What a run needs before its first epoch: data on the device, layers that learn, an optimizer, speed settings."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ggo_lab.backbones import EXTENTS, Backbone, Learner
from ggo_lab.errors import ChoiceError, CohortError
from ggo_lab.images import ImageSet
from ggo_lab.training.batches import grade_weights, training_batches
from ggo_lab.training.checkpoints import Checkpoint, Progress
from ggo_lab.training.config import PLAIN, Speed, TrainConfig
from ggo_lab.training.devices import choose_device, place
from ggo_lab.training.memory import Memory
from ggo_lab.training.prefix import compute_frozen_once, feature_batches
from ggo_lab.training.ranks import Shared, rank_and_size, share
from ggo_lab.training.speed import Compiled, choose_speed, memory_format
from ggo_lab.training.steps import make_optimizer


@dataclass
class Run:
    """The pieces of a training run, as `fit` uses them.

    Attributes:
        model: the whole network.
        learner: what takes the steps: the model, or what comes after its frozen prefix; shared where there are ranks.
        draws: generator of the order and the alterations.
        unseen, unseen_targets: the validation split, as the learner takes it; this rank's share.
        tried, views: as in History.
    """

    model: Backbone
    learner: Learner
    images: Tensor
    targets: Tensor
    unseen: Tensor
    unseen_targets: Tensor
    config: TrainConfig
    device: torch.device
    optimizer: torch.optim.Optimizer
    speed: Speed
    tried: dict[Speed, float]
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
            self.learner = Shared(self.learner.model)

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
    _check_splits(train, validation)
    _check_unfreezing(model, config)
    _check_ranks(config)
    device = choose_device(config.device)
    kept = None if checkpoint is None else Checkpoint(checkpoint, model, train, validation, config)
    images, targets = place(train, device)
    unseen, unseen_targets = (share(part) for part in place(validation, device))
    model.to(device)
    model.ordinal = config.loss == "corn"
    learner: Learner = model
    views = 0
    if model.extent in ("head", "last_block") and config.reuse_frozen and not config.unfreeze_at:
        once = compute_frozen_once(model, images, unseen, config, progress)
        if once is not None:
            learner, images, unseen, views = once.rest, once.views, once.unseen, len(once.views)
    memory = Memory()
    tried: dict[Speed, float] = {}
    if kept and kept.speed:
        speed = kept.speed
    elif views and model.extent == "head" and not isinstance(config.speed, Speed):
        speed = PLAIN  # one layer is left: there is nothing to win
    else:
        speed, tried = choose_speed(learner, images[0] if views else images, targets, config, memory)
    model.to(memory_format=memory_format(speed))
    class_weights = grade_weights(targets) if config.balance == "loss" else None
    draws = torch.Generator().manual_seed(config.seed)
    optimizer = make_optimizer(learner, config)
    if speed.compile:
        learner = Compiled(learner)
    if rank_and_size()[1] > 1:
        learner = Shared(learner)
    return Run(
        model, learner, images, targets, unseen, unseen_targets, config, device, optimizer, speed, tried,
        memory, draws, class_weights, kept, views,
    )  # fmt: skip


def _check_splits(train: ImageSet, validation: ImageSet) -> None:
    for name, images in (("train", train), ("validation", validation)):
        if len(images) == 0:
            raise CohortError(f"The {name} split is empty; call cohort.split_by_patient() before prepare.")
        unknown = [n for n, index in zip(images.names, images.indices, strict=True) if index < 0]
        if unknown:
            raise CohortError(
                f"{len(unknown)} scans of the {name} split have no grade, such as {unknown[0]}; nothing can be "
                "learnt or judged from them. Leave them out with subset.",
                unknown,
            )
    if len(train) == 1:
        raise CohortError("The train split holds one scan; two are the least that BatchNorm can learn from.")
    if shared := sorted(set(train.patients) & set(validation.patients)):
        raise CohortError(
            f"{len(shared)} patients are in both train and validation, such as {shared[0]}: the network would be "
            "judged on people it has seen. Use cohort.split_by_patient().",
            shared,
        )
    if train.recipe != validation.recipe:
        raise CohortError(f"train and validation were prepared differently: {train.recipe} and {validation.recipe}.")


def _check_unfreezing(model: Backbone, config: TrainConfig) -> None:
    """Refuse to unfreeze more often than there are frozen layers left."""
    frozen = {"head": 2, "last_block": 1}.get(model.extent, 0)
    if len(config.unfreeze_at) > frozen:
        raise ChoiceError(
            f"unfreeze_at={config.unfreeze_at} unfreezes {len(config.unfreeze_at)} times, but from "
            f"extent={model.extent!r} that can be done {frozen} times, in the order {EXTENTS[1:]}.",
            config.unfreeze_at,
        )


def _check_ranks(config: TrainConfig) -> None:
    """Refuse batches that leave a rank without two images."""
    size = rank_and_size()[1]
    if config.batch_size < 2 * size:
        raise ChoiceError(
            f"batch_size={config.batch_size} is shared by {size} processes, and each needs two images; give "
            f"{2 * size} or more, or start fewer processes.",
            config.batch_size,
        )
