"""A grid of training runs as a table in a folder, which any number of workers fill together.

Each run has a file of its own, so a sweep that is stopped goes on when it is called again, and workers on several
machines need nothing but the folder in common: a run is claimed by creating a file, which only one can do.
"""

import hashlib
import itertools
import json
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

import joblib
import pandas as pd

from ggo_lab.backbones import RandomWeightsWarning, build_backbone
from ggo_lab.errors import ChoiceError, CohortError, GgoLabError, check_choice
from ggo_lab.evaluation import evaluate, predict
from ggo_lab.images import ImageSet
from ggo_lab.storage import write_text_whole
from ggo_lab.training import TrainConfig, fit
from ggo_lab.training.checkpoints import fingerprint

_SIGN_OF_LIFE_S = 15.0  # how often a worker touches the claim of its run
_DEAD_AFTER_S = 120.0  # a claim that was not touched for so long belongs to a worker that is no more
_SETTINGS = tuple(field.name for field in fields(TrainConfig))


def sweep(
    images: ImageSet,
    folder: str | Path,
    axes: Mapping[str, Sequence],
    config: TrainConfig = TrainConfig(),
    weights: str = "imagenet",
    jobs: int = 1,
) -> pd.DataFrame:
    """Train every combination of the axes, except those that the folder already holds; give the table.

    Workers run through joblib, so `with joblib.parallel_config("dask"): sweep(..., jobs=8)` moves them to a cluster;
    calling `sweep` with the same folder from several machines does as well.

    Args:
        images: of a cohort with train and validation splits; the test split is not looked at.
        folder: where the runs' files are; shared by all workers.
        axes: values to try, by name: "backbone", "extent" and the fields of TrainConfig, such as
            {"backbone": ["resnet18"], "extent": ["head", "all"], "batch_size": [16, 32], "seed": [0, 1]}.
        config: all other settings.
        weights: as in build_backbone; the network is built with the run's seed.
        jobs: workers.
    Returns: as sweep_table.
    Raises:
        ChoiceError: an axis that is not known, or without values.
        CohortError: images without a train or a validation split.
    """
    folder, runs = Path(folder), _combinations(axes)
    for split in ("train", "validation"):
        if not (images.table["split"] == split).any():
            raise CohortError(f"A sweep needs a {split} split; found none. Use cohort.split_by_patient().")
    for run in runs:  # before anything is trained
        _config_of(run, config)
    joblib.Parallel(n_jobs=jobs)(joblib.delayed(_fill)(images, folder, runs, config, weights) for _ in range(jobs))
    return sweep_table(folder)


def sweep_table(folder: str | Path) -> pd.DataFrame:
    """Read what a folder of runs holds so far, best validation macro-F1 first.

    Returns: a row a run: the axes, weights (what was really loaded), epochs, best_epoch, ended, validation_loss,
        validation_accuracy, validation_macro_f1 with the ends of its 95% interval (low, high), seconds, and error:
        what stopped a run that could not be finished, else missing.
    """
    rows = [json.loads(file.read_text(encoding="utf-8"))["row"] for file in sorted(Path(folder).glob("*.json"))]
    table = pd.DataFrame(rows)
    if "validation_macro_f1" not in table:
        return table
    return table.sort_values("validation_macro_f1", ascending=False, kind="stable", ignore_index=True)


def _combinations(axes: Mapping[str, Sequence]) -> list[dict]:
    for name, values in axes.items():
        check_choice("axis", name, ("backbone", "extent", *_SETTINGS))
        if isinstance(values, str) or not len(values):
            raise ChoiceError(f"axes[{name!r}]={values!r} holds no list of values to try.", values)
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def _config_of(run: dict, config: TrainConfig) -> TrainConfig:
    return replace(config, **{name: value for name, value in run.items() if name in _SETTINGS})


def _fill(images: ImageSet, folder: Path, runs: list[dict], config: TrainConfig, weights: str) -> None:
    """Do every run that nobody has done or is doing."""
    folder.mkdir(parents=True, exist_ok=True)
    cohort = [images.names, images.table["split"].tolist(), fingerprint(images)]
    for run in runs:
        facts = [run, asdict(_config_of(run, config)), weights, images.recipe.to_dict(), cohort]
        name = hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()[:16]
        done = folder / f"{name}.json"
        if done.exists():
            continue
        with _claim(folder / f"{name}.claim") as ours:
            if ours and not done.exists():  # it may have been done between the two questions
                result = _train(images, run, config, weights, folder / f"{name}.checkpoint")
                write_text_whole(done, json.dumps(result, indent=1))
                (folder / f"{name}.checkpoint").unlink(missing_ok=True)


def _train(images: ImageSet, run: dict, config: TrainConfig, weights: str, checkpoint: Path) -> dict:
    settings = _config_of(run, config)
    try:
        with warnings.catch_warnings():
            if weights == "none":  # asked for: no need to say so before every run
                warnings.simplefilter("ignore", RandomWeightsWarning)
            model = build_backbone(
                run.get("backbone", "resnet18"), run.get("extent", "all"), weights, seed=settings.seed
            )
        history = fit(model, images.train, images.validation, settings, progress=False, checkpoint=checkpoint)
    except GgoLabError as error:  # such as a learning rate that is too high: one row of the table, not its end
        return {"row": {**run, "error": str(error)}}
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


@contextmanager
def _claim(file: Path) -> Iterator[bool]:
    """Say whether the run is ours; while it is, show that we live."""
    _bury(file)
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        yield False
        return
    stop = threading.Event()

    def show_life() -> None:
        while not stop.wait(_SIGN_OF_LIFE_S):
            file.touch()

    thread = threading.Thread(target=show_life, daemon=True)
    thread.start()
    try:
        yield True
    finally:
        stop.set()
        thread.join()
        file.unlink(missing_ok=True)


def _bury(file: Path) -> None:
    """Take away the claim of a worker that is no more, so that its run is free again."""
    clock = file.with_suffix(f".{os.getpid()}.clock")  # the time of the folder's machine, which may not be ours
    clock.touch()
    try:
        if clock.stat().st_mtime - file.stat().st_mtime > _DEAD_AFTER_S:
            file.rename(file.with_suffix(f".{os.getpid()}.{time.time_ns()}.dead"))  # of several, one succeeds
    except FileNotFoundError:
        pass
    finally:
        clock.unlink(missing_ok=True)
