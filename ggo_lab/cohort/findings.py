"""What was found out about a cohort, one sentence a line, and how a notebook shows it."""

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pandas as pd

from ggo_lab.errors import check_choice, printable

# How much a finding matters: nothing to do, read it before you trust a number, mend it first.
STATUSES = ("fine", "look", "wrong")
_COLORS = {"fine": "#0072B2", "look": "#E69F00", "wrong": "#D55E00"}  # Okabe & Ito 2008, safe for the colour-blind
_SHOWN_NAMES = 3


@dataclass(frozen=True)
class Finding:
    """One thing that was found out.

    Attributes:
        status: "fine", "look" or "wrong".
        topic: two or three words, such as "missing" or "does not match".
        what: one sentence.
        names: the scans or files it is about; all of them, none is dropped.
    """

    status: str
    topic: str
    what: str
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("status", self.status, STATUSES)


def about(names: Iterable[object], status: str, topic: str, what: str) -> list[Finding]:
    """Give the finding about these names, or none where there are no names."""
    texts = tuple(printable(str(name)) for name in names)
    return [Finding(status, topic, what, texts)] if texts else []


class Findings:
    """A list of findings that shows as a table.

    What is wrong comes first, then what is worth a look.

    >>> Findings([Finding("wrong", "missing", "Files that the table names are absent.", ("a.nii", "b.nii"))])
    1 finding: 1 wrong
      wrong  missing  2  Files that the table names are absent. (a.nii, b.nii)
    """

    def __init__(self, findings: Iterable[Finding] = ()):
        """Take findings in any order."""
        self._findings = tuple(sorted(findings, key=lambda finding: -STATUSES.index(finding.status)))

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._findings)

    def __len__(self) -> int:
        return len(self._findings)

    def of(self, status: str) -> "Findings":
        """The findings of one status: "fine", "look" or "wrong"."""
        check_choice("status", status, STATUSES)
        return Findings(finding for finding in self if finding.status == status)

    @property
    def table(self) -> pd.DataFrame:
        """A row a finding: status, topic, what, count (of the names), names (a tuple)."""
        rows = [(f.status, f.topic, f.what, len(f.names), f.names) for f in self]
        return pd.DataFrame(rows, columns=["status", "topic", "what", "count", "names"])

    def _summary(self) -> str:
        counts = [f"{n} {status}" for status in reversed(STATUSES) if (n := len(self.of(status)))]
        return f"{len(self)} finding{'' if len(self) == 1 else 's'}: {', '.join(counts) or 'none'}"

    def __repr__(self) -> str:
        topic, count = (max((len(text(f)) for f in self), default=0) for text in (lambda f: f.topic, _count))
        lines = [
            f"  {f.status:<5}  {f.topic:<{topic}}  {_count(f):>{count}}  {f.what}{_in_brackets(f.names)}" for f in self
        ]
        return "\n".join([self._summary(), *lines])

    def _repr_html_(self) -> str:
        cells = "text-align:left;vertical-align:top;padding:2px 12px 2px 0"
        rows = "".join(
            f"<tr><td style='{cells};color:{_COLORS[f.status]};font-weight:bold'>{f.status}</td>"
            f"<td style='{cells};white-space:nowrap'>{html.escape(f.topic)}</td>"
            f"<td style='{cells};text-align:right'>{_count(f)}</td>"
            f"<td style='{cells};white-space:normal;max-width:60em'>{html.escape(f.what)}{_folded(f.names)}</td></tr>"
            for f in self
        )
        return f"<p>{self._summary()}</p><table>{rows}</table>"


def _count(finding: Finding) -> str:
    return str(len(finding.names)) if finding.names else ""


def _in_brackets(names: tuple[str, ...]) -> str:
    if not names:
        return ""
    more = f", and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return f" ({', '.join(names[:_SHOWN_NAMES])}{more})"


def _folded(names: tuple[str, ...]) -> str:
    """A few names are shown; many are folded away, all of them, behind a triangle to click on."""
    if len(names) <= _SHOWN_NAMES:
        return html.escape(_in_brackets(names))
    return f"<details><summary>names</summary>{html.escape(', '.join(names))}</details>"
