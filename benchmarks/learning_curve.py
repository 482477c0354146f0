"""How a network's worth grows with the scans it learns from, with and without pretraining on slices of phantoms.

    python benchmarks/learning_curve.py [--counts 16 64 256 1024] [--seeds 2] [--folder FOLDER]

Phantoms behind the curtain serve as scans to learn from here: judged are the first 400, the others teach and stop (one
in five). So no patient of the pretraining is in either. `python benchmarks/curtain.py make` makes them.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from results import Results

import ggo_lab as gl
from ggo_lab.storage import cache_folder

SIZE, JUDGED = 64, 400
# As course_defaults.py chose for pretrained layers; from nothing all layers learn.
WAYS = {
    "slices of phantoms": ({"weights": "phantom", "extent": "head"}, {"max_epochs": 100, "patience": 15}),
    "none": ({"weights": None}, {"max_epochs": 25, "patience": 8}),
}


def score(images: gl.images.ImageSet, count: int, way: str, seed: int) -> tuple[float, float, float, float]:
    """Learn from so many scans, four fifths of them to learn from: macro-F1, its interval, processor seconds."""
    draws = np.random.default_rng([seed, count])
    drawn = JUDGED + draws.permutation(len(images) - JUDGED)[:count]
    stop_by = max(4, count // 5)
    validation, train = images.subset(np.sort(drawn[:stop_by])), images.subset(np.sort(drawn[stop_by:]))
    build, settings = WAYS[way]
    model = gl.build_backbone("resnet18", **build, seed=seed)
    start = time.process_time()
    config = gl.TrainConfig(loss="involvement", seed=101 + seed, **settings)
    gl.fit(model, train, validation, config, progress=False)
    report = gl.evaluate(gl.predict(model, images.subset(np.arange(JUDGED))))
    return report.macro_f1, *report.interval(), time.process_time() - start


def main(counts: list[int], seeds: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(gl.curtain.unseen.SHIPPED) as stored:
        there = len(stored["ends"])
    images = gl.curtain.curtain_images(gl.Recipe(size=SIZE), there)
    found = Results("learning_curve")
    found.table(
        f"ResNet-18, {SIZE} pixels, judged on {JUDGED} phantoms that teach nothing",
        ["scans", "pretraining", "macro-F1, mean", "of all seeds", "interval of the first", "processor s"],
    )
    for count in counts:
        for way in WAYS:
            runs = []
            for seed in range(seeds):
                kept = folder / f"{count}-{way}-{seed}.json"
                if not kept.exists():
                    kept.write_text(json.dumps(score(images, count, way, seed)))
                runs.append(json.loads(kept.read_text()))
            scores = [run[0] for run in runs]
            found.row(
                count, way, float(np.mean(scores)),
                " ".join(f"{each:.2f}" for each in sorted(scores)), f"{runs[0][1]:.2f} to {runs[0][2]:.2f}",
                float(np.mean([run[3] for run in runs])),
            )  # fmt: skip
    found.note(
        f"Of {there - JUDGED} phantoms at most; each seed draws its own, and a fifth of them decides when to stop."
    )
    found.write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[16, 64, 256, 1024])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=cache_folder() / "learning_curve", help="of what is done")
    given = parser.parse_args()
    main(given.counts, given.seeds, given.folder)
