"""A real browser and a real JupyterLab for the tests of this folder; both are skipped where they are missing."""

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOKEN = "ggo-lab-test"
FLAGS = [
    "--no-sandbox",  # Chromium refuses to start as root with it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium():
    """Chromium, driven by Playwright."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine: apt install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def screenshots():
    """Folder where the tests leave pictures to look at; not under version control."""
    folder = ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def jupyterlab(tmp_path_factory):
    """A JupyterLab of its own: gives its address and the folder it serves."""
    if importlib.util.find_spec("jupyterlab") is None:
        pytest.skip("jupyterlab is not installed")
    folder, state = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("jupyter")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(state / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    quiet = state / "settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    (quiet / "themes.jupyterlab-settings").write_text('{"adaptive-theme": true}')  # the browser's: light or dark
    options = [
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={folder}",
        f"--LabApp.workspaces_dir={state / 'workspaces'}",
        f"--LabApp.user_settings_dir={state / 'settings'}",
    ]
    with (state / "log").open("w+") as log:
        server = subprocess.Popen(
            command + options, env={**os.environ, **own, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log
        )
        address = f"http://127.0.0.1:{port}"
        try:
            _wait_for(f"{address}/api?token={TOKEN}", server, Path(log.name))
            yield address, folder
        finally:
            server.terminate()
            server.wait(20)


@pytest.fixture(scope="session")
def run_notebook(chromium, jupyterlab):
    """Function that opens a notebook of some cells in JupyterLab, runs it all, and gives the page.

    Further arguments are those of a browser's context, such as color_scheme.
    """
    address, folder = jupyterlab
    pages = []

    def run(name: str, cells: list[str], pictures: int = 1, **context):
        empty = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
        # Without the kernel's name JupyterLab asks for one, in a dialog that covers the page.
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        content = {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {"kernelspec": kernel},
            "cells": [{**empty, "id": f"cell-{i}", "source": source} for i, source in enumerate(cells)],
        }
        (folder / f"{name}.ipynb").write_text(json.dumps(content))
        page = chromium.new_page(**{"viewport": {"width": 1400, "height": 1100}, **context})
        pages.append(page)
        page.goto(f"{address}/lab/tree/{name}.ipynb?token={TOKEN}&reset")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=30_000)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_function(f"document.querySelectorAll('img.widget-image').length === {pictures}", timeout=60_000)
        return page

    yield run
    for page in pages:
        page.close()


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(150):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, f"JupyterLab ended: {log.read_text(encoding='utf-8')[-2000:]}"
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer in 30 s: {log.read_text(encoding='utf-8')[-2000:]}")
