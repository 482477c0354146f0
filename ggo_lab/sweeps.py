"""A grid of training runs as a table in a folder, which any number of workers fill together.

Each run has a file of its own, so a sweep that is stopped goes on when it is called again. Workers, on one machine or
on several, need nothing but the folder in common: while a run is being done its lock file is locked, and the operating
system takes the lock from a worker that dies.
"""

import hashlib
import itertools
import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import pandas as pd
from filelock import FileLock, Timeout

from ggo_lab.backbones import EXTENTS, RandomWeightsWarning, build_backbone
from ggo_lab.backbones.discover import check_name
from ggo_lab.cohort.parallel import check_jobs
from ggo_lab.errors import ChoiceError, CohortError, GgoLabError, check_choice, shown
from ggo_lab.evaluation import evaluate, predict
from ggo_lab.images import ImageSet
from ggo_lab.storage import check_output, home_filled_in, write_text_whole, writing_to
from ggo_lab.training import TrainConfig, fit
from ggo_lab.training.checkpoints import fingerprint

_SETTINGS = tuple(field.name for field in fields(TrainConfig))
_AXES = ("backbone", "extent", *_SETTINGS)
# Of a row, each a number.
_MEASURED = (
    *("epochs", "best_epoch", "validation_loss", "validation_accuracy", "validation_macro_f1", "low", "high"),
    "seconds",
)
_FILE = re.compile(r"[0-9a-f]{16}\.json")  # of one run; anything else in the folder is not ours


class _Run(NamedTuple):
    """One combination of the axes.

    Attributes:
        values: of the axes, as the table will hold them.
        group: a key of what the axes do not show: images, weights, all other settings.
        file: where its result is kept; the name is a key of all that decides the result.
    """

    values: dict[str, Any]
    group: str
    file: Path


def sweep(
    images: ImageSet,
    folder: str | Path,
    axes: Mapping[str, Iterable],
    config: TrainConfig = TrainConfig(),
    weights: str | None = "imagenet",
    jobs: int = 1,
) -> pd.DataFrame:
    """Train every combination of the axes, except those that the folder already holds.

    Workers run through joblib, so `with joblib.parallel_config("dask"): sweep(..., jobs=8)` moves them to a cluster;
    calling `sweep` with the same folder from several machines does as well. Runs that ended in an error are tried
    again by the next call.

    Args:
        images: of a cohort with train and validation splits; the test split is not looked at.
        folder: where the runs' files are; shared by all workers; ~ is the home folder.
        axes: values to try, by name: "backbone", "extent" and the fields of TrainConfig, such as
            {"backbone": ["resnet18"], "extent": ["head", "all"], "batch_size": [16, 32], "seed": [0, 1]}.
        config: all other settings.
        weights: as in build_backbone; the network is built with the run's seed.
        jobs: workers; -1 for one a core.

    Returns:
        As sweep_table, with exactly one row for each combination.

    Raises:
        ChoiceError: an axis that is not known, or without values; a number of jobs that is none.
        CohortError: images without a train or a validation split.
        GgoLabError: a folder that cannot be written, or runs that are missing because a worker was killed.
    """
    workers = check_jobs(jobs)
    for split in ("train", "validation"):
        if not (images.table["split"] == split).any():
            raise CohortError(f"A sweep needs a {split} split; found none. Use cohort.split_by_patient().")
    folder = home_filled_in(folder)
    runs = _runs(images, folder, axes, config, weights)
    check_output(folder / "a run.json", None)
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for run in runs:
            if os.path.lexists(run.file) and "error" in (_result(run.file, run) or {"row": ["error"]})["row"]:
                for old in (run.file, run.file.with_suffix(".checkpoint")):
                    old.unlink(missing_ok=True)
    why = ""
    try:
        joblib.Parallel(n_jobs=workers)(
            joblib.delayed(_fill)(images, runs, config, weights, worker) for worker in range(workers)
        )
    except GgoLabError:
        raise
    except Exception as error:  # of joblib, or of a cluster's own kind, where a worker was killed
        why = f" ({type(error).__name__})"
    results = {run.file: _result(run.file, run) for run in runs}
    if missing := [run.values for run in runs if results[run.file] is None]:
        raise GgoLabError(
            f"{len(missing)} of {len(runs)} runs are missing, such as {missing[0]}: a worker was stopped before they "
            f"were done{why}. What is done is kept in {folder}; call sweep again to go on.",
            missing,
        )
    return _table([result for result in results.values() if result is not None])


def sweep_table(folder: str | Path) -> pd.DataFrame:
    """Read what a folder of runs holds so far, best validation macro-F1 first.

    Args:
        folder: of a sweep.

    Returns:
        A row a run: the axes, weights (what was really loaded), epochs, best_epoch, ended, validation_loss,
        validation_accuracy, validation_macro_f1 with the ends of its 95% interval (low, high), seconds, and error:
        what stopped a run that could not be finished, else missing. A warning names files that are no runs, and says
        where the folder holds runs with other images or settings than the axes show.

    Raises:
        GgoLabError: there is no such folder.
    """
    folder = home_filled_in(folder)
    if not os.path.isdir(folder):
        raise GgoLabError(f"{folder}: no such folder of runs; sweep makes one.", folder)
    files = sorted(folder.glob("*.json"))
    results = {file: _result(file) if _FILE.fullmatch(file.name) else None for file in files}
    if foreign := [file.name for file, result in results.items() if result is None]:
        warnings.warn(
            f"{folder}: {len(foreign)} files are no runs, or damaged, such as {foreign[0]}; they are passed over.",
            stacklevel=2,
        )
    found = [result for result in results.values() if result is not None]
    if (groups := len({result["group"] for result in found})) > 1:
        warnings.warn(
            f"{folder} holds runs of {groups} sweeps, with other images, weights or settings than the columns show; "
            "the table that sweep returns holds those of one.",
            stacklevel=2,
        )
    return _table(found)


def _table(results: list[dict]) -> pd.DataFrame:
    table = pd.DataFrame([result["row"] for result in results])
    if "validation_macro_f1" not in table:
        return table
    return table.sort_values("validation_macro_f1", ascending=False, kind="stable", ignore_index=True)


def _result(file: Path, run: _Run | None = None) -> dict | None:
    """Return what a run's file holds; None where it is absent, damaged, not ours, or a copy under another name.

    Args:
        file: of the run.
        run: the one that it must be of, if that is known.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("group"), str) or found.get("key") != file.stem:
        return None
    row = found.get("row")
    if not isinstance(row, dict) or not (isinstance(row.get("error"), str) or _is_whole(row)):
        return None
    if run is not None and any(row.get(name) != value for name, value in json.loads(json.dumps(run.values)).items()):
        return None
    return found


def _is_whole(row: dict) -> bool:
    """Whether a row holds all that a run which came to its end has."""
    numbers = [row.get(name) for name in _MEASURED]
    return isinstance(row.get("ended"), str) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number) for number in numbers
    )


def _runs(
    images: ImageSet, folder: Path, axes: Mapping[str, Iterable], config: TrainConfig, weights: str | None
) -> list[_Run]:
    """Return every combination once, with its values as Python's own numbers and words.

    Raises:
        ChoiceError: an axis or a value that makes no sense; nothing has been trained yet.
    """
    if not isinstance(axes, Mapping):
        raise ChoiceError(f'axes={shown(axes)} must name what to try, such as {{"seed": [0, 1]}}.', axes)
    values = {}
    for name, given in axes.items():
        check_choice("axis", name, _AXES)
        try:
            listed = [] if isinstance(given, str | bytes) else list(given)
        except TypeError:  # a single value
            listed = []
        if not listed:
            raise ChoiceError(f"axes[{name!r}]={shown(given)} holds no list of values to try.", given)
        values[name] = listed
    cohort = [images.names, images.table["split"].tolist(), fingerprint(images), images.recipe.to_dict()]
    group = _key([asdict(replace(config, **_first(values))), weights, cohort, sorted(values)])
    runs: dict[Path, _Run] = {}
    for combination in itertools.product(*values.values()):
        run = dict(zip(values, combination, strict=True))
        settings = _config_of(run, config)
        for name in run:
            run[name] = getattr(settings, name) if name in _SETTINGS else str(run[name])
        check_choice("extent", run.get("extent", "all"), EXTENTS)
        check_name(run.get("backbone", "resnet18"))
        file = folder / f"{_key([run, asdict(settings), weights, cohort])}.json"
        runs.setdefault(file, _Run(run, group, file))
    return list(runs.values())


def _first(values: dict[str, list]) -> dict[str, Any]:
    """Return settings that are the same for every run of a sweep, to compare sweeps by what their axes do not show."""
    return {name: getattr(TrainConfig(), name) for name in values if name in _SETTINGS}


def _key(facts: list) -> str:
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]


def _config_of(run: dict, config: TrainConfig) -> TrainConfig:
    return replace(config, **{name: value for name, value in run.items() if name in _SETTINGS})


def _fill(images: ImageSet, runs: list[_Run], config: TrainConfig, weights: str | None, worker: int = 0) -> None:
    """Do every run that nobody has done; first those that nobody is doing, then wait for the others' workers.

    Args:
        images: as for sweep.
        runs: all of them.
        config: as for sweep.
        weights: as for sweep.
        worker: the number of this one, so that workers begin at different runs.
    """
    for wait in (0, -1):  # seconds; -1: for as long as it takes
        for run in runs[worker:] + runs[:worker]:
            if run.file.exists():
                continue
            lock = run.file.with_suffix(".lock")
            try:
                with FileLock(lock, timeout=wait):
                    if not run.file.exists():  # it may have been done between the two questions
                        _do(images, run, config, weights)
                    lock.unlink(missing_ok=True)
            except Timeout:  # another worker is doing it
                continue


def _do(images: ImageSet, run: _Run, config: TrainConfig, weights: str | None) -> None:
    checkpoint = run.file.with_suffix(".checkpoint")
    result = _train(images, run.values, config, weights, checkpoint)
    write_text_whole(run.file, json.dumps({**result, "group": run.group, "key": run.file.stem}, indent=1))
    checkpoint.unlink(missing_ok=True)


def _train(images: ImageSet, run: dict, config: TrainConfig, weights: str | None, checkpoint: Path) -> dict:
    settings = _config_of(run, config)
    try:
        with warnings.catch_warnings():
            if weights is None:  # asked for: no need to say so before every run
                warnings.simplefilter("ignore", RandomWeightsWarning)
            model = build_backbone(
                run.get("backbone", "resnet18"),
                run.get("extent", "all"),
                weights,
                task=images.task,
                slices=images.recipe.slices,
                seed=settings.seed,
            )
        history = fit(model, images.train, images.validation, settings, progress=False, checkpoint=checkpoint)
    except GgoLabError as error:  # such as a learning rate that is too high: one row of the table, not its end
        return {"row": {**run, "error": str(error)}}
    if history.ended == "interrupted":  # its checkpoint stays, and the next call goes on there
        raise KeyboardInterrupt
    report = evaluate(predict(model, images.validation))
    interval, best = report.interval(), history.table[history.table["best"]].iloc[0]
    row = {
        **run,
        "weights": model.weights,
        "epochs": len(history.table),
        "best_epoch": history.best_epoch,
        "ended": history.ended,
        "validation_loss": float(best["validation_loss"]),
        "validation_accuracy": float(best["validation_accuracy"]),
        "validation_macro_f1": report.macro_f1,
        "low": interval.low,
        "high": interval.high,
        "seconds": round(float(history.table["seconds"].sum()), 1),
    }
    return {"row": row, "curves": history.table.to_dict("list")}
