"""The same functions for a terminal: `ggo-lab grade`, `train`, `sweep`, `prepare`, and four for teachers.

Several processes train one network with `torchrun --nproc-per-node 2 -m ggo_lab.cli train ...`.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from ggo_lab.errors import GgoLabError, check_choice
from ggo_lab.grades import Grade

if TYPE_CHECKING:  # a terminal's --help should not wait for torch
    from ggo_lab.images import ImageSet
    from ggo_lab.training import Speed


def main(arguments: list[str] | None = None) -> int:
    """Run one command; give the exit code: 0, or 2 after one sentence on stderr."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except GgoLabError as error:
        print(f"ggo-lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ggo-lab: interrupted.", file=sys.stderr)
        return 130
    return 0


# The settings of TrainConfig, by the same names: the type that the terminal's text becomes, and a word of help. They
# stand here so that --help need not wait for torch; a test holds that none is missing.
_SETTINGS = {
    "optimizer": (str, "adam (default), adamw or sgd"),
    "lr": (float, "learning rate (default 0.001)"),
    "batch_size": (int, "images per step (default 16)"),
    "max_epochs": (int, "the most passes over the train split (default 40)"),
    "patience": (int, "epochs without a better validation loss before stopping (default 12)"),
    "min_delta": (float, "by how much the loss must fall to count as better (default 0)"),
    "loss": (str, "cross_entropy (default), or corn: grades that follow each other"),
    "balance": (str, "for rare grades: none (default), loss or sampling"),
    "flip": (bool, "mirror half of the images, left to right (default)"),
    "rotate": (float, "turn images by up to so many degrees"),
    "scale": (float, "enlarge or shrink images by up to this share, such as 0.1"),
    "intensity": (float, "change contrast and light by up to this share, such as 0.1"),
    "views": (int, "of each image, where frozen layers are computed once and images are altered (default 8)"),
    "reuse_frozen": (bool, "compute the outputs of frozen layers once (default)"),
    "unfreeze_at": (tuple, "with --extent head: epochs from which last_block, then all layers learn"),
    "seed": (int, "of the order, the augmentation and the new head (default 101)"),
    "device": (str, "auto (default): a GPU where there is one; or torch's name of a device, such as cuda:1"),
    "speed": (str, "auto (default): the fastest on this machine; plain; or parts of Speed, such as channels_last,bf16"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ggo-lab",
        description="Grade ground-glass opacity in lung CT. Teaching material, not a medical device.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    grade = commands.add_parser("grade", help="grade one scan with a trained model")
    grade.add_argument(
        "scan", metavar="SCAN", help="NIfTI, DICOM folder, MetaImage, NRRD, or a folder of JPG/PNG slices"
    )
    grade.add_argument("--model", required=True, metavar="FILE", help="made by `ggo-lab train`")
    grade.add_argument("--html", metavar="OUT", help="also write a page with the scan to scroll through")
    grade.set_defaults(run=_grade)

    train = commands.add_parser("train", help="fine-tune a network on a cohort and store its best state")
    _add_cohort(train)
    train.add_argument("--out", required=True, metavar="FILE", help="where the model is stored (.safetensors)")
    train.add_argument("--backbone", default="resnet18", help="default: resnet18; see ggo_lab.BACKBONES")
    train.add_argument("--extent", default="all", help="which layers learn: scratch, head, last_block or all (default)")
    train.add_argument(
        "--weights", default="imagenet", help="imagenet (default), none, or a file of torchvision weights"
    )
    train.add_argument("--checkpoint", metavar="FILE", help="written each epoch; where it exists, go on from there")
    for name, (kind, help_text) in _SETTINGS.items():
        _add_setting(train, name, kind, help_text)
    train.set_defaults(run=_train)

    sweep = commands.add_parser(
        "sweep",
        help="train every combination of settings; call it again, anywhere, to go on",
        description="Of settings that are given several values, every combination is trained.",
    )
    _add_cohort(sweep)
    sweep.add_argument("--folder", required=True, help="where the runs are kept, shared by all workers")
    sweep.add_argument("--weights", default="imagenet", help="imagenet (default) or none")
    for name in ("backbone", "extent"):
        sweep.add_argument(f"--{name}", nargs="+", help=f"values of {name} to try")
    for name, (kind, help_text) in _SETTINGS.items():
        _add_setting(sweep, name, kind, help_text, many=True)
    sweep.set_defaults(run=_sweep)

    prepare = commands.add_parser("prepare", help="make and cache the images of a cohort, as `train` would")
    _add_cohort(prepare)
    prepare.set_defaults(run=_prepare)

    exercises = commands.add_parser("exercises", help="write the course without its solutions, for a class")
    exercises.add_argument("out", metavar="OUT", help="a new folder")
    exercises.add_argument("--notebooks", default="notebooks", help="the course's folder (default: notebooks)")
    exercises.set_defaults(run=_exercises)

    site = commands.add_parser("site", help="execute the course and write it as a website that needs no network")
    site.add_argument("out", metavar="OUT", help="a new folder; begin with its index.html")
    site.add_argument("--notebooks", default="notebooks", help="the course's folder (default: notebooks)")
    site.add_argument("--only", nargs="+", default=(), metavar="NN", help="numbers of notebooks (default: all)")
    site.set_defaults(run=_site)

    fork = commands.add_parser("fork", help="let the course's links, Colab's among them, lead to a repository of yours")
    fork.add_argument("repository", metavar="OWNER/NAME", help="on GitHub")
    fork.add_argument("--root", default=".", help="the folder of pyproject.toml (default: this one)")
    fork.set_defaults(run=_fork)

    glossary = commands.add_parser("glossary", help="print the words that the course explains, as Markdown")
    glossary.add_argument("--notebooks", default="notebooks", help="the course's folder (default: notebooks)")
    glossary.set_defaults(run=_glossary)
    return parser


def _is_axis(kind: type) -> bool:
    """Whether `sweep` takes several values of a setting of this type."""
    return kind not in (bool, tuple)


def _add_setting(command: argparse.ArgumentParser, name: str, kind: type, help_text: str, many: bool = False) -> None:
    flag = f"--{name.replace('_', '-')}"
    if kind is bool:
        command.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_text)
    elif kind is tuple:
        command.add_argument(flag, type=int, nargs="+", metavar="EPOCH", help=help_text)
    else:
        command.add_argument(flag, type=kind, nargs="+" if many else None, help=help_text)


def _add_cohort(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cohort", required=True, metavar="CSV", help="a CSV (path, patient, grade, split), or: phantom"
    )
    command.add_argument("--scans", type=int, default=120, help="with --cohort phantom: how many (default 120)")
    command.add_argument("--cohort-seed", type=int, default=0, help="of the phantoms and of the splits (default 0)")
    command.add_argument("--size", type=int, help="rows and columns of the images (default: 224)")
    command.add_argument("--where", help="which slices: spread (default), middle (the paper), lungs")
    command.add_argument("--crop", help="none (default) or lungs")
    command.add_argument("--jobs", type=int, help="processes that make images (default: one per core)")


def _given(options: argparse.Namespace, *names: str) -> dict:
    """The options that the user typed; the rest keep the defaults of the dataclass they go to."""
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _speed(text: str) -> str | Speed:
    """Give what TrainConfig.speed takes, of what was typed."""
    from ggo_lab.training import Speed

    if text in ("auto", "plain"):
        return text
    for part in text.split(","):
        check_choice("speed", part, ("auto", "plain", *Speed._fields))
    return Speed(**dict.fromkeys(text.split(","), True))


def _images(options: argparse.Namespace) -> ImageSet:
    from ggo_lab.cohort import phantom_cohort, read_cohort
    from ggo_lab.images import Recipe, prepare

    recipe = Recipe(**_given(options, "size", "where", "crop"))
    if options.cohort == "phantom":
        cohort = phantom_cohort(options.scans, seed=options.cohort_seed)
    else:
        cohort = read_cohort(options.cohort)
        if cohort.table["split"].isna().all():
            cohort = cohort.split_by_patient(seed=options.cohort_seed)
            print(f"No split in the table: drawn by patient, 60/20/20, seed {options.cohort_seed}.")
    print(cohort)
    images = prepare(cohort, recipe, jobs=options.jobs)
    print(images)
    return images


def _exercises(options: argparse.Namespace) -> None:
    from ggo_lab.course import write_exercises

    written = write_exercises(options.notebooks, options.out)
    print(f"{len(written)} notebooks without solutions in {Path(options.out) / 'notebooks'}")


def _site(options: argparse.Namespace) -> None:
    from ggo_lab.course import write_site

    print("Open", write_site(options.notebooks, options.out, options.only))


def _glossary(options: argparse.Namespace) -> None:
    from ggo_lab.course import glossary

    print(glossary(options.notebooks), end="")


def _fork(options: argparse.Namespace) -> None:
    from ggo_lab.course import link_to_fork

    for file in link_to_fork(options.root, options.repository):
        print("links changed in", file)


def _prepare(options: argparse.Namespace) -> None:
    _images(options)


def _train(options: argparse.Namespace) -> None:
    from ggo_lab.backbones import build_backbone
    from ggo_lab.evaluation import evaluate, predict
    from ggo_lab.training import TrainConfig, fit, save_model
    from ggo_lab.training.ranks import gathered, joined, rank_and_size

    settings = _given(options, *_SETTINGS)
    if "speed" in settings:
        settings["speed"] = _speed(settings["speed"])
    config = TrainConfig(**settings)
    model = build_backbone(options.backbone, options.extent, options.weights, seed=config.seed)
    with joined():
        first = rank_and_size()[0] == 0
        if first:
            images = _images(options)
        gathered(None)  # the other processes wait until the images are in the cache
        if not first:
            with redirect_stdout(None):
                images = _images(options)
        history = fit(model, images.train, images.validation, config, checkpoint=options.checkpoint)
    if not first:
        return
    print(history)
    save_model(model, options.out, history)
    print(f"Stored in {options.out}")
    if len(images.test):
        print(f"On the test split of {len(images.test)} scans (training seed {config.seed}):")
        print(evaluate(predict(model, images.test)))


def _sweep(options: argparse.Namespace) -> None:
    from ggo_lab.sweeps import sweep
    from ggo_lab.training import TrainConfig

    axes = _given(options, "backbone", "extent", *(name for name, (kind, _) in _SETTINGS.items() if _is_axis(kind)))
    if "speed" in axes:
        axes["speed"] = [_speed(text) for text in axes["speed"]]
    config = TrainConfig(**_given(options, *(name for name, (kind, _) in _SETTINGS.items() if not _is_axis(kind))))
    images = _images(options)
    table = sweep(images, options.folder, axes, config, options.weights)
    print(table.drop(columns="ended", errors="ignore").to_string(index=False, float_format="%.3f"))


def _grade(options: argparse.Namespace) -> None:
    from ggo_lab.evaluation import predict
    from ggo_lab.images import image_set_of
    from ggo_lab.readers import read_scan
    from ggo_lab.training import load_model

    model = load_model(options.model)
    scan = read_scan(options.scan)
    print(scan)
    for note in scan.notes:
        print(f"  note: {note}")
    images = image_set_of(scan, model.fitted_recipe)
    probabilities = predict(model, images).probabilities[0]
    for grade in Grade:
        share = probabilities[grade.index]
        print(f"  {grade.value} {grade.label:<9} {share:6.1%}  {'#' * round(40 * share)}")
    winner = Grade(int(probabilities.argmax()) + 1)
    print(f"Grade: {winner.value} ({winner.label})")
    print(
        f"From slices {list(images.table['slices'][0])} by {model.name}. A network's probability is no "
        "certainty, least of all on scans unlike those it learnt from. Teaching material, not a medical device."
    )
    if options.html:
        from ggo_lab.page import scan_page

        written = scan_page(scan, Path(options.html), probabilities=probabilities, notes=scan.notes)
        print(f"Page: {written}")


if __name__ == "__main__":
    sys.exit(main())
