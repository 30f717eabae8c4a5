"""What the journeys share: one installation a module, somebody signed in, a conversation.

Each module says by a fixture `environment` with which settings its installation runs.
"""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from ocmt.settings import load_settings
from ocmt.testing.installation import Installation, Person


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    if not (load_settings().cache_dir / "tools.json").is_file():
        pytest.skip("needs what `make setup` fetches: OpenClaw")
    folder = Path(tempfile.mkdtemp(prefix="ocmt-journey-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
async def installation(
    anyio_backend: str, data: Path, environment: Mapping[str, str]
) -> AsyncIterator[Installation]:
    async with Installation(data, environment) as running:
        yield running


@pytest.fixture(scope="module")
async def anna(installation: Installation) -> AsyncIterator[Person]:
    async with Person(installation.url) as person:
        await person.sign_in(installation.link)
        yield person


@pytest.fixture(scope="module")
async def conversation(anna: Person) -> str:
    return await anna.conversation()
