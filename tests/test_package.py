"""The house as a whole: imports in one direction, lazy public names, files that agree with each other."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ggo_lab as gl

ROOT = Path(__file__).parents[1]
# The rooms from top to bottom: a lower one may import an upper one, never the reverse.
ROOMS = [
    "errors",
    "storage",
    "settled",
    "progress",
    "webpage",
    "tasks",
    "scan",
    "readers",
    "phantom",
    "cohort",
    "lungs",
    "images",
    "backbones",
    "training",
    "evaluation",
    "curtain",
    "sweeps",
    "saliency",
    "pitfalls",
    "rendering",
    "plots",
    "page",
    "viewers",
    "course",
    "checkup",
    "cli",
]


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "ggo_lab").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted((ROOT / "ggo_lab").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_down_the_list_only(path):
    room = room_of(path)
    if room == "__init__":
        return
    assert room in ROOMS, f"{room} has no place in the list"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ggo_lab"):
            inner = node.module.split(".")[1:]
            imported = inner[0] if inner else None
            for name in [imported] if imported else [alias.name for alias in node.names]:
                if name in ROOMS and name != room:
                    assert ROOMS.index(name) < ROOMS.index(room), f"{room} imports {name}, which stands below it"


def test_import_is_light():
    code = (
        "import sys, ggo_lab;"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules, 'ggo_lab imports too much'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_looking_at_a_scan_does_not_wait_for_torch():
    code = (
        "import sys, ggo_lab as gl; gl.use_style(); gl.make_phantom, gl.SliceViewer, gl.plot_slice, gl.prepare;"
        "gl.start_lesson, gl.caption;"  # the setup cell of every notebook
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_public_name_exists_and_is_documented():
    for name in gl.__all__:
        value = getattr(gl, name)
        if callable(value):
            assert value.__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gl.nothing


def test_no_repository_is_named_but_the_one_of_the_setting():
    """Where the course lives is said in pyproject.toml alone (`ggo-lab fork` tells the notebooks)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    home = project["urls"].get("Repository")
    for path in [ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))]:
        text = path.read_text(encoding="utf-8")
        # The code of the paper is cited by file and line, which hold for one commit only.
        ours = text.replace("https://github.com/lisatwyw/cov19/blob/980843a/", "")
        for found in re.findall(r"https://github\.com/[\w.-]+/[\w.-]+", ours):
            assert found.removesuffix(".git") == home, f"{path.name} names {found}"
        assert ("colab.research.google.com" in text) == (home is not None and path.suffix == ".ipynb")
    assert gl.__version__ == project["version"]


def test_links_between_documents_resolve():
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("data/*.md"), *ROOT.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: a link leads nowhere: {target}"


def test_no_lock_file():
    assert not list(ROOT.glob("*.lock"))


def test_the_readme_lists_what_stands_at_the_top_by_room():
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {room: re.findall(r"`(\w+)`", names) for room, names in rows if room in gl._ROOMS}
    assert listed == gl._ROOMS
