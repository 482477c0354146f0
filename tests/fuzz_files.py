"""Damage all else that is read, thousands of times: tables, model files, checkpoints, cache, sweeps, command lines.

    python tests/fuzz_files.py --count 10000 --seed 1

Each case must end in the right result or a GgoLabError, within 30 s and 3 GiB, and a command line must leave all that
it reads as it was. `--first i --count 1` runs case i of a seed alone, which is the same every time.
Scans have their own: fuzz_readers.py.
"""

import argparse
import contextlib
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors
import torch
from fuzz_readers import Sample, _damage, _peak_kb
from safetensors.torch import save
from squares import TRAIN, VALIDATION, config, copied, same, tiny

import ggo_lab as gl
from ggo_lab import cli
from ggo_lab.sweeps import sweep_table
from ggo_lab.training.model_files import _checksum

LONGEST_S, MOST_MEMORY_KB = 30, 3 * 2**20  # of processor time; by the clock, ten times as long
# Values that a file may hold in place of a good one.
_ODD = [None, True, 0, -1, 1e308, float("nan"), 20_000, 10**30, "", "x" * 5000, "\0", "../../etc", [], {}, [[[]]]]
_ODD += ["none", {"a": 1}, "resnet152", "imagenet", [0, 1], -0.5, "\udcff", 2**31]


class Wrong(Exception):
    """A result that is neither right nor refused."""


class Cases:
    """The good files, made once in a folder, and one function a kind that damages and reads them."""

    def __init__(self, folder: Path):
        self.folder = folder
        for number in range(3):
            scan = gl.make_phantom(involvement=0.1 + 0.2 * number, seed=number, shape=(8, 32, 32))
            gl.write_nifti(scan, folder / f"{number}.nii.gz")
        rows = [f"{n}.nii.gz,p{n},{n + 1},{split}" for n, split in enumerate(("train", "validation", "test"))]
        (folder / "cohort.csv").write_text("\n".join(["path,patient,grade,split", *rows]))
        pd.read_csv(folder / "cohort.csv").to_excel(folder / "cohort.xlsx", index=False)
        self.images = gl.prepare(gl.read_cohort(folder / "cohort.csv"), gl.Recipe(size=32), jobs=1, progress=False)
        self.model = gl.build_backbone("squeezenet1_0", weights=None, seed=1)
        self.model.recipe = self.images.recipe
        gl.save_model(self.model, folder / "model.safetensors")
        fitted = tiny()
        gl.fit(fitted, TRAIN, VALIDATION, config(), progress=False, checkpoint=folder / "run.checkpoint")
        self.fitted = copied(fitted)
        result = {"row": {"backbone": "resnet18", "seed": 1, "validation_macro_f1": 0.5}, "curves": {"loss": [1.0]}}
        (folder / "run.json").write_text(json.dumps(result))
        self.inputs = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        self.samples = {name: Sample({name: data}) for name, data in self.inputs.items()}

    def wounded(self, name: str, rng: random.Random) -> Path:
        """Write a damaged copy of a good file; return its path."""
        data = self.inputs[name]
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = _damage(data, self.samples, rng)
        path = self.folder / f"wounded{''.join(Path(name).suffixes)}"
        path.write_bytes(data)
        return path

    def table(self, rng: random.Random) -> None:
        cohort = gl.read_cohort(self.wounded(rng.choice(("cohort.csv", "cohort.csv", "cohort.xlsx")), rng))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scans that are left out
            gl.prepare(cohort, gl.Recipe(size=32), jobs=1, progress=False)

    def model_file(self, rng: random.Random) -> None:
        path = self.folder / "wounded.safetensors"
        if rng.random() < 0.5:
            self.wounded("model.safetensors", rng)
        else:  # a file that is whole, with facts that are not
            with safetensors.safe_open(self.folder / "model.safetensors", "pt") as file:
                facts = json.loads(file.metadata()["ggo_lab"])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for _ in range(rng.choice((1, 2))):
                _spoil(facts, rng)
            if rng.random() < 0.3:
                name = rng.choice(sorted(state))
                state[name] = rng.choice([state[name][:1], state[name].double(), torch.zeros(3), state[name] * np.nan])
                facts["crc32"] = _checksum(state) if rng.random() < 0.7 else 0
            path.write_bytes(save({n: t.contiguous() for n, t in state.items()}, {"ggo_lab": json.dumps(facts)}))
        loaded = gl.load_model(path)
        if loaded.network.__class__ is self.model.network.__class__ and rng.random() < 0.2:
            gl.predict(loaded, self.images)

    def checkpoint(self, rng: random.Random) -> None:
        model, path = tiny(), self.wounded("run.checkpoint", rng)
        gl.fit(model, TRAIN, VALIDATION, config(), progress=False, checkpoint=path)
        if not same(copied(model), self.fitted):
            raise Wrong("a damaged checkpoint gave other weights")

    def cache_entry(self, rng: random.Random) -> None:
        entries = sorted((gl.storage.cache_folder() / "images").rglob("*.npz"))
        victim = rng.choice(entries)
        data = victim.read_bytes()
        victim.write_bytes(_damage(data, self.samples, rng))
        cohort = gl.read_cohort(self.folder / "cohort.csv")
        images = gl.prepare(cohort, gl.Recipe(size=32), jobs=1, progress=False)
        if not np.array_equal(images.pixels, self.images.pixels):
            raise Wrong("a damaged cache gave other pixels")

    def sweep_folder(self, rng: random.Random) -> None:
        runs = self.folder / "runs"
        runs.mkdir(exist_ok=True)
        (runs / "good.json").write_bytes(self.inputs["run.json"])
        self.wounded("run.json", rng).replace(runs / "wounded.json")
        if rng.random() < 0.5:
            result = json.loads(self.inputs["run.json"])
            _spoil(result, rng)
            (runs / "wounded.json").write_text(json.dumps(result))
        sweep_table(runs)

    def command_line(self, rng: random.Random) -> None:
        line = _line(sorted(self.inputs), rng)
        code, told = _call(line, self.folder)
        read = {word for word in line if word in self.inputs and line[line.index(word) - 1] not in _OUTPUTS}
        lost = [name for name, data in self.inputs.items() if (self.folder / name).read_bytes() != data]
        for name in lost:
            (self.folder / name).write_bytes(self.inputs[name])
        if code not in (0, 1, 2) or "Traceback" in told or not set(lost).isdisjoint(read):
            raise Wrong(f"{line}: code {code}, inputs changed: {sorted(set(lost) & read)}, {told[-200:]}")
        if lost and "--force" not in line:
            raise Wrong(f"{line}: replaced {lost} without --force")
        if code == 2:
            raise gl.GgoLabError(told)


def _spoil(values: dict, rng: random.Random) -> None:
    """Replace, remove or add one value of a nested dict."""
    inner = [values] + [value for value in values.values() if isinstance(value, dict)]
    chosen = rng.choice([each for each in inner if each])
    key = rng.choice(sorted(chosen))
    if rng.random() < 0.2:
        del chosen[key]
    else:
        chosen[key] = rng.choice(_ODD)


_OUTPUTS = ("--html", "--csv", "--json", "--out", "--checkpoint", "--folder")


def _line(files: list[str], rng: random.Random) -> list[str]:
    """A command line of words that belong there, and of some that do not."""
    odd = [
        "",
        "-",
        "--",
        "\0",
        "\x1b[2J",
        "-1",
        "0",
        "1e9",
        "nan",
        "absent",
        ".",
        "/proc/x",
        "/dev/null",
        "x" * 300,
        "ü",
    ]
    value = lambda: rng.choice([*files, *files, *odd])  # noqa: E731
    command = rng.choice(("grade", "grade", "train", "sweep", "prepare", "prepare", "backbones", rng.choice(odd)))
    line = [command]
    if command == "grade":
        line += [value() for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        line += ["--model", "model.safetensors" if rng.random() < 0.7 else value()]
    if command in ("train", "sweep", "prepare"):
        line += ["--cohort", "cohort.csv" if rng.random() < 0.7 else value()]
        line += ["--size", rng.choice(("32", "32", "32", *odd)), "--jobs", "1"]
    flags = {"grade": _OUTPUTS[:3], "train": (*_OUTPUTS[3:5], "--weights", "--lr", "--backbone", "--extent", "--seed")}
    flags |= {"sweep": ("--folder", "--weights", "--backbone", "--seed"), "prepare": ("--pick", "--crop", "--scans")}
    for flag in rng.sample(flags.get(command, ()), k=rng.randint(0, min(3, len(flags.get(command, ()))))):
        line += [flag, value()]
    if command == "train" and "--out" not in line and rng.random() < 0.8:
        line += ["--out", value()]
    if command in ("grade", "train") and rng.random() < 0.3:
        line.append("--force")
    if rng.random() < 0.1:
        line.insert(rng.randrange(len(line) + 1), rng.choice(odd))
    return line


def _call(line: list[str], folder: Path) -> tuple[object, str]:
    """Run a command line up to the training; return its exit code and what it printed."""

    def no_training(*_: object, **__: object) -> None:
        raise gl.GgoLabError("up to here")

    told, before = io.StringIO(), os.getcwd()
    kept = [(module, name, getattr(module, name)) for module, name in ((gl.training, "fit"), (gl.sweeps, "sweep"))]
    os.chdir(folder)
    try:
        for module, name, _ in kept:
            setattr(module, name, no_training)
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            code = cli.main(line)
    except SystemExit as ended:
        code = ended.code
    finally:
        os.chdir(before)
        for module, name, value in kept:
            setattr(module, name, value)
    return code, told.getvalue()


def _too_long(*_: object) -> None:
    raise TimeoutError(f"no end after {LONGEST_S} s of processor time, or ten times that")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="", help="a kind, such as model_file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _too_long)
    signal.signal(signal.SIGPROF, _too_long)
    outcomes, faults, slowest = Counter(), [], (0.0, 0, "")
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["GGO_LAB_CACHE"] = f"{temporary}/cache"
        (Path(temporary) / "files").mkdir()
        cases = Cases(Path(temporary) / "files")
        kinds: list[Callable] = [cases.table, cases.model_file, cases.checkpoint, cases.cache_entry, cases.sweep_folder]
        kinds = [kind for kind in (*kinds, cases.command_line) if options.only in kind.__name__]
        started = time.perf_counter()
        for number in range(options.first, options.first + options.count):
            rng = random.Random(f"{options.seed}/{number}")
            kind, begun = rng.choice(kinds), time.process_time()
            signal.alarm(10 * LONGEST_S)
            signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
            try:
                kind(rng)
                outcome = "right"
            except gl.GgoLabError:
                outcome = "refused"
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                faults.append(f"case {number} ({kind.__name__}): {type(error).__name__}: {str(error)[:300]} at {place}")
                print(faults[-1], flush=True)
                outcome = "FAULT"
            finally:
                signal.alarm(0)
                signal.setitimer(signal.ITIMER_PROF, 0)
            slowest = max(slowest, (time.process_time() - begun, number, kind.__name__))
            outcomes[kind.__name__, outcome] += 1
    if _peak_kb() > MOST_MEMORY_KB:
        faults.append(f"{_peak_kb() // 1000} MB of memory")
    for name in sorted({name for name, _ in outcomes}):
        print(f"{name:14}" + "".join(f"{outcomes[name, kind]:8} {kind}" for kind in ("right", "refused", "FAULT")))
    took = time.perf_counter() - started
    where = f"slowest {slowest[0]:.2f} s (case {slowest[1]}, {slowest[2]})"
    print(f"{options.count} cases in {took:.0f} s; {where}; peak memory {_peak_kb() / 1000:.0f} MB")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
