"""The course as a website: every notebook executed, on pages that need neither kernel nor network."""

from __future__ import annotations

import base64
import html
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from ggo_lab.course.files import course_files, new_folder, read_notebook
from ggo_lab.course.glossary import glossary
from ggo_lab.errors import ChoiceError, GgoLabError
from ggo_lab.storage import home_filled_in
from ggo_lab.webpage import asset, webpage, write_webpage

if TYPE_CHECKING:  # JupyterLab brings it, see _NEEDS
    from nbformat import NotebookNode

_CELL_SECONDS = 600  # a cell that takes ten times a notebook's budget hangs
_NEEDS = 'the site needs what JupyterLab brings: pip install "ggo_lab[lab]"'


@dataclass(frozen=True)
class _Page:
    """One page of the site, before it is written."""

    name: str  # of the file, without .html
    title: str
    promise: str  # what the course's list says below the title
    body: str
    note: str = ""


def write_site(notebooks: str | Path, out: str | Path, only: Sequence[str] = ()) -> Path:
    """Execute the course and write it as a static site that works from a disk, without a network.

    Viewers become pages in frames that scroll by themselves; sliders show what they show at first; solutions are
    folded. The glossary and the pages of docs/ and data/ beside the notebooks come along, where they exist.

    Args:
        notebooks: the folder of the course, such as "notebooks".
        out: a folder that is new or empty.
        only: numbers of notebooks, such as ["00", "04"]; all of them when left out.

    Returns:
        The site's first page, index.html.

    Raises:
        ChoiceError: no such notebooks, or a folder to write to that holds something.
        GgoLabError: a cell that failed, with its notebook; or a package that is missing.

    >>> write_site("notebooks", "site", only=["00"])  # doctest: +SKIP
    """
    try:
        import nbclient  # noqa: F401
        import nbconvert  # noqa: F401
    except ImportError as error:
        raise GgoLabError(f"{error.name} is missing: {_NEEDS}") from error
    files = course_files(notebooks)
    if unknown := set(only) - {file.name[:2] for file in files}:
        raise ChoiceError(f"{notebooks}: no notebook numbered {', '.join(sorted(unknown))}.", sorted(unknown))
    files = [file for file in files if not only or file.name[:2] in only]
    out = new_folder(out).resolve()  # kernels run in the notebooks' folder
    (out / "viewers").mkdir()
    pages = []
    for file in files:
        pages.append(_executed(file, out))
        print(f"{file.name}: {pages[-1].note}", flush=True)
    folder = home_filled_in(notebooks)
    more = list(_documents(folder.resolve().parent, folder))
    known = {page.name for page in (*pages, *more)}
    for place, page in enumerate(pages):
        _write(page, out, known, pages[place - 1] if place else None, (*pages, None)[place + 1])
    for page in more:
        _write(page, out, known)
    return _write(_index(pages, more), out, known)


def _executed(file: Path, out: Path) -> _Page:
    """Run a notebook in its folder, as a learner would, and render what it shows."""
    import nbformat
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    from ggo_lab.course.kernels import notebook_client

    read_notebook(file)  # says in one sentence what is wrong with a file that is no notebook
    notebook = nbformat.read(file, as_version=4)
    shown = nbformat.v4.new_code_cell(
        f"from ggo_lab.course.shown import show_on_pages\nshow_on_pages({str(out / 'viewers')!r}, {file.name[:2]!r})"
    )
    notebook.cells.insert(0, shown)
    begun = time.monotonic()
    try:
        notebook_client(notebook, file.parent, _CELL_SECONDS).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        reason = f"{error.ename}: {error.evalue}" if isinstance(error, CellExecutionError) else type(error).__name__
        raise GgoLabError(f"{file} could not be executed to its end ({reason}); run it in JupyterLab.", file) from error
    note = f"executed in {time.monotonic() - begun:.0f} s"
    cells = notebook.cells[1:]
    title, promise = _opening(cells[0].source)
    return _Page(file.stem, title, promise, "\n".join(map(_cell, cells)), note)


def _opening(text: str) -> tuple[str, str]:
    """Title and first paragraph of a page in Markdown."""
    title, _, rest = text.partition("\n")
    promise = rest.strip().split("\n\n")[0]
    return title.lstrip("# ").strip(), re.sub(r"\s+", " ", promise)


def _cell(cell: NotebookNode) -> str:
    if cell.cell_type == "markdown":
        return f"<section>{_markdown(cell.source)}</section>"
    from nbconvert.filters import Highlight2HTML

    code = Highlight2HTML(pygments_lexer="ipython3")(cell.source.removeprefix("%%solution\n"))
    outputs = "".join(map(_output, cell.outputs))
    body = f"{code}<div class=outputs>{outputs}</div>" if outputs else code
    if "solution" in cell.metadata.get("tags", ()):
        return f"<details><summary>Solution</summary>{body}</details>"
    return body


def _output(output: NotebookNode) -> str:
    """One output as HTML: the richest form that needs no kernel."""
    from nbconvert.filters import ansi2html

    if output.output_type == "stream":
        # A progress bar writes a line over and over: what stood last counts.
        text = "\n".join(line.rpartition("\r")[2] for line in output.text.rstrip("\r\n").split("\n"))
        return f"<pre>{ansi2html(text)}</pre>"
    data = output.get("data", {})
    if "text/html" in data:
        # pandas brings colours of its own, which know no dark page
        return f"<div>{re.sub(r'<style scoped>.*?</style>', '', data['text/html'], flags=re.S)}</div>"
    if "image/png" in data:
        words = "Figure; the text below it says what to look at."
        return f'<img alt="{words}" src="data:image/png;base64,{data["image/png"].strip()}">'
    if "application/vnd.jupyter.widget-view+json" in data:  # a progress bar: nothing is left to see
        return ""
    if "text/markdown" in data:
        return _markdown(data["text/markdown"])
    return f"<pre>{html.escape(data.get('text/plain', ''))}</pre>"


def _documents(root: Path, notebooks: Path) -> Iterator[_Page]:
    """The pages beside the notebooks: words, teaching, viewers, data."""
    words = glossary(notebooks)
    sources = {file.stem: file for file in sorted((root / "docs").glob("*.md"))} | {"data": root / "data" / "README.md"}
    for name, file in sources.items():
        if not file.exists():
            continue
        text = words if name == "glossary" else file.read_text(encoding="utf-8")
        # Links within a page are written as GitHub names headings, in small letters.
        body = re.sub(r'(?<= id=")[^"]+', lambda found: found[0].lower(), _markdown(text))
        body = re.sub(r'(?<= src=")([\w-]+\.png)', partial(_embedded, file.parent), body)
        yield _Page(name, *_opening(text), f"<section>{body}</section>")


def _embedded(folder: Path, found: re.Match) -> str:
    """A picture of a page, in the page itself."""
    return "data:image/png;base64," + base64.b64encode((folder / found[1]).read_bytes()).decode()


def _index(pages: Sequence[_Page], more: Sequence[_Page]) -> _Page:
    rows = "".join(
        f'<li><a href="{page.name}.html"><b>{page.name[:2]}</b> {_inline(page.title)}</a>'
        f"<p>{_inline(page.promise)}</p><p class=fine>{page.note}</p></li>"
        for page in pages
    )
    beside = "".join(f'<li><a href="{page.name}.html">{_inline(page.title)}</a></li>' for page in more)
    body = Template(asset("site_index.html")).substitute(rows=rows, beside=beside)
    return _Page("index", "Grading ground-glass opacity in lung CT, honestly", "", body)


def _write(page: _Page, out: Path, known: set[str], before: _Page | None = None, after: _Page | None = None) -> Path:
    """Write a page with its ways to the others; give its path."""
    ways = [
        f'<a href="{to.name}.html" rel="{rel}">{words} {html.escape(to.name[:2])}</a>'
        for to, rel, words in ((before, "prev", "← back to"), (after, "next", "on to →"))
        if to is not None
    ]
    home = '<a href="index.html">The course</a>' if page.name != "index" else ""
    words = '<a href="glossary.html">Glossary</a>' if "glossary" in known - {page.name} else ""
    navigation = f"<nav aria-label=Course>{' '.join(filter(None, (home, *ways, words)))}</nav>"
    body = f"{navigation}<main>{_linked(page.body, known)}</main>{navigation}"
    text = webpage(page.title, body, "base.css site.css", notebook=True)
    return write_webpage(out / f"{page.name}.html", text)


def _linked(body: str, known: set[str]) -> str:
    """Let links to notebooks and documents lead to their pages."""

    def page(found: re.Match) -> str:
        folder, stem, fragment = found.groups()
        name = Path(folder).name if stem == "README" else stem
        return f'href="{name}.html{fragment or ""}"' if name in known else found[0]

    return re.sub(r'href="([\w./-]*?)([\w-]+)\.(?:ipynb|md)(#[^"]*)?"', page, body)


def _markdown(text: str) -> str:
    from nbconvert.filters import markdown2html

    return re.sub(r'<a class="anchor-link".*?</a>', "", markdown2html(text))


def _inline(text: str) -> str:
    """A line of Markdown without a paragraph around it."""
    return re.sub(r"^<p>|</p>\s*$", "", _markdown(text))
