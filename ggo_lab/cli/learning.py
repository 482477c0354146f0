"""The commands that prepare images and train networks."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from ggo_lab.cli.outputs import Output, check_different, say
from ggo_lab.cli.settings import as_speed, given, is_axis, training_settings
from ggo_lab.storage import MODEL_FILE, check_output

if TYPE_CHECKING:  # a terminal's --help should not wait for torch
    from ggo_lab.cohort import Cohort
    from ggo_lab.images import ImageSet, Recipe


def _weights(options: argparse.Namespace) -> str | None:
    """Return what build_backbone takes: None where none were asked for."""
    return None if options.weights == "none" else options.weights


def _cohort(options: argparse.Namespace) -> Cohort:
    from ggo_lab.cohort import phantom_cohort, read_cohort

    if options.cohort == "phantom":
        return phantom_cohort(options.scans, seed=options.cohort_seed)
    cohort = read_cohort(options.cohort)
    if cohort.table["split"].isna().all():
        cohort = cohort.split_by_patient(seed=options.cohort_seed)
        say(f"No split in the table: drawn by patient, 60/20/20, seed {options.cohort_seed}.")
    return cohort


def _files_of(options: argparse.Namespace, cohort: Cohort) -> list[str]:
    """Everything on the disk that a cohort is made of."""
    if options.cohort == "phantom":
        return []
    return [options.cohort, *cohort.table["path"]]


def _prepared(options: argparse.Namespace, cohort: Cohort, recipe: Recipe) -> ImageSet:
    from ggo_lab.images import prepare

    say(cohort)
    images = prepare(cohort, recipe, jobs=options.jobs)
    say(images)
    return images


def _recipe(options: argparse.Namespace) -> Recipe:
    from ggo_lab.images import Recipe

    return Recipe(**given(options, "size", "pick", "crop"))


def prepare(options: argparse.Namespace) -> None:
    """Make the images of a cohort."""
    recipe = _recipe(options)
    _prepared(options, _cohort(options), recipe)


def train(options: argparse.Namespace) -> None:
    """Fine-tune a network, store it, and grade the test split with it."""
    from ggo_lab.backbones import build_backbone
    from ggo_lab.evaluation import evaluate, predict
    from ggo_lab.training import TrainConfig, fit, save_model
    from ggo_lab.training.ranks import gathered, joined, rank_and_size

    settings = given(options, *training_settings())
    if "speed" in settings:
        settings["speed"] = as_speed(settings["speed"])
    config, recipe = TrainConfig(**settings), _recipe(options)
    with joined():
        first = rank_and_size()[0] == 0
        with redirect_stdout(sys.stdout if first else None):
            # What is quick to check comes first: the table, the places to write to, the names; then the long work.
            cohort = _cohort(options)
            inputs = [*_files_of(options, cohort), options.weights]
            out = Output.checked(options.out, MODEL_FILE, inputs, options.force)
            if options.checkpoint:
                check_output(options.checkpoint, None, inputs)
            check_different({"--out": options.out, "--checkpoint": options.checkpoint})
            model = build_backbone(
                options.backbone,
                options.extent,
                _weights(options),
                task=cohort.task,
                slices=recipe.slices,
                seed=config.seed,
            )
            if first:
                images = _prepared(options, cohort, recipe)
            gathered(None)  # the other processes wait until the images are in the cache
            if not first:
                images = _prepared(options, cohort, recipe)
        history = fit(model, images.train, images.validation, config, checkpoint=options.checkpoint)
    if not first:
        return
    say(history)
    out.write(lambda path: save_model(model, path, history))
    say(f"Stored in {out.path}")
    if len(images.test):
        say(f"On the test split of {len(images.test)} scans (training seed {config.seed}):")
        say(evaluate(predict(model, images.test)))


def sweep(options: argparse.Namespace) -> None:
    """Train every combination of settings, and print the table."""
    from ggo_lab.sweeps import sweep
    from ggo_lab.training import TrainConfig

    settings = {name: is_axis(kind) for name, (kind, _) in training_settings().items()}
    axes = given(options, "backbone", "extent", *(name for name, axis in settings.items() if axis))
    if "speed" in axes:
        axes["speed"] = [as_speed(text) for text in axes["speed"]]
    config = TrainConfig(**given(options, *(name for name, axis in settings.items() if not axis)))
    recipe = _recipe(options)
    images = _prepared(options, _cohort(options), recipe)
    table = sweep(images, options.folder, axes, config, _weights(options))
    say(table.drop(columns="ended", errors="ignore").to_string(index=False, float_format="%.3f"))


def backbones(options: argparse.Namespace) -> None:
    """List the networks."""
    from ggo_lab.backbones import BACKBONES

    for name in BACKBONES:
        say(name)


def check(options: argparse.Namespace) -> None:
    """Say what is installed and found here."""
    from ggo_lab.checkup import checkup

    for line in checkup():
        say(line)
