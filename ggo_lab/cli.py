"""The same functions for a terminal: `ggo-lab grade`, `ggo-lab train`, `ggo-lab sweep`, `ggo-lab prepare`.

Several processes train one network with `torchrun --nproc-per-node 2 -m ggo_lab.cli train ...`.
"""

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from ggo_lab.errors import GgoLabError
from ggo_lab.grades import Grade


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


# What `sweep` varies, and the type of its values.
_AXES = {"backbone": str, "extent": str, "optimizer": str, "lr": float, "batch_size": int, "loss": str, "seed": int}


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
    train.add_argument("--optimizer", help="adam (default), adamw or sgd")
    train.add_argument("--loss", help="cross_entropy (default), or corn: grades that follow each other")
    train.add_argument("--balance", help="for rare grades: none (default), loss or sampling")
    train.add_argument("--rotate", type=float, help="turn images by up to so many degrees")
    train.add_argument("--scale", type=float, help="enlarge or shrink images by up to this share")
    train.add_argument("--intensity", type=float, help="change contrast and light by up to this share")
    train.add_argument("--lr", type=float, help="learning rate")
    train.add_argument("--batch-size", type=int, help="images per step")
    train.add_argument("--max-epochs", type=int, help="the most passes over the train split")
    train.add_argument("--patience", type=int, help="epochs without a better validation loss before stopping")
    train.add_argument("--seed", type=int, help="of the order, the augmentation and the new head")
    train.set_defaults(run=_train)

    sweep = commands.add_parser("sweep", help="train every combination of settings; call it again, anywhere, to go on")
    _add_cohort(sweep)
    sweep.add_argument("--folder", required=True, help="where the runs are kept, shared by all workers")
    sweep.add_argument("--weights", default="imagenet", help="imagenet (default) or none")
    sweep.add_argument("--max-epochs", type=int, help="the most passes over the train split")
    sweep.add_argument("--patience", type=int, help="epochs without a better validation loss before stopping")
    for axis, kind in _AXES.items():
        flag = f"--{axis.replace('_', '-')}"
        sweep.add_argument(flag, type=kind, nargs="+", help=f"values of {axis} to try")
    sweep.set_defaults(run=_sweep)

    prepare = commands.add_parser("prepare", help="make and cache the images of a cohort, as `train` would")
    _add_cohort(prepare)
    prepare.set_defaults(run=_prepare)
    return parser


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


def _images(options: argparse.Namespace):
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


def _prepare(options: argparse.Namespace) -> None:
    _images(options)


def _train(options: argparse.Namespace) -> None:
    from ggo_lab.backbones import build_backbone
    from ggo_lab.evaluation import evaluate, predict
    from ggo_lab.training import TrainConfig, fit, save_model
    from ggo_lab.training.ranks import gathered, joined, rank_and_size

    names = ("optimizer", "loss", "balance", "rotate", "scale", "intensity")
    config = TrainConfig(**_given(options, "lr", "batch_size", "max_epochs", "patience", "seed", *names))
    model = build_backbone(options.backbone, options.extent, options.weights, seed=config.seed)
    with joined():
        first = rank_and_size()[0] == 0
        images = _images(options) if first else None
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

    axes = _given(options, *_AXES)
    images = _images(options)
    config = TrainConfig(**_given(options, "max_epochs", "patience"))
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
    images = image_set_of(scan, model.recipe)
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
