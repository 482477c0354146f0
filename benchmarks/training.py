"""Time training beside a plain PyTorch loop in the paper's manner: fp32, rows of channels, a DataLoader.

    python benchmarks/training.py [backbone ...]

Both begin with the same weights and see the same batches in the same order, in turn, an epoch each. On a GPU the last
column says what a loop over batches that already lie there would reach.
"""

import statistics
import sys
import time
from copy import deepcopy

import torch
from machine import facts
from synthetic import images as noise
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import ggo_lab as gl
from ggo_lab.training import train_epoch, training_batches
from ggo_lab.training.devices import choose_device, place
from ggo_lab.training.memory import Memory
from ggo_lab.training.speed import choose_speed, memory_format
from ggo_lab.training.steps import make_optimizer

IMAGES, RUNS = 64, 5
# 25 epochs of 4 steps are just enough for settings to be tried; without mirroring both see the same images.
CONFIG = gl.TrainConfig(batch_size=16, max_epochs=25, flip=False, lr=1e-4)


class Scans(Dataset):
    """As the paper's code holds them: arrays of bytes, made floats and normalised one by one."""

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    sd = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

    def __init__(self, pixels, indices):
        self.pixels, self.indices = pixels, indices

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, i):
        return (torch.from_numpy(self.pixels[i]).float() / 255 - self.mean) / self.sd, self.indices[i]


def plain_epoch(network, loader, optimizer, device):
    network.train()
    total = 0.0
    for images, targets in loader:
        images, targets = images.to(device), targets.to(device)
        optimizer.zero_grad()
        loss = cross_entropy(network(images), targets)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(images)
    return total / len(loader.dataset)


def main(names):
    print(facts(), "\n", flush=True)
    print("| backbone | plain, images/s | ours | times | loss of each epoch, plain | ours | settings | resident |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    device, data = choose_device("auto"), noise(IMAGES, "train")
    pixels, targets = place(data, device)
    for name in names:
        model = gl.build_backbone(name, "scratch").to(device)
        theirs = deepcopy(model.network)
        speed, tried = choose_speed(model, pixels, targets, CONFIG, Memory())
        model.to(memory_format=memory_format(speed))
        optimizers = make_optimizer(model, CONFIG), torch.optim.Adam(theirs.parameters(), lr=CONFIG.lr)
        one, two = (torch.Generator().manual_seed(CONFIG.seed) for _ in range(2))
        times, losses = ([], [], []), ([], [])
        for _ in range(RUNS + 1):
            order = torch.randperm(IMAGES, generator=one).tolist()
            loader = DataLoader(Scans(data.pixels, data.indices), CONFIG.batch_size, sampler=order)
            start = time.perf_counter()
            losses[0].append(plain_epoch(theirs, loader, optimizers[1], device))
            times[0].append(time.perf_counter() - start)
            torch.rand(IMAGES, generator=one)  # ours draws whom to mirror, too
            start = time.perf_counter()
            losses[1].append(
                train_epoch(model, training_batches(pixels, targets, CONFIG, two), optimizers[0], speed)[0]
            )
            times[1].append(time.perf_counter() - start)
        extra = deepcopy(model)
        ready = [(x, y) for x, y in training_batches(pixels, targets, CONFIG, two)]
        for _ in range(3):
            start = time.perf_counter()
            train_epoch(extra, ready, make_optimizer(extra, CONFIG), speed)
            times[2].append(time.perf_counter() - start)
        # The first epoch sets things up and is not counted.
        plain, ours, resident = (IMAGES / statistics.median(taken[1:]) for taken in times)
        curves = [" ".join(f"{loss:.3f}" for loss in kind) for kind in losses]
        on = [field for field, used in speed._asdict().items() if used]
        print(
            f"| {name} | {plain:.1f} | {ours:.1f} | {ours / plain:.2f} | {curves[0]} | {curves[1]} | "
            f"{', '.join(on) or 'plain'} | {ours / resident:.0%} |",
            flush=True,
        )
        for kind, seconds in tried.items():
            print(f"  tried {kind}: {seconds:.3f} s a step", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:] or ["resnet18", "densenet121"])
