"""What `fit` refuses before it begins."""

import torch

from ggo_lab.backbones import EXTENTS, Backbone
from ggo_lab.backbones.network import check_can_learn
from ggo_lab.cohort.splits import check_patients_apart
from ggo_lab.errors import ChoiceError, CohortError, ModelError
from ggo_lab.images import ImageSet
from ggo_lab.training.config import TrainConfig
from ggo_lab.training.losses import LOSSES
from ggo_lab.training.ranks import rank_and_size


def check_fit(model: Backbone, train: ImageSet, validation: ImageSet, config: TrainConfig) -> None:
    """Refuse what could not be learnt from, or would mislead; see `fit` for arguments and errors."""
    _check_splits(train, validation)
    _check_model(model, train, config)
    _check_unfreezing(model, config)
    _check_ranks(config)


def _check_splits(train: ImageSet, validation: ImageSet) -> None:
    for split, images in (("train", train), ("validation", validation)):
        if len(images) == 0:
            raise CohortError(f"The {split} split is empty; call cohort.split_by_patient() before prepare.")
        unknown = [name for name, label in zip(images.names, images.labels, strict=True) if label < 0]
        if unknown:
            raise CohortError(
                f"{len(unknown)} scans of the {split} split have no label, such as {unknown[0]}; nothing can be "
                "learnt or judged from them. Leave them out with subset.",
                unknown,
            )
    if len(train) == 1:
        raise CohortError("The train split holds one scan; two are the least that BatchNorm can learn from.")
    check_patients_apart({"train": train.patients, "validation": validation.patients})
    if train.task != validation.task:
        raise CohortError(
            f"train and validation have other labels: {train.task} and {validation.task}; prepare both from one cohort."
        )
    if train.recipe != validation.recipe:
        raise CohortError(
            f"train and validation were prepared differently: {train.recipe} and {validation.recipe}; prepare both by "
            "one recipe."
        )


def _check_model(model: Backbone, train: ImageSet, config: TrainConfig) -> None:
    model.check_shape(train.pixels.shape)
    check_can_learn(model)
    if not any(p.requires_grad for p in model.parameters()):
        raise ModelError(
            f"No layer of {model.name} learns: all its parameters have requires_grad=False. Build it with another "
            'extent, such as "head".',
            model.name,
        )
    if model.task != train.task:
        raise ModelError(
            f"{model.name} tells {', '.join(model.task.names)}, and the images' labels are "
            f"{', '.join(train.task.names)}; build it for them: build_backbone(..., task=images.task).",
            train.task,
        )
    kinds = {p.dtype for p in model.parameters()}
    if kinds != {torch.float32}:
        raise ModelError(
            f"{model.name} has weights of {', '.join(sorted(map(str, kinds)))}; steps as small as those of training "
            "need 32 bits. Call model.float() before fit.",
            model.name,
        )
    reading = LOSSES[config.loss].reading
    if reading == "involvement" and model.task.bands is None:
        raise ChoiceError(
            f"loss={config.loss!r} regresses the involvement, which does not decide between "
            f"{', '.join(model.task.names)}; use cross_entropy.",
            config.loss,
        )
    if reading == "corn" and not model.task.ordered:
        raise ChoiceError(
            f"loss={config.loss!r} is for classes in an order, and {', '.join(model.task.names)} have none; use "
            "cross_entropy.",
            config.loss,
        )


def _check_unfreezing(model: Backbone, config: TrainConfig) -> None:
    """Refuse to unfreeze more often than there are frozen layers left."""
    frozen = len(EXTENTS) - 1 - EXTENTS.index(model.extent)
    if len(config.unfreeze_at) > frozen:
        raise ChoiceError(
            f"unfreeze_at={config.unfreeze_at} unfreezes {len(config.unfreeze_at)} times, but from "
            f"extent={model.extent!r} that can be done {frozen} times, in the order {EXTENTS}.",
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
