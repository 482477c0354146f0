"""A real browser and a real JupyterLab for the tests of this folder; both are skipped where they are missing."""

import importlib.util
import shutil

import lab
import pytest


@pytest.fixture(scope="session")
def chromium():
    """Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=lab.CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def screenshots():
    """Folder where the tests leave pictures to look at; not under version control."""
    folder = lab.ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def run_notebook(chromium, tmp_path_factory):
    """Function that opens and runs a notebook in a JupyterLab that all tests share; see lab.run_notebook."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("jupyterlab is not installed")
    folder, pages = tmp_path_factory.mktemp("notebooks"), []
    with lab.jupyterlab(folder, tmp_path_factory.mktemp("jupyter")) as address:

        def run(name: str, cells: list[str], **options):
            pages.append(lab.run_notebook(chromium, address, folder, name, cells, **options))
            return pages[-1]

        yield run
        for page in pages:
            page.close()
