"""Measure segment_lungs, split_lungs and ggo_fraction against truth, and draw the worst cases.

    python benchmarks/lungs.py                    # phantoms, the real scans in ../shared/data, speed
    python benchmarks/lungs.py --seeds 4 --quick  # fewer patients, no timing
    python benchmarks/lungs.py --haze rule        # haze by the rule; by network if not given

Pictures go to build/lungs/: the truth's outline in green, the result's in red, what was counted as hazy in cyan.
"""

import argparse
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import joblib
import matplotlib
import numpy as np
from scipy.stats import spearmanr

from ggo_lab.errors import GgoLabError
from ggo_lab.lungs import ggo_fraction, segment_lungs, split_lungs
from ggo_lab.lungs.involvement import METHODS
from ggo_lab.phantom import make_phantom
from ggo_lab.readers import read_labels, read_scan
from ggo_lab.scan import Scan

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
REAL = ROOT.parent / "shared" / "data"
PICTURES = ROOT / "build" / "lungs"
SHAPE = (64, 256, 256)
FIRST_SEED = 200  # the constants in ggo_lab/lungs were set on other seeds than these
KINDS = ("clear", 0, 1, 2, 3, 4)  # without disease and what resembles it; without disease; grades
WORST = 4  # cases drawn of each kind


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Overlap of two masks, 0..1; 1 for two empty ones."""
    total = np.count_nonzero(a) + np.count_nonzero(b)
    return 2 * np.count_nonzero(a & b) / total if total else 1.0


def phantom(kind: str | int, seed: int) -> Scan:
    """One patient of one of KINDS."""
    if kind == "clear":
        return make_phantom(involvement=0.0, seed=seed, shape=SHAPE, confounders=())
    if kind == 0:
        return make_phantom(involvement=0.0, seed=seed, shape=SHAPE)
    return make_phantom(grade=kind, seed=seed, shape=SHAPE)


def measure(kind: str | int, seed: int, method: str) -> dict:
    """Compare one phantom with its truth."""
    scan = phantom(kind, seed)
    truth = scan.truth
    row = {"kind": kind, "seed": seed, "truth": truth.involvement, "dice": 0.0, "sides": 0.0}
    try:
        lungs = segment_lungs(scan)
    except GgoLabError as error:
        print(f"  {kind} seed {seed}: {error}")
        return row
    sides = zip(split_lungs(scan, lungs), ("right_lung", "left_lung"), strict=True)
    ggo, on_truth = (ggo_fraction(scan, mask, method) for mask in (lungs, truth.lungs))
    in_slice, ill = truth.lungs.sum(axis=(1, 2)), truth.lesions.sum(axis=(1, 2))
    seen = (in_slice > 0.05 * in_slice.max()) & lungs.any(axis=(1, 2))
    return row | {
        "dice": dice(lungs, truth.lungs),
        "sides": min(dice(side, truth.masks[name]) for side, name in sides),
        "found": ggo.total,
        "on_truth": on_truth.total,
        "slices": float(np.mean(np.abs(ggo.per_slice[seen] - ill[seen] / in_slice[seen]))),
        "lesion_dice": dice(ggo.mask, truth.lesions),
    }


def draw(scan: Scan, lungs: np.ndarray, truth: np.ndarray, hazy: np.ndarray, title: str, path: Path) -> None:
    """Draw three planes with outlines."""
    z, y, x = (np.flatnonzero(truth.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1)))
    wanted = ((0, z, (0.15, 0.4, 0.7)), (1, y, (0.3, 0.5, 0.75)), (2, x, (0.2, 0.45, 0.8)))
    at = [(axis, int(places[int(f * (len(places) - 1))])) for axis, places, shares in wanted for f in shares]
    figure, panels = plt.subplots(3, 3, figsize=(15, 13), layout="constrained")
    for panel, (axis, index) in zip(panels.flat, at, strict=True):
        plane = np.take(scan.hu, index, axis)
        rows, columns = (step for a, step in enumerate(scan.spacing) if a != axis)
        origin = "upper" if axis == 0 else "lower"
        panel.imshow(plane, "gray", vmin=-1350, vmax=150, aspect=rows / columns, origin=origin)
        for mask, color in ((hazy, "cyan"), (truth, "lime"), (lungs, "red")):
            outline = np.take(mask, index, axis)
            if outline.any():
                panel.contour(outline, [0.5], colors=color, linewidths=0.9)
        panel.set_title(f"{'zyx'[axis]} = {index}", fontsize=8)
        panel.axis("off")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def phantoms(seeds: range, method: str) -> None:
    """Print the phantoms' table and draw the worst of them."""
    cases = [(kind, seed) for kind in KINDS for seed in seeds]
    rows = joblib.Parallel(n_jobs=-1)(joblib.delayed(measure)(*case, method) for case in cases)
    print(
        f"\nPhantoms of {SHAPE} voxels, {len(seeds)} patients for each grade "
        "(0: without disease; clear: without confounders too)"
    )
    print(
        "kind   Dice mean   min  sides min | involvement: mean error   worst  on true lungs  per slice  lesions' Dice"
    )
    for kind in KINDS:
        part = [row for row in rows if row["kind"] == kind and "found" in row]
        dices = [row["dice"] for row in rows if row["kind"] == kind]
        error = np.array([row["found"] - row["truth"] for row in part])
        lesions = f"{np.mean([row['lesion_dice'] for row in part]):.3f}" if part[0]["truth"] else "-"
        on_truth = np.abs([row["on_truth"] - row["truth"] for row in part])
        print(
            f"{kind:>5}  {np.mean(dices):9.4f} {min(dices):.4f}  {min(r['sides'] for r in part):9.4f} | "
            f"{100 * np.mean(np.abs(error)):20.2f} {100 * np.max(np.abs(error)):9.2f} {100 * on_truth.mean():14.2f} "
            f"{100 * np.mean([r['slices'] for r in part]):10.2f} {lesions:>14}"
        )
    ill = [row for row in rows if row["truth"] and "found" in row]
    truth, found = (np.array([row[key] for row in ill]) for key in ("truth", "found"))
    print(
        f"grades 1-4: mean absolute error {100 * np.mean(np.abs(found - truth)):.2f} points, "
        f"rank correlation {spearmanr(truth, found)[0]:.3f}"
    )
    worst_outline = sorted(rows, key=lambda row: row["dice"])[:WORST]
    worst_share = sorted((r for r in rows if "found" in r), key=lambda row: -abs(row["found"] - row["truth"]))[:WORST]
    for kind, worst in (("outline", worst_outline), ("involvement", worst_share)):
        for row in worst:
            if "found" not in row:
                continue
            scan = phantom(row["kind"], row["seed"])
            lungs = segment_lungs(scan)
            title = (
                f"phantom {row['kind']}, seed {row['seed']}: Dice {row['dice']:.3f}, "
                f"involvement {row['truth']:.3f}, found {row['found']:.3f}"
            )
            name = f"worst-{kind}-{row['kind']}-seed{row['seed']}.png"
            draw(scan, lungs, scan.truth.lungs, ggo_fraction(scan, lungs, method).mask, title, PICTURES / name)


def real_scans() -> list[tuple[str, Scan, np.ndarray | None]]:
    """Name, scan and true lungs of the real scans beside the project."""
    labels = read_labels(REAL / "cip_thorax" / "lm-64.nrrd") & 255
    folder = REAL / "elastix_right_lung"
    return [
        ("cip_thorax", read_scan(REAL / "cip_thorax" / "ct-64.nrrd"), (labels >= 9) & (labels <= 14)),
        (
            "elastix_right_lung",
            read_scan(folder / "3DCT_lung.mha"),
            read_labels(folder / "3DCT_lung_baseline_mask.mha") > 0,
        ),
        ("cip_thorax 2 slices", read_scan(REAL / "cip_thorax" / "crop_ct_2slices.nrrd"), None),
    ]


def real(method: str) -> None:
    """Print the real scans' table and draw them; none of them shows disease."""
    if not REAL.is_dir():
        print(f"\nNo real scans at {REAL}: left out")
        return
    print("\nReal scans without disease")
    for name, scan, truth in real_scans():
        lungs = segment_lungs(scan)
        ggo = ggo_fraction(scan, lungs, method)
        overlap = "   -  " if truth is None else f"{dice(lungs, truth):.4f}"
        labelled = None if truth is None else ggo_fraction(scan, truth, method).total
        on_truth = "" if labelled is None else f", in the labelled lungs {100 * labelled:.2f}%"
        print(f"{name:20s} Dice {overlap}  hazy {100 * ggo.total:.2f}%{on_truth}")
        file = PICTURES / f"real-{name.replace(' ', '-')}.png"
        draw(scan, lungs, lungs if truth is None else truth, ggo.mask, name, file)


def speed() -> None:
    """Print seconds and memory on large scans."""
    print("\nSpeed on 512 x 512 pixels; memory is the peak of what is allocated beside the scan")
    base = make_phantom(grade=2, seed=1, shape=(60, 512, 512))
    for slices in (120, 300):
        hu = np.repeat(base.hu, slices // 60, axis=0)
        scan = replace(base, hu=hu, spacing=(base.spacing[0] * 60 / slices, *base.spacing[1:]), truth=None)
        lungs = segment_lungs(scan)
        for function, arguments in ((segment_lungs, (scan,)), (ggo_fraction, (scan, lungs))):
            wall, processor = time.perf_counter(), time.process_time()
            function(*arguments)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            tracemalloc.start()
            function(*arguments)
            peak = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            print(
                f"{slices} slices: {function.__name__:13s} {wall:.2f} s (processor {processor:.2f} s), "
                f"{peak:.0f} MB beside {hu.nbytes / 2**20:.0f} MB of scan"
            )


def main() -> None:
    """Print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="patients for each grade")
    parser.add_argument("--quick", action="store_true", help="leave out the timing")
    parser.add_argument("--haze", choices=METHODS, default="network", help="how haze is measured")
    arguments = parser.parse_args()
    real(arguments.haze)
    if not arguments.quick:
        speed()
    phantoms(range(FIRST_SEED, FIRST_SEED + arguments.seeds), arguments.haze)
    print(f"\nPictures: {PICTURES}")


if __name__ == "__main__":
    main()
