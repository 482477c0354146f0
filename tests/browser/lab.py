"""A JupyterLab with nothing of the user's in it, and notebooks in it run by a browser; for tests and benchmarks."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOKEN = "ggo-lab-test"
CHROMIUM_FLAGS = [
    "--no-sandbox",  # Chromium refuses to start as root with it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def jupyterlab(folder: Path, state: Path) -> Iterator[str]:
    """Serve a folder; gives the address. Settings and everything else that is kept lie in `state`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(state / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    settings = state / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    (settings / "themes.jupyterlab-settings").write_text('{"adaptive-theme": true}')  # the browser's: light or dark
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
            yield address
        finally:
            server.terminate()
            server.wait(20)


def run_notebook(browser, address: str, folder: Path, name: str, cells: list[str], pictures: int = 1, **context):
    """Open a notebook of some cells, run it all, wait for so many pictures of viewers, and give the page.

    Further arguments are those of a browser's context, such as color_scheme.
    """
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
    page = browser.new_page(**{"viewport": {"width": 1400, "height": 1100}, **context})
    page.goto(f"{address}/lab/tree/{name}.ipynb?token={TOKEN}&reset")
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(f"document.querySelectorAll('img.widget-image').length >= {pictures}", timeout=90_000)
    return page


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    for _ in range(300):
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, f"JupyterLab ended: {log.read_text(encoding='utf-8')[-2000:]}"
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer in 60 s: {log.read_text(encoding='utf-8')[-2000:]}")
