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
    new_code_cell(
        "import ggo_lab as gl\ngl.start_lesson()\n"
        "scan = gl.make_phantom(grade=2, seed=1, shape=(16, 64, 64)).renamed('A<b>')"
    ),
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

# What may not run wherever it stands: in prose, in what a cell shows, in a link.
HOSTILE = [
    new_markdown_cell(
        '# Third\n\nWords for the index.\n\n<img src=x onerror="window.ran=1"> '
        "<script>window.ran=2</script> [link](javascript:window.ran=3)"
        '\n\n<svg onload="window.ran=4"></svg> <iframe srcdoc="<script>parent.ran=5</script>"></iframe>'
    ),
    new_code_cell(
        "from IPython.display import HTML, Javascript, Markdown\n"
        'display(HTML(\'<script>window.ran=6</script><img src=x onerror="window.ran=7"><base href="https://x.y/">\''
        " '<a href=\"javascript:window.ran=8\">link</a>'), Javascript('window.ran=9'))\n"
        'display(Markdown(\'<img src="https://x.y/z.png" onerror="window.ran=10">\'))\n'
        "'<script>window.ran=11</script>'"
    ),
]


def write_course(root, **notebooks):
    (root / "notebooks").mkdir(parents=True)
    for name, cells in notebooks.items():
        nbformat.write(new_notebook(cells=cells, metadata=KERNEL), root / "notebooks" / f"{name}.ipynb")
    return root / "notebooks"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    root = tmp_path_factory.mktemp("course")
    notebooks = write_course(root, **{"00_first": FIRST, "01_second": SECOND, "02_hostile": HOSTILE})
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
    numbered = {"00_first.html", "01_second.html", "02_hostile.html"}
    assert set(pages) == {*numbered, "data.html", "glossary.html", "index.html"}
    assert (site / "viewers" / "00-1.html").exists()
    for name, text in pages.items():
        if name == "02_hostile.html":
            continue  # its links lead nowhere
        for target, fragment in re.findall(r'(?:href|src)="([^"#:]*)(?:#([^"]*))?"', text):
            assert not target or (site / target).exists(), (name, target)
            if fragment:
                assert f'id="{fragment}"' in pages[target or name], (name, target, fragment)


def test_what_was_executed_is_shown(site):
    first = (site / "00_first.html").read_text(encoding="utf-8")
    assert "drawn at -500" in first and "In JupyterLab you can move it." in first
    assert first.count("data:image/png;base64,") == 2  # a figure, and its sheet for a dark page
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
        viewer.locator(".ggo-viewer[data-ready=true]").wait_for(timeout=10_000)
        viewer.locator(".ggo-slice").focus()
        before = int(viewer.locator(".ggo-slice").input_value())
        page.keyboard.press("ArrowRight")
        viewer.locator(f"text=axial {before + 1} of 0–15").wait_for()
        assert not page.locator("details .outputs").is_visible()
        page.get_by_text("Solution", exact=True).click()
        page.locator("details .outputs").wait_for()
        page.screenshot(path=screenshots / f"site-{scheme}.png", full_page=True)
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", paper))) > 3 * 128) == (scheme == "light")
        assert page.locator(".ggo-figure").is_visible() and page.locator(".ggo-sheet").is_visible() == (
            scheme == "dark"
        )
        page.get_by_role("link", name="on to → 01").first.click()
        page.wait_for_url("**/01_*.html")
        assert page.title() == "Second"
        assert complaints == []
        context.close()


def test_nothing_runs_and_nothing_is_fetched_from_a_hostile_notebook(site, chromium):
    page, asked, refused = chromium.new_page(), set(), set()
    page.on("request", lambda request: asked.add(request.url))
    # What the page's policy refuses is not sent.
    page.on("requestfailed", lambda request: request.failure == "csp" and refused.add(request.url))
    for name in ("index.html", "02_hostile.html"):
        page.goto((site / name).as_uri())
        page.evaluate("for (const link of document.querySelectorAll('a[href^=javascript]')) link.click()")
        page.wait_for_timeout(300)
        assert page.evaluate("window.ran") is None, name
    assert "window.ran=11" in page.locator("body").inner_text()  # shown as the text that it is
    assert all(url.startswith(("file:", "data:", "about:")) for url in asked - refused)
    assert page.evaluate("document.baseURI").startswith("file:")
    page.close()


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
