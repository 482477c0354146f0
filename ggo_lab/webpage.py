"""One self-contained HTML file that forbids itself every connection, and every script but its own."""

import base64
import hashlib
import html
import json
from importlib import resources
from pathlib import Path
from string import Template

from ggo_lab.storage import write_text_whole


def webpage(
    title: str, body: str, style: str, script: str = "", data: dict | None = None, notebook: bool = False
) -> str:
    """Put a whole page together.

    Its Content-Security-Policy lets run the one style and the one script that are given here, by their hashes, and
    pictures that stand in the page itself; everything else is refused by the browser, connections first of all.

    Args:
        title: plain text; it is escaped here.
        body: HTML, in which all names are escaped already.
        style, script: names of files in ggo_lab/assets, separated by blanks, one after another.
        notebook: the body is what a notebook shows: it may style its parts, and hold pages beside this one in frames.
        data: for the script, which finds it as JSON in the element "data".
    """
    style, script = (_assets(names) for names in (style, script))
    scripts = f"script-src {_hash(script)}; " if script else ""
    parts = []
    if data is not None:
        # "<" would let a name end the data block; JSON allows it to be written so.
        text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
        parts.append(f'<script type="application/json" id="data">{text}</script>\n')
    if script:
        parts.append(f"<script>{script}</script>\n")
    # A page that is opened from a disk has no 'self'; `file:` names what lies beside it.
    styles = "style-src 'unsafe-inline'; frame-src 'self' file:" if notebook else f"style-src {_hash(style)}"
    return Template(asset("webpage.html")).substitute(
        policy=f"default-src 'none'; {scripts}{styles}; img-src data:; base-uri 'none'; form-action 'none'",
        title=html.escape(title),
        style=style,
        body=body,
        scripts="".join(parts),
    )


def write_webpage(path: str | Path, text: str) -> Path:
    """Write a page, whole or not at all; give its path. Raises GgoLabError where it cannot be written."""
    path = Path(path)
    write_text_whole(path, text)
    return path


def asset(name: str) -> str:
    """The text of a file that comes with the package."""
    return resources.files("ggo_lab").joinpath("assets", name).read_text(encoding="utf-8")


def _assets(names: str) -> str:
    return "".join(asset(name) for name in names.split())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
