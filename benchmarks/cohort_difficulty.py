"""How hard the phantom cohort is: what guessing, HU rules and a tuned network score on its test split.

    python benchmarks/cohort_difficulty.py                         about 15 minutes on 2 cores
    python benchmarks/cohort_difficulty.py --scans 120 --epochs 0  the rules alone

Every rule looks at whole scans through lungs found by segment_lungs; the network sees three slices. Its settings are
chosen on the validation split; the test split is looked at once.
"""

import argparse
from itertools import product

import joblib
import machine
import numpy as np

import ggo_lab as gl

BAND_HU = (-750, -300)  # where ground-glass opacity is commonly searched
RATES, LOSSES = (1e-3, 3e-4), ("cross_entropy", "corn")


def shares(cohort: gl.Cohort, row: int) -> tuple[float, float]:
    """Share of the found lungs in the band, and what ggo_fraction says."""
    scan = cohort.scan(row)
    lungs = gl.segment_lungs(scan, "rule")
    hu = scan.hu[lungs]
    return float(((hu > BAND_HU[0]) & (hu < BAND_HU[1])).mean()), gl.ggo_fraction(scan, lungs, "rule").total


def read_as_involvement(fractions: dict[str, float], judged: gl.Cohort, made_by: str) -> gl.Predictions:
    """Take each share for the involvement, and grade it by the bands."""
    labels = [gl.GGO_SEVERITY.label_from_involvement(fractions[name]) or 0 for name in judged.names]  # none: mild
    return gl.Predictions(judged.table, np.eye(4)[labels], made_by=made_by)


def tuned_network(cohort: gl.Cohort, size: int, epochs: int) -> gl.Predictions:
    """The test predictions of the resnet18 whose settings did best on the validation split."""
    images = gl.prepare(cohort, gl.Recipe(size=size, pick="lungs", crop="lungs"))
    best, chosen = -1.0, None
    for lr, loss in product(RATES, LOSSES):
        model = gl.build_backbone("resnet18", extent="all", weights=None)
        config = gl.TrainConfig(lr=lr, loss=loss, max_epochs=epochs, patience=epochs, rotate=5, scale=0.05)
        gl.fit(model, images.train, images.validation, config)
        score = gl.evaluate(gl.predict(model, images.validation)).macro_f1
        print(f"    validation macro-F1 {score:.3f} with lr={lr:g}, {loss}", flush=True)
        if score > best:
            best, chosen = score, gl.predict(model, images.test)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scans", type=int, default=360)
    parser.add_argument("--shape", type=int, nargs=3, default=(32, 128, 128))
    parser.add_argument("--reader-noise", type=float, default=0.0)
    parser.add_argument("--size", type=int, default=64, help="of the network's images")
    parser.add_argument("--epochs", type=int, default=40, help="0: no network")
    options = parser.parse_args()
    print(machine.facts())

    cohort = gl.phantom_cohort(options.scans, shape=tuple(options.shape), reader_noise=options.reader_noise)
    found = joblib.Parallel(joblib.cpu_count())(joblib.delayed(shares)(cohort, i) for i in range(len(cohort)))
    judged = {}
    for name, values in zip(("share in the HU band", "ggo_fraction"), zip(*found, strict=True), strict=True):
        fractions = dict(zip(cohort.names, values, strict=True))
        judged[f"{name}, taken for the involvement"] = read_as_involvement(fractions, cohort.test, name)
        judged[f"{name}, thresholds learnt"] = gl.evaluation.ggo_baseline(fractions, cohort.train, cohort.test, name)
    if options.epochs:
        judged["tuned resnet18, three slices"] = tuned_network(cohort, options.size, options.epochs)

    reports = {name: gl.evaluate(predictions) for name, predictions in judged.items()}
    print(gl.compare(reports).scores[["value", "low", "high"]].round(3).to_string())
    if options.epochs:
        plain, *_, network = reports.values()
        print(gl.compare({"HU band": plain, "network": network}))


if __name__ == "__main__":
    main()
