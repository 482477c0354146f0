"""The command that grades scans with a trained model."""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from tqdm import tqdm

from ggo_lab.cli.outputs import DONE, PARTLY, REFUSED, Output, check_different, say
from ggo_lab.errors import ChoiceError, GgoLabError, ScanError, printable
from ggo_lab.storage import WEB_PAGE, Kind, write_text_whole

if TYPE_CHECKING:  # a terminal's --help should not wait for torch
    import numpy as np

    from ggo_lab.backbones import Backbone
    from ggo_lab.scan import Scan

_HEAD = ("scan", "class", "number", "name")  # of the table that `grade --csv` writes, before probabilities and haze
_TABLE = Kind("a table of grades", (".csv",), lambda head: head.startswith(",".join(_HEAD).encode()))
_JSON = Kind("grades as JSON", (".json",), lambda head: head == b"[]" or head.startswith(b'[\n {\n  "scan"'))
_DISCLAIMER = (
    "A network's probability is no certainty, least of all on scans unlike those it learnt from. Teaching material, "
    "not a medical device."
)


def grade(options: argparse.Namespace) -> int:
    """Grade each scan; what cannot be graded is said, and the others go on."""
    if options.html and len(options.scans) > 1:
        raise ChoiceError("--html shows one scan; call `ggo-lab grade` once for each page.", options.html)
    if options.html == "-":
        raise ChoiceError("--html - cannot print a page; give the name of a file.", "-")
    quiet = "-" in (options.csv, options.json)
    if options.csv == options.json == "-":
        raise ChoiceError("--csv - and --json - would be mixed; print one of them.")
    given = {f"--{name}": value for name in ("html", "csv", "json") if (value := getattr(options, name)) != "-"}
    kinds, inputs = {"--html": WEB_PAGE, "--csv": _TABLE, "--json": _JSON}, [*options.scans, options.model]
    outputs = {flag: Output.checked(text, kinds[flag], inputs, options.force) for flag, text in given.items() if text}
    check_different(given)
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
            say(f"Page: {page.path}")
    if not quiet and len(options.scans) > 1:
        _say_all(graded, model)
    for name, text in (("csv", _as_csv(graded, model)), ("json", json.dumps(graded, indent=1))):
        if getattr(options, name) == "-":
            say(text.rstrip("\n"))
        elif output := outputs.get(f"--{name}"):
            output.write(lambda path: write_text_whole(path, text))  # noqa: B023
    return DONE if len(graded) == len(options.scans) else PARTLY if graded else REFUSED


def _graded(place: str, model: Backbone) -> tuple[dict, Scan, np.ndarray]:
    """Read and grade one scan; return what is to be written of it, the scan and the probabilities."""
    from ggo_lab.evaluation import predict
    from ggo_lab.images import image_set_of
    from ggo_lab.lungs import find_lungs, ggo_fraction
    from ggo_lab.readers import read_scan

    scan, task, recipe = read_scan(place), model.task, model.fitted_recipe
    try:  # also where the network does not need them: what is no chest should not be graded in silence
        found = find_lungs(scan)
        lungs, doubts = found.mask, found.notes
        haze = round(ggo_fraction(scan, lungs).total, 4)
    except ScanError as error:
        if recipe.needs_lungs:
            raise
        lungs, doubts, haze = None, (str(error),), None
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
        "haze": haze,
        "slices": [int(z) for z in images.table["slices"][0]],
        "notes": list(scan.notes),
    }
    return row, scan, probabilities


def _say_one(row: dict, scan: Scan, model: Backbone) -> None:
    say(scan)
    for note in scan.notes:
        say(f"  note: {note}")
    width = max(9, *map(len, model.task.names))
    for number, (name, share) in zip(model.task.numbers, row["probabilities"].items(), strict=True):
        say(f"  {number} {name:<{width}} {share:6.1%}  {'#' * round(40 * share)}")
    say(f"{model.task.noun.capitalize()}: {row['number']} ({row['class']})")
    if row["haze"] is not None:
        say(f"Measured beside it, by the network of the lungs: haze in {row['haze']:.0%} of them.")
    say(f"From slices {row['slices']} by {model.name}. {_DISCLAIMER}")


def _say_all(rows: list[dict], model: Backbone) -> None:
    width = max((len(printable(row["scan"])) for row in rows), default=4)
    wide = max(map(len, model.task.names))
    say(f"{'scan':<{width}}  {model.task.noun:<{wide + 4}}  probability  haze")
    for row in rows:
        said = f"{row['number']} {row['class']}"
        haze = "" if row["haze"] is None else f"{row['haze']:.0%}"
        share = f"{max(row['probabilities'].values()):.1%}"
        say(f"{printable(row['scan']):<{width}}  {said:<{wide + 4}}  {share:<11}  {haze}")
    say(_DISCLAIMER)


def _as_csv(rows: list[dict], model: Backbone) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*_HEAD, *model.task.names, "haze"])
    table.writerows([*(row[name] for name in _HEAD), *row["probabilities"].values(), row["haze"]] for row in rows)
    return text.getvalue()
