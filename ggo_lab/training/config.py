"""The settings of a training run, and the optimizer that they name."""

import math
from contextlib import suppress
from dataclasses import dataclass, fields
from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import nn

from ggo_lab.errors import ChoiceError, check_choice, plain, shown
from ggo_lab.training.losses import LOSSES


class Speed(NamedTuple):
    """How numbers lie in memory and how precise the arithmetic is: it changes the time, hardly the result."""

    channels_last: bool = False  # pixels of all channels side by side, which many convolutions read faster
    bf16: bool = False  # 16-bit arithmetic where it is safe (autocast) while learning; weights stay 32-bit
    compile: bool = False  # torch.compile: layers fused into kernels made for this network, which takes a minute or so


PLAIN = Speed()


def memory_format(speed: Speed) -> torch.memory_format:
    """Return torch's name for how pixels lie in memory."""
    return torch.channels_last if speed.channels_last else torch.contiguous_format


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run. The paper (arXiv:2303.16904) is TrainConfig(patience=5, max_epochs=500)."""

    optimizer: str = "adam"  # "adam"; "adamw", with torch's weight decay of 0.01; or "sgd", with momentum 0.9
    lr: float = 1e-3  # learning rate, the paper's for every network
    batch_size: int = 16  # images per step; the paper tried 16 to 256
    max_epochs: int = 40  # the most passes over the train split
    patience: int = 12  # epochs without a better validation loss before stopping; 24 scans make a noisy loss
    min_delta: float = 0.0  # by how much the loss must fall to count as better
    loss: str = "cross_entropy"  # "corn": classes in an order; "involvement": it is regressed, the bands grade it
    balance: str = "none"  # for rare classes: "loss" weighs each class alike; "sampling" draws each as often
    flip: bool = True  # mirror each image, left to right, with probability 1/2, anew every epoch
    rotate: float = 0.0  # turn each image by up to so many degrees, either way
    scale: float = 0.0  # enlarge or shrink by up to this share, such as 0.1
    intensity: float = 0.0  # change contrast, and add grey, by up to this share of the range, such as 0.1
    views: int = 8  # with frozen layers and alterations beyond mirroring: views of each image that are computed, once
    reuse_frozen: bool = True  # compute the outputs of frozen layers once, not in every epoch
    unfreeze_at: tuple[int, ...] = ()  # with extent="head": the epochs from which last_block, then all layers learn
    seed: int = 101  # of the order, the mirroring and dropout; the paper's
    device: str = "auto"  # "auto": a GPU where there is one; or torch's name of a device, such as "cuda:1"
    speed: str | Speed = "auto"  # "auto": what suits network and device; "plain"; or a Speed (typed channels_last,bf16)

    def __post_init__(self) -> None:
        for field in fields(self):
            # A frozen dataclass is set up through object.__setattr__.
            object.__setattr__(self, field.name, _as_default(field.name, getattr(self, field.name), field.default))
        for name, (least, most, why) in _RANGES.items():
            if not least <= (value := getattr(self, name)) <= most:
                raise ChoiceError(f"{name}={shown(value)} is out of range{why}; give {least:g} to {most:g}.", value)
        for name, choices in {**_CHOICES, "loss": tuple(LOSSES)}.items():
            check_choice(name, getattr(self, name), choices)
        if not 0 < self.lr < math.inf:
            raise ChoiceError(f"lr={self.lr} is no step; give a value above 0, such as 1e-3.", self.lr)
        if not isinstance(self.speed, Speed):
            check_choice("speed", self.speed, ("auto", "plain"))
        if list(self.unfreeze_at) != sorted(set(self.unfreeze_at)) or min(self.unfreeze_at, default=2) < 2:
            raise ChoiceError(
                f"unfreeze_at={self.unfreeze_at} must be rising epochs from 2 on, such as (5, 10).", self.unfreeze_at
            )


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimizer of the parameters that learn."""
    learning = [p for p in model.parameters() if p.requires_grad]
    # All parameters in one pass, where torch has it.
    fused = all(p.device.type in ("cpu", "cuda") for p in learning)
    if config.optimizer == "adam":
        return torch.optim.Adam(learning, lr=config.lr, fused=fused)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(learning, lr=config.lr, fused=fused)
    return torch.optim.SGD(learning, lr=config.lr, momentum=0.9, fused=fused)


_MANY = 10**9
_RANGES: dict[str, tuple[float, float, str]] = {
    "batch_size": (2, _MANY, ": BatchNorm cannot learn from one image"),
    "max_epochs": (1, _MANY, ""),
    "patience": (1, _MANY, ""),
    "views": (1, _MANY, ""),
    "rotate": (0, 180, ""),
    "scale": (0, 0.9, ""),
    "intensity": (0, 1, ""),
    "seed": (0, 2**63 - 1, ""),
    # Guessing among four classes costs ln 4: to ask a loss to fall by more is to ask for what hardly ever happens.
    "min_delta": (0, math.log(4), ": hardly any epoch could count as better, and training would never or always stop"),
}
_CHOICES = {
    "optimizer": ("adam", "adamw", "sgd"),
    "balance": ("none", "loss", "sampling"),
}


def _as_default(name: str, value: Any, default: Any) -> Any:
    """Return a setting as Python's own bool, int, float or str; numpy's come from tables and grids.

    Raises:
        ChoiceError: another kind of value than the default.
    """
    given, value = value, plain(value)
    if isinstance(default, bool):
        fits, called = isinstance(value, bool), "True or False"
    elif isinstance(default, int):
        fits, called = isinstance(value, Integral) and not isinstance(value, bool), "a whole number"
    elif isinstance(default, float):
        fits, called = isinstance(value, Real | Decimal) and not isinstance(value, bool), "a number"
    elif isinstance(default, tuple):
        try:
            return tuple(_as_default("an epoch of unfreeze_at", epoch, 5) for epoch in given)
        except TypeError:  # a single number
            raise ChoiceError(f"unfreeze_at={shown(given)} must hold epochs, such as (5,).", given) from None
    elif isinstance(value, Speed):
        return Speed(*(_as_default(f"speed.{part}", on, True) for part, on in value._asdict().items()))
    else:
        value = str(value) if isinstance(value, torch.device) else value
        fits, called = isinstance(value, str), "a word"
    with suppress(OverflowError, ValueError):  # a number too large for one, or none at all
        if fits:
            return type(default)(value)
    raise ChoiceError(f"{name}={shown(given)} must be {called}, such as {default!r}.", given)
