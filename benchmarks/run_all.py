"""Run the benchmarks one after another, and write what they found into README.md.

    python benchmarks/run_all.py                     # within 25 minutes on two free cores: short forms where there are
    python benchmarks/run_all.py --only growth ...   # some of them
    python benchmarks/run_all.py --full              # all turns and sizes, however long
    python benchmarks/run_all.py --report            # none: only write the README's tables anew from results/

A part that fails or runs out of time is named, the others go on, and the exit code is 1.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from results import FOLDER, markdown

HERE = Path(__file__).parent
README = HERE / "README.md"
BEGIN, END = "<!-- results: written by run_all.py, do not edit -->", "<!-- end of results -->"
# The order in which they run, the longest last, with what makes each one short.
PARTS = {
    "scan_to_image": ["--quick"],
    "growth": ["--quick"],
    "frameworks": ["--quick"],
    "training": ["--quick"],
    "head_only": ["resnet50"],
    "lung_recipes": ["--seeds", "2"],
    "viewers": [],
    "kill": ["--times", "5"],
    "course": ["--quick"],
}
# What takes longer than all of those: run by name or with --full; its results are in the README too.
LONG = ("course_defaults", "formulations", "learning_curve", "nine_networks")


def run(name: str, options: list[str], seconds: float | None) -> str:
    """Run one part; give what went wrong."""
    command = [sys.executable, str(HERE / f"{name}.py"), *options]
    try:
        code = subprocess.run(command, timeout=seconds, cwd=HERE.parent).returncode
    except subprocess.TimeoutExpired:
        return f"{name}: not finished when time was over"
    return f"{name}: failed with code {code}" if code else ""


def report() -> None:
    """Put the tables of results/*.json between README.md's markers."""
    lines = [BEGIN]
    for name in (*PARTS, *LONG):
        path = FOLDER / f"{name}.json"
        if not path.exists():
            continue
        content = json.loads(path.read_text(encoding="utf-8"))
        lines += ["", f"### `{name}`, {content['date']}", "", f"{content['machine']}."]
        for table in content["tables"]:
            lines += ["", f"{table['title']}:", "", *markdown(table["head"], table["rows"])]
        lines += [""] * bool(content["notes"]) + [f"- {note}" for note in content["notes"]]
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    README.write_text(before + "\n".join([*lines, "", END]) + rest.split(END)[1], encoding="utf-8")


def main(only: list[str], minutes: float, full: bool) -> int:
    start, wrong = time.monotonic(), []
    for name in only:
        left = None if full else 60 * minutes - (time.monotonic() - start)
        print(f"\n## {name}\n", flush=True)
        if left is not None and left < 30:
            wrong.append(f"{name}: left out, time was over")
            continue
        options = [] if full else [*PARTS.get(name, [])]
        if name == "course" and not full:
            options += ["--minutes", f"{max(left / 60 - 1, 0):.1f}"]  # the last notebook ends within a minute
        wrong += filter(None, [run(name, options, left)])
        print(f"\n{name}: {(time.monotonic() - start) / 60:.1f} minutes since the beginning", flush=True)
    report()
    print(*wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *LONG], metavar="NAME")
    parser.add_argument("--minutes", type=float, default=25.0, help="for all of them together")
    parser.add_argument("--full", action="store_true", help="all turns and sizes")
    parser.add_argument("--report", action="store_true", help="only write the README's tables anew")
    arguments = parser.parse_args()
    chosen = arguments.only or [*PARTS, *(LONG if arguments.full else ())]
    sys.exit(report() if arguments.report else main(chosen, arguments.minutes, arguments.full))
