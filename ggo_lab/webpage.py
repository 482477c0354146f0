"""One self-contained HTML file that forbids itself every connection, and every script but its own."""

import base64
import hashlib
import json
from importlib import resources
from pathlib import Path

import jinja2

from ggo_lab.storage import WEB_PAGE, home_filled_in, write_text_whole

# The viewer in the browser: plain scripts that are joined in this order, and after them the one for where it stands,
# a notebook or a page. There is no build step; each file begins with what it is for.
VIEWER_SCRIPTS = "viewer/dom.js viewer/volume.js viewer/picture.js viewer/viewer.js"


def webpage(
    title: str, body: str, style: str, script: str = "", data: dict | None = None, notebook: bool = False
) -> str:
    """Put a whole page together.

    Its Content-Security-Policy lets run the one style and the one script that are given here, by their hashes, and
    pictures that stand in the page itself; everything else is refused by the browser, connections first of all.

    Args:
        title: plain text; it is escaped here.
        body: HTML, in which all names are escaped already, as `render` does.
        style: names of files in ggo_lab/assets, separated by blanks, one after another.
        script: as style.
        data: for the script, which finds it as JSON in the element "data".
        notebook: the body is what a notebook shows: it may style its parts, and hold pages beside this one in frames.

    Returns:
        The page.
    """
    style, script = (assets(names) for names in (style, script))
    scripts = f"script-src {_hash(script)}; " if script else ""
    # A page that is opened from a disk has no 'self'; `file:` names what lies beside it.
    styles = "style-src 'unsafe-inline'; frame-src 'self' file:" if notebook else f"style-src {_hash(style)}"
    return render(
        "webpage.html",
        policy=f"default-src 'none'; {scripts}{styles}; img-src data:; base-uri 'none'; form-action 'none'",
        title=title,
        style=style,
        body=body,
        # "<" would let a name end the data block; JSON allows it to be written so.
        data=None if data is None else json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
        script=script,
    )


def render(template: str, **values: object) -> str:
    """Fill a template in ggo_lab/assets; every value that it does not call safe is escaped."""
    return _TEMPLATES.get_template(template).render(values)


def write_webpage(path: str | Path, text: str, source: Path | None = None) -> Path:
    """Write a page, whole or not at all.

    Args:
        path: ends in .html.
        text: the page.
        source: the file or folder that the page shows, which is never overwritten.

    Returns:
        The path.

    Raises:
        ChoiceError: another suffix, or something else than a page stands there.
        GgoLabError: it cannot be written.
    """
    path = home_filled_in(path)
    write_text_whole(path, text, WEB_PAGE, [source] if source else [])
    return path


def asset(name: str) -> str:
    """Return the text of a file that comes with the package."""
    return resources.files("ggo_lab").joinpath("assets", name).read_text(encoding="utf-8")


def assets(names: str) -> str:
    """Return files that come with the package, named with blanks between them, one after another."""
    return "".join(asset(name) for name in names.split())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_TEMPLATES = jinja2.Environment(
    autoescape=True,
    loader=jinja2.FunctionLoader(asset),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["percent"] = lambda share: f"{share:.0%}"
