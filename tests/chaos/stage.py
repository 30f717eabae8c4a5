"""All that runs: the database server, the world of agents, three replicas, each one's way to the database."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psutil
import structlog

from ocmt.platform.database import Database
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.migrations import migrate
from ocmt.testing.world import World
from tests.chaos.troubles import Relay
from tests.chaos.world import make_world
from tests.conftest import open_temporary_folder

REPLICAS = 3


@dataclass
class Replicas:
    """The processes. A slot that is empty waits for its replica to come back."""

    dsns: list[str]
    """Each one's own way to the database."""
    folder: Path
    processes: dict[int, asyncio.subprocess.Process] = field(default_factory=dict)
    started: int = 0
    ended: int = 0
    """How often one ended by itself."""

    async def start(self, slot: int) -> None:
        self.started += 1
        with (self.folder / f"replica-{slot}.log").open("ab") as output:
            self.processes[slot] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.chaos.replica",
                self.dsns[slot],
                str(self.folder),
                f"replica {slot}.{self.started}",
                stdout=output,
                stderr=output,
            )

    async def kill(self, slot: int) -> None:
        process = self.processes.pop(slot)
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            process.kill()
        await process.wait()

    def signal(self, slot: int, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.processes[slot].send_signal(number)

    async def revive(self) -> None:
        """All of them run again."""
        for slot in range(REPLICAS):
            if slot in self.processes:
                self.signal(slot, signal.SIGCONT)
            else:
                await self.start(slot)

    async def supervise(self) -> None:
        """One that ended by itself is started anew, as systemd would: it does so where the database is away
        while it starts."""
        while True:
            await asyncio.sleep(0.3)
            for slot, process in list(self.processes.items()):
                if process.returncode is not None:
                    self.ended += 1
                    await self.start(slot)


@dataclass
class Stage:
    """All of it."""

    database: Database
    world: World
    replicas: Replicas
    relays: list[Relay]
    postmaster: Callable[[], psutil.Process]
    folder: Path


@contextlib.asynccontextmanager
async def open_stage(postgres_binaries: Path) -> AsyncIterator[Stage]:
    """A database server of its own (it will be maltreated), the world, and three replicas."""
    folder = open_temporary_folder()
    server = EmbeddedPostgres(folder / "pg", binaries=postgres_binaries, log=structlog.get_logger("chaos"))
    dsn = await server.start()
    await migrate(dsn)
    database = await Database.open(dsn, pool_size=5)
    world = make_world(folder / "world", folder / "disk")
    await world.open()
    (sockets,) = (folder / "pg").rglob(".s.PGSQL.*[0-9]")
    relays = [Relay(folder / f"way-{slot}" / sockets.name, sockets) for slot in range(REPLICAS)]
    for relay in relays:
        await relay.open()
    dsns = [
        dsn.replace(quote(str(sockets.parent), safe=""), quote(str(folder / f"way-{slot}"), safe=""))
        for slot in range(REPLICAS)
    ]
    replicas = Replicas(dsns, folder)

    def postmaster() -> psutil.Process:
        assert server.pid is not None, "the database server has ended"
        return psutil.Process(server.pid)

    supervisor = asyncio.create_task(replicas.supervise())
    try:
        await replicas.revive()
        yield Stage(database, world, replicas, relays, postmaster, folder)
    finally:
        supervisor.cancel()
        await asyncio.wait([supervisor])
        for slot in list(replicas.processes):
            await replicas.kill(slot)
        for relay in relays:
            await relay.close()
        await world.close()
        await database.close()
        await server.stop()
        shutil.rmtree(folder, ignore_errors=True)
