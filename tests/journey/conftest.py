"""What the journeys share: a data folder, and the reason to skip where set-up has not run."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocmt.settings import load_settings


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    if not (load_settings().cache_dir / "tools.json").is_file():
        pytest.skip("needs what `make setup` fetches: OpenClaw")
    folder = Path(tempfile.mkdtemp(prefix="ocmt-journey-"))
    yield folder
    shutil.rmtree(folder)
