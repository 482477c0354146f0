"""The commands of those who teach: editions of the course, and a class's challenge."""

from __future__ import annotations

import argparse
from pathlib import Path

from ggo_lab.cli.outputs import say


def exercises(options: argparse.Namespace) -> None:
    """Write the course without its solutions."""
    from ggo_lab.course import write_exercises

    written = write_exercises(options.notebooks, options.out)
    say(f"{len(written)} notebooks without solutions in {Path(options.out) / 'notebooks'}")


def site(options: argparse.Namespace) -> None:
    """Execute the course and write it as a website."""
    from ggo_lab.course import write_site

    say(f"Open {write_site(options.notebooks, options.out, options.only)}")


def glossary(options: argparse.Namespace) -> None:
    """Print the words that the course explains."""
    from ggo_lab.course import glossary

    say(glossary(options.notebooks).rstrip("\n"))


def challenge_new(options: argparse.Namespace) -> None:
    """Draw secret patients for a class."""
    from ggo_lab.course.challenge import new_challenge

    secret = new_challenge(options.folder, options.patients)
    say(f"{options.patients} hidden patients. Keep {secret} to yourself until the reveal.")


def challenge_submit(options: argparse.Namespace) -> None:
    """Hand in a team's model and its sentence."""
    from ggo_lab.course.challenge import submit

    submission = submit(options.folder, options.team, options.model, options.sentence)
    say(f"Team {submission.team} has submitted {submission.model}. It said: {submission.sentence}")


def challenge_reveal(options: argparse.Namespace) -> None:
    """Grade the hidden patients with every model, and print the standings."""
    from ggo_lab.course.challenge import reveal, standings

    table = standings(options.folder, reveal(options.folder, options.secret))
    say(table.drop(columns="sentence").round(2).to_string())
    for team, sentence in table["sentence"].items():
        say(f"{team} had said: {sentence}")


def fork(options: argparse.Namespace) -> None:
    """Let the course's links lead to a copy of it."""
    from ggo_lab.course import link_to_fork

    for file in link_to_fork(options.root, options.repository):
        say(f"changed {file}")
