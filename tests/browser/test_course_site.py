"""The course as a website: a small course, executed once, read as files and in a browser without a network."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from ggo_lab import ChoiceError, GgoLabError
from ggo_lab.cli import main
from ggo_lab.course import write_site

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
WORDS = "## Words\n\n| word | meaning |\n|---|---|\n| voxel | a small box |\n"
FIRST = [
    new_markdown_cell("# A scan & more\n\nYou *scroll*\nthrough a chest.\n\n**Time**: short."),
    new_markdown_cell(f"{WORDS}\nSee [on](01_second.ipynb#Deep-down), [data](../data/README.md#mosmed)."),
    new_code_cell("import ggo_lab as gl\nscan = gl.make_phantom(grade=2, seed=1, shape=(16, 64, 64)).renamed('A<b>')"),
    new_code_cell("gl.SliceViewer(scan, masks='truth')"),
    new_code_cell(
        "from ipywidgets import interact\nimport matplotlib.pyplot as plt\n\n@interact(level=(-900, 0, 100))\n"
        "def draw(level=-500):\n    print('drawn at', level)\n    plt.plot([level, 0])\n    plt.show()"
    ),
    new_code_cell("import sys\nfor share in (0, 50, 100):\n    print(f'\\r{share} %', end='', file=sys.stderr)"),
    new_code_cell("import pandas as pd\npd.DataFrame({'grade': [1, 2]})"),
    new_code_cell("# Solution\n'the answer is ' + str(40 + 2)", metadata={"tags": ["solution"]}),
]
SECOND = [new_markdown_cell("# Second\n\nThe last one."), new_markdown_cell("## Deep down\n\n`x < y`")]


def write_course(root, **notebooks):
    (root / "notebooks").mkdir(parents=True)
    for name, cells in notebooks.items():
        nbformat.write(new_notebook(cells=cells, metadata=KERNEL), root / "notebooks" / f"{name}.ipynb")
    return root / "notebooks"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    notebooks = write_course(root, **{"00_first": FIRST, "01_second": SECOND})
    for folder, name, text in (
        ("data", "README", "# Data\n\nAll of it.\n\n## MosMed\n\n[up](#mosmed)"),
        ("docs", "glossary", "# old"),
    ):
        (root / folder).mkdir()
        (root / folder / f"{name}.md").write_text(text)
    before = {file: file.read_bytes() for file in root.rglob("*") if file.is_file()}
    assert main(["site", str(root / "site"), "--notebooks", str(notebooks)]) == 0
    assert {file: file.read_bytes() for file in before} == before  # the notebooks stay stripped
    return root / "site"


def test_every_page_is_there_and_every_link_arrives(site):
    pages = {file.name: file.read_text(encoding="utf-8") for file in site.glob("*.html")}
    assert set(pages) == {"00_first.html", "01_second.html", "data.html", "glossary.html", "index.html"}
    assert (site / "viewers" / "00-1.html").exists()
    for name, text in pages.items():
        for target, fragment in re.findall(r'(?:href|src)="([^"#:]*)(?:#([^"]*))?"', text):
            assert not target or (site / target).exists(), (name, target)
            if fragment:
                assert f'id="{fragment}"' in pages[target or name], (name, target, fragment)


def test_what_was_executed_is_shown(site):
    first = (site / "00_first.html").read_text(encoding="utf-8")
    assert "drawn at -500" in first and "In JupyterLab you can move it." in first
    assert first.count("data:image/png;base64,") == 1
    assert "<pre>100 %</pre>" in first and "50 %" not in first
    assert '<table border="1" class="dataframe">' in first and "<style scoped>" not in first
    solution = re.search(r"<details><summary>Solution</summary>(.*?)</details>", first, re.S).group(1)
    assert "the answer is 42" in solution
    assert "show_on_pages" not in first
    assert "a small box" in (site / "glossary.html").read_text(encoding="utf-8")  # of the notebooks, not the old file
    index = (site / "index.html").read_text(encoding="utf-8")
    assert "You <em>scroll</em> through a chest." in index and "A scan &amp; more" in index


def test_it_works_from_a_disk_without_a_network(site, chromium, screenshots):
    for scheme in ("light", "dark"):
        context = chromium.new_context(color_scheme=scheme, viewport={"width": 1100, "height": 900}, offline=True)
        page, complaints = context.new_page(), []
        page.on("console", lambda message, said=complaints: message.type == "error" and said.append(message.text))
        page.on("pageerror", lambda error, said=complaints: said.append(str(error)))
        page.on(
            "request",
            lambda request, said=complaints: request.url.startswith(("file:", "data:")) or said.append(request.url),
        )
        page.goto((site / "index.html").as_uri())
        page.get_by_role("link", name="A scan & more").click()
        page.locator("iframe").scroll_into_view_if_needed()
        viewer = page.frame_locator("iframe")
        viewer.locator("body[data-ready]").wait_for(timeout=10_000)
        viewer.locator("text=axial 8 of 0–15").wait_for()
        viewer.locator("input[type=range]").first.focus()
        page.keyboard.press("ArrowRight")
        viewer.locator("text=axial 9 of 0–15").wait_for()
        assert not page.locator("details .outputs").is_visible()
        page.get_by_text("Solution", exact=True).click()
        assert page.locator("details .outputs").is_visible()
        page.screenshot(path=screenshots / f"site-{scheme}.png", full_page=True)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) > 3 * 128) == (scheme == "light")
        page.get_by_role("link", name="on to → 01").first.click()
        assert page.title() == "Second"
        assert complaints == []
        context.close()


def test_what_cannot_be_written_is_said(tmp_path, capsys):
    notebooks = write_course(tmp_path, **{"00_broken": [new_markdown_cell("# A"), new_code_cell("1 / 0")]})
    with pytest.raises(ChoiceError, match="no notebook numbered 07"):
        write_site(notebooks, tmp_path / "site", only=["07"])
    assert not (tmp_path / "site").exists()
    with pytest.raises(ChoiceError, match="not an empty folder"):
        write_site(notebooks, tmp_path)
    with pytest.raises(GgoLabError, match=r"00_broken.ipynb could not be executed[\s\S]*ZeroDivisionError"):
        write_site(notebooks, tmp_path / "site")
    assert main(["site", str(tmp_path / "other"), "--notebooks", str(tmp_path / "nowhere")]) == 2
    assert "give the course's folder" in capsys.readouterr().err
