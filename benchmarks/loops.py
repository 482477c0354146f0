"""The loops that several benchmarks time: a plain one in the paper's manner, and ours; the same weights and images."""

from collections.abc import Callable, Iterable, Iterator

import torch
from synthetic import images as noise
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import ggo_lab as gl
from ggo_lab.training import LOSSES, Speed, training_batches
from ggo_lab.training.batches import place
from ggo_lab.training.config import make_optimizer
from ggo_lab.training.devices import choose_device
from ggo_lab.training.loop import gradients
from ggo_lab.training.losses import Weights
from ggo_lab.training.speed import set_speed, suited
from ggo_lab.training.tally import Tally

IMAGES = 64
# 25 epochs of 4 steps are just enough for settings to be tried; without mirroring all see the same images.
CONFIG = gl.TrainConfig(batch_size=16, max_epochs=25, patience=25, flip=False, lr=1e-4)

Epoch = Callable[[], tuple[float, str]]  # trains once on all images; gives the loss and a word on the settings


class Scans(Dataset):
    """As the paper's code holds them: arrays of bytes, made floats and normalised one by one."""

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def __init__(self, pixels, labels):
        self.pixels, self.labels = pixels, labels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int):
        return (torch.from_numpy(self.pixels[i]).float() / 255 - self.mean) / self.sd, self.labels[i]


class Order:
    """The order in which ours draws the images of each epoch."""

    def __init__(self):
        self.draws = torch.Generator().manual_seed(CONFIG.seed)

    def __len__(self) -> int:
        return IMAGES

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(IMAGES, generator=self.draws).tolist()
        torch.rand(IMAGES, generator=self.draws)  # ours draws whom to mirror, too
        return iter(order)


def network_and_loader(name: str, workers: int = 0, size: int = 224) -> tuple[torch.nn.Module, DataLoader]:
    """Make what every other loop learns with: a torchvision network of four outputs and torch's own loader."""
    device, data = choose_device("auto"), noise(IMAGES, "train", size)
    network = gl.build_backbone(name, weights=None).network.to(device)
    loader = DataLoader(
        Scans(data.pixels, data.labels),
        CONFIG.batch_size,
        sampler=Order(),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    return network, loader


def plain(name: str, workers: int = 0, size: int = 224) -> Epoch:
    """Make the plain loop."""
    network, loader = network_and_loader(name, workers, size)
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=CONFIG.lr)

    def epoch() -> tuple[float, str]:
        network.train()
        total = 0.0
        for images, targets in loader:
            images, targets = images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = cross_entropy(network(images), targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(images)
        return total / len(loader.dataset), "plain"

    return epoch


def ours(name: str, ready: bool = False, size: int = 224) -> Epoch:
    """Make our loop, with the settings that `fit` takes here.

    Args:
        ready: the same batches in every epoch, made beforehand.
    """
    pixels, labels = place(noise(IMAGES, "train", size), choose_device("auto"))
    model = gl.build_backbone(name, weights=None).to(pixels.device)
    speed = suited(model, pixels.device)
    learner = set_speed(model, speed)
    optimizer, draws = make_optimizer(model, CONFIG), torch.Generator().manual_seed(CONFIG.seed)
    batches = list(training_batches(pixels, labels, CONFIG, draws)) if ready else None

    def epoch() -> tuple[float, str]:
        return learn(learner, batches or training_batches(pixels, labels, CONFIG, draws), optimizer), settings(speed)

    return epoch


def learn(model: torch.nn.Module, batches: Iterable, optimizer: torch.optim.Optimizer) -> float:
    """One epoch as `fit` has it; gives the mean loss."""
    model.train()
    tally = Tally()
    for images, labels in batches:
        optimizer.zero_grad()
        weights = Weights(labels, 4, balanced=False)(labels)
        tally.add(*gradients(model, LOSSES["cross_entropy"], images, labels, weights), len(labels))
        optimizer.step()
    return tally.means(1, model, optimizer)[0]


def settings(speed: Speed) -> str:
    return ", ".join(field for field, used in speed._asdict().items() if used) or "plain"
