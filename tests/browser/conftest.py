"""A real browser and a real JupyterLab for the tests of this folder; both are skipped where they are missing."""

import importlib.util
import shutil

import lab
import pytest

MOST_SILENCES = 2  # tests in which the browser did not answer in time, before the rest is not tried any more
_silent: list[str] = []


def pytest_collection_modifyitems(items):
    """Try what failed in a browser once more, which the report shows as R: on a busy machine a page may stall."""
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Count the tests that waited in vain, so that a machine that hangs costs minutes and not an hour."""
    report = yield
    if call.excinfo is not None and "Timeout" in call.excinfo.typename and "browser" in item.path.parts:
        _silent.append(item.nodeid)
    return report


def pytest_runtest_setup(item):
    if len(_silent) >= MOST_SILENCES and "browser" in item.path.parts:
        pytest.fail(f"Not tried: the browser did not answer in time in {' and '.join(_silent)}.", pytrace=False)


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
def served(chromium, tmp_path_factory):
    """The JupyterLab that all tests share."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("jupyterlab is not installed")
    folder = tmp_path_factory.mktemp("notebooks")
    with lab.jupyterlab(folder, tmp_path_factory.mktemp("jupyter")) as address:
        yield lab.Lab(chromium, address, folder)
