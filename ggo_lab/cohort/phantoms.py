"""Cohorts of phantoms: every scan is made when it is opened."""

import json
from functools import partial

import numpy as np
import pandas as pd

from ggo_lab.cohort.findings import Findings, about
from ggo_lab.cohort.table import Cohort
from ggo_lab.errors import CohortError, check_whole
from ggo_lab.phantom import make_phantom
from ggo_lab.phantom.choices import PAPER_GRADE_SHARES, checked_shape
from ggo_lab.scan import Scan
from ggo_lab.storage import code_fingerprint
from ggo_lab.tasks import GGO_SEVERITY, Task

# The easiest phantom to call mild still shows something, and no phantom sits on a band's edge, where a voxel of
# rounding would change its label.
_LEAST_INVOLVEMENT, _EDGE_MARGIN, _MOST_INVOLVEMENT = 0.03, 0.02, 0.92
# Standard deviation of how far the involvement moves between two scans of a patient. A choice: disease that has got
# better or worse, and is still of the same or the next grade.
_FOLLOW_UP_SD = 0.12
# Each scan's own seed is 100,000 times the cohort's and its number, which 64 bits must hold.
_MOST_SCANS, _HIGHEST_SEED = 100_000, 2**63 // 100_000 - 2


def phantom_cohort(
    n: int = 120,
    seed: int = 0,
    shape: tuple[int, int, int] = (64, 256, 256),
    *,
    second_scans: float = 0.1,
    reader_noise: float = 0.0,
    controls: int = 0,
    healthy: float = 0.0,
    task: Task = GGO_SEVERITY,
) -> Cohort:
    """Describe a cohort of phantoms, already split by patient; each scan is made when it is opened.

    Args:
        n: number of scans; of those with disease the grades are in the paper's shares (29/27/36/8%).
        seed: of everything. The same seed gives the same patients on any machine.
        shape: voxels (Z, Y, X) of each scan.
        second_scans: share of the patients who are scanned twice: the same anatomy, the disease further on or healed
            a little. Both scans are in one split.
        reader_noise: standard deviation of a reader's estimate of involvement, 0..1. The `label` is then what that
            reader says, which differs from the truth near the bands' edges. Two readers with 0.05 agree with a kappa
            of 0.79; about 0.80 is published for visual scores.
        controls: further scans without disease, of other patients, all in the test split: what a network makes of
            people it never learnt from.
        healthy: share of the n scans that are of people without disease, 0..1, each scanned once, in every split.
        task: what is graded: one with bands, such as MOSMED, whose CT-0 is the class of those without disease. Where
            the task has no class for them, as the paper's has none, they have no label.

    Returns:
        A Cohort whose table also holds `true_label`, `involvement` (0..1, as asked for), `phantom_seed` and
        `patient_seed`.

    Raises:
        CohortError: shares outside 0..1.
        ChoiceError: no scan, a seed that is none, or a task that involvement does not decide.
    """
    n, controls = check_whole("n", n, 1, _MOST_SCANS), check_whole("controls", controls, 0, _MOST_SCANS)
    seed = check_whole("seed", seed, 0, _HIGHEST_SEED)
    shares = {"second_scans": second_scans, "reader_noise": reader_noise, "healthy": healthy}
    if wrong := {name: share for name, share in shares.items() if not 0 <= share <= 1}:
        said = " and ".join(f"{name}={share}" for name, share in wrong.items())
        raise CohortError(f"{said} must be from 0 to 1, such as 0.1.", tuple(wrong.values()))
    shape = checked_shape(shape)
    well = round(n * healthy)
    involvement, patient = np.zeros(0), np.zeros(0, int)
    if ill := n - well:
        involvement = _involvements(ill, np.random.default_rng(seed))
        patient = _patients(involvement, second_scans, np.random.default_rng([seed, 1]))
    order = np.argsort(patient, kind="stable")  # two scans of a patient stand side by side
    without = well + controls
    involvement = np.concatenate([involvement[order], np.zeros(without)])
    patient = np.concatenate([patient[order], patient.max(initial=-1) + 1 + np.arange(without)])
    as_read = involvement + reader_noise * np.random.default_rng([seed, 2]).standard_normal(len(involvement))
    as_read = np.where(involvement > 0, np.clip(as_read, _LEAST_INVOLVEMENT, 1), 0)
    seeds = seed * 100_000 + np.arange(n + controls)
    table = pd.DataFrame(
        {
            "name": [f"phantom-{seed}-{i:04d}" for i in range(n + controls)],
            "patient": [f"patient-{seed}-{p:04d}" for p in patient],
            "label": pd.array([task.label_from_involvement(value) for value in as_read], "Int64"),
            "split": pd.NA,
            "true_label": pd.array([task.label_from_involvement(value) for value in involvement], "Int64"),
            "involvement": involvement,
            "phantom_seed": seeds,
            "patient_seed": [seeds[np.flatnonzero(patient == p)[0]] for p in patient],  # that of the first scan
        }
    )
    open_row, identify_row = partial(_make_row, shape=shape), partial(_identify_phantom, shape=shape)
    drawn = Cohort(table.iloc[:n], open_row, identify_row, task=task).split_by_patient(seed=seed)
    table["split"] = [*drawn.table["split"], *["test"] * controls]
    return Cohort(table, open_row, identify_row, _unlabelled(table.iloc[:n]), task)


def _unlabelled(table: pd.DataFrame) -> Findings:
    """Say which people without disease have no label, since the task has no class for them."""
    names = table.loc[table["label"].isna(), "name"]
    what = (
        "People without disease have no label, for the task has no class for them: no network can learn from them. Ask "
        "for task=MOSMED, or leave them out with cohort.subset(cohort.labels >= 0)."
    )
    return Findings(about(names, "look", "labels", what))


def _involvements(n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw n involvements, (n,), whose grades have the paper's shares to within one scan."""
    shares = np.array(PAPER_GRADE_SHARES)
    counts = np.floor(shares * n).astype(int)
    for index in np.argsort(counts - shares * n, kind="stable")[: n - counts.sum()]:
        counts[index] += 1  # the grades that lost most by rounding down
    bands = [GGO_SEVERITY.band(label) for label in rng.permutation(np.repeat(np.arange(len(shares)), counts))]
    drawn = [
        rng.uniform(max(low + _EDGE_MARGIN, _LEAST_INVOLVEMENT), min(high - _EDGE_MARGIN, _MOST_INVOLVEMENT))
        for low, high in bands
    ]
    return np.round(drawn, 4)


def _patients(involvement: np.ndarray, second_scans: float, rng: np.random.Generator) -> np.ndarray:
    """Say whose scan each is, (n,): a second scan is one whose involvement lies near the first's."""
    n = len(involvement)
    twice = min(n - round(n / (1 + second_scans)), n // 2)
    alone = list(rng.permutation(n))
    patient = np.full(n, -1)
    for number in range(twice):
        first = alone.pop()
        wanted = involvement[first] + _FOLLOW_UP_SD * rng.standard_normal()
        second = alone.pop(int(np.argmin(np.abs(involvement[alone] - wanted))))
        patient[[first, second]] = number
    patient[alone] = twice + np.arange(len(alone))
    return rng.permutation(patient.max() + 1)[patient]


def _make_row(row: dict, shape: tuple[int, int, int]) -> Scan:
    return make_phantom(
        involvement=float(row["involvement"]),
        seed=int(row["phantom_seed"]),
        patient_seed=int(row["patient_seed"]),
        shape=shape,
    )


def _identify_phantom(row: dict, shape: tuple[int, int, int]) -> str:
    seeds = int(row["phantom_seed"]), int(row["patient_seed"])
    return json.dumps([code_fingerprint("phantom"), *seeds, float(row["involvement"]), shape])
