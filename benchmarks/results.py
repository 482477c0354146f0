"""What a benchmark found: tables printed as they grow, and kept as JSON beside the scripts."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from machine import facts

FOLDER = Path(__file__).parent / "results"
Cell = str | float | int | None


def markdown(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Give the lines of a table; numbers with three digits that count, None as a dash."""
    return [_line(head), "|---" * len(head) + "|", *(_line(row) for row in rows)]


class Results:
    """The tables of one script."""

    def __init__(self, name: str):
        self.name = name
        self.content = {"date": date.today().isoformat(), "machine": facts(), "tables": [], "notes": []}
        print(self.content["machine"], flush=True)

    def table(self, title: str, head: Sequence[str]) -> None:
        """Begin a table; rows go to the last one begun."""
        self.content["tables"].append({"title": title, "head": list(head), "rows": []})
        print(f"\n{title}\n", *markdown(head, []), sep="\n", flush=True)

    def row(self, *cells: Cell) -> None:
        self.content["tables"][-1]["rows"].append([_rounded(cell) for cell in cells])
        print(_line(cells), flush=True)

    def note(self, text: str) -> None:
        """Add a sentence below the tables."""
        self.content["notes"].append(text)
        print(f"\n- {text}", flush=True)

    def bar(self, what: str, value: float, bar: float, at_least: bool) -> None:
        """Add a sentence that says whether a number meets its bar."""
        met = value >= bar if at_least else value <= bar
        self.note(f"{what}: {value:.2f} (bar: {'at least' if at_least else 'at most'} {bar:g}), {_VERDICT[met]}")

    def write(self) -> Path:
        """Write all of it to results/NAME.json."""
        path = FOLDER / f"{self.name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(self.content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path


_VERDICT = {True: "met", False: "**missed**"}


def _rounded(cell: Cell) -> Cell:
    return float(f"{cell:.4g}") if isinstance(cell, float) else cell


def _shown(cell: Cell) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return cell
    return f"{cell:,.0f}" if isinstance(cell, int) or abs(cell) >= 100 else f"{cell:.3g}"


def _line(cells: Sequence[Cell]) -> str:
    return f"| {' | '.join(_shown(cell) for cell in cells)} |"
