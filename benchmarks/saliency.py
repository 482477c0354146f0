"""Measure whether maps of a trained network lie inside the phantoms' lesions more than those of an untrained one.

    python benchmarks/saliency.py [SCANS]

A ResNet-18 learns from phantoms, cropped to the lungs. Maps are made for mild and moderate test scans, and ask what
speaks for a severe one: in severe scans themselves lesions cover most of the lungs, so that hardly any heat could lie
elsewhere. The same maps are made of networks that never learnt. A map's score is the share of its heat inside the lungs
that lies inside lesions, over the share of the lungs that lesions cover: an even map scores 1, so a map that finds no
more than the lungs scores 1 too. Intervals are bootstrapped over patients, paired. Prints a Markdown table.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import machine
import numpy as np

import ggo_lab as gl

SHAPE, SIZE = (32, 160, 160), 160
RECIPE = gl.Recipe(pick="lungs", crop="lungs", size=SIZE)
ASKED = gl.GGO_SEVERITY.label_of("severe")
EPOCHS, TRAINED, UNTRAINED = 14, 3, 2  # of the first kind one would be luck: maps differ from run to run
DRAWS = 4000


def cam_at(layer: str) -> Callable[[gl.Backbone, np.ndarray, int], np.ndarray]:
    """Grad-CAM that reads another layer than the last, whose maps are finer."""

    def heat(model: gl.Backbone, image: np.ndarray, grade: int) -> np.ndarray:
        last, model.spec = model.spec, replace(model.spec, cam=layer)
        try:
            return gl.grad_cam(model, image, grade)
        finally:
            model.spec = last

    return heat


# How finely each sees an image of 160 pixels.
METHODS = {
    "Grad-CAM, layer4, 5 x 5 cells": gl.grad_cam,
    "Grad-CAM, layer3, 10 x 10 cells": cam_at("layer3"),
    "Grad-CAM, layer2, 20 x 20 cells": cam_at("layer2"),
    "occlusion, 5 x 5 cells": partial(gl.occlusion, cells=5),
    "integrated gradients, pixels": partial(gl.saliency.integrated_gradients, steps=8),
}


class Judged:
    """A test scan: its image, and where lungs and lesions lie in it."""

    def __init__(self, scan: gl.Scan, lungs: np.ndarray):
        self.cut = RECIPE.cut(scan, lungs)
        self.slices, self.image = self.cut.slices, self.cut.image()
        self.inside = scan.truth.lungs[list(self.slices)]
        self.lesions = scan.truth.lesions[list(self.slices)] & self.inside
        self.covered = self.lesions.sum() / self.inside.sum()

    def times_even(self, model: gl.Backbone, method: Callable) -> float:
        """How many times more of the heat in the lungs lies in lesions than even heat would; 1 where there is none."""
        heat = np.broadcast_to(method(model, self.image, ASKED), self.image.shape)
        laid = np.stack(list(self.cut.lay(heat).values()))
        total = laid[self.inside].sum()
        return float(laid[self.lesions].sum() / total / self.covered) if total > 0 else 1.0


def interval(values: np.ndarray, rng: np.random.Generator) -> str:
    """The mean over scans (one a patient), and its 95% bootstrap interval."""
    drawn = rng.choice(values, (DRAWS, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{values.mean():+.2f} ({low:+.2f} to {high:+.2f})"


def learnt(images: gl.images.ImageSet, seed: int) -> gl.Backbone:
    """A network that has learnt from the train split."""
    model = gl.build_backbone("resnet18", weights=None, seed=seed)
    config = gl.TrainConfig(lr=5e-4, max_epochs=EPOCHS, patience=EPOCHS, seed=seed)
    gl.fit(model, images.train, images.validation, config, progress=False)
    return model


def main(scans: int) -> None:
    """Print the table."""
    start = time.process_time()
    cohort = gl.phantom_cohort(scans, shape=SHAPE, second_scans=0)
    images = gl.prepare(cohort, RECIPE, progress=False)
    trained = [learnt(images, seed) for seed in range(TRAINED)]
    scores = [gl.evaluate(gl.predict(model, images.test)).macro_f1 for model in trained]
    rows = np.flatnonzero((cohort.table["split"] == "test") & (cohort.table["true_label"] < ASKED))
    opened = [cohort.scan(int(row)) for row in rows]
    judged = [Judged(scan, gl.segment_lungs(scan)) for scan in opened]
    untrained = [gl.build_backbone("resnet18", weights=None, seed=seed).eval() for seed in range(UNTRAINED)]
    print(
        f"{TRAINED} ResNet-18 at {SIZE} x {SIZE}, macro-F1 {', '.join(f'{score:.2f}' for score in scores)} on "
        f"{len(images.test)} scans; maps of {len(judged)} mild and moderate ones, whose lesions cover "
        f"{np.mean([each.covered for each in judged]):.0%} of the lungs in the slices shown\n"
    )
    print("| method | trained (worst to best run) | untrained | trained - untrained | trained - 1 (95% intervals) |")
    print("|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    for name, method in METHODS.items():
        ours, blind = (
            np.array([[each.times_even(model, method) for each in judged] for model in models])
            for models in (trained, untrained)
        )
        runs, ours, blind = ours.mean(axis=1), ours.mean(axis=0), blind.mean(axis=0)
        found = f"{ours.mean():.2f} ({runs.min():.2f} to {runs.max():.2f}) | {blind.mean():.2f}"
        print(f"| {name} | {found} | {interval(ours - blind, rng)} | {interval(ours - 1, rng)} |", flush=True)
    print(f"\n{machine.facts()}; {time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 160)
