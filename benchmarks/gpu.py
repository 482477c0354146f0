"""On a GPU: what a training step costs beside its bare arithmetic, and the paper's nine networks, all layers learning.

    python benchmarks/gpu.py              # with a GPU, within 10 minutes; what is measured is not measured again
    python benchmarks/gpu.py --small      # tried on a processor: few images, small ones, one network of each part

The first part times `fit` over a resident cohort, and the same arithmetic over one batch that is never drawn anew: the
rest of `fit` may cost at most 15%. The second trains each network at its own size on the default cohort's images until
its validation loss has reached a plateau, and judges the state that was kept on unseen scans. Each result is written as
soon as it is there, so a run that was cut off goes on where it was.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
from loops import learn, settings
from results import FOLDER, Results
from synthetic import images as noise

import ggo_lab as gl
from ggo_lab.course.paper import PAPER_NETWORKS
from ggo_lab.training import Speed
from ggo_lab.training.batches import place
from ggo_lab.training.config import make_optimizer
from ggo_lab.training.devices import choose_device
from ggo_lab.training.speed import compiled, set_speed

TIMED = ("resnet18", "densenet121", "resnet152", "vit_b_32")
SPEEDS = {
    "fp32": Speed(),
    "channels_last, bf16": Speed(channels_last=True, bf16=True),
    "channels_last, bf16, compile": Speed(channels_last=True, bf16=True, compile=True),
}
BAR = 0.85  # images a second of fit, as a share of those of its arithmetic alone
RAW = FOLDER / "gpu_raw.json"


class Kept:
    """Results by name, written after each; a run that was cut off finds them."""

    def __init__(self, path: Path):
        self.path = path
        self.found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def once(self, name: str, measure) -> dict:
        """Measure what is not there yet."""
        if name not in self.found:
            self.found[name] = measure()
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        return self.found[name]


def peak_mb() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else None


def fresh() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def time_steps(name: str, speed: Speed, images: int, size: int, batch: int) -> dict:
    """Images a second of fit's epochs, the first not counted, and of its step on one batch that stays where it is."""
    fresh()
    data = noise(images, "train", size)
    config = gl.TrainConfig(batch_size=batch, max_epochs=4, patience=4, flip=False, lr=1e-4, speed=speed)
    model = gl.build_backbone(name, weights=None)
    history = gl.fit(model, data, noise(batch, "validation", size, 1), config, progress=False)
    # An epoch of the history judges the validation split, too: the same batch, measured here and taken off.
    device = choose_device("auto")
    pixels, labels = place(data.subset(range(batch)), device)
    start = time.perf_counter()
    with torch.inference_mode():
        model(pixels).sum().item()
    judging = time.perf_counter() - start
    of_fit = images / (min(history.table["seconds"][1:]) - judging)
    loss = float(history.table["train_loss"].iloc[-1])
    model = set_speed(gl.build_backbone(name, weights=None).to(device), speed)
    learner, optimizer = compiled(model, speed), make_optimizer(model, config)
    taken = []
    for _ in range(4):
        start = time.perf_counter()
        learn(learner, [(pixels, labels)] * (images // batch), optimizer)
        taken.append(time.perf_counter() - start)
    return {"fit": of_fit, "resident": images / min(taken[1:]), "loss": loss, "mb": peak_mb()}


def train(name: str, cohort: gl.Cohort, size: int, config: gl.TrainConfig) -> dict:
    """Fine-tune all layers, stop at the plateau, judge the state that was kept on unseen scans."""
    fresh()
    images = gl.prepare(cohort, gl.Recipe(size=size))
    model = gl.build_backbone(name, extent="all", weights="best")
    start = time.perf_counter()
    history = gl.fit(model, images.train, images.validation, config, progress=False)
    seconds = time.perf_counter() - start
    report = gl.evaluate(gl.predict(model, images.test))
    value, low, high = (float(report.scores.loc["macro-F1", column]) for column in ("value", "low", "high"))
    return {
        "weights": model.weights,
        "epochs": len(history.table),
        "ended": history.ended,
        "kept": history.best_epoch,
        "f1": value,
        "low": low,
        "high": high,
        "seconds": seconds,
        "mb": peak_mb(),
        "speed": settings(history.speed),
    }


def main(small: bool) -> None:
    if not small and not torch.cuda.is_available():
        raise SystemExit("No GPU is here. `--small` tries the script on a processor.")
    found = Results("gpu")
    kept = Kept(Path(tempfile.mkdtemp()) / RAW.name if small else RAW)
    images, size, batch = (32, 64, 8) if small else (512, 224, 64)
    found.table(
        f"Training steps, {images} images of {size} pixels, batches of {batch}",
        ["backbone", "settings", "fit, images/s", "one batch, images/s", "share", "loss after 4 epochs", "memory, MB"],
    )
    for name in TIMED[:1] if small else TIMED:
        for title, speed in list(SPEEDS.items())[: 2 if small else 3]:
            got = kept.once(f"{name}, {title}", lambda n=name, s=speed: time_steps(n, s, images, size, batch))
            share = got["fit"] / got["resident"]
            found.row(name, title, got["fit"], got["resident"], share, got["loss"], got["mb"])
        if not small:
            found.bar(f"{name}: share of the bare arithmetic, {title}", share, BAR, True)
    cohort = gl.phantom_cohort(24, shape=(32, 96, 96)) if small else gl.phantom_cohort()
    config = gl.TrainConfig(max_epochs=2 if small else 60, lr=1e-4)
    found.table(
        f"All layers, {len(cohort)} phantoms",
        ["backbone", "weights", "epochs", "kept", "ended", "macro-F1", "95% interval", "s", "memory, MB", "settings"],
    )
    for name in ("squeezenet1_0",) if small else PAPER_NETWORKS:
        got = kept.once(name, lambda n=name: train(n, cohort, 64 if small else gl.BACKBONES[n].size, config))
        interval = f"{got['low']:.2f} to {got['high']:.2f}"
        found.row(
            name, got["weights"], got["epochs"], got["kept"], got["ended"], got["f1"], interval, got["seconds"],
            got["mb"], got["speed"],
        )  # fmt: skip
    if not small:
        found.write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true", help="tried on a processor")
    main(parser.parse_args().small)
