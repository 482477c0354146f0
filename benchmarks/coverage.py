"""Measure how often the 95% intervals hold the truth, by simulation: prints Markdown tables.

    python benchmarks/coverage.py [REPEATS [reports] [differences] [confidence] [sets]]

A network is a table of chances: what it says of a scan of each true grade. From it the true value of every measure is
known, test splits can be drawn at will, and the intervals of each can be held against the truth. "Plain" is the
bootstrap without pseudo-counts, for the docstring of bootstrap_weights. Bands of confidence are held against
networks that are right as often as they say, or surer than that; conformal sets against a network trained on phantoms.
"""

import sys
import time

import machine
import numpy as np
import pandas as pd
from scipy.special import softmax

import ggo_lab as gl
from ggo_lab.evaluation import measures
from ggo_lab.evaluation.intervals import percentile_interval

SHARES = np.array([0.29, 0.27, 0.36, 0.08])  # of the grades in arXiv:2303.16904
SIZES = (24, 61, 231)  # a small phantom test split; the validation split of ECCV 2022; the test split of ICASSP 2023
# Rows: true grade; columns: what is predicted.
NETWORKS = {
    "poor": np.array([[0.5, 0.3, 0.2, 0.0], [0.3, 0.4, 0.3, 0.0], [0.2, 0.3, 0.4, 0.1], [0.1, 0.2, 0.5, 0.2]]),
    "good": np.array([[0.8, 0.15, 0.05, 0.0], [0.15, 0.7, 0.14, 0.01], [0.03, 0.17, 0.75, 0.05], [0, 0.05, 0.35, 0.6]]),
    "great": np.array([[0.97, 0.03, 0, 0], [0.03, 0.94, 0.03, 0], [0, 0.03, 0.95, 0.02], [0, 0, 0.08, 0.92]]),
}
MEASURES = measures.measures_of(gl.GGO_SEVERITY)
ALL = np.ones(4, bool)  # classes that are present
SAME_FATE = 0.6  # share of scans whose difficulty is the same for both networks of a pair
SEEDS = 3  # runs of training of each network of a pair
SEED_SD = 0.05  # by how much of the way to random guessing one run differs from the next
OF_A_GRADE = ("precision", "recall", "F1")
OVERSURE = 0.5  # temperature of a network that is surer than it is right
ANSWERED = (0.25, 0.5, 1.0)  # shares of the scans
STATED = (0.8, 0.9)  # coverage of conformal sets


def usual_grades(n: int) -> np.ndarray:
    """True labels of n scans in the paper's shares."""
    return np.repeat(np.arange(4), np.maximum(1, np.round(SHARES * n)).astype(int))


def predicted_by(network: np.ndarray, true: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """What a network says of scans, given each scan's luck in 0..1."""
    return np.minimum((luck[:, None] > network.cumsum(axis=1)[true]).sum(axis=1), 3)


def predictions_of(true: np.ndarray, said: np.ndarray, rng: np.random.Generator) -> gl.Predictions:
    """Predictions whose most probable grade is what was said, with varying confidence."""
    names = [f"s{i}" for i in range(len(true))]
    shares = rng.dirichlet(np.ones(4), len(true)) + 1.01 * np.eye(4)[said]
    table = pd.DataFrame({"name": names, "label": true})
    return gl.Predictions(table, shares / shares.sum(axis=1, keepdims=True))


def true_values(network: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """What each measure would be on endlessly many scans."""
    counts = (network * shares[:, None])[None]
    of_counts = {name: measure for name, measure in MEASURES.items() if name != "AUC"}
    values = {name: float(measures.from_counts(measure, counts, ALL)[0]) for name, measure in of_counts.items()}
    many = rng.choice(4, 40_000, p=shares)
    crowd = predictions_of(many, predicted_by(network, many, rng.random(len(many))), rng)
    scans = measures.resampled(many, crowd.probabilities, np.ones((1, len(many))), ALL)
    return {**values, "AUC": float(MEASURES["AUC"].compute(scans)[0])}


def cover_reports(n: int, network: np.ndarray, repeats: int, draws: int, seed: int) -> dict[str, float]:
    """Share of repeats in which the intervals of a report hold the truth, by measure."""
    rng = np.random.default_rng(seed)
    true = usual_grades(n)
    truth = true_values(network, np.bincount(true) / len(true), rng)
    each = true_per_class(network, np.bincount(true) / len(true))
    held = dict.fromkeys([*truth, "macro-F1, plain"], 0)
    held |= {name: np.zeros(4) for name in each}
    for repeat in range(repeats):
        said = predicted_by(network, true, rng.random(len(true)))
        # A new seed each: 400 draws in common would shift the ends of all intervals alike, and be taken for a fault.
        report = gl.evaluate(predictions_of(true, said, rng), draws=draws, seed=repeat)
        for name, value in truth.items():
            low, high = report.interval(name)
            held[name] += low <= value <= high
        for name, values in each.items():
            held[name] += (report.per_class[f"{name}_low"] <= values) & (values <= report.per_class[f"{name}_high"])
        weights = plain_weights(true, draws, rng)
        plain = measures.from_counts(MEASURES["macro-F1"], measures.confusion(true, said, weights, 4), ALL)
        low, high = percentile_interval(plain)
        held["macro-F1, plain"] += low <= truth["macro-F1"] <= high
    shares = {name: held[name] / repeats for name in truth} | {"macro-F1, plain": held["macro-F1, plain"] / repeats}
    for name in each:
        shares |= {name: held[name].mean() / repeats, f"{name}, worst grade": held[name].min() / repeats}
    return shares


def true_per_class(network: np.ndarray, shares: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each grade on endlessly many scans, (4,) each."""
    counts = network * shares[:, None]
    right, true, said = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    return {"precision": right / said, "recall": right / true, "F1": 2 * right / (true + said)}


def sure_of_itself(n: int, rng: np.random.Generator, temperature: float = 1.0, prefix: str = "s") -> gl.Predictions:
    """Predictions of a network whose probabilities are true at temperature 1, and too sure below."""
    logits = rng.normal(0, 1.5, (n, 4))
    true = (rng.random(n)[:, None] > softmax(logits, axis=1).cumsum(axis=1)).sum(axis=1).clip(max=3)
    names = [f"{prefix}{i}" for i in range(n)]
    return gl.Predictions(pd.DataFrame({"name": names, "label": true}), softmax(logits / temperature, axis=1))


def cover_confidence(n: int, temperature: float, repeats: int, seed: int) -> dict[str, float]:
    """Share of repeats in which risk-coverage bands hold the true risk, and calibration stays within its bands."""
    rng = np.random.default_rng(seed)
    crowd = sure_of_itself(400_000, rng, temperature)
    confidence = crowd.probabilities.max(axis=1)
    order = np.argsort(-confidence)
    risk = np.cumsum((crowd.predicted != crowd.labels)[order]) / np.arange(1, len(order) + 1)
    held = {f"risk, {share:.0%} answered": [] for share in ANSWERED}
    held |= {"a bin within its band": [], "calibration error below its bound": []}
    for repeat in range(repeats):
        found = sure_of_itself(n, rng, temperature)
        curve = gl.risk_coverage(found)
        for share, name in zip(ANSWERED, held, strict=False):
            row = curve.iloc[np.searchsorted(curve["coverage"], share - 1e-9)]
            # Of endlessly many scans those that are as sure as the threshold asks for.
            true = risk[np.searchsorted(-confidence[order], -row["threshold"], side="right") - 1]
            held[name].append(row["low"] <= true <= row["high"])
        bins = gl.reliability(found, draws=400, seed=repeat)
        held["a bin within its band"] += (
            bins.table["right"].between(bins.table["band_low"], bins.table["band_high"]).tolist()
        )
        held["calibration error below its bound"].append(bins.error <= bins.chance_high)
    return {name: float(np.mean(each)) for name, each in held.items()}


def cover_sets(judge: gl.Predictions, learnt: int, stated: float, repeats: int, seed: int) -> tuple[float, float]:
    """Mean coverage and mean size of conformal sets over random divisions into scans learnt from and judged."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(repeats):
        order = rng.permutation(len(judge))
        sets = gl.conformal_sets(judge.subset(order[learnt:]), judge.subset(order[:learnt]), stated)
        found.append((np.divide(*sets.covered), sets.mean_size))
    return tuple(np.mean(found, axis=0))


def phantom_judge() -> gl.Predictions:
    """What a small network trained on phantoms says of 240 others."""
    recipe, shape = gl.Recipe(size=32), (16, 64, 64)
    known = gl.prepare(gl.phantom_cohort(120, shape=shape), recipe, progress=False)
    unseen = gl.prepare(gl.phantom_cohort(240, seed=1, shape=shape, second_scans=0), recipe, progress=False)
    model = gl.build_backbone("resnet18", weights=None)
    gl.fit(model, known.train, known.validation, gl.TrainConfig(max_epochs=15, speed="plain"), progress=False)
    return gl.predict(model, unseen)


def cover_differences(n: int, networks: list[np.ndarray], seeds: int, repeats: int, draws: int, seed: int) -> float:
    """Share of repeats in which all intervals of a comparison hold the true differences of macro-F1."""
    rng = np.random.default_rng(seed)
    true = usual_grades(n)
    shares = np.bincount(true) / len(true)
    names = [str(i) for i in range(len(networks))]
    truth = {}
    for name, network in zip(names, networks, strict=True):
        runs = np.stack([_run(network, seeds, rng) * shares[:, None] for _ in range(4000)])
        truth[name] = measures.from_counts(MEASURES["macro-F1"], runs, ALL).mean()
    held = 0
    for repeat in range(repeats):
        reports = {name: [] for name in names}
        shared, same = rng.random(len(true)), rng.random(len(true)) < SAME_FATE
        for name, network in zip(names, networks, strict=True):
            for _ in range(seeds):
                luck = np.where(same, shared, rng.random(len(true)))
                said = predicted_by(_run(network, seeds, rng), true, luck)
                reports[name].append(gl.evaluate(predictions_of(true, said, rng), draws=2))
        found = gl.compare(reports, draws=draws, seed=repeat).differences
        held += all(
            low <= truth[a] - truth[b] <= high
            for (a, b), low, high in zip(
                (row.split(" - ") for row in found.index), found["low"], found["high"], strict=True
            )
        )
    return held / repeats


def plain_weights(true: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """The stratified bootstrap as textbooks have it: real scans only, (draws, N)."""
    weights = np.empty((draws, len(true)))
    for grade in np.unique(true):
        members = np.flatnonzero(true == grade)
        weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
    return weights


def _run(network: np.ndarray, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """The network as one run of training leaves it; with a single seed there is nothing but the network itself."""
    if seeds == 1:
        return network
    worse = abs(rng.normal(0, SEED_SD))
    return (1 - worse) * network + worse / 4


def seconds_of_a_report(n: int, draws: int, rounds: int = 5) -> float:
    """Processor time of a whole report, the median of a few."""
    rng = np.random.default_rng(0)
    true = usual_grades(n)
    found = predictions_of(true, predicted_by(NETWORKS["good"], true, rng.random(len(true))), rng)
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        gl.evaluate(found, draws=draws)
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def table(head: str, rows: dict[str, dict[str, float]]) -> None:
    """Print rows of named shares as Markdown."""
    columns = list(next(iter(rows.values())))
    print(f"\n| {head} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, held in rows.items():
        print(f"| {name} | {' | '.join(f'{held[column]:.3f}' for column in columns)} |", flush=True)


def reports(repeats: int) -> None:
    """Print the tables of a report's intervals."""
    rows = {
        f"{n} scans, {name}": cover_reports(n, network, repeats, 400, seed=n)
        for n in SIZES
        for name, network in NETWORKS.items()
    }
    of_grades = [column for column in next(iter(rows.values())) if column.startswith(OF_A_GRADE)]
    for head, chosen in (("bootstrap", False), ("Wilson, mean over grades", True)):
        table(head, {k: {c: v for c, v in row.items() if (c in of_grades) == chosen} for k, row in rows.items()})


def differences(repeats: int) -> None:
    """Print the table of comparisons."""
    poor, good, great = NETWORKS.values()
    groups = {"good, good": [good, good], "great, good": [great, good], "good, poor, great": [good, poor, great]}
    rows = {
        f"{n} scans, {seeds} seed{'s' if seeds > 1 else ''}": {
            name: cover_differences(n, group, seeds, repeats, 400, seed=n) for name, group in groups.items()
        }
        for n in SIZES
        for seeds in (1, SEEDS)
    }
    table("differences of macro-F1", rows)


def confidence(repeats: int) -> None:
    """Print the table of bands of risk and of calibration."""
    rows = {
        f"{n} scans, {name}": cover_confidence(n, temperature, repeats, seed=n)
        for n in SIZES
        for name, temperature in (("calibrated", 1.0), ("too sure", OVERSURE))
    }
    table("confidence", rows)


def sets(repeats: int) -> None:
    """Print the table of conformal sets on phantoms."""
    judge = phantom_judge()
    print(f"\nConformal sets of a network on {len(judge)} phantoms, {repeats} divisions\n")
    print("| learnt from | stated | coverage | grades in a set |\n|---|---|---|---|")
    for learnt in (23, 61, 120):
        for stated in STATED:
            coverage, size = cover_sets(judge, learnt, stated, repeats, seed=learnt)
            print(f"| {learnt} scans | {stated:.0%} | {coverage:.3f} | {size:.2f} |")


PARTS = {part.__name__: part for part in (reports, differences, confidence, sets)}


def main(repeats: int, parts: list[str]) -> None:
    """Print the tables."""
    start = time.process_time()
    print(f"A report of 231 scans with 2,000 draws takes {seconds_of_a_report(231, 2000):.2f} s of processor time.\n")
    print(f"Share of {repeats} simulated test splits whose 95% interval holds the truth")
    for part in parts or PARTS:
        PARTS[part](repeats)
    print(f"\n{machine.facts()}; {time.process_time() - start:.0f} s of processor time")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400, sys.argv[2:])
