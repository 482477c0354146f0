"""A challenge for a class: hidden patients, a sentence written down before, one submission, and then the truth.

A challenge is a folder, which a class may share. `public.json` says what everybody may know; `secret.json` holds the
seeds of the hidden patients and stays with the teacher; `submissions/` holds one file for each team.
"""

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ggo_lab.cohort import phantom_cohort
from ggo_lab.course.files import new_folder
from ggo_lab.errors import ChoiceError
from ggo_lab.evaluation import Report, evaluate, predict
from ggo_lab.images import prepare
from ggo_lab.storage import home_filled_in, write_text_whole
from ggo_lab.training import load_model

_SHORTEST_SENTENCE = 40  # characters; less predicts nothing
_TEAM = r"[\w-]{1,40}"
_ABOVE_PUBLIC_SEEDS = 2**32  # no cohort of the course, and none that anybody makes by hand, has such a seed


@dataclass(frozen=True)
class Submission:
    """What one team handed in.

    Attributes:
        team: its name.
        sentence: what it predicted of its own score, written before the truth was known.
        model: the model file's name inside the challenge's folder.
        checksum: SHA-256 of that file, so that the network judged is the network handed in.
    """

    team: str
    sentence: str
    model: str
    checksum: str


def new_challenge(folder: str | Path, patients: int = 200, shape: tuple[int, int, int] = (32, 128, 128)) -> Path:
    """Begin a challenge: draw secret patients that no public cohort contains.

    Args:
        folder: new or empty; a class may share it.
        patients: how many hidden scans.
        shape: voxels (Z, Y, X) of each.

    Returns:
        The file that stays with the teacher, `secret.json`; move it out of a shared folder until the reveal.

    Raises:
        ChoiceError: fewer than 20 patients, or a folder that holds something.
    """
    if patients < 20:
        raise ChoiceError(f"patients={patients} decide nothing; take 20 or more, such as 200.", patients)
    folder = new_folder(folder)
    (folder / "submissions").mkdir()
    secret = {"seed": _ABOVE_PUBLIC_SEEDS + secrets.randbelow(2**40), "key": secrets.token_hex(16)}
    sealed = {"patients": patients, "shape": list(shape), "seal": _seal(secret)}
    write_text_whole(folder / "public.json", json.dumps(sealed, indent=1) + "\n")
    write_text_whole(folder / "secret.json", json.dumps(secret, indent=1) + "\n")
    return folder / "secret.json"


def submit(folder: str | Path, team: str, model: str | Path, sentence: str) -> Submission:
    """Hand in a model file and one sentence about its score; each team once.

    Args:
        folder: of the challenge.
        team: letters, digits, - and _; at most 40.
        model: a file that save_model wrote.
        sentence: what you expect, such as "Macro-F1 between 0.6 and 0.8 on the hidden patients, critical worst".

    Returns:
        What was stored: the model is copied into the folder, beside a file with the sentence.

    Raises:
        ChoiceError: no challenge there, a name or a sentence that will not do, or a team that has submitted.
        ModelError: a file that is no model.
    """
    folder = _challenge(folder)
    if not re.fullmatch(_TEAM, team):
        raise ChoiceError(f"team {team!r}: use letters, digits, - and _, at most 40, such as team-3.", team)
    if len(sentence.strip()) < _SHORTEST_SENTENCE:
        raise ChoiceError(
            f"{sentence!r} predicts too little: say in a sentence which score you expect, and why you would be wrong.",
            sentence,
        )
    load_model(model)  # raises where it is none
    stored, note = folder / "submissions" / f"{team}.safetensors", folder / "submissions" / f"{team}.json"
    content = home_filled_in(model).read_bytes()
    submission = Submission(team, sentence.strip(), stored.name, hashlib.sha256(content).hexdigest())
    try:
        with note.open("x", encoding="utf-8") as file:  # only one can create it: a team submits once
            file.write(json.dumps(vars(submission), indent=1, ensure_ascii=False) + "\n")
    except FileExistsError:
        raise ChoiceError(
            f"Team {team} has submitted; a second try would be chosen on the first one's score.", team
        ) from None
    try:
        stored.write_bytes(content)
    except OSError:  # such as a full disk: the team may try again
        note.unlink()
        raise
    return submission


def reveal(folder: str | Path, secret: str | Path | None = None, progress: bool = True) -> dict[str, Report]:
    """Draw the hidden patients, grade them with every model that was handed in, and evaluate.

    Args:
        folder: of the challenge.
        secret: the teacher's file; `secret.json` in the folder if left out.
        progress: whether to show a bar while images are made.

    Returns:
        A Report by team, in the order of their names; baselines stand beside every score.

    Raises:
        ChoiceError: no challenge or secret there, a secret of another challenge, no submission, or a model file that
            changed since it was handed in.
    """
    folder = _challenge(folder)
    public = json.loads((folder / "public.json").read_text(encoding="utf-8"))
    secret = home_filled_in(secret) if secret else folder / "secret.json"
    if not os.path.isfile(secret):
        raise ChoiceError(f"{secret}: the challenge's secret is not there; put the teacher's file back.", secret)
    drawn = json.loads(secret.read_text(encoding="utf-8"))
    if _seal(drawn) != public["seal"]:
        raise ChoiceError(f"{secret} belongs to another challenge: its seal differs from public.json's.", secret)
    if not (submissions := list(_submissions(folder))):
        raise ChoiceError(f"{folder / 'submissions'}: nobody has submitted yet.", folder)
    # No split among the hidden patients: all of them judge.
    cohort = phantom_cohort(public["patients"], seed=drawn["seed"], shape=tuple(public["shape"]))
    reports: dict[str, Report] = {}
    for submission in submissions:
        model = load_model(_unchanged(folder, submission))
        images = prepare(cohort, model.fitted_recipe, progress=progress)
        reports[submission.team] = evaluate(predict(model, images))
    return reports


def standings(folder: str | Path, reports: dict[str, Report]) -> pd.DataFrame:
    """Set what each team predicted beside what came out.

    Args:
        folder: of the challenge.
        reports: as `reveal` returns them.

    Returns:
        A row a team, best macro-F1 first: macro_f1, low, high (95% interval), majority, and the sentence.
    """
    sentences = {submission.team: submission.sentence for submission in _submissions(_challenge(folder))}
    rows = {
        team: {
            "macro_f1": report.macro_f1,
            "low": report.interval().low,
            "high": report.interval().high,
            "majority": report.scores.loc["macro-F1", "majority"],
            "sentence": sentences[team],
        }
        for team, report in reports.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").sort_values("macro_f1", ascending=False)


def _challenge(folder: str | Path) -> Path:
    folder = home_filled_in(folder)
    if not os.path.isfile(folder / "public.json") or not os.path.isdir(folder / "submissions"):
        raise ChoiceError(f"{folder}: no challenge in it; `ggo-lab challenge new {folder}` begins one.", folder)
    return folder


def _submissions(folder: Path) -> Iterator[Submission]:
    for note in sorted((folder / "submissions").glob("*.json")):
        yield Submission(**json.loads(note.read_text(encoding="utf-8")))


def _unchanged(folder: Path, submission: Submission) -> Path:
    file = folder / "submissions" / submission.model
    if not file.exists() or hashlib.sha256(file.read_bytes()).hexdigest() != submission.checksum:
        raise ChoiceError(
            f"{file} is not the file that team {submission.team} handed in; put that back, or delete "
            f"{submission.team}.json and let the team submit again.",
            file,
        )
    return file


def _seal(secret: dict) -> str:
    """A checksum that binds a challenge to its secret without giving it away: the key makes guessing useless."""
    return hashlib.sha256(json.dumps(secret, sort_keys=True).encode()).hexdigest()
