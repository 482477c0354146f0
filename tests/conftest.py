"""What several test files share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def checkout_stays_clean() -> Iterator[None]:
    """No test writes into the checkout, or where it was called: what is left there is committed some day."""
    before = {folder: set(folder.iterdir()) for folder in (ROOT, ROOT / "tests", ROOT / "notebooks", Path.cwd())}
    yield
    left = {path for folder, held in before.items() for path in set(folder.iterdir()) - held}
    left = {path for path in left if not path.name.startswith(".") and path.name not in ("__pycache__", "build")}
    assert not left, f"tests left {sorted(map(str, left))}"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans beside the project; the test is skipped, saying so, where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "cip_thorax").is_dir():
        pytest.skip("no real scans in ../shared/data beside the project")
    return folder
