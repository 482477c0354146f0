"""How hard the phantom cohort is: what guessing, HU rules and a network score on its test split.

    python benchmarks/cohort_difficulty.py --scans 200 --shape 32 128 128

Every rule looks at whole scans through lungs found by segment_lungs; the network sees three slices.
"""

import argparse
from itertools import combinations

import joblib
import numpy as np

import ggo_lab as gl

GRADES = (1, 2, 3, 4)
BAND_HU = (-750, -300)  # where ground-glass opacity is commonly searched


def shares(cohort: gl.Cohort, row: int) -> tuple[float, float]:
    """Share of the found lungs in the band, and what ggo_fraction says."""
    scan = cohort.scan(row)
    lungs = gl.segment_lungs(scan)
    hu = scan.hu[lungs]
    return float(((hu > BAND_HU[0]) & (hu < BAND_HU[1])).mean()), gl.ggo_fraction(scan, lungs).total


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 of the four grades, (...,), from counts (..., true, predicted)."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    both = confusion.sum(-1) + confusion.sum(-2)
    return np.divide(2 * right, both, out=np.zeros(right.shape), where=both > 0).mean(-1)


def confusion_of(true: np.ndarray, value: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Counts (..., true, predicted) when value is cut into grades; cuts is (..., 3)."""
    below = np.stack([(value[true == g][:, None] <= cuts.reshape(-1)).sum(0).reshape(cuts.shape) for g in GRADES], -2)
    totals = np.broadcast_to(np.array([(true == g).sum() for g in GRADES])[:, None], (*below.shape[:-1], 1))
    edges = np.concatenate([np.zeros(totals.shape, int), below, totals], -1)
    return np.diff(edges, axis=-1)


def tuned_cuts(true: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The three cuts, among 40 quantiles, with the best macro-F1."""
    cuts = np.array(list(combinations(np.quantile(value, np.linspace(0.02, 0.98, 40)), 3)))
    return cuts[macro_f1(confusion_of(true, value, cuts)).argmax()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=200)
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 128, 128))
    parser.add_argument("--reader-noise", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=96, help="of the network's images")
    parser.add_argument("--epochs", type=int, default=40, help="0: no network")
    options = parser.parse_args()

    cohort = gl.phantom_cohort(options.scans, shape=tuple(options.shape), reader_noise=options.reader_noise)
    grade, test = cohort.table["grade"].to_numpy(int), (cohort.table["split"] == "test").to_numpy(bool)
    commonest = np.bincount(grade[~test]).argmax()
    guess = macro_f1(np.array([[(grade[test] == t).sum() * (p == commonest) for p in GRADES] for t in GRADES]))
    print(f"{test.sum()} test scans; macro-F1 on them")
    print(f"  always {gl.Grade(commonest).label:<44} {guess:.3f}")
    found = np.array(joblib.Parallel(joblib.cpu_count())(joblib.delayed(shares)(cohort, i) for i in range(len(cohort))))
    for name, value in zip(("share in the HU band", "ggo_fraction"), found.T, strict=True):
        fixed = macro_f1(confusion_of(grade[test], value[test], np.array(gl.BAND_EDGES)))
        tuned = macro_f1(confusion_of(grade[test], value[test], tuned_cuts(grade[~test], value[~test])))
        print(f"  {name + ', cut at the bands edges':<51} {fixed:.3f}")
        print(f"  {name + ', cuts tuned on the other splits':<51} {tuned:.3f}")
    if options.epochs:
        images = gl.prepare(cohort, gl.Recipe(size=options.size))
        model = gl.build_backbone("resnet18", extent="all", weights="imagenet")
        config = gl.TrainConfig(lr=5e-4, batch_size=16, max_epochs=options.epochs, patience=12)
        history = gl.fit(model, images.train, images.validation, config)
        score = gl.evaluate(gl.predict(model, images.test)).macro_f1
        print(f"  {'resnet18, three slices, ' + str(len(history.table)) + ' epochs':<51} {score:.3f}")


if __name__ == "__main__":
    main()
