"""The loops that several benchmarks time: a plain one in the paper's manner, and ours; the same weights and images."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext

import torch
from synthetic import images as noise
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import ggo_lab as gl
from ggo_lab.training import Speed, train_epoch, training_batches
from ggo_lab.training.devices import choose_device, freed_memory_kept, place
from ggo_lab.training.memory import Memory
from ggo_lab.training.speed import choose_speed, memory_format
from ggo_lab.training.steps import make_optimizer

IMAGES = 64
# 25 epochs of 4 steps are just enough for settings to be tried; without mirroring all see the same images.
CONFIG = gl.TrainConfig(batch_size=16, max_epochs=25, patience=25, flip=False, lr=1e-4)

Epoch = Callable[[], tuple[float, str]]  # trains once on all images; gives the loss and a word on the settings


class Scans(Dataset):
    """As the paper's code holds them: arrays of bytes, made floats and normalised one by one."""

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def __init__(self, pixels, indices):
        self.pixels, self.indices = pixels, indices

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, i: int):
        return (torch.from_numpy(self.pixels[i]).float() / 255 - self.mean) / self.sd, self.indices[i]


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
    network = gl.build_backbone(name, "scratch").network.to(device)
    loader = DataLoader(
        Scans(data.pixels, data.indices),
        CONFIG.batch_size,
        sampler=Order(),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    return network, loader


def plain(name: str, workers: int = 0, size: int = 224, keep_memory: bool = False) -> Epoch:
    """Make the plain loop.

    Args:
        keep_memory: as `fit` keeps it, which says what that alone is worth.
    """
    network, loader = network_and_loader(name, workers, size)
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=CONFIG.lr)
    kept = ExitStack()
    kept.enter_context(freed_memory_kept() if keep_memory else nullcontext())

    def epoch(_kept: ExitStack = kept) -> tuple[float, str]:
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


def probed(name: str, size: int = 224) -> tuple[Speed, dict[Speed, float]]:
    """The settings that `fit` would choose for a long run here, and all that it tries."""
    pixels, targets = place(noise(IMAGES, "train", size), choose_device("auto"))
    model = gl.build_backbone(name, "scratch").to(pixels.device)
    with freed_memory_kept():  # as `fit` tries them
        return choose_speed(model, pixels, targets, CONFIG, Memory())


def ours(name: str, ready: bool = False, size: int = 224) -> Epoch:
    """Make our loop, with the settings that the probe chooses.

    Args:
        ready: the same batches in every epoch, made beforehand.
    """
    pixels, targets = place(noise(IMAGES, "train", size), choose_device("auto"))
    speed, _ = probed(name, size)
    model = gl.build_backbone(name, "scratch").to(pixels.device, memory_format=memory_format(speed))
    optimizer, draws = make_optimizer(model, CONFIG), torch.Generator().manual_seed(CONFIG.seed)
    batches = list(training_batches(pixels, targets, CONFIG, draws)) if ready else None
    kept = ExitStack()
    kept.enter_context(freed_memory_kept())  # as `fit` does

    def epoch(_kept: ExitStack = kept) -> tuple[float, str]:
        now = batches or training_batches(pixels, targets, CONFIG, draws)
        return train_epoch(model, now, optimizer, speed)[0], settings(speed)

    return epoch


def settings(speed: Speed) -> str:
    return ", ".join(field for field, used in speed._asdict().items() if used) or "plain"
