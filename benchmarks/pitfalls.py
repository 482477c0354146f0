"""Plant every pitfall on phantoms and count how often its detector catches it, and how often it cries wolf.

    python benchmarks/pitfalls.py [SEEDS]

A cohort of small phantoms is prepared once (the mistakes are in the handling, not in the anatomy); every seed splits it
anew by patient. Then, for every seed, one small network learns from clean images and one from images that hold their
grade in a corner pixel; the detectors judge the images and the networks. Prints Markdown tables.
"""

import sys
import time
from dataclasses import replace

import machine
import numpy as np
import torch
from torch import nn

import ggo_lab as gl
from ggo_lab import pitfalls as pf
from ggo_lab.backbones import Backbone

SCANS, SHAPE, SIZE = 120, (16, 64, 64), 64
EPOCHS = 25  # of the small networks


def outcomes(cohort: gl.Cohort, images: gl.images.ImageSet, seed: int) -> dict[str, tuple[bool, bool]]:
    """For one seed: pitfall -> (caught where planted, alarm where clean)."""
    rng = np.random.default_rng(seed)
    images = split_anew(images, cohort, seed)
    leaked, scan = pf.plant_label_pixel(images), cohort.scan(seed)
    states = [[_noisy(split, rng) for _ in range(20)] for split in (images.validation, images.test)]
    by_validation = int(np.argmax([np.mean(state.predicted == state.labels) for state in states[0]]))
    losses, sizes = rng.uniform(0.5, 2, 5), [16, 16, 16, 16, 3]
    mean = float(np.average(losses, weights=sizes))
    model = nn.Linear(3, 4)
    copied = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    able = _noisy(images, rng, signal=2.0)
    pairs = {
        "label in a corner pixel": (
            pf.find_label_leak(leaked.train, leaked.test),
            pf.find_label_leak(images.train, images.test),
        ),
        "label pixel, 1 grey value a grade": (
            pf.find_label_leak(*(pf.plant_label_pixel(part, step=1) for part in (images.train, images.test))),
            pf.find_label_leak(images.train, images.test),
        ),
        "split by slice": (
            pf.find_shared_patients(pf.plant_slice_split(images, seed=seed)),
            pf.find_shared_patients(images),
        ),
        "duplicates across splits": (
            pf.find_duplicates(pf.plant_duplicates(images, 1, seed)),
            pf.find_duplicates(images),
        ),
        "wrong slope": (pf.find_wrong_slope(pf.plant_wrong_slope(scan)), pf.find_wrong_slope(scan)),
        "intercept left out": (
            pf.find_wrong_slope(pf.plant_wrong_slope(scan, 1.0, 1024.0)),
            pf.find_wrong_slope(scan),
        ),
        "selected on test": (
            pf.find_test_selection(*states, pf.plant_test_selection(states[1])),
            pf.find_test_selection(*states, by_validation),
        ),
        "best state without a copy": (
            pf.find_uncopied_state(pf.plant_uncopied_state(model), model),
            pf.find_uncopied_state(copied, model),
        ),
        "last batch's loss": (
            pf.find_wrong_loss(pf.plant_last_batch_loss(losses, sizes), losses, sizes),
            pf.find_wrong_loss(mean, losses, sizes),
        ),
        "batch means averaged": (
            pf.find_wrong_loss(pf.plant_mean_of_batches(losses, sizes), losses, sizes),
            pf.find_wrong_loss(mean, losses, sizes),
        ),
        "accuracy, uneven grades": (
            pf.find_accuracy_trap(gl.evaluate(pf.plant_majority(able), draws=500)),
            pf.find_accuracy_trap(gl.evaluate(able, draws=500)),
        ),
    }
    return {name: (planted.caught, clean.caught) for name, (planted, clean) in pairs.items()}


def _noisy(images: gl.images.ImageSet, rng: np.random.Generator, signal: float = 0.7) -> gl.Predictions:
    """Predictions of a network that is right more often than chance."""
    logits = signal * np.eye(4)[images.labels] + rng.normal(0, 0.7, (len(images), 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return gl.Predictions(images.table, shares)


def small_network(seed: int) -> Backbone:
    """Three convolutions and a linear layer, from random weights: forty of it learn in a minute."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = []
        for given, made in ((3, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(given, made, 3, stride=2, padding=1), nn.BatchNorm2d(made), nn.ReLU()]
        network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * (SIZE // 8) ** 2, 4))
    return Backbone.around(network, head="10")


def judge_network(images: gl.images.ImageSet, seed: int) -> tuple[float, dict[str, bool]]:
    """Train a network; give its macro-F1 on the test split, and whether each detector is alarmed."""
    model = small_network(seed)
    config = gl.TrainConfig(max_epochs=EPOCHS, patience=EPOCHS, seed=seed, speed="plain")
    gl.fit(model, images.train, images.validation, config, progress=False)
    alarms = {
        "a linear classifier of the corners": pf.find_label_leak(images.train, images.test),
        "the best single pixel": pf.find_telling_pixel(images.train, images.test),
        "the network's answers follow exchanged corners": pf.find_corner_reader(model, images.test),
    }
    score = gl.evaluate(gl.predict(model, images.test), draws=1).macro_f1
    return score, {name: found.caught for name, found in alarms.items()}


def split_anew(images: gl.images.ImageSet, cohort: gl.Cohort, seed: int) -> gl.images.ImageSet:
    """The images with the splits of another seed."""
    split = cohort.split_by_patient(seed=seed).table.set_index("name")["split"]
    return replace(images, table=images.table.assign(split=images.table["name"].map(split)))


def networks(cohort: gl.Cohort, images: gl.images.ImageSet, seeds: int) -> None:
    """Print how often networks that learnt from leaked and from clean images are caught."""
    judged = {"leaked": [], "clean": []}
    for seed in range(seeds):
        clean = split_anew(images, cohort, seed)
        judged["clean"].append(judge_network(clean, seed))
        judged["leaked"].append(judge_network(pf.plant_label_pixel(clean), seed))
    print(f"\nSmall networks, {EPOCHS} epochs, {seeds} seeds of splits and weights\n")
    print("| caught by | of those trained on leaked images | of those trained on clean ones |\n|---|---|---|")
    for name in judged["clean"][0][1]:
        counts = (sum(alarms[name] for _, alarms in judged[kind]) for kind in ("leaked", "clean"))
        cells = (f"{count} of {seeds} ({gl.wilson(count, seeds)})" for count in counts)
        print(f"| {name} | {' | '.join(cells)} |")
    middle = (f"{np.median([score for score, _ in judged[kind]]):.2f}" for kind in ("leaked", "clean"))
    print(f"| macro-F1 on the test split, median | {' | '.join(middle)} |")


def main(seeds: int) -> None:
    """Print the tables."""
    start = time.process_time()
    cohort = gl.phantom_cohort(SCANS, shape=SHAPE)
    images = gl.prepare(cohort, gl.Recipe(size=SIZE), jobs=1, progress=False)
    found = [outcomes(cohort, images, seed) for seed in range(seeds)]
    print(f"Of {seeds} splits of {SCANS} phantoms\n\n| pitfall | caught where planted | alarm where clean |")
    print("|---|---|---|")
    for name in found[0]:
        caught, alarm = (sum(each[name][i] for each in found) for i in (0, 1))
        print(f"| {name} | {caught} | {alarm} |")
    networks(cohort, images, seeds)
    print(f"\n{machine.facts()}; {time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
