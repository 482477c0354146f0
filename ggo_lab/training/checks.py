"""What is refused before training begins."""

from ggo_lab.backbones import EXTENTS, Backbone
from ggo_lab.errors import ChoiceError, CohortError
from ggo_lab.images import ImageSet
from ggo_lab.training.config import TrainConfig
from ggo_lab.training.ranks import rank_and_size


def check_splits(train: ImageSet, validation: ImageSet) -> None:
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


def check_unfreezing(model: Backbone, config: TrainConfig) -> None:
    """Refuse to unfreeze more often than there are frozen layers left."""
    frozen = {"head": 2, "last_block": 1}.get(model.extent, 0)
    if len(config.unfreeze_at) > frozen:
        raise ChoiceError(
            f"unfreeze_at={config.unfreeze_at} unfreezes {len(config.unfreeze_at)} times, but from "
            f"extent={model.extent!r} that can be done {frozen} times, in the order {EXTENTS[1:]}.",
            config.unfreeze_at,
        )


def check_ranks(config: TrainConfig) -> None:
    """Refuse batches that leave a rank without two images."""
    size = rank_and_size()[1]
    if config.batch_size < 2 * size:
        raise ChoiceError(
            f"batch_size={config.batch_size} is shared by {size} processes, and each needs two images; give "
            f"{2 * size} or more, or start fewer processes.",
            config.batch_size,
        )
