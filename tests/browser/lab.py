"""A JupyterLab with nothing of the user's in it, and notebooks in it run by a browser; for tests and benchmarks."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
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


STARTS_S, OPENS_S, RUNS_S = 60, 60, 90  # at most: some five times what two cores take that have as much again to do


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
        "--expose-app-in-browser",  # for tests that run code in the kernel
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


class Lab:
    """A JupyterLab and a browser that has it open; its pages share what the browser has loaded before."""

    def __init__(self, browser, address: str, folder: Path):
        """Keep where it is; nothing is opened yet."""
        self.address, self.folder = address, folder
        self.context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])

    def run(
        self,
        name: str,
        cells: list[str],
        viewers=1,
        path="lab/tree",
        width=1400,
        height=1100,
        first_only=False,
        errors=0,
    ):
        """Open a notebook of some cells, run it all, wait for so many viewers, and give the page.

        `path` is "lab/tree" for JupyterLab, "notebooks" for Notebook 7; if `first_only`, one cell is run to its end.
        `errors` of cells are meant.
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
        (self.folder / f"{name}.ipynb").write_text(json.dumps(content))
        page = self.open(name, path, width, height)
        if first_only:
            page.evaluate("window.jupyterapp.commands.execute('notebook:run-cell-and-select-next')")
            return page
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        error = ".jp-OutputArea-output[data-mime-type*=error]"
        page.wait_for_function(
            f"document.querySelectorAll('.ggo-viewer[data-ready=true]').length >= {viewers}"
            f" || document.querySelectorAll('{error}').length > {errors}",
            timeout=1000 * RUNS_S,
        )
        said = page.locator(error).all_inner_texts()
        assert len(said) <= errors, f"{name}: {said}"
        return page

    def open(self, name: str, path: str = "lab/tree", width=1400, height=1100):
        """Open a notebook and wait for its kernel; gives the page, which notes in `said` what it complains of."""
        page = self.context.new_page()
        page.said = []
        page.on("pageerror", lambda error: page.said.append(f"{error}\n{error.stack}"))
        page.set_default_timeout(20_000)
        page.set_viewport_size({"width": width, "height": height})
        fresh = "&reset" if path == "lab/tree" else ""
        page.goto(f"{self.address}/{path}/{name}.ipynb?token={TOKEN}{fresh}", timeout=1000 * OPENS_S)
        idle = "Python 3 (ipykernel) | Idle" if path == "lab/tree" else "Python 3 (ipykernel)"
        page.get_by_text(idle).first.wait_for(timeout=1000 * OPENS_S)
        return page

    def saved(self, name: str) -> str:
        """What is now in the file of a notebook."""
        return (self.folder / f"{name}.ipynb").read_text(encoding="utf-8")

    def end_kernels(self) -> None:
        """End all kernels, as a night does: what is opened again has to do without them."""
        for session in json.load(self._asked("api/sessions")):
            self._asked(f"api/sessions/{session['id']}", "DELETE")

    def _asked(self, path: str, method: str = "GET"):
        request = urllib.request.Request(f"{self.address}/{path}?token={TOKEN}", method=method)
        return urllib.request.urlopen(request, timeout=20)


def _wait_for(url: str, server: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + STARTS_S
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (OSError, http.client.HTTPException):
            assert server.poll() is None, f"JupyterLab ended: {log.read_text(encoding='utf-8')[-2000:]}"
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer in {STARTS_S} s: {log.read_text(encoding='utf-8')[-2000:]}")
