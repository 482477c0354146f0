"""The settings of a training run."""

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import NamedTuple

from ggo_lab.errors import ChoiceError, check_choice
from ggo_lab.grades import Grade

_CHANCE_LOSS = math.log(len(Grade))  # 1.386: the cross-entropy of giving every grade a quarter

# What a setting may be, by the type of its default; numpy's numbers count too.
_KINDS = {bool: (bool, "True or False"), int: (Integral, "a whole number"), float: (Real, "a number")}


class Speed(NamedTuple):
    """How numbers lie in memory and how precise the arithmetic is: it changes the time, hardly the result."""

    channels_last: bool = False  # pixels of all channels side by side, which many convolutions read faster
    bf16: bool = False  # 16-bit arithmetic where it is safe (autocast) while learning; weights stay 32-bit
    compile: bool = False  # torch.compile: layers fused into kernels made for this network, which takes a minute or so


PLAIN = Speed()


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run. The paper (arXiv:2303.16904) is TrainConfig(patience=5, max_epochs=500)."""

    optimizer: str = "adam"  # "adam"; "adamw", with torch's weight decay of 0.01; or "sgd", with momentum 0.9
    lr: float = 1e-3  # learning rate, the paper's for every network
    batch_size: int = 16  # images per step; the paper tried 16 to 256
    max_epochs: int = 40  # the most passes over the train split
    patience: int = 12  # epochs without a better validation loss before stopping; 24 scans make a noisy loss
    min_delta: float = 0.0  # by how much the loss must fall to count as better
    loss: str = "cross_entropy"  # or "corn": grades follow each other, see corn_logits; probabilities stay (B, 4)
    balance: str = "none"  # for rare grades: "loss" weighs each grade alike; "sampling" draws each grade as often
    flip: bool = True  # mirror half of the images, left to right, drawn anew every epoch
    rotate: float = 0.0  # turn each image by up to so many degrees, either way
    scale: float = 0.0  # enlarge or shrink by up to this share, such as 0.1
    intensity: float = 0.0  # change contrast, and add grey, by up to this share of the range, such as 0.1
    views: int = 8  # with frozen layers and alterations beyond mirroring: views of each image that are computed, once
    reuse_frozen: bool = True  # compute the outputs of frozen layers once, not in every epoch
    unfreeze_at: tuple[int, ...] = ()  # with extent="head": the epochs from which last_block, then all layers learn
    seed: int = 101  # of the order, the mirroring and dropout; the paper's
    device: str = "auto"  # "auto": a GPU where there is one; or torch's name of a device, such as "cuda:1"
    speed: str | Speed = "auto"  # "auto": the fastest on this machine, tried once and remembered; "plain"; or a Speed

    def __post_init__(self) -> None:
        for field in fields(self):
            kind, called = _KINDS.get(type(field.default), (object, ""))
            if not isinstance(value := getattr(self, field.name), kind):
                raise ChoiceError(f"{field.name}={value!r} must be {called}, such as {field.default}.", value)
        check_choice("optimizer", self.optimizer, ("adam", "adamw", "sgd"))
        check_choice("loss", self.loss, ("cross_entropy", "corn"))
        check_choice("balance", self.balance, ("none", "loss", "sampling"))
        for name, most in (("rotate", 180), ("scale", 0.9), ("intensity", 1)):
            if not 0 <= getattr(self, name) <= most:
                raise ChoiceError(
                    f"{name}={getattr(self, name)} is out of range; give 0 to {most}.", getattr(self, name)
                )
        try:
            object.__setattr__(self, "unfreeze_at", tuple(int(epoch) for epoch in self.unfreeze_at))
        except TypeError:  # a single number
            raise ChoiceError(
                f"unfreeze_at={self.unfreeze_at!r} must hold epochs, such as (5,).", self.unfreeze_at
            ) from None
        if list(self.unfreeze_at) != sorted(set(self.unfreeze_at)) or min(self.unfreeze_at, default=2) < 2:
            raise ChoiceError(
                f"unfreeze_at={self.unfreeze_at} must be rising epochs from 2 on, such as (5, 10).", self.unfreeze_at
            )
        for name, least in (("max_epochs", 1), ("patience", 1), ("batch_size", 2), ("views", 1)):
            if getattr(self, name) < least:
                why = ": BatchNorm cannot learn from one image" if name == "batch_size" else ""
                raise ChoiceError(
                    f"{name}={getattr(self, name)} is too small{why}; give {least} or more.", getattr(self, name)
                )
        if not 0 < self.lr < math.inf:
            raise ChoiceError(f"lr={self.lr} is no step; give a value above 0, such as 1e-3.", self.lr)
        if not 0 <= self.min_delta < _CHANCE_LOSS:
            raise ChoiceError(
                f"min_delta={self.min_delta}: chance itself scores a loss of ln 4 = {_CHANCE_LOSS:.3f}, so hardly any "
                "epoch could count as better, and the count of epochs without one would mean nothing; give a value "
                "from 0 to about 0.1.",
                self.min_delta,
            )
        if not isinstance(self.speed, Speed):
            check_choice("speed", self.speed, ("auto", "plain"))
