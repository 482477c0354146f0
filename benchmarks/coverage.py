"""Measure how often the 95% intervals hold the truth, by simulation: prints a Markdown table.

    python benchmarks/coverage.py [REPEATS]

A network is a table of chances: what it says of a scan of each true grade. From it the true value of every measure is
known, test splits can be drawn at will, and the intervals of each can be held against the truth. "Plain" is the
bootstrap without imagined patients, for the docstring of bootstrap_weights.
"""

import sys

import numpy as np

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
FROM_COUNTS = {
    "macro-F1": lambda counts: measures.macro_f1(counts, np.ones(4, bool)),
    "accuracy": measures.accuracy,
    "MCC": measures.matthews,
    "weighted kappa": measures.weighted_kappa,
    "mean grade error": measures.mean_grade_error,
    "two grades off": measures.two_off,
}
SAME_FATE = 0.6  # share of scans whose difficulty is the same for both networks of a pair
SEEDS = 3  # runs of training of each network of a pair
SEED_SD = 0.05  # by how much of the way to random guessing one run differs from the next


def usual_grades(n: int) -> np.ndarray:
    """True indices of n scans in the paper's shares."""
    return np.repeat(np.arange(4), np.maximum(1, np.round(SHARES * n)).astype(int))


def predicted_by(network: np.ndarray, true: np.ndarray, luck: np.ndarray) -> np.ndarray:
    """What a network says of scans, given each scan's luck in 0..1."""
    return np.minimum((luck[:, None] > network.cumsum(axis=1)[true]).sum(axis=1), 3)


def predictions_of(true: np.ndarray, said: np.ndarray, rng: np.random.Generator) -> gl.Predictions:
    """Predictions whose most probable grade is what was said, with varying confidence."""
    names = [f"s{i}" for i in range(len(true))]
    shares = rng.dirichlet(np.ones(4), len(true)) + 1.01 * np.eye(4)[said]
    return gl.Predictions(names, names, true, shares / shares.sum(axis=1, keepdims=True))


def true_values(network: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """What each measure would be on endlessly many scans."""
    counts = (network * shares[:, None])[None]
    values = {name: float(measure(counts)[0]) for name, measure in FROM_COUNTS.items()}
    many = rng.choice(4, 40_000, p=shares)
    crowd = predictions_of(many, predicted_by(network, many, rng.random(len(many))), rng)
    return {**values, "AUC": float(measures.mean_auc(many, crowd.probabilities, np.ones((1, len(many))))[0])}


def cover_reports(n: int, network: np.ndarray, repeats: int, draws: int, seed: int) -> dict[str, float]:
    """Share of repeats in which the intervals of a report hold the truth, by measure."""
    rng = np.random.default_rng(seed)
    true = usual_grades(n)
    truth = true_values(network, np.bincount(true) / len(true), rng)
    held = {name: 0 for name in [*truth, "macro-F1, plain"]}
    for _ in range(repeats):
        said = predicted_by(network, true, rng.random(len(true)))
        report = gl.evaluate(predictions_of(true, said, rng), draws=draws)
        for name, value in truth.items():
            low, high = report.interval(name)
            held[name] += low <= value <= high
        weights = plain_weights(true, draws, rng)
        plain = measures.macro_f1(measures.confusion(true, said, weights), np.ones(4, bool))
        low, high = percentile_interval(plain)
        held["macro-F1, plain"] += low <= truth["macro-F1"] <= high
    return {name: count / repeats for name, count in held.items()}


def cover_differences(n: int, networks: list[np.ndarray], seeds: int, repeats: int, draws: int, seed: int) -> float:
    """Share of repeats in which all intervals of a comparison hold the true differences of macro-F1."""
    rng = np.random.default_rng(seed)
    true = usual_grades(n)
    shares = np.bincount(true) / len(true)
    names = [str(i) for i in range(len(networks))]
    truth = {}
    for name, network in zip(names, networks, strict=True):
        runs = np.stack([_run(network, seeds, rng) * shares[:, None] for _ in range(4000)])
        truth[name] = measures.macro_f1(runs, np.ones(4, bool)).mean()
    held = 0
    for _ in range(repeats):
        reports = {name: [] for name in names}
        shared, same = rng.random(len(true)), rng.random(len(true)) < SAME_FATE
        for name, network in zip(names, networks, strict=True):
            for _ in range(seeds):
                luck = np.where(same, shared, rng.random(len(true)))
                said = predicted_by(_run(network, seeds, rng), true, luck)
                reports[name].append(gl.evaluate(predictions_of(true, said, rng), draws=2))
        found = gl.compare(reports, draws=draws).differences
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


def main(repeats: int) -> None:
    """Print the tables."""
    print(f"Share of {repeats} simulated test splits whose 95% interval holds the truth\n")
    rows = {}
    for n in SIZES:
        for name, network in NETWORKS.items():
            rows[f"{n} scans, {name}"] = cover_reports(n, network, repeats, 400, seed=n)
    columns = list(next(iter(rows.values())))
    print(f"| | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, held in rows.items():
        print(f"| {name} | {' | '.join(f'{held[column]:.3f}' for column in columns)} |", flush=True)
    print("\n| differences of macro-F1 | good, good | great, good | good, poor, great |\n|---|---|---|---|")
    poor, good, great = NETWORKS.values()
    for n in SIZES:
        for seeds in (1, SEEDS):
            groups = ([good, good], [great, good], [good, poor, great])
            cells = [f"{cover_differences(n, group, seeds, repeats, 400, seed=n):.3f}" for group in groups]
            print(f"| {n} scans, {seeds} seed{'s' if seeds > 1 else ''} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
