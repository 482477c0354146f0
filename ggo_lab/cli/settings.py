"""The settings of a training as options of a command, and back."""

from __future__ import annotations

import argparse
import inspect
import re
from dataclasses import fields
from typing import TYPE_CHECKING

from ggo_lab.errors import check_choice

if TYPE_CHECKING:  # a terminal's --help should not wait for torch
    from ggo_lab.training import Speed


def training_settings() -> dict[str, tuple[type, str]]:
    """Return the type of each setting of TrainConfig, and a line of help: the comment beside it, and its default."""
    from ggo_lab.training import TrainConfig

    said = dict(re.findall(r"^    (\w+): .+?  # (.+)$", inspect.getsource(TrainConfig), re.M))
    return {
        field.name: (type(field.default), f"{said[field.name]} (default: {field.default})".replace("%", "%%"))
        for field in fields(TrainConfig)
    }


def is_axis(kind: type) -> bool:
    """Whether `sweep` takes several values of a setting of this type."""
    return kind not in (bool, tuple)


def given(options: argparse.Namespace, *names: str) -> dict:
    """The options that the user typed; the rest keep the defaults of the dataclass they go to."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def as_speed(text: str) -> str | Speed:
    """Give what TrainConfig.speed takes, of what was typed."""
    from ggo_lab.training import Speed

    if text in ("auto", "plain"):
        return text
    for part in text.split(","):
        check_choice("speed", part, ("auto", "plain", *Speed._fields))
    return Speed(**dict.fromkeys(text.split(","), True))
