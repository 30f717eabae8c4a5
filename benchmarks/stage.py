"""What `scale` needs around it: a database server, the machines with their gateways, the measured process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import structlog
from uuid_utils.compat import uuid7
from websockets.asyncio.server import ServerConnection

from ocmt.agents.service import Agents
from ocmt.chat.service import Chat
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.migrations import migrate
from ocmt.platform.postgres_binaries import find_binaries
from ocmt.platform.reachable import ReachablePaths
from ocmt.settings import load_settings
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.world import ReachableGateway, World

TIMEOUT = 60.0
POLL = 0.05
MOST_FILES = 65536


class StopwatchGateway(ReachableGateway):
    """Notes when it said hello and when it got its latest message (monotonic seconds)."""

    said_hello = 0.0
    got_message = 0.0

    async def _greet(self, connection: ServerConnection) -> bool:
        greeted = await super()._greet(connection)
        self.said_hello = time.monotonic()
        return greeted

    def _chat_send(self, params: dict[str, Any]) -> dict[str, Any]:
        self.got_message = time.monotonic()
        return super()._chat_send(params)


@dataclass(frozen=True)
class Usage:
    """What was used between two looks."""

    seconds: float
    processor: float
    """Seconds, of the measured process."""
    database_processor: float
    transactions: int
    """As PostgreSQL counts them; a statement outside of a transaction is one."""

    @property
    def percent(self) -> float:
        """Of one processor."""
        return 100 * self.processor / self.seconds


@dataclass(frozen=True)
class Held:
    """What a process holds."""

    memory: float
    """KB (10^3 bytes) of its own, in memory or swap: what it shares depends on who else runs."""
    blocks: int
    """Of Python's allocator, that are in use: exact, where memory is also what was once in use."""

    def since(self, before: Held, agents: int) -> tuple[float, float]:
        """(KB, blocks) that have come for each of so many agents."""
        return (self.memory - before.memory) / agents, (self.blocks - before.blocks) / agents


@dataclass
class Stage:
    """All of it."""

    folder: Path
    dsn: str
    database: Database
    agents: Agents
    chat: Chat
    gateways: dict[UUID, StopwatchGateway]
    postmaster: psutil.Process
    orchestrator: asyncio.subprocess.Process
    profiled: bool

    @property
    def process(self) -> psutil.Process:
        """The measured one."""
        return psutil.Process(self.orchestrator.pid)

    async def held(self) -> Held:
        """By the measured process, with its garbage collected."""
        self.orchestrator.send_signal(signal.SIGUSR2)
        answer = await asyncio.wait_for(self._output.readline(), TIMEOUT)
        full = self.process.memory_full_info()
        return Held((full.uss + full.swap) / 1000, int(answer.removeprefix(b"objects ")))

    @property
    def _output(self) -> asyncio.StreamReader:
        assert self.orchestrator.stdout is not None
        return self.orchestrator.stdout

    async def register(self, count: int) -> list[UUID]:
        """So many users with their agents, asleep."""
        users = [uuid7() for _ in range(count)]
        async with self.database.connection() as connection:
            await connection.execute(
                "insert into users (id, email) select id, id || '@example.org' from unnest($1::uuid[]) as id",
                users,
            )
        for user in users:
            await self.agents.find(user)
        return users

    async def until(self, state: str, users: Sequence[UUID]) -> None:
        """Wait until all of their agents are in that state."""
        query = "select count(*) from agents where user_id = any($1) and state = $2"
        await self._until(query, users, state, count=len(users))

    async def until_answered(self, users: Sequence[UUID]) -> int:
        """Wait until all turns of theirs have ended; how many well."""
        query = "select count(*) from turns where user_id = any($1) and status in ('accepted', 'running')"
        await self._until(query, users, count=0)
        query = "select count(*) from turns where user_id = any($1) and status = 'completed'"
        async with self.database.connection() as connection:
            return int(await connection.fetchval(query, list(users)))

    async def usage(self, seconds: float) -> Usage:
        """While nobody does anything for so long."""
        async with self.measured() as usage:
            await asyncio.sleep(seconds)
        return usage[0]

    @contextlib.asynccontextmanager
    async def measured(self) -> AsyncIterator[list[Usage]]:
        """What the block uses; in the list once it has ended."""
        used: list[Usage] = []
        before = await self._counters()
        yield used
        after = await self._counters()
        seconds, processor, database, transactions = (b - a for a, b in zip(before, after, strict=True))
        used.append(Usage(seconds, processor, database, int(transactions) - 1))

    async def _counters(self) -> tuple[float, float, float, float]:
        servers = [self.postmaster, *self.postmaster.children()]
        async with self.database.connection() as connection:
            transactions = await connection.fetchval(
                "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
            )
        return time.monotonic(), _processor(self.process), sum(map(_processor, servers)), transactions

    async def _until(self, query: str, users: Sequence[UUID], *more: str, count: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while True:
                async with self.database.connection() as connection:
                    if await connection.fetchval(query, list(users), *more) == count:
                        return
                await asyncio.sleep(POLL)

    def turn_profile(self) -> None:
        """Begin to profile, or end and write it; nothing where that is not asked for."""
        if self.profiled:
            self.orchestrator.send_signal(signal.SIGUSR1)


class Direct:
    """The peer: a process that starts the same agents by itself."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Direct:
        self._process = await _spawn(self._stage.folder, "--direct", environment={})
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        await _end(self._process)

    async def start(self, users: Sequence[UUID]) -> list[float]:
        """All of them at once; when each was begun. They are gone before the next are started."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(user) for user in users]).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), TIMEOUT)
        began: list[float] = json.loads(line)
        return began


@contextlib.asynccontextmanager
async def open_stage(folder: Path, *, profile: Path | None) -> AsyncIterator[Stage]:
    """In that folder, which the database's user must be able to pass."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, MOST_FILES), most))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    folder.mkdir(mode=0o711, exist_ok=True)
    cache = load_settings().cache_dir
    binaries = find_binaries(cache)
    assert binaries is not None, "no PostgreSQL found: run `make setup`"
    clock = SystemClock()
    gateways: dict[UUID, StopwatchGateway] = {}

    def make_gateway(user: UUID) -> StopwatchGateway:
        return gateways.setdefault(user, StopwatchGateway(clock))

    async with contextlib.AsyncExitStack() as stack:
        server = EmbeddedPostgres(folder / "pg", binaries=binaries, view=ReachablePaths().view)
        dsn = await server.start()
        assert server.pid is not None
        stack.push_async_callback(server.stop)
        await migrate(dsn)
        database = await Database.open(dsn, pool_size=5)
        stack.push_async_callback(database.close)
        world = World(folder / "world", folder / "disk", make_gateway)
        await world.open()
        stack.push_async_callback(world.close)
        environment = {
            "DATABASE_URL": dsn,
            "OCMT_DATA_DIR": str(folder / "data"),
            "OCMT_AGENT_PAUSE_AFTER": "1h",
            "OCMT_AGENTS_MEMORY": str(1024**5),
            "OCMT_DEMO_MODEL": "true",
        }
        arguments = ["--profile", str(profile)] if profile else []
        orchestrator = await _spawn(folder, *arguments, environment=environment)
        stack.push_async_callback(_end, orchestrator)
        assert orchestrator.stdout is not None
        line = await asyncio.wait_for(orchestrator.stdout.readline(), TIMEOUT)
        assert line == b"ready\n", (folder / "orchestrator.log").read_text()
        yield Stage(
            folder=folder,
            dsn=dsn,
            database=database,
            agents=Agents(database, clock, runtime="sandbox"),
            chat=Chat(database, clock, MemoryObjects()),
            gateways=gateways,
            postmaster=psutil.Process(server.pid),
            orchestrator=orchestrator,
            profiled=profile is not None,
        )


async def _spawn(folder: Path, *arguments: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OCMT_")}
    with (folder / "orchestrator.log").open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "benchmarks.orchestrator", str(folder), *arguments),
            env=inherited | environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), TIMEOUT)
    except TimeoutError:
        process.kill()
        await process.wait()


def _processor(process: psutil.Process) -> float:
    """Seconds that it has used; one that has ended meanwhile counts as nothing."""
    try:
        return sum(process.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0
