"""Hold segment_lungs and ggo_fraction against the recipes that people use: outline, involvement, time.

    python benchmarks/lung_recipes.py [--seeds 3]     # patients for each grade

On phantoms, and on the real scans in ../shared/data where there are any. All work on the same HU, in one thread, in
turn on one scan after another. The involvement that a recipe goes with is the share of its lungs in -750..-300 HU.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import mean, median

import numpy as np
from lungs import FIRST_SEED, REAL, dice, phantom, real_scans
from results import Results
from scipy import ndimage
from skimage.filters import roberts, threshold_otsu
from skimage.measure import label, regionprops
from skimage.morphology import disk, isotropic_closing
from skimage.segmentation import clear_border

from ggo_lab.errors import GgoLabError
from ggo_lab.lungs import ggo_fraction, segment_lungs
from ggo_lab.scan import WINDOWS, Scan, window

_PAPERS_GREY = 100  # of 255, in the window of the paper; about -450 HU
_CLOSE_MM = 8.0
_BAND = (-750, -300)
GRADES = (0, 1, 2, 3, 4)  # 0: without disease


def papers(scan: Scan) -> np.ndarray:
    """Slice by slice, as the paper's public code does: dark and not at the border, two largest areas, closed, filled.

    It is a recipe from a Kaggle competition (kmader, "DSB lung segmentation algorithm"), on 8-bit grey.
    """
    lungs = np.zeros(scan.shape, bool)
    for z, hu in enumerate(scan.hu):
        areas = label(clear_border(window(hu, *WINDOWS["paper"]) < _PAPERS_GREY))
        largest = sorted(regionprops(areas), key=lambda region: -region.area)[:2]
        dark = np.isin(areas, [region.label for region in largest]) if largest else np.zeros(hu.shape, bool)
        closed = ndimage.binary_closing(np.pad(ndimage.binary_erosion(dark, disk(2)), 10), disk(10))[10:-10, 10:-10]
        lungs[z] = ndimage.binary_fill_holes(roberts(closed) > 0)
    return lungs


def otsu(scan: Scan) -> np.ndarray:
    """In three dimensions with scikit-image: below Otsu's threshold, at no side, the two largest parts, closed."""
    dark = np.stack([clear_border(plane) for plane in scan.hu < threshold_otsu(np.maximum(scan.hu, -1024))])
    parts = label(dark)
    sizes = np.bincount(parts.ravel())[1:]
    largest = 1 + np.argsort(-sizes)[:2]
    lungs = np.isin(parts, largest[sizes[largest - 1] > 0.1 * sizes.max()])
    margin = [int(np.ceil(_CLOSE_MM / step)) for step in scan.spacing]
    padded = isotropic_closing(np.pad(lungs, [(m, m) for m in margin]), _CLOSE_MM, spacing=scan.spacing)
    return padded[tuple(slice(m, -m) for m in margin)]


def band(scan: Scan, lungs: np.ndarray) -> float:
    """Share of the lungs between two HU."""
    inside = scan.hu[lungs]
    return float(np.mean((inside > _BAND[0]) & (inside < _BAND[1]))) if inside.size else 0.0


RECIPES: dict[str, tuple[Callable, Callable]] = {
    "ours": (segment_lungs, lambda scan, lungs: ggo_fraction(scan, lungs).total),
    "ours, haze by rule": (segment_lungs, lambda scan, lungs: ggo_fraction(scan, lungs, "rule").total),
    "paper's threshold, band": (papers, band),
    "scikit-image with Otsu, band": (otsu, band),
}


def measure(recipe: str, scan: Scan, truth: np.ndarray) -> tuple[float, float, float]:
    """Dice of the lungs, the involvement found, and processor seconds."""
    find, share = RECIPES[recipe]
    scan, start = replace(scan), time.process_time()  # anew, for what the network saw of a scan is remembered
    try:
        lungs = find(scan)
        found = share(scan, lungs)
    except GgoLabError:
        lungs, found = np.zeros(scan.shape, bool), 0.0
    return dice(lungs, truth), found, time.process_time() - start


def main(seeds: int) -> None:
    found = Results("lung_recipes")
    head = ["", "lungs, Dice: mean", "worst", "involvement, points off: mean", "worst", "processor s a scan"]
    real = [(scan, truth) for _, scan, truth in real_scans() if truth is not None] if REAL.is_dir() else []
    groups: dict[str, list[tuple[Scan, np.ndarray, float]]] = {
        "real scans without disease": [(scan, truth, 0.0) for scan, truth in real]
    }
    for grade in GRADES:
        scans = [phantom(grade, seed) for seed in range(FIRST_SEED, FIRST_SEED + seeds)]
        name = f"phantoms, grade {grade}" if grade else "phantoms without disease"
        groups[name] = [(scan, scan.truth.lungs, scan.truth.involvement) for scan in scans]
    for group, cases in groups.items():
        if not cases:
            found.note(f"No real scans at {REAL.name}: left out.")
            continue
        found.table(f"Lungs and involvement, {len(cases)} {group}", head)
        rows: dict[str, list[tuple[float, float, float]]] = {recipe: [] for recipe in RECIPES}
        for scan, truth, involvement in cases:
            for recipe, row in rows.items():
                overlap, share, seconds = measure(recipe, scan, truth)
                row.append((overlap, 100 * abs(share - involvement), seconds))
        for recipe, row in rows.items():
            overlaps, errors, seconds = zip(*row, strict=True)
            found.row(recipe, mean(overlaps), min(overlaps), mean(errors), max(errors), median(seconds))
    found.write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="patients for each grade")
    main(parser.parse_args().seeds)
