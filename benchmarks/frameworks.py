"""Time training beside fastai's Learner, Lightning's Trainer and a plain loop, on the same images and weights.

    python benchmarks/frameworks.py [--quick]     # --quick: the larger of two networks only

A process each; an epoch of 64 images is a turn. All learn by Adam from the same weights, on the same images in the same
order, and the table says how far their losses are apart. The frameworks get torch's own loader, neither logger, bar nor
checkpoints, and torch's Adam; Lightning also its documented way to be faster, bf16-mixed, where the processor has it.
Ours is `gl.fit` with the settings that suit this machine; it validates and keeps the best state after
each epoch, in its own time. Needs the extra `bench`; Linux only.
"""

import argparse
import logging
import warnings
from dataclasses import replace
from functools import partial

import torch
from loops import CONFIG, IMAGES, network_and_loader, noise, plain, settings
from results import Results
from torch.nn.functional import cross_entropy
from turns import Clock, middle, race, repeat

import ggo_lab as gl
from ggo_lab.training.speed import suited

BACKBONES = {"resnet18": 224, "shufflenet_v2_x0_5": 128}  # rows and columns; neither has dropout, which draws at random
RUNS = 5
TOLERANCE = 0.02  # of the plain loop's loss in the first epoch; 16 bits hold three digits


def ours(name: str, size: int, epochs: int, clock: Clock) -> None:
    from ggo_lab.training import loop
    from ggo_lab.training.tally import Tally

    model = gl.build_backbone(name, weights=None)
    said = settings(suited(model, torch.device("cpu")))

    class Timed(Tally):  # a turn is all that `fit` does from the end of one epoch's steps to the end of the next one's
        def means(self, *arguments):
            loss, accuracy = super().means(*arguments)
            clock.next((loss, said))
            return loss, accuracy

    clock.next((0.0, said))
    loop.Tally = Timed
    train, validation = noise(IMAGES, "train", size), noise(2, "validation", size)
    gl.fit(model, train, validation, replace(CONFIG, max_epochs=epochs), progress=False)


def fastai(name: str, size: int, epochs: int, clock: Clock) -> None:
    from fastai.callback.core import Callback, CancelValidException
    from fastai.callback.progress import ProgressCallback
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    class Turns(Callback):
        mean = 0.0

        def before_train(self):
            clock.next((self.mean, "fp32"))
            self.mean = 0.0

        def after_batch(self):
            if self.training:
                self.mean += self.learn.loss.item() * len(self.learn.yb[0]) / IMAGES

        def before_validate(self):
            raise CancelValidException

    network, loader = network_and_loader(name, size=size)
    learner = Learner(
        DataLoaders(loader, loader, device=torch.device("cpu")),
        network,
        loss_func=cross_entropy,
        opt_func=partial(OptimWrapper, opt=torch.optim.Adam),
        lr=CONFIG.lr,
        cbs=[(turns := Turns())],
    )
    learner.remove_cb(ProgressCallback)
    with learner.no_logging():
        learner.fit(epochs)
    clock.next((turns.mean, "fp32"))


def lightning(name: str, size: int, epochs: int, precision: str, clock: Clock) -> None:
    from lightning.pytorch import LightningModule, Trainer

    class Module(LightningModule):
        def __init__(self):
            super().__init__()
            self.network, self.loss = network, 0.0

        def training_step(self, batch, _number):
            images, targets = batch
            loss = cross_entropy(self.network(images), targets)
            self.loss += loss.item() * len(images) / IMAGES
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.network.parameters(), lr=CONFIG.lr)

        def on_train_epoch_start(self):
            clock.next((self.loss, precision))
            self.loss = 0.0

    network, loader = network_and_loader(name, size=size)
    module, off = Module(), ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")  # benchmarks/training.py times two
        trainer = Trainer(max_epochs=epochs, accelerator="cpu", precision=precision, **dict.fromkeys(off, False))
        trainer.fit(module, loader)
    clock.next((module.loss, precision))


def main(backbones: dict[str, int]) -> None:
    found, epochs, last = Results("frameworks"), RUNS + 1, ["loss of the first and the last epoch", "settings"]
    for name, size in backbones.items():
        given = name, size, epochs
        contestants = {
            "plain loop": repeat(plain, name, 0, size),
            "fastai": partial(fastai, *given),
            "Lightning": partial(lightning, *given, "32-true"),
            "ours, gl.fit": partial(ours, *given),
        }
        if suited(gl.build_backbone(name, weights=None), torch.device("cpu")).bf16:
            contestants["Lightning, bf16-mixed"] = partial(lightning, *given, "bf16-mixed")
        else:
            found.note(f"{name}: 16 bits do not pay on this processor, so Lightning's bf16-mixed takes no part.")
        turns = race(contestants, epochs, warm_up=0)
        found.table(
            f"{name}, {size} x {size}, batches of {CONFIG.batch_size}; medians of {RUNS} epochs of {IMAGES} images",
            ["", "images/s", "images per processor s", "times plain", "times plain, processor", "memory, MB", *last],
        )
        first = turns["plain loop"][0].answer[0]
        reference = middle(turns["plain loop"][1:])  # the first epoch sets things up
        for kind, taken in turns.items():
            turn = middle(taken[1:])
            losses = [taken[0].answer[0], taken[-1].answer[0]]
            rates = IMAGES / turn.wall_s, IMAGES / turn.cpu_s
            times = reference.wall_s / turn.wall_s, reference.cpu_s / turn.cpu_s
            shown = " ".join(f"{loss:.4f}" for loss in losses)
            found.row(kind, *rates, *times, turn.memory_mb, shown, turn.answer[1])
        apart = max(abs(taken[0].answer[0] / first - 1) for taken in turns.values())
        found.bar(f"{name}: losses of the first epoch differ by, share of the plain loop's", apart, TOLERANCE, False)
    found.write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="resnet18 only")
    main({"resnet18": BACKBONES["resnet18"]} if parser.parse_args().quick else BACKBONES)
