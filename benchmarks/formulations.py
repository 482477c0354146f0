"""Grade the same phantoms in several ways, side by side: what is asked of a network matters as much as which one.

    python benchmarks/formulations.py [--seeds 3] [--folder FOLDER]

Learnt from the course's cohort (74 scans to learn from, 23 to stop by), judged on the first 250 phantoms behind the
curtain, which no cohort contains (`python benchmarks/curtain.py make --patients 0 250` makes them). What gives a
fraction of the lungs becomes a grade by thresholds learnt from the same 74 scans (gl.evaluation.ggo_baseline).
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from curtain import SHARD
from results import Results

import ggo_lab as gl
from ggo_lab.curtain.unseen import SHAPE, every_phantom
from ggo_lab.scan import Scan, Truth
from ggo_lab.storage import cache_folder

SIZE, SEQUENCE, UNSEEN = 96, 9, 250
SETTINGS = {"lr": 1e-3, "max_epochs": 100, "patience": 15}  # chosen on validation, see course_defaults.py


def oracle(scan: Scan) -> float:
    """The true involvement of the three slices that the image shows: no network can know more of them."""
    slices = list(gl.Recipe().cut(scan).slices)
    return float(scan.truth.lesions[slices].sum() / max(1, scan.truth.lungs[slices].sum()))


def added(scan: Scan) -> float:
    return gl.added(gl.read_slices(scan))


def hazy(method: str) -> Callable[[Scan], float]:
    def fraction(scan: Scan) -> float:
        return float(np.nan_to_num(gl.ggo_fraction(scan, gl.find_lungs(scan).mask, method).total))

    return fraction


FRACTIONS = {
    "oracle: the lesions of the three slices": oracle,
    "15 slices, each regressed, added up (gl.added)": added,
    "U-Net of the lungs (ggo_fraction, network)": hazy("network"),
    "rule (ggo_fraction)": hazy("rule"),
}


def unseen(folder: Path) -> dict[str, Scan]:
    """Give the scans behind the curtain whose HU are kept."""
    scans = {}
    for shard in range(UNSEEN // SHARD):
        with np.load(folder / "curtain" / f"curtain_{shard:03d}.npz") as stored:
            parts = {key: stored[key] for key in ("hu", "spacing", "lungs_mask", "lesions_mask")}
        for place in range(SHARD):
            name, hu = every_phantom().names[shard * SHARD + place], parts["hu"][place]
            lungs, lesions = (
                np.unpackbits(parts[key][place], count=hu.size).reshape(hu.shape).astype(bool)
                for key in ("lungs_mask", "lesions_mask")
            )
            truth = Truth(lungs, lesions, lesions.sum() / lungs.sum())
            scans[name] = Scan(hu, tuple(map(float, parts["spacing"][place])), name, truth=truth)
    return scans


def fractions(what: str, scans: dict[str, Scan], kept: Path) -> tuple[dict[str, float], float]:
    """Give a fraction of every scan, and the median seconds of one; what was computed is kept."""
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for number, (name, scan) in enumerate(scans.items()):
        if name not in found:
            start = time.process_time()
            found[name] = FRACTIONS[what](scan), time.process_time() - start
        if number % 20 == 19 or number == len(scans) - 1:
            kept.write_text(json.dumps(found))
    return {name: found[name][0] for name in scans}, float(np.median([found[name][1] for name in scans]))


def images_of(scans: dict[str, Scan], recipe: gl.Recipe) -> gl.images.ImageSet:
    table = every_phantom().table.iloc[: len(scans)]
    pixels = np.stack([recipe.cut(scan).image() for scan in scans.values()])
    return gl.images.ImageSet(pixels, table[["name", "patient", "label", "split"]].reset_index(drop=True), recipe)


def trained(
    cohort: gl.Cohort, scans: dict[str, Scan], recipe: gl.Recipe, seeds: int, build: dict, **settings: object
) -> tuple[gl.evaluation.Report, list[float], float]:
    """Train with several seeds: the median one's report, the scores of all, the mean processor seconds."""
    images, judged, reports, spent = gl.prepare(cohort, recipe), images_of(scans, recipe), [], 0.0
    for seed in range(seeds):
        model = gl.build_backbone("resnet18", **build, seed=seed)
        config, start = gl.TrainConfig(**{**SETTINGS, **settings}, seed=101 + seed), time.process_time()
        gl.fit(model, images.train, images.validation, config, progress=False)
        spent += time.process_time() - start
        reports.append(gl.evaluate(gl.predict(model, judged)))
    order = np.argsort([report.macro_f1 for report in reports])
    return reports[order[len(order) // 2]], sorted(report.macro_f1 for report in reports), spent / seeds


def main(seeds: int, folder: Path) -> None:
    scans, cohort = unseen(folder), gl.phantom_cohort(shape=SHAPE)
    found = Results("formulations")
    found.table(
        f"Behind the curtain, {len(scans)} phantoms; what learns, learns from {len(cohort.train)} scans",
        ["what", "macro-F1", "low", "high", "of all seeds", "grades off, mean", "processor s"],
    )
    learnt = {name: cohort.scan(name) for name in cohort.train.names}
    judged = every_phantom().subset(np.arange(len(scans)))
    for number, what in enumerate(FRACTIONS):
        kept = folder / f"formulations_{number}.json"
        fraction, seconds = fractions(what, learnt | scans, kept)
        row(found, what, gl.evaluate(gl.evaluation.ggo_baseline(fraction, cohort.train, judged)), "", seconds)
    three, many = gl.Recipe(size=SIZE), gl.Recipe(slices=SEQUENCE, size=SIZE)
    for what, recipe, build, settings in (
        # A head of classes had its lowest validation loss at this rate, see course_defaults.py.
        ("three slices to a grade", three, {"weights": "phantom", "extent": "head"}, {"lr": 1e-2}),
        (
            "three slices to an involvement to a grade",
            three,
            {"weights": "phantom", "extent": "head"},
            {"loss": "involvement"},
        ),
        (
            f"GRU over {SEQUENCE} slices, to an involvement",
            many,
            {"weights": "phantom", "sequence": True, "extent": "head"},
            {"loss": "involvement"},
        ),
    ):
        report, scores, seconds = trained(cohort, scans, recipe, seeds, build, **settings)
        row(found, what, report, " ".join(f"{score:.2f}" for score in scores), seconds)
    found.note(
        "Processor seconds: of one scan for what gives a fraction, of one training for what is trained. The oracle "
        "sees the true lesions of the three slices, and is the most that three slices can tell."
    )
    found.write()


def row(found: Results, what: str, report: gl.evaluation.Report, scores: str, seconds: float) -> None:
    low, high = report.interval()
    off = float(report.scores.loc["mean grade error", "value"])
    found.row(what, report.macro_f1, low, high, scores, off, seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=cache_folder(), help="where curtain.py keeps its phantoms")
    given = parser.parse_args()
    main(given.seeds, given.folder)
