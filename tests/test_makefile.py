"""What `make` does for a newcomer, read from what it would run."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def commands(target: str, *options: str) -> str:
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    # As if nothing was installed: then the setup is shown, too.
    command = ["make", "--dry-run", *options, "VENV=build/nowhere", target]
    unset = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    told = subprocess.run(command, cwd=ROOT, env=unset, capture_output=True, text=True, check=True)
    return told.stdout


def test_lab_opens_the_first_notebook_from_the_root_so_that_links_to_data_and_docs_lead_somewhere():
    (lab,) = [line for line in commands("lab").splitlines() if "jupyter lab " in line]
    assert "default_url=/lab/tree/notebooks/00_start_here.ipynb" in lab
    assert "root_dir" not in lab and "notebook-dir" not in lab and "cd " not in lab
    assert (ROOT / "notebooks" / "00_start_here.ipynb").exists()


@pytest.mark.parametrize("target", ["lab", "test"])
def test_threads_wait_asleep_beside_other_programs(target):
    assert re.search(rf"^{target}: OMP_WAIT_POLICY :?= PASSIVE$", commands(target, "--print-data-base"), re.M)


def test_setup_turns_the_news_off_that_would_cover_the_first_screen():
    setup = commands("setup")
    assert "labextension disable --level=sys_prefix @jupyterlab/apputils-extension:announcements" in setup
    assert setup.index("labextension") < setup.index("touch build/nowhere/ready")
