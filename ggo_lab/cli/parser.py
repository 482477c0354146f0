"""What may be typed: the commands and their options."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from ggo_lab import __version__
from ggo_lab.cli import grading, learning, teaching
from ggo_lab.cli.settings import training_settings


def parser_for(chosen: str | None = None) -> argparse.ArgumentParser:
    """Return what reads the arguments; only of the chosen command's settings, since to know them takes torch."""
    parser = argparse.ArgumentParser(
        prog="ggo-lab",
        description="Grade ground-glass opacity in lung CT. Teaching material, not a medical device.",
        epilog="`ggo-lab COMMAND --help` explains a command, with an example.",
    )
    parser.add_argument("--version", action="version", version=f"ggo-lab {__version__}")
    parser.set_defaults(run=None)
    commands = parser.add_subparsers(metavar="COMMAND")

    def command(name: str, run: Callable, said: str, example: str, more: str = "") -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=said,
            description=f"{said[0].upper()}{said[1:]}. {more}".strip(),
            epilog=f"example:\n  ggo-lab {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    grade = command(
        "grade",
        grading.grade,
        "grade scans with a trained model",
        "scan.nii.gz --model model.safetensors --html page.html",
        "Of one scan all probabilities are\nprinted, of several a table. Exit code 1: some could not be graded.",
    )
    grade.add_argument(
        "scans", metavar="SCAN", nargs="+", help="NIfTI, DICOM folder, MetaImage, NRRD, or a folder of JPG/PNG slices"
    )
    grade.add_argument("--model", required=True, metavar="FILE", help="made by `ggo-lab train`")
    grade.add_argument("--html", metavar="OUT", help="also write a page with the scan to scroll through (one scan)")
    grade.add_argument("--csv", metavar="OUT", help="also write a table; - prints it, and nothing else")
    grade.add_argument("--json", metavar="OUT", help="the same as JSON")
    _add_force(grade)

    train = command(
        "train",
        learning.train,
        "fine-tune a network on a cohort and store its best state",
        "--cohort scans.csv --backbone resnet18 --out model.safetensors",
    )
    _add_cohort(train)
    train.add_argument("--out", required=True, metavar="FILE", help="where the model is stored (.safetensors)")
    train.add_argument("--backbone", default="resnet18", help="default: resnet18; `ggo-lab backbones` lists them")
    train.add_argument("--extent", default="all", help="which layers learn: head, last_block or all (default)")
    train.add_argument(
        "--weights",
        default="imagenet",
        help="imagenet (default), phantom, best, none, or a file of torchvision's",
    )
    train.add_argument("--checkpoint", metavar="FILE", help="written each epoch; where it exists, go on from there")
    _add_force(train)
    if chosen == "train":
        for name, (kind, help_text) in training_settings().items():
            _add_setting(train, name, kind, help_text)

    sweep = command(
        "sweep",
        learning.sweep,
        "train every combination of settings; call it again, anywhere, to go on",
        "--cohort scans.csv --folder runs --backbone resnet18 densenet121 --seed 0 1 2",
        "Of settings that\nare given several values, every combination is trained.",
    )
    _add_cohort(sweep)
    sweep.add_argument("--folder", required=True, help="where the runs are kept, shared by all workers")
    sweep.add_argument("--weights", default="imagenet", help="imagenet (default), phantom, best or none")
    for name in ("backbone", "extent"):
        sweep.add_argument(f"--{name}", nargs="+", help=f"values of {name} to try")
    if chosen == "sweep":
        for name, (kind, help_text) in training_settings().items():
            _add_setting(sweep, name, kind, help_text, many=True)

    prepare = command(
        "prepare",
        learning.prepare,
        "make and cache the images of a cohort, as `train` would",
        "--cohort scans.csv --jobs 4",
    )
    _add_cohort(prepare)

    command("backbones", learning.backbones, "list the networks that `train` and `sweep` know", "")
    command("check", learning.check, "say what is installed and found here: paste it into a question", "")

    exercises = command(
        "exercises",
        teaching.exercises,
        "write the course without its solutions, for a class",
        "for_my_class",
    )
    exercises.add_argument("out", metavar="OUT", help="a new folder")
    exercises.add_argument("--notebooks", default="notebooks", help="the course's folder (default: notebooks)")

    site = command(
        "site",
        teaching.site,
        "execute the course and write it as a website that needs no network",
        "public --only 00 04",
    )
    site.add_argument("out", metavar="OUT", help="a new folder; begin with its index.html")
    site.add_argument("--notebooks", default="notebooks", help="the course's folder (default: notebooks)")
    site.add_argument("--only", nargs="+", default=(), metavar="NN", help="numbers of notebooks (default: all)")

    fork = command(
        "fork",
        teaching.fork,
        "say where your copy of the course lives, so that Colab can open it",
        "my-university/ggo_lab",
    )
    fork.add_argument("repository", metavar="OWNER/NAME", help="on GitHub")
    fork.add_argument("--root", default=".", help="the folder of pyproject.toml (default: this one)")

    glossary = command(
        "glossary", teaching.glossary, "print the words that the course explains, as Markdown", "> docs/glossary.md"
    )
    glossary.add_argument("--notebooks", default="notebooks", help="the course's folder (default: notebooks)")

    challenge = command(
        "challenge",
        teaching.challenge_new,
        "a class's final task: hidden patients, one submission, a reveal",
        "new final",
    )
    steps = challenge.add_subparsers(metavar="STEP", required=True)
    new = steps.add_parser("new", help="draw secret patients (for the teacher)")
    new.add_argument("folder", metavar="FOLDER", help="a new folder, which the class may share")
    new.add_argument("--patients", type=int, default=200, help="hidden scans (default: 200)")
    new.set_defaults(run=teaching.challenge_new)
    submit = steps.add_parser("submit", help="hand in a model and a sentence about its score, once")
    submit.add_argument("folder", metavar="FOLDER", help="the challenge's folder")
    submit.add_argument("--team", required=True, help="your team's name")
    submit.add_argument("--model", required=True, help="a file that `train` or save_model wrote")
    submit.add_argument("--sentence", required=True, help="which score you expect on the hidden patients")
    submit.set_defaults(run=teaching.challenge_submit)
    reveal = steps.add_parser("reveal", help="grade the hidden patients with every model (for the teacher)")
    reveal.add_argument("folder", metavar="FOLDER", help="the challenge's folder")
    reveal.add_argument("--secret", help="the teacher's file (default: secret.json in the folder)")
    reveal.set_defaults(run=teaching.challenge_reveal)
    return parser


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", help="replace an output even if a file of another kind exists")


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
    command.add_argument("--pick", help="which slices: spread (default), middle (the paper), lungs")
    command.add_argument("--crop", help="none (default) or lungs")
    command.add_argument("--jobs", type=int, help="processes that make images (default: one per core)")
