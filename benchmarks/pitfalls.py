"""Plant every pitfall on phantoms and count how often its detector catches it, and how often it cries wolf.

    python benchmarks/pitfalls.py [SEEDS]

A cohort of small phantoms is prepared once (the mistakes are in the handling, not in the anatomy); every seed splits it
anew by patient. Prints a Markdown table.
"""

import sys
from dataclasses import replace

import numpy as np
from torch import nn

import ggo_lab as gl
from ggo_lab import pitfalls as pf

SCANS, SHAPE, SIZE = 120, (16, 64, 64), 64


def outcomes(cohort: gl.Cohort, images: gl.ImageSet, seed: int) -> dict[str, tuple[bool, bool]]:
    """For one seed: pitfall -> (caught where planted, alarm where clean)."""
    rng = np.random.default_rng(seed)
    split = cohort.split_by_patient(seed=seed).table.set_index("name")["split"]
    images = replace(images, table=images.table.assign(split=images.table["name"].map(split)))
    leaked, scan = pf.plant_label_pixel(images), cohort.scan(seed)
    states = [[_noisy(split, rng) for _ in range(20)] for split in (images.validation, images.test)]
    by_validation = int(np.argmax([np.mean(state.predicted == state.indices) for state in states[0]]))
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


def _noisy(images: gl.ImageSet, rng: np.random.Generator, signal: float = 0.7) -> gl.Predictions:
    """Predictions of a network that is right more often than chance."""
    logits = signal * np.eye(4)[images.indices] + rng.normal(0, 0.7, (len(images), 4))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return gl.Predictions(images.names, images.patients, images.indices, shares)


def main(seeds: int) -> None:
    """Print the table."""
    cohort = gl.phantom_cohort(SCANS, shape=SHAPE)
    images = gl.prepare(cohort, gl.Recipe(size=SIZE), jobs=1, progress=False)
    found = [outcomes(cohort, images, seed) for seed in range(seeds)]
    print(f"Of {seeds} splits of {SCANS} phantoms\n\n| pitfall | caught where planted | alarm where clean |")
    print("|---|---|---|")
    for name in found[0]:
        caught, alarm = (sum(each[name][i] for each in found) for i in (0, 1))
        print(f"| {name} | {caught} | {alarm} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
