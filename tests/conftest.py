"""What several test files share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans beside the project; the test is skipped, saying so, where it is absent."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not (folder / "cip_thorax").is_dir():
        pytest.skip("no real scans in ../shared/data beside the project")
    return folder
