"""One hostile user keeps the platform busy with files; another one's operations take their usual time.

Everything runs in this process and on its event loop, as in `ocmt up`: saves from real folders into a real
object store, the secret store, and a page over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import socket
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import aiohttp
import pytest

from ocmt.agents.holds import Holds
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.keeping import Limits
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.errors import OcmtError
from ocmt.platform.database import Database
from ocmt.platform.http import serve_on
from ocmt.platform.leases import Lease
from ocmt.platform.objects import LocalObjects
from ocmt.platform.secrets import LocalSecrets
from ocmt.platform.work import FILES
from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.runtimes.folders import AgentFolder
from ocmt.services.static_ui import StaticUi
from ocmt.testing.clock import VirtualClock
from tests.accounts import make_user
from tests.agents.snapshots.snapshotting import lease_of
from tests.hostile.neighbour import Operation, assert_neighbour_is_fine

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]

GIVE_WAY = 0.2
"""Seconds after which the hostile user's save is cancelled, as when it gives way to a turn."""


class Neighbourhood:
    """Two users of one process."""

    def __init__(self, database: Database, clock: VirtualClock, folder: Path) -> None:
        self.folder = folder
        self.database = database
        self.objects = LocalObjects(folder / "objects")
        self.secrets = LocalSecrets(folder / "secrets")
        self.agents = Agents(database, clock, runtime="sandbox")
        self.snapshots = Snapshots(database, self.objects, clock)
        holds = Holds(self.agents, clock)
        self.transfers = Transfers(
            self.snapshots, database, self.objects, self.agents, holds, folder / "transfers"
        )
        self.leases: dict[UUID, Lease] = {}

    async def user(self, name: str) -> tuple[UUID, Path, FilesOnDisk]:
        """A user with an agent; where its files are."""
        user_id = await make_user(self.database, f"{name}@example.org")
        await self.agents.find(user_id)
        self.leases[user_id] = await lease_of(self.database, user_id)
        agent = AgentFolder(self.folder / name, None)
        agent.prepare("{}", compile_cache=None)
        return user_id, agent.root / "workspace", FilesOnDisk(agent)

    async def save_that_gives_way(self, user_id: UUID, files: FilesOnDisk, limits: Limits) -> None:
        """As the hostile user's driver does it."""
        with contextlib.suppress(OcmtError, TimeoutError):
            async with asyncio.timeout(GIVE_WAY):
                await self.snapshots.save(self.leases[user_id], files, limits=limits)

    async def upload(self, user_id: UUID, pieces: AsyncIterator[bytes]) -> None:
        """Whatever becomes of it."""
        with contextlib.suppress(OcmtError):
            await self.transfers.receive(user_id, pieces)


@pytest.fixture
async def here(database: Database, clock: VirtualClock, tmp_path: Path) -> AsyncIterator[Neighbourhood]:
    yield Neighbourhood(database, clock, tmp_path)
    # No thread of the hostile user's outlives them for long.
    async with asyncio.timeout(10):
        while FILES.at_work():
            await asyncio.sleep(0.01)


@pytest.fixture
async def operations(here: Neighbourhood, tmp_path: Path) -> AsyncIterator[dict[str, Operation]]:
    """What the neighbour does."""
    user_id, workspace, files = await here.user("eve")
    for number in range(40):
        (workspace / f"{number}.txt").write_text(f"{number}" * 1000)
    ui = tmp_path / "ui"
    ui.mkdir()
    (ui / "index.html").write_text("<!doctype html>" + "x" * 20_000)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    closer = await serve_on(listener, StaticUi(ui))
    count = 0

    async def save() -> None:
        nonlocal count
        count += 1
        (workspace / "changing.txt").write_text(f"{count}")
        await here.snapshots.save(here.leases[user_id], files)

    async def write_to_the_vault() -> None:
        await here.secrets.put("eve.key", b"x" * 100)

    async with aiohttp.ClientSession() as session:

        async def load_a_page() -> None:
            async with session.get(f"http://127.0.0.1:{port}/") as response:
                assert len(await response.read()) > 20_000

        yield {"save": save, "vault": write_to_the_vault, "page": load_a_page}
    await closer.close()


async def test_ignore_patterns_and_deep_paths(here: Neighbourhood, operations: dict[str, Operation]) -> None:
    user_id, workspace, files = await here.user("carol")
    patterns = "\n".join(["**/" + "*a" * 50 + "*b" for _ in range(200)])
    (workspace / ".ocmtignore").write_text(patterns)
    deep = workspace / "/".join(["a" * 100] * 14)
    deep.mkdir(parents=True)
    for number in range(400):
        (deep / ("a" * 200 + f"{number}")).touch()
    await assert_neighbour_is_fine(operations, lambda: here.save_that_gives_way(user_id, files, Limits()))


async def test_names_without_end(here: Neighbourhood, operations: dict[str, Operation]) -> None:
    user_id, workspace, files = await here.user("alice")
    folder = workspace
    (workspace / "one").touch()
    for _ in range(10):
        folder = folder / "0"
        folder.mkdir()
        for number in range(1, 3000):
            os.link(workspace / "one", folder / f"{number}")
    try:
        await assert_neighbour_is_fine(
            operations, lambda: here.save_that_gives_way(user_id, files, Limits(files=5000))
        )
    finally:
        shutil.rmtree(workspace)


async def test_archives_that_unpack_to_gigabytes(
    here: Neighbourhood, operations: dict[str, Operation]
) -> None:
    user_id, *_ = await here.user("bob")
    bombs = []
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED):
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", method) as archive:
            archive.writestr("manifest.json", bytes(128 * 1024 * 1024))
        bombs.append(data.getvalue())

    async def sent(data: bytes) -> AsyncIterator[bytes]:
        yield data

    async def send() -> None:
        for data in bombs:
            await here.upload(user_id, sent(data))

    await assert_neighbour_is_fine(operations, send)


async def test_uploads_that_hardly_move(here: Neighbourhood, operations: dict[str, Operation]) -> None:
    user_id, *_ = await here.user("dave")
    other_id, *_ = await here.user("frank")
    manifest = io.BytesIO()
    with zipfile.ZipFile(manifest, "w") as archive:
        archive.writestr("none.txt", b"")

    async def slowly() -> AsyncIterator[bytes]:
        while True:
            yield b"PK"
            await asyncio.sleep(0.01)

    async def sent() -> AsyncIterator[bytes]:
        yield manifest.getvalue()

    async def upload() -> None:
        # It is no archive, and is told so: nothing in the words of a full house.
        with pytest.raises(OcmtError, match="no archive"):
            await here.transfers.receive(other_id, sent())

    await assert_neighbour_is_fine(
        {**operations, "upload": upload}, lambda: here.upload(user_id, slowly()), at_once=20
    )
