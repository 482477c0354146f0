"""Kill prepare, fit, sweep and pretraining with SIGKILL at random moments: does the next call give the same bytes?

    python benchmarks/kill.py [--times 20] [--seed 1]

Each work is done once undisturbed, which gives its bytes and its processor time; then, as often as asked, it is begun
anew, killed after a random share of that time, and done again by a second call. `prepare` is killed when half of its
entries exist already. Moments are counted in processor time, so that other programs move none of them. Linux only.
"""

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from results import Results

import ggo_lab as gl

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import pretrain
from squares import TRAIN, VALIDATION, config, tiny

Work = Callable[[Path], bytes]  # does the work in a folder, or what is left of it, and gives its bytes
SCANS = 40


def write_cohort(folder: Path) -> None:
    """Small scans and their tables: of all, and of the first half."""
    rows = []
    for number in range(SCANS):
        scan = gl.make_phantom(involvement=number / SCANS, seed=number, shape=(12, 64, 64))
        gl.write_nifti(scan, folder / f"{number}.nii.gz")
        rows.append(f"{folder}/{number}.nii.gz,p{number},{1 + number % 4}")
    for name, some in (("all", rows), ("half", rows[: SCANS // 2])):
        (folder / f"{name}.csv").write_text("\n".join(["path,patient,grade", *some]))


def preparing(scans: Path) -> tuple[Work, Work]:
    """What makes half of the entries, and what makes all."""

    def work(table: str, folder: Path) -> bytes:
        os.environ["GGO_LAB_CACHE"] = str(folder)
        images = gl.prepare(gl.read_cohort(scans / table), gl.Recipe(size=64), jobs=1, progress=False)
        entries = {path.name: path.read_bytes() for path in sorted((folder / "images").rglob("*.npz"))}
        return _digest(np.asarray(images.pixels).tobytes(), *entries, *entries.values())

    return lambda folder: work("half.csv", folder), lambda folder: work("all.csv", folder)


def fitting(folder: Path) -> bytes:
    model = tiny(dropout=0.5)
    settings = config(max_epochs=30, patience=30)
    history = gl.fit(model, TRAIN, VALIDATION, settings, progress=False, checkpoint=folder / "c")
    return _digest(_weights(model), history.table.drop(columns="seconds").to_csv())


def sweeping(folder: Path) -> bytes:
    gl.sweeps.build_backbone = lambda name, extent, weights, *, seed, **_: tiny(seed)
    images = gl.images.ImageSet(
        np.concatenate([TRAIN.pixels, VALIDATION.pixels]),
        pd.concat([TRAIN.table, VALIDATION.table], ignore_index=True),
        TRAIN.recipe,
    )
    table = gl.sweep(images, folder / "runs", {"seed": [0, 1, 2, 3]}, config(max_epochs=3), None)
    assert not table.filter(like="error").notna().any(axis=None), table
    return _digest(table.drop(columns=[name for name in table if "seconds" in name]).to_csv())


def drawing(folder: Path) -> bytes:
    """Make what pretraining learns from: few and small, so that a hundred steps take seconds."""
    pretrain.SHAPE, pretrain.PATIENTS, pretrain.SHARD, pretrain.HELD_OUT = (16, 64, 64), 8, 8, 4
    pretrain.BATCH, pretrain.SIZES = 4, (32, 48)
    pretrain.make_slices(folder, 1, range(1))
    return b"made"


def pretraining(folder: Path) -> bytes:
    """A checkpoint is written at step 80, and at the last."""
    pretrain.WEIGHTS = folder / "weights"
    drawing(folder)
    pretrain.STEPS["squeezenet1_0"] = 100
    pretrain.train("squeezenet1_0", folder, wide=False, at_most=None)
    return _digest((pretrain.WEIGHTS / "squeezenet1_0.safetensors").read_bytes())


def _weights(model: torch.nn.Module) -> bytes:
    return b"".join(value.numpy().tobytes() for value in model.state_dict().values())


def _digest(*parts: bytes | str) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.digest()


def in_a_child(work: Work, folder: Path, after_s: float | None = None) -> bytes | None:
    """What the work gives; None where it was killed, after so many seconds of processor time."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with contextlib.redirect_stdout(None), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                os.write(write_end, work(folder))
        finally:
            os._exit(0)
    os.close(write_end)
    while after_s is not None and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) / 1e9 >= after_s:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.001)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    answer = os.read(read_end, 64)
    os.close(read_end)
    if not killed and not answer:
        raise RuntimeError("the work failed; see above")
    return None if killed else answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)  # so that a copy of this process can compute
    found = Results("kill")
    found.table("Killed at random moments, then called again", ["", "killed", "ended before", "other bytes", "s"])
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "scans").mkdir()
        write_cohort(place / "scans")
        half, all_ = preparing(place / "scans")
        works: dict[str, tuple[Work | None, Work]] = {
            "prepare": (half, all_),
            "fit": (None, fitting),
            "sweep": (None, sweeping),
            "pretraining": (drawing, pretraining),
        }
        for name, (before, work) in works.items():
            if options.only in name:
                found.row(name, *try_out(place / name, before, work, options.times, random.Random(options.seed)))
    found.write()


def try_out(
    place: Path, before: Work | None, work: Work, times: int, rng: random.Random
) -> tuple[int, int, int, float]:
    """How often it was killed, how often it had ended, how often the bytes were others, and its processor seconds."""
    start = place / "start"
    start.mkdir(parents=True)
    if before is not None:
        in_a_child(before, start)
    shutil.copytree(start, place / "whole")
    used = os.times()
    right = in_a_child(work, place / "whole")
    now = os.times()
    takes = now.children_user + now.children_system - used.children_user - used.children_system
    killed = others = 0
    for _ in range(times):
        folder = place / "run"
        shutil.copytree(start, folder)
        ended = in_a_child(work, folder, rng.uniform(0, takes))
        killed += ended is None
        others += in_a_child(work, folder) != right
        shutil.rmtree(folder)
    return killed, times - killed, others, takes


if __name__ == "__main__":
    main()
