"""The public log of arXiv:2303.16904, as it stands in lisatwyw/cov19 at commit 980843a."""

import json
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

PAPER_NETWORKS = (
    "alexnet",
    "vgg11_bn",
    "squeezenet1_0",
    "resnet152",
    "wide_resnet101_2",
    "densenet121",
    "densenet201",
    "inception_v3",
    "vit_b_32",
)

# What benchmarks/nine_networks.py measured: histories and predictions of a run of all nine.
MEASURED = Path(__file__).parent / "nine_networks.json"

# logs/2023-03.md, lines 1 to 103: the validation confusion matrices that it prints. Rows: true grade, mild to critical.
_CONFUSIONS = {
    ("wide_resnet101_2", 64, 0.001): ((29, 0, 2, 0), (0, 20, 0, 0), (0, 0, 45, 0), (0, 0, 2, 3)),
    ("wide_resnet101_2", 128, 0.001): ((27, 2, 2, 0), (1, 19, 0, 0), (0, 1, 44, 0), (0, 0, 3, 2)),
    ("vit_b_32", 128, 0.1): ((25, 3, 0, 3), (0, 13, 7, 0), (1, 7, 36, 1), (0, 0, 2, 3)),
    ("vit_b_32", 64, 0.001): ((27, 3, 1, 0), (0, 14, 6, 0), (0, 9, 36, 0), (0, 0, 3, 2)),
    ("vit_b_32", 16, 0.001): ((28, 2, 0, 1), (1, 12, 7, 0), (0, 9, 36, 0), (0, 0, 3, 2)),
}


def paper_log() -> pd.DataFrame:
    """Return the 24 runs of the paper's public log (logs/2023-03.md), one a row.

    Returns:
        Columns images ("all2" or "crop_norm"), backbone, optimizer, lr, batch_size, epochs_used (missing where the log
        does not say) and val_macro_f1, on the 101 scans of the organisers' validation split.
    """
    with files("ggo_lab.course").joinpath("paper_log.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


def paper_confusions() -> dict[tuple[str, int, float], np.ndarray]:
    """Return the confusion matrices on the validation split that the log prints: of five runs, all on "all2".

    Returns:
        Int matrices (4, 4), rows true and columns predicted, by backbone, batch size and learning rate.
    """
    return {run: np.array(rows) for run, rows in _CONFUSIONS.items()}


def nine_networks() -> dict[str, dict[str, dict]]:
    """Return what full runs of the paper's nine networks gave on the course's cohort (benchmarks/nine_networks.py).

    Returns:
        By extent, then by network: weights, extent, size, machine, stopped_early, history (its table's columns), test
        (names, labels, probabilities), macro_f1 and behind (value, low, high), behind_scans, and seconds and
        processor_seconds (a head's with an empty cache, and again).
    """
    return json.loads(MEASURED.read_text(encoding="utf-8"))
