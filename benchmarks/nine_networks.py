"""Fine-tune each of the paper's nine networks on the course's cohort, as notebook 10 does, and keep what happened.

    python benchmarks/nine_networks.py [--extent head] [--epochs 40] [--behind 100] [--folder FOLDER] [NAME ...]

Each at its native size, from the best weights that are there. A network that is done is not trained again (delete its
file in the folder to repeat it), and one that was interrupted goes on at its last epoch. Then the tables of all extents
go to results/nine_networks.json, and histories and predictions, small, into the package:
ggo_lab/course/nine_networks.json.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

from machine import facts
from results import Results

import ggo_lab as gl
from ggo_lab.course import PAPER_NETWORKS
from ggo_lab.course.paper import MEASURED
from ggo_lab.storage import cache_folder

SHAPE = (32, 128, 128)
# The paper's rate and patience for a head; where all layers learn, 0.001 would undo what was pretrained.
RATES, PATIENCE = {"head": 1e-3, "last_block": 1e-3, "all": 1e-4}, 5

HEAD = ["network", "weights", "pixels", "epochs", "ended", "macro-F1, test", "interval"]
HEAD += ["behind the curtain", "interval", "processor s"]


def fine_tune(name: str, extent: str, epochs: int, behind: int, folder: Path) -> dict:
    """Train once; a head twice in time: with an empty cache, and with the frozen layers' outputs on disk."""
    cohort, size = gl.phantom_cohort(shape=SHAPE), gl.BACKBONES[name].size
    images, spent = gl.prepare(cohort, gl.Recipe(size=size)), []
    settings = gl.TrainConfig(lr=RATES[extent], max_epochs=epochs, patience=PATIENCE)
    checkpoint = None if extent == "head" else folder / f"{name}-{extent}.checkpoint"
    for _ in range(2 if extent == "head" else 1):
        model = gl.build_backbone(name, extent, weights="best")
        start, cpu = time.perf_counter(), time.process_time()
        history = gl.fit(model, images.train, images.validation, settings, checkpoint=checkpoint, progress=False)
        report = gl.evaluate(gl.predict(model, images.test, reuse_frozen=True))
        spent.append((time.perf_counter() - start, time.process_time() - cpu))
    if checkpoint is not None:  # an interrupted run's seconds stand in its history
        spent = [(float(history.table["seconds"].sum()), float(history.table["seconds"].sum()))]
    start = time.process_time()
    judged = gl.evaluate(gl.predict(model, gl.curtain.curtain_images(images.recipe, behind)))
    print(name, spent, f"behind the curtain {time.process_time() - start:.0f} s of processor time", flush=True)
    table = history.table.drop(columns="seconds").astype({"best": int}).round(4)
    return {
        "weights": model.weights,
        "extent": extent,
        "size": size,
        "machine": facts(),
        "stopped_early": history.stopped_early,
        "history": table.to_dict("list"),
        "test": {
            "names": report.predictions.names,
            "labels": report.predictions.labels.tolist(),
            "probabilities": report.predictions.probabilities.round(3).tolist(),
        },
        "macro_f1": [report.macro_f1, *report.interval()],
        "behind": [judged.macro_f1, *judged.interval()],
        "behind_scans": behind,
        "seconds": [round(wall, 1) for wall, _ in spent],
        "processor_seconds": [round(cpu, 1) for _, cpu in spent],
    }


def main(names: list[str], extent: str, epochs: int, behind: int, folder: Path) -> None:
    warnings.simplefilter("ignore")  # what was loaded stands in the table
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        kept = folder / f"{name}-{extent}.json"
        if not kept.exists():
            kept.write_text(json.dumps(fine_tune(name, extent, epochs, behind, folder)))
    done = json.loads(MEASURED.read_text(encoding="utf-8"))  # what was measured elsewhere stays
    for kept in folder.glob("*.json"):
        name, its = kept.stem.rsplit("-", 1)
        done.setdefault(its, {})[name] = json.loads(kept.read_text())
    done = {its: {name: runs[name] for name in PAPER_NETWORKS if name in runs} for its, runs in done.items()}
    found = Results("nine_networks")
    for its, runs in done.items():
        found.table(f"The paper's networks on the course's cohort, 74 scans to learn from: extent={its}", HEAD)
        for name, one in runs.items():
            intervals = [f"{low:.2f} to {high:.2f}" for low, high in (one["macro_f1"][1:], one["behind"][1:])]
            found.row(
                name, one["weights"], one["size"], len(one["history"]["epoch"]),
                "early" if one["stopped_early"] else "as allowed", one["macro_f1"][0], intervals[0], one["behind"][0],
                intervals[1], ", then ".join(map(str, one["processor_seconds"])),
            )  # fmt: skip
    scans = sorted({one["behind_scans"] for runs in done.values() for one in runs.values()})
    found.note(
        f"23 scans to stop by, 23 to judge; behind the curtain {', '.join(map(str, scans))} phantoms that no cohort "
        "contains. Where the weights are random, frozen random layers say nothing about the network: the rows of "
        "extent=head and last_block then show what such a run is worth, and how long it takes. Where more than the "
        "head learnt, the seconds are by the clock, of all epochs on one thread beside other programs. With all "
        "layers VGG, ResNet-152, Wide ResNet and DenseNet-201 were allowed 10 epochs, the others 20; Inception's "
        "seconds are those of 19."
    )
    found.write()
    MEASURED.write_text(json.dumps(done) + "\n", encoding="utf-8")
    print(f"{MEASURED}: {MEASURED.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(PAPER_NETWORKS))
    parser.add_argument("--extent", default="head", choices=["head", "last_block", "all"])
    parser.add_argument("--epochs", type=int, default=40, help="at most")
    parser.add_argument("--behind", type=int, default=100, help="phantoms behind the curtain to judge on")
    parser.add_argument("--folder", type=Path, default=cache_folder() / "nine_networks", help="of what is done")
    given = parser.parse_args()
    main(given.names, given.extent, given.epochs, given.behind, given.folder)
