"""Measure how time and memory grow with what is worked on: scans, slices, pixels, draws.

    python benchmarks/growth.py [--quick]     # --quick: smaller scans, 40 instead of 1,000 of them, two sizes of three

A process for each measurement; seconds are the processor's. The exponent is the slope of a straight line through the
logarithms: 1 is growth in proportion, and what is above 1.1 is marked. Memory is the most beyond what the process
held before. Linux only.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from joblib.externals.loky import get_reusable_executor
from results import Results
from turns import alone

import ggo_lab as gl

STEEP = 1.1
LEAST_S = 0.3  # a turn repeats what is quicker until so much time has passed


def often(run: Callable[[], object]) -> Callable[[], float]:
    """Repeat a function for LEAST_S; the answer is how many times."""

    def turn() -> int:
        start, times = time.perf_counter(), 0
        while not times or time.perf_counter() - start < LEAST_S:
            run()
            times += 1
        return times

    return turn


def preparing(csv: Path, jobs: int) -> Callable[[], tuple[float, float]]:
    """Prepare a cohort of files with an empty cache; what the processes beside this one took: processor s, and MB."""
    os.environ["GGO_LAB_CACHE"] = tempfile.mkdtemp(dir=csv.parent)
    cohort, recipe, prepare = gl.read_cohort(csv), gl.Recipe(crop="lungs"), gl.prepare

    def turn() -> tuple[float, float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            prepare(cohort, recipe, jobs, progress=False)
        others = psutil.Process().children(recursive=True)
        taken = sum(sum(other.cpu_times()[:2]) for other in others), sum(_peak_mb(other.pid) for other in others)
        if others:  # a process waits for its children when it ends, and these would idle for five minutes first
            get_reusable_executor().shutdown()
        return taken

    return turn


def _peak_mb(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def phantom(shape: tuple[int, int, int]) -> Callable[[], int]:
    make = gl.make_phantom
    make(grade=2, seed=1, shape=(8, 32, 32))  # imports
    return often(lambda: make(grade=2, seed=1, shape=shape))


def lungs(shape: tuple[int, int, int]) -> Callable[[], int]:
    segment, scan = gl.segment_lungs, gl.make_phantom(grade=2, seed=1, shape=shape)
    return often(lambda: segment(scan))


def image(shape: tuple[int, int, int]) -> Callable[[], int]:
    scan, recipe = gl.make_phantom(grade=2, seed=1, shape=shape), gl.Recipe(pick="middle")
    return often(lambda: recipe.cut(scan).image())


def reading(shape: tuple[int, int, int], folder: Path) -> Callable[[], int]:
    read = gl.read_scan
    path = gl.write_nifti(gl.make_phantom(grade=2, seed=1, shape=shape), folder / f"{'x'.join(map(str, shape))}.nii.gz")
    return often(lambda: read(path))


def judging(scans: int, draws: int) -> Callable[[], int]:
    evaluate, random = gl.evaluate, np.random.default_rng(0)
    names = [str(number) for number in range(scans)]
    predictions = gl.Predictions(
        pd.DataFrame({"name": names, "label": np.arange(scans) % 4}), random.dirichlet(np.ones(4), scans)
    )
    return often(lambda: evaluate(predictions, draws=draws))


def exponent(sizes: list[int], values: list[float]) -> float | None:
    """The slope of log(values) over log(sizes); None where there is nothing to take the logarithm of."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0]) if min(values) > 0.5e-6 else None


class Growth:
    """A table of what grew with what."""

    def __init__(self):
        self.found = Results("growth")
        self.found.table(
            "Growth (memory below 1 MB is not fitted)",
            ["what", "with", "from", "to", "s, least", "s, most", "MB, least", "MB, most", "exponent, s", "MB", ""],
        )

    def row(self, what: str, with_: str, sizes: list[int], seconds: list[float], memory: list[float]) -> None:
        slopes = exponent(sizes, seconds), exponent(sizes, memory) if min(memory) >= 1 else None
        steep = any(slope is not None and slope > STEEP for slope in slopes)
        ends = sizes[0], sizes[-1], seconds[0], seconds[-1], memory[0], memory[-1]
        self.found.row(what, with_, *ends, *slopes, f"**above {STEEP}**" if steep else "")

    def repeated(self, what: str, with_: str, sizes: list[int], make: Callable, arguments: list[tuple]) -> None:
        """Measure something quick at every size: processor seconds of one call."""
        turns = [alone(make, *chosen, rounds=5, warm_up=1) for chosen in arguments]
        self.row(what, with_, sizes, [turn.cpu_s / turn.answer for turn in turns], [turn.memory_mb for turn in turns])

    def preparing(self, folder: Path, counts: list[int], shape: tuple[int, int, int]) -> None:
        """Measure a cohort of so many files, with one process and with two."""
        paths = [
            gl.write_nifti(gl.make_phantom(seed=seed, shape=shape), folder / f"scan{seed}.nii.gz")
            for seed in range(counts[-1])
        ]
        clock = {}
        for jobs in (1, 2):
            turns = []
            for count in counts:
                csv = folder / f"{count}.csv"
                pd.DataFrame({"path": [path.name for path in paths[:count]]}).to_csv(csv, index=False)
                turns.append(alone(preparing, csv, jobs))
            seconds, memory = zip(*((t.cpu_s + t.answer[0], t.memory_mb + t.answer[1]) for t in turns), strict=True)
            self.row(f"prepare, jobs={jobs}, all its processes", "scans", counts, seconds, memory)
            clock[jobs] = turns[-1].wall_s
        one, two = clock.values()
        self.found.note(
            f"prepare: {counts[-1]} scans by the clock in {one:.1f} s with one process and {two:.1f} s with two, "
            f"{one / two:.2f} times as fast."
        )


def main(quick: bool) -> None:
    growth = Growth()
    side, deep = (128, 32) if quick else (256, 64)
    factors = (1, 4) if quick else (1, 2, 4)
    stacks = [(deep * factor, side, side) for factor in factors]
    planes = [(deep // 2, side // 2 * factor, side // 2 * factor) for factor in factors]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        growth.preparing(folder, [10, 40] if quick else [10, 100, 1000], (24, 96, 96))
        for what, make, more in (
            ("make_phantom", phantom, ()),
            ("segment_lungs", lungs, ()),
            ("read_scan, .nii.gz", reading, (folder,)),
            ("scan_to_image", image, ()),
        ):
            for with_, shapes in (("slices", stacks), ("pixels of a slice", planes)):
                sizes = [shape[0] if with_ == "slices" else shape[1] * shape[2] for shape in shapes]
                growth.repeated(what, with_, sizes, make, [(shape, *more) for shape in shapes])
    draws, scans = [500 * factor**2 for factor in factors], [60 * factor**2 for factor in factors]
    growth.repeated("evaluate, 240 scans", "draws", draws, judging, [(240, n) for n in draws])
    growth.repeated("evaluate, 2000 draws", "scans", scans, judging, [(n, 2000) for n in scans])
    growth.found.write()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller scans, and fewer")
    main(parser.parse_args().quick)
