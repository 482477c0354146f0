"""A task that a network of three layers learns in a second: the higher the label, the larger the bright square."""

import numpy as np
import pandas as pd
import torch
from torch import nn

import ggo_lab as gl
from ggo_lab.backbones import Backbone
from ggo_lab.training import TrainConfig, fit

SIZE = 32


def squares(n, split, seed=0):
    """A task that can be learnt: the higher the label, the larger the bright square."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    pixels = rng.integers(0, 60, (n, 3, SIZE, SIZE), dtype=np.uint8)
    for image, label in zip(pixels, labels, strict=True):
        side = 7 * (1 + label)
        top, left = rng.integers(0, SIZE - side, 2)
        image[:, top : top + side, left : left + side] += 150
    names = [f"{split}{seed}-{i}" for i in range(n)]
    table = pd.DataFrame({"name": names, "patient": names, "label": pd.array(labels, dtype="Int64"), "split": split})
    return gl.images.ImageSet(pixels, table, gl.Recipe(size=SIZE))


TRAIN, VALIDATION = squares(40, "train"), squares(20, "validation")


def tiny(seed=0, dropout=0.0):
    """A Backbone around a network of three layers, which learns the squares in a second."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2),
            nn.BatchNorm2d(8, momentum=0.3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(128, 4),
        )
    return Backbone.around(network, head="6", size=SIZE, name="tiny")


def config(**settings):
    return TrainConfig(**{"batch_size": 8, "max_epochs": 3, "speed": "plain", **settings})


def quick(model=None, train=TRAIN, validation=VALIDATION, **settings):
    """Fit a model for a few epochs; give it and its history."""
    model = model or tiny()
    return model, fit(model, train, validation, config(**settings), progress=False)


def tensors(images):
    return torch.from_numpy(images.pixels), torch.from_numpy(images.labels)


def copied(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def curves(history):
    return history.table.drop(columns="seconds")
