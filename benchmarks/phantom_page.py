"""Draw twelve phantoms in three planes, in the lung and the mediastinal window, beside real slices: a page to look at.

    python benchmarks/phantom_page.py phantom_page.png

Real slices are taken from ../shared/data, where that folder is (see data/README.md for what they are); else the page
holds phantoms alone.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from ggo_lab.phantom import make_phantom
from ggo_lab.readers import read_scan
from ggo_lab.scan import WINDOWS, Scan, window

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
CASES = (
    ("normal", {"involvement": 0.0, "confounders": ()}),
    ("normal, contrast, arms down", {"involvement": 0.0, "confounders": (), "contrast_hu": 180, "arms": "down"}),
    ("emphysema", {"involvement": 0.0, "confounders": "emphysema"}),
    ("atelectasis, effusion", {"involvement": 0.0, "confounders": ("dependent_atelectasis", "effusion")}),
    ("motion, nodules", {"involvement": 0.0, "confounders": ("motion", "nodules")}),
    ("mild, single focus", {"involvement": 0.02, "distribution": "single", "patterns": ()}),
    ("mild, multifocal", {"grade": 1, "distribution": "multifocal", "patterns": ()}),
    ("mild, reversed halo, bands", {"grade": 1, "patterns": ("reversed_halo", "subpleural_bands")}),
    ("moderate, crazy paving", {"grade": 2, "patterns": "crazy_paving"}),
    ("severe, consolidation", {"grade": 3, "patterns": ("consolidation", "air_bronchogram")}),
    ("severe, diffuse", {"grade": 3, "distribution": "diffuse"}),
    ("critical, thick and smooth", {"grade": 4, "kernel": "smooth", "slice_mm": 8}),
)
_PICTURE_INCH, _MARGIN_MM = 3.0, 45.0  # of one picture; shown around the lungs


def planes(scan: Scan) -> list[tuple[np.ndarray, float]]:
    """Axial, coronal and sagittal slices through the disease, or the lungs' middle, and each one's pixel aspect."""
    lungs, lesions = scan.truth.lungs, scan.truth.lesions
    rows, columns = (np.flatnonzero(lungs.any(axis=others)) for others in ((0, 2), (0, 1)))
    margin = round(_MARGIN_MM / scan.spacing[1])
    y, x = (slice(max(0, found[0] - margin), found[-1] + margin) for found in (rows, columns))
    z = int(np.argmax((lesions if lesions.any() else lungs).sum(axis=(1, 2))))
    middle = int(np.average(np.arange(scan.shape[1]), weights=lungs.sum(axis=(0, 2))))
    right = int(np.average(np.arange(scan.shape[2]), weights=scan.truth.masks["right_lung"].sum(axis=(0, 1))))
    tall = scan.spacing[0] / scan.spacing[1]
    return [(scan.hu[z, y, x], 1.0), (scan.hu[::-1, middle, x], tall), (scan.hu[::-1, y, right], tall)]


def real_pictures() -> list[tuple[str, np.ndarray]]:
    """One slice of each real scan at hand."""
    files = {"real, normal": "cip_thorax/crop_ct_2slices.nrrd", "real, contrast": "lungmask_slice/0.dcm"}
    return [(name, read_scan(REAL / path).hu[0]) for name, path in files.items() if (REAL / path).exists()]


def show(axes, hu: np.ndarray, name: str, aspect: float = 1.0) -> None:
    axes.imshow(window(hu, *WINDOWS[name]), cmap="gray", vmin=0, vmax=255, aspect=aspect, interpolation="bilinear")


def draw(path: Path, seed: int) -> None:
    real = real_pictures()
    columns, rows = 6, 12 + (2 if real else 0)
    figure, grid = plt.subplots(
        rows // 2, 2 * columns, figsize=(2 * columns * _PICTURE_INCH, rows // 2 * _PICTURE_INCH)
    )
    for axes in grid.ravel():
        axes.set_axis_off()
    blocks = [grid[row, start : start + columns] for row in range(rows // 2) for start in (0, columns)]
    if real:
        for block, (title, hu) in zip(blocks, real, strict=False):
            show(block[0], hu, "lung")
            show(block[1], hu, "mediastinum")
            block[0].set_title(title, loc="left", fontsize=12)
        blocks = blocks[2:]
    for number, (block, (title, choices)) in enumerate(zip(blocks, CASES, strict=True)):
        scan = make_phantom(seed=seed + number, **choices)
        for start, name in ((0, "lung"), (3, "mediastinum")):
            for axes, (hu, aspect) in zip(block[start : start + 3], planes(scan), strict=True):
                show(axes, hu, name, aspect)
        block[0].set_title(f"{title} (seed {seed + number})", loc="left", fontsize=12)
    figure.subplots_adjust(0, 0, 1, 0.98, 0.01, 0.08)
    figure.savefig(path, dpi=70)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="the PNG to write")
    parser.add_argument("--seed", type=int, default=60, help="of the first phantom")
    options = parser.parse_args()
    draw(options.path, options.seed)
