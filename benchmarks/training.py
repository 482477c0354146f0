"""Time training beside a plain PyTorch loop in the paper's manner: fp32, rows of channels, a DataLoader.

    python benchmarks/training.py [backbone ...]

A process each, which take turns, an epoch at a time: the plain loop without and with two workers that load images
ahead, and ours; on a GPU also ours over batches that lie there already, which says what its loop costs. All begin with
the same weights and see the same images in the same order.
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from machine import facts
from synthetic import images as noise
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset

import ggo_lab as gl
from ggo_lab.training import train_epoch, training_batches
from ggo_lab.training.devices import choose_device, freed_memory_kept, place
from ggo_lab.training.memory import Memory
from ggo_lab.training.speed import choose_speed, memory_format
from ggo_lab.training.steps import make_optimizer

IMAGES, RUNS = 64, 5
# 25 epochs of 4 steps are just enough for settings to be tried; without mirroring all see the same images.
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


class Order:
    """The order in which ours draws the images of each epoch."""

    def __init__(self):
        self.draws = torch.Generator().manual_seed(CONFIG.seed)

    def __len__(self):
        return IMAGES

    def __iter__(self):
        order = torch.randperm(IMAGES, generator=self.draws).tolist()
        torch.rand(IMAGES, generator=self.draws)  # ours draws whom to mirror, too
        return iter(order)


def plain(name: str, workers: int) -> tuple[Callable[[], float], str]:
    """Make the plain loop: a function that trains an epoch and gives its loss, and a word about it."""
    device, data = choose_device("auto"), noise(IMAGES, "train")
    network = gl.build_backbone(name, "scratch").network.to(device)
    optimizer = torch.optim.Adam(network.parameters(), lr=CONFIG.lr)
    loader = DataLoader(
        Scans(data.pixels, data.indices),
        CONFIG.batch_size,
        sampler=Order(),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )

    def epoch() -> float:
        network.train()
        total = 0.0
        for images, targets in loader:
            images, targets = images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            optimizer.zero_grad()
            loss = cross_entropy(network(images), targets)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(images)
        return total / len(loader.dataset)

    return epoch, ""


def ours(name: str, ready: bool) -> tuple[Callable[[], float], str]:
    """Make our loop, with the settings that the probe chooses.

    Args:
        ready: the same batches in every epoch, made beforehand.
    """
    pixels, targets = place(noise(IMAGES, "train"), choose_device("auto"))
    model = gl.build_backbone(name, "scratch").to(pixels.device)
    speed, tried = choose_speed(model, pixels, targets, CONFIG, Memory())
    model.to(memory_format=memory_format(speed))
    optimizer, draws = make_optimizer(model, CONFIG), torch.Generator().manual_seed(CONFIG.seed)
    batches = list(training_batches(pixels, targets, CONFIG, draws)) if ready else None

    def epoch() -> float:
        return train_epoch(model, batches or training_batches(pixels, targets, CONFIG, draws), optimizer, speed)[0]

    for kind, seconds in () if ready else tried.items():
        print(f"  tried {kind}: {seconds:.3f} s a step", file=sys.stderr)
    return epoch, ", ".join(field for field, used in speed._asdict().items() if used) or "plain"


KINDS = {"plain": (plain, 0), "plain, 2 workers": (plain, 2), "ours": (ours, False)}
if torch.cuda.is_available():
    KINDS["ours, ready"] = (ours, True)


def work(kind: str, name: str, pipe) -> None:
    """Train an epoch each time it is asked for; answer with its loss, seconds, and seconds of this process's CPU."""
    make, choice = KINDS[kind]
    with freed_memory_kept() if make is ours else nullcontext():  # as `fit` does
        epoch, about = make(name, choice)
        pipe.send(about)
        while pipe.recv():
            start, cpu = time.perf_counter(), time.process_time()
            pipe.send((epoch(), time.perf_counter() - start, time.process_time() - cpu))


def main(names: list[str]) -> None:
    print(facts(), "\n", flush=True)
    heads = [*(f"{kind}, images/s" for kind in KINDS), "times", "times, CPU", "loss of each epoch, plain", "ours"]
    print(f"| backbone | {' | '.join(heads)} | settings |")
    print("|---" * (len(heads) + 2) + "|", flush=True)
    start = multiprocessing.get_context("spawn")
    for name in names:
        pipes, about = {}, ""
        for kind in KINDS:
            pipes[kind], theirs = start.Pipe()
            start.Process(target=work, args=(kind, name, theirs)).start()
            about = pipes[kind].recv() or about
        found = {kind: [] for kind in KINDS}
        for _ in range(RUNS + 1):
            for kind, pipe in pipes.items():
                pipe.send(True)
                found[kind].append(pipe.recv())
        for pipe in pipes.values():
            pipe.send(False)
        # The first epoch sets things up and is not counted.
        wall, cpu = ({k: statistics.median(row[i] for row in rows[1:]) for k, rows in found.items()} for i in (1, 2))
        rates = " | ".join(f"{IMAGES / wall[kind]:.1f}" for kind in KINDS)
        ratio = min(wall["plain"], wall["plain, 2 workers"]) / wall["ours"]
        curves = [" ".join(f"{row[0]:.3f}" for row in found[kind]) for kind in ("plain", "ours")]
        print(
            f"| {name} | {rates} | {ratio:.2f} | {cpu['plain'] / cpu['ours']:.2f} | {' | '.join(curves)} | {about} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["resnet18", "densenet121"])
