"""How a network's worth grows with the scans it learns from, with and without pretraining on slices of phantoms.

    python benchmarks/learning_curve.py [--counts 16 64 256 1024 4000] [--seeds 2] [--folder FOLDER]

A cohort of 4,000 phantoms teaches, and one in five of what is drawn from it decides when to stop; judged are 400
phantoms behind the curtain. No patient of the pretraining is in either. Its images are made once, in 20 minutes on one
core, and stay in the cache.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
from results import Results

import ggo_lab as gl
from ggo_lab.curtain.unseen import SHAPE
from ggo_lab.storage import cache_folder

SIZE, JUDGED = 64, 400
TEACHING, SEED = 4000, 4_000  # phantoms, and their cohort's seed
# As course_defaults.py chose for pretrained layers; from nothing all layers learn.
WAYS = {
    "slices of phantoms": ({"weights": "phantom", "extent": "head"}, {"max_epochs": 100, "patience": 15}),
    "none": ({"weights": None}, {"max_epochs": 25, "patience": 8}),
}


def score(
    teaching: gl.images.ImageSet, judged: gl.images.ImageSet, count: int, way: str, seed: int
) -> tuple[float, float, float, float]:
    """Learn from so many scans, four fifths of them to learn from: macro-F1, its interval, processor seconds."""
    drawn = np.random.default_rng([seed, count]).permutation(len(teaching))[:count]
    stop_by = max(4, count // 5)
    validation, train = teaching.subset(np.sort(drawn[:stop_by])), teaching.subset(np.sort(drawn[stop_by:]))
    build, settings = WAYS[way]
    model = gl.build_backbone("resnet18", **build, seed=seed)
    start = time.process_time()
    config = gl.TrainConfig(loss="involvement", seed=101 + seed, **settings)
    gl.fit(model, train, validation, config, progress=False)
    report = gl.evaluate(gl.predict(model, judged))
    return report.macro_f1, *report.interval(), time.process_time() - start


def main(counts: list[int], seeds: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    recipe = gl.Recipe(size=SIZE)
    cohort = gl.phantom_cohort(TEACHING, seed=SEED, shape=SHAPE, second_scans=0)
    teaching, judged = gl.prepare(cohort, recipe), gl.curtain.curtain_images(recipe, JUDGED)
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
                    kept.write_text(json.dumps(score(teaching, judged, count, way, seed)))
                runs.append(json.loads(kept.read_text()))
            scores = [run[0] for run in runs]
            found.row(
                count, way, float(np.mean(scores)),
                " ".join(f"{each:.2f}" for each in sorted(scores)), f"{runs[0][1]:.2f} to {runs[0][2]:.2f}",
                float(np.mean([run[3] for run in runs])),
            )  # fmt: skip
    found.note(
        f"Of a cohort of {TEACHING} phantoms; each seed draws its own, and a fifth of them decides when to stop."
    )
    found.write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=int, nargs="+", default=[16, 64, 256, 1024, TEACHING])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=cache_folder() / "learning_curve", help="of what is done")
    given = parser.parse_args()
    main(given.counts, given.seeds, given.folder)
