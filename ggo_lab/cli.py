"""The same functions for a terminal: `ggo-lab grade`, `train`, `sweep`, `prepare`, and more for teachers.

Several processes train one network with `torchrun --nproc-per-node 2 -m ggo_lab.cli train ...`.
"""

from __future__ import annotations

import argparse
import csv
import inspect
import io
import json
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from ggo_lab import __version__
from ggo_lab.errors import ChoiceError, GgoLabError, ScanError, check_choice, printable
from ggo_lab.storage import MODEL_FILE, WEB_PAGE, Kind, check_output, home_filled_in, write_text_whole

if TYPE_CHECKING:  # a terminal's --help should not wait for torch
    import numpy as np

    from ggo_lab.backbones import Backbone
    from ggo_lab.cohort import Cohort
    from ggo_lab.images import ImageSet, Recipe
    from ggo_lab.scan import Scan
    from ggo_lab.training import Speed


# Exit codes: what was asked for is done; a part of it could not be done; nothing was done, for the reason printed.
_DONE, _PARTLY, _REFUSED, _INTERRUPTED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: what was typed after `ggo-lab`; the process's own when left out.

    Returns:
        The exit code: 0, 1 where some of several scans could not be graded, or 2 after one sentence on stderr.
    """
    arguments = sys.argv[1:] if arguments is None else [*map(str, arguments)]
    parser = _parser(arguments[0] if arguments else None)
    options = parser.parse_args(arguments)
    if options.run is None:
        parser.print_help()
        return _DONE
    formatwarning, warnings.formatwarning = warnings.formatwarning, _warning
    try:
        return options.run(options) or _DONE
    except GgoLabError as error:
        print(f"ggo-lab: {error}", file=sys.stderr)
        return _REFUSED
    except KeyboardInterrupt:
        print("ggo-lab: interrupted.", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _PARTLY
    finally:
        warnings.formatwarning = formatwarning


def _say(text: object) -> None:
    """Print a text, whatever names from files it holds and whatever the terminal can show."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    lines = "\n".join(printable(line) for line in str(text).split("\n"))
    print(lines.encode(encoding, "backslashreplace").decode(encoding))


def _warning(message: Warning | str, category: object, filename: str, lineno: int, line: str | None = None) -> str:
    """Write a warning without the line of code that it came from."""
    return f"ggo-lab: {printable(' '.join(str(message).split()))}\n"


def _settings() -> dict[str, tuple[type, str]]:
    """Return the type of each setting of TrainConfig, and a line of help: the comment beside it, and its default."""
    from ggo_lab.training import TrainConfig

    said = dict(re.findall(r"^    (\w+): .+?  # (.+)$", inspect.getsource(TrainConfig), re.M))
    return {
        field.name: (type(field.default), f"{said[field.name]} (default: {field.default})".replace("%", "%%"))
        for field in fields(TrainConfig)
    }


def _parser(chosen: str | None = None) -> argparse.ArgumentParser:
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
        _grade,
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
        _train,
        "fine-tune a network on a cohort and store its best state",
        "--cohort scans.csv --backbone resnet18 --out model.safetensors",
    )
    _add_cohort(train)
    train.add_argument("--out", required=True, metavar="FILE", help="where the model is stored (.safetensors)")
    train.add_argument("--backbone", default="resnet18", help="default: resnet18; `ggo-lab backbones` lists them")
    train.add_argument("--extent", default="all", help="which layers learn: head, last_block or all (default)")
    train.add_argument(
        "--weights", default="imagenet", help="imagenet (default), none, or a file of torchvision weights"
    )
    train.add_argument("--checkpoint", metavar="FILE", help="written each epoch; where it exists, go on from there")
    _add_force(train)
    if chosen == "train":
        for name, (kind, help_text) in _settings().items():
            _add_setting(train, name, kind, help_text)

    sweep = command(
        "sweep",
        _sweep,
        "train every combination of settings; call it again, anywhere, to go on",
        "--cohort scans.csv --folder runs --backbone resnet18 densenet121 --seed 0 1 2",
        "Of settings that\nare given several values, every combination is trained.",
    )
    _add_cohort(sweep)
    sweep.add_argument("--folder", required=True, help="where the runs are kept, shared by all workers")
    sweep.add_argument("--weights", default="imagenet", help="imagenet (default) or none")
    for name in ("backbone", "extent"):
        sweep.add_argument(f"--{name}", nargs="+", help=f"values of {name} to try")
    if chosen == "sweep":
        for name, (kind, help_text) in _settings().items():
            _add_setting(sweep, name, kind, help_text, many=True)

    prepare = command(
        "prepare", _prepare, "make and cache the images of a cohort, as `train` would", "--cohort scans.csv --jobs 4"
    )
    _add_cohort(prepare)

    command("backbones", _backbones, "list the networks that `train` and `sweep` know", "")
    command("check", _check, "say what is installed and found here: paste it into a question", "")

    exercises = command("exercises", _exercises, "write the course without its solutions, for a class", "for_my_class")
    exercises.add_argument("out", metavar="OUT", help="a new folder")
    exercises.add_argument("--notebooks", default="notebooks", help="the course's folder (default: notebooks)")

    site = command(
        "site", _site, "execute the course and write it as a website that needs no network", "public --only 00 04"
    )
    site.add_argument("out", metavar="OUT", help="a new folder; begin with its index.html")
    site.add_argument("--notebooks", default="notebooks", help="the course's folder (default: notebooks)")
    site.add_argument("--only", nargs="+", default=(), metavar="NN", help="numbers of notebooks (default: all)")

    fork = command(
        "fork", _fork, "say where your copy of the course lives, so that Colab can open it", "my-university/ggo_lab"
    )
    fork.add_argument("repository", metavar="OWNER/NAME", help="on GitHub")
    fork.add_argument("--root", default=".", help="the folder of pyproject.toml (default: this one)")

    glossary = command(
        "glossary", _glossary, "print the words that the course explains, as Markdown", "> docs/glossary.md"
    )
    glossary.add_argument("--notebooks", default="notebooks", help="the course's folder (default: notebooks)")

    challenge = command(
        "challenge", _challenge_new, "a class's final task: hidden patients, one submission, a reveal", "new final"
    )
    steps = challenge.add_subparsers(metavar="STEP", required=True)
    new = steps.add_parser("new", help="draw secret patients (for the teacher)")
    new.add_argument("folder", metavar="FOLDER", help="a new folder, which the class may share")
    new.add_argument("--patients", type=int, default=200, help="hidden scans (default: 200)")
    new.set_defaults(run=_challenge_new)
    submit = steps.add_parser("submit", help="hand in a model and a sentence about its score, once")
    submit.add_argument("folder", metavar="FOLDER", help="the challenge's folder")
    submit.add_argument("--team", required=True, help="your team's name")
    submit.add_argument("--model", required=True, help="a file that `train` or save_model wrote")
    submit.add_argument("--sentence", required=True, help="which score you expect on the hidden patients")
    submit.set_defaults(run=_challenge_submit)
    reveal = steps.add_parser("reveal", help="grade the hidden patients with every model (for the teacher)")
    reveal.add_argument("folder", metavar="FOLDER", help="the challenge's folder")
    reveal.add_argument("--secret", help="the teacher's file (default: secret.json in the folder)")
    reveal.set_defaults(run=_challenge_reveal)
    return parser


def _add_force(command: argparse.ArgumentParser) -> None:
    command.add_argument("--force", action="store_true", help="replace an output even if a file of another kind exists")


@dataclass(frozen=True)
class _Output:
    """A file that a command will write, checked before the work begins."""

    path: Path
    force: bool

    @classmethod
    def checked(cls, text: str, kind: Kind | None, inputs: Iterable[str | Path], force: bool) -> _Output:
        return cls(check_output(text, kind, inputs, force), force)

    def write(self, write: Callable[[Path], object]) -> None:
        """Let a function of the library write the file; with --force beside it first, as it would refuse the place."""
        if not self.force or not self.path.exists():
            write(self.path)
            return
        with tempfile.TemporaryDirectory(dir=self.path.parent, prefix=".unfinished-") as folder:
            write(Path(folder) / self.path.name)
            os.replace(Path(folder) / self.path.name, os.path.realpath(self.path))


def _different(outputs: dict[str, str | None]) -> None:
    """Raise ChoiceError where two outputs, by flag, are one file."""
    seen: dict[str, str] = {}
    for flag, text in outputs.items():
        if text is not None and (other := seen.setdefault(os.path.realpath(home_filled_in(text)), flag)) != flag:
            raise ChoiceError(f"{text}: both {other} and {flag} would be written there; give two names.", text)


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
    command.add_argument("--pick", help="which slices: spread (default), middle (the paper), lungs")
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
        _say(f"No split in the table: drawn by patient, 60/20/20, seed {options.cohort_seed}.")
    return cohort


def _files_of(options: argparse.Namespace, cohort: Cohort) -> list[str]:
    """Everything on the disk that a cohort is made of."""
    if options.cohort == "phantom":
        return []
    return [options.cohort, *cohort.table["path"]]


def _prepared(options: argparse.Namespace, cohort: Cohort, recipe: Recipe) -> ImageSet:
    from ggo_lab.images import prepare

    _say(cohort)
    images = prepare(cohort, recipe, jobs=options.jobs)
    _say(images)
    return images


def _recipe(options: argparse.Namespace) -> Recipe:
    from ggo_lab.images import Recipe

    return Recipe(**_given(options, "size", "pick", "crop"))


def _exercises(options: argparse.Namespace) -> None:
    from ggo_lab.course import write_exercises

    written = write_exercises(options.notebooks, options.out)
    _say(f"{len(written)} notebooks without solutions in {Path(options.out) / 'notebooks'}")


def _site(options: argparse.Namespace) -> None:
    from ggo_lab.course import write_site

    _say(f"Open {write_site(options.notebooks, options.out, options.only)}")


def _glossary(options: argparse.Namespace) -> None:
    from ggo_lab.course import glossary

    _say(glossary(options.notebooks).rstrip("\n"))


def _challenge_new(options: argparse.Namespace) -> None:
    from ggo_lab.course.challenge import new_challenge

    secret = new_challenge(options.folder, options.patients)
    _say(f"{options.patients} hidden patients. Keep {secret} to yourself until the reveal.")


def _challenge_submit(options: argparse.Namespace) -> None:
    from ggo_lab.course.challenge import submit

    submission = submit(options.folder, options.team, options.model, options.sentence)
    _say(f"Team {submission.team} has submitted {submission.model}. It said: {submission.sentence}")


def _challenge_reveal(options: argparse.Namespace) -> None:
    from ggo_lab.course.challenge import reveal, standings

    table = standings(options.folder, reveal(options.folder, options.secret))
    _say(table.drop(columns="sentence").round(2).to_string())
    for team, sentence in table["sentence"].items():
        _say(f"{team} had said: {sentence}")


def _fork(options: argparse.Namespace) -> None:
    from ggo_lab.course import link_to_fork

    for file in link_to_fork(options.root, options.repository):
        _say(f"changed {file}")


def _prepare(options: argparse.Namespace) -> None:
    recipe = _recipe(options)
    _prepared(options, _cohort(options), recipe)


def _train(options: argparse.Namespace) -> None:
    from ggo_lab.backbones import build_backbone
    from ggo_lab.evaluation import evaluate, predict
    from ggo_lab.training import TrainConfig, fit, save_model
    from ggo_lab.training.ranks import gathered, joined, rank_and_size

    settings = _given(options, *_settings())
    if "speed" in settings:
        settings["speed"] = _speed(settings["speed"])
    config, recipe = TrainConfig(**settings), _recipe(options)
    with joined():
        first = rank_and_size()[0] == 0
        with redirect_stdout(sys.stdout if first else None):
            # What is quick to check comes first: the table, the places to write to, the names; then the long work.
            cohort = _cohort(options)
            inputs = [*_files_of(options, cohort), options.weights]
            out = _Output.checked(options.out, MODEL_FILE, inputs, options.force)
            if options.checkpoint:
                check_output(options.checkpoint, None, inputs)
            _different({"--out": options.out, "--checkpoint": options.checkpoint})
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
    _say(history)
    out.write(lambda path: save_model(model, path, history))
    _say(f"Stored in {out.path}")
    if len(images.test):
        _say(f"On the test split of {len(images.test)} scans (training seed {config.seed}):")
        _say(evaluate(predict(model, images.test)))


def _sweep(options: argparse.Namespace) -> None:
    from ggo_lab.sweeps import sweep
    from ggo_lab.training import TrainConfig

    settings = {name: _is_axis(kind) for name, (kind, _) in _settings().items()}
    axes = _given(options, "backbone", "extent", *(name for name, axis in settings.items() if axis))
    if "speed" in axes:
        axes["speed"] = [_speed(text) for text in axes["speed"]]
    config = TrainConfig(**_given(options, *(name for name, axis in settings.items() if not axis)))
    recipe = _recipe(options)
    images = _prepared(options, _cohort(options), recipe)
    table = sweep(images, options.folder, axes, config, _weights(options))
    _say(table.drop(columns="ended", errors="ignore").to_string(index=False, float_format="%.3f"))


def _backbones(options: argparse.Namespace) -> None:
    from ggo_lab.backbones import BACKBONES

    for name in BACKBONES:
        _say(name)


def _check(options: argparse.Namespace) -> None:
    from ggo_lab.checkup import checkup

    for line in checkup():
        _say(line)


_HEAD = ("scan", "class", "number", "name")  # of the table that `grade --csv` writes, before the probabilities
_TABLE = Kind("a table of grades", (".csv",), lambda head: head.startswith(",".join(_HEAD).encode()))
_JSON = Kind("grades as JSON", (".json",), lambda head: head.startswith(b'[\n {\n  "scan"'))
_DISCLAIMER = (
    "A network's probability is no certainty, least of all on scans unlike those it learnt from. Teaching material, "
    "not a medical device."
)


def _grade(options: argparse.Namespace) -> int:
    if options.html and len(options.scans) > 1:
        raise ChoiceError("--html shows one scan; call `ggo-lab grade` once for each page.", options.html)
    quiet = "-" in (options.csv, options.json)
    if options.csv == options.json == "-":
        raise ChoiceError("--csv - and --json - would be mixed; print one of them.")
    given = {f"--{name}": value for name in ("html", "csv", "json") if (value := getattr(options, name)) != "-"}
    kinds, inputs = {"--html": WEB_PAGE, "--csv": _TABLE, "--json": _JSON}, [*options.scans, options.model]
    outputs = {flag: _Output.checked(text, kinds[flag], inputs, options.force) for flag, text in given.items() if text}
    _different(given)
    from ggo_lab.training import load_model

    model = load_model(options.model)
    graded: list[dict] = []
    for place in tqdm(options.scans, unit="scan", disable=None if len(options.scans) > 1 and not quiet else True):
        try:
            row, scan, probabilities = _graded(place, model)
        except GgoLabError as error:
            print(f"ggo-lab: {error}", file=sys.stderr)
            continue
        graded.append(row)
        if not quiet and len(options.scans) == 1:
            _say_one(row, scan, model)
        if page := outputs.get("--html"):
            from ggo_lab.page import scan_page

            page.write(
                lambda path: scan_page(scan, path, probabilities=probabilities, notes=scan.notes, task=model.task)  # noqa: B023
            )
            _say(f"Page: {page.path}")
    if not quiet and len(options.scans) > 1:
        _say_all(graded, model)
    for name, text in (("csv", _as_csv(graded, model)), ("json", json.dumps(graded, indent=1))):
        if getattr(options, name) == "-":
            _say(text)
        elif output := outputs.get(f"--{name}"):
            output.write(lambda path: write_text_whole(path, text))  # noqa: B023
    return _DONE if len(graded) == len(options.scans) else _PARTLY if graded else _REFUSED


def _graded(place: str, model: Backbone) -> tuple[dict, Scan, np.ndarray]:
    """Read and grade one scan; return what is to be written of it, the scan and the probabilities."""
    from ggo_lab.evaluation import predict
    from ggo_lab.images import image_set_of
    from ggo_lab.lungs import find_lungs
    from ggo_lab.readers import read_scan

    scan, task, recipe = read_scan(place), model.task, model.fitted_recipe
    try:  # also where the network does not need them: what is no chest should not be graded in silence
        found = find_lungs(scan)
        lungs, doubts = found.mask, found.notes
    except ScanError as error:
        if recipe.needs_lungs:
            raise
        lungs, doubts = None, (str(error),)
    scan = replace(scan, notes=(*scan.notes, *doubts))
    images = image_set_of(recipe.cut(scan, lungs), task)
    probabilities = predict(model, images).probabilities[0]
    winner = int(probabilities.argmax())
    row = {
        "scan": place,
        "class": task.names[winner],
        "number": task.numbers[winner],
        "name": scan.name,
        "probabilities": {name: round(float(p), 6) for name, p in zip(task.names, probabilities, strict=True)},
        "slices": [int(z) for z in images.table["slices"][0]],
        "notes": list(scan.notes),
    }
    return row, scan, probabilities


def _say_one(row: dict, scan: Scan, model: Backbone) -> None:
    _say(scan)
    for note in scan.notes:
        _say(f"  note: {note}")
    width = max(9, *map(len, model.task.names))
    for number, (name, share) in zip(model.task.numbers, row["probabilities"].items(), strict=True):
        _say(f"  {number} {name:<{width}} {share:6.1%}  {'#' * round(40 * share)}")
    _say(f"{model.task.noun.capitalize()}: {row['number']} ({row['class']})")
    _say(f"From slices {row['slices']} by {model.name}. {_DISCLAIMER}")


def _say_all(rows: list[dict], model: Backbone) -> None:
    width = max((len(printable(row["scan"])) for row in rows), default=4)
    wide = max(map(len, model.task.names))
    _say(f"{'scan':<{width}}  {model.task.noun:<{wide + 4}}  probability")
    for row in rows:
        said = f"{row['number']} {row['class']}"
        _say(f"{printable(row['scan']):<{width}}  {said:<{wide + 4}}  {max(row['probabilities'].values()):.1%}")
    _say(_DISCLAIMER)


def _as_csv(rows: list[dict], model: Backbone) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*_HEAD, *model.task.names])
    table.writerows([*(row[name] for name in _HEAD), *row["probabilities"].values()] for row in rows)
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
