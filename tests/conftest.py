"""What all tests share: the event loop's backend, virtual time, a real PostgreSQL with a database each.

The server is started once, in a folder of its own, by the supervisor that `ocmt up` uses; every test that
asks for `database` or `dsn` gets a fresh copy of a migrated template.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

from ocmt.platform.database import Database
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.migrations import migrate
from ocmt.platform.postgres_binaries import find_binaries
from ocmt.setup.folders import cache_folder
from ocmt.testing.clock import VirtualClock

# No files in the clone, and no deadline on a machine that others use as well.
hypothesis.settings.register_profile("ocmt", database=None, deadline=None)
hypothesis.settings.load_profile("ocmt")

# Nothing of a test run has to survive it.
FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


ONE_AFTER_THE_OTHER = {
    "tests/journey/test_first_day.py": "OpenClaw 1",
    "tests/openclaw/test_contract.py": "OpenClaw 1",
    "tests/journey/test_with_a_key.py": "OpenClaw 2",
    "tests/browser/test_first_visit.py": "OpenClaw 3",
}
"""Files that start OpenClaw are bound by the processor: not all at a time, in groups of similar length."""


class Groups(LoadFileScheduling):  # type: ignore[misc]
    """A file stays together, for what its tests share, and some files follow one another."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return ONE_AFTER_THE_OTHER.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Groups:
    return Groups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first: `make test` runs several files at a time, and the last ones should be short."""

    def rank(item: pytest.Item) -> int:
        marked = [item.get_closest_marker(name) is not None for name in ("journey", "browser", "chaos")]
        return marked.index(True) if any(marked) else len(marked)

    items.sort(key=rank)


def open_temporary_folder() -> Path:
    """A new folder below which the server's user may pass (pytest's own are closed to others), and in memory
    where there is room: a disk that others use as well makes a database's files slow."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * 1024**3
    folder = Path(tempfile.mkdtemp(prefix="ocmt-tests-", dir=memory if roomy else None))
    folder.chmod(0o711)
    return folder


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def public_url() -> str:
    """The public address of the doubles' installations; a file may have its own."""
    return "http://localhost:8080"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    binaries = find_binaries(cache_folder())
    assert binaries is not None, "no PostgreSQL found: run `make setup`"
    return binaries


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path) -> Iterator[str]:
    """The DSN of the session's server; its database `template` is migrated."""
    folder = open_temporary_folder()
    server = EmbeddedPostgres(
        folder / "pg", binaries=postgres_binaries, log=structlog.get_logger("tests"), settings=FAST
    )

    async def start() -> str:
        dsn = await server.start()
        admin = await asyncpg.connect(dsn)
        await admin.execute("create database template")
        await admin.close()
        await migrate(_on_database(dsn, "template"))
        return dsn

    try:
        yield asyncio.run(start())
    finally:
        asyncio.run(server.stop())
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def dsn(anyio_backend: str, postgres: str) -> AsyncIterator[str]:
    """A fresh, migrated database of this test's own."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(postgres)
    try:
        # Copied as files where there is a choice (15 and later): a third of the time.
        copied = " strategy file_copy" if admin.get_server_version().major >= 15 else ""
        await admin.execute(f"create database {name} template template{copied}")
        yield _on_database(postgres, name)
        await admin.execute(f"drop database {name} with (force)")
    finally:
        await admin.close()


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    database = await Database.open(dsn, pool_size=5)
    yield database
    await database.close()


def _on_database(dsn: str, name: str) -> str:
    return dsn.replace("@/ocmt?", f"@/{name}?")
