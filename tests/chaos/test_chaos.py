"""Three replicas and fifty agents under a load of turns and jobs by schedule, while all that can die, dies:
nothing is lost, nothing doubled, nothing stuck.

Slow because it is real processes for a while: `OCMT_CHAOS_SECONDS` and `OCMT_CHAOS_SEED` change how long and
what happens, `make chaos` runs many seeds. The seed is printed: the same kinds of faults come in one order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote
from uuid import UUID

import psutil
import pytest
import structlog

from ocmt.agents.service import Agents
from ocmt.agents.snapshots.service import Snapshots
from ocmt.chat import log
from ocmt.chat.model import Turn, TurnStatus
from ocmt.chat.service import Chat
from ocmt.errors import OcmtError
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.leases import Lease
from ocmt.platform.migrations import migrate
from ocmt.platform.objects import LocalObjects
from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.testing import gateway, gateway_cron
from ocmt.testing.objects import MemoryObjects
from tests.accounts import make_user
from tests.chaos.troubles import Relay
from tests.chaos.world import NOTES, REMIND_ME, World, folder_of
from tests.conftest import open_temporary_folder

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(900)]

SECONDS = float(os.environ.get("OCMT_CHAOS_SECONDS", "30"))
SEED = int(os.environ.get("OCMT_CHAOS_SEED", str(random.SystemRandom().randrange(10**6))))
REPLICAS = 3
USERS = 50
SETTLE_SECONDS = 90.0
ENDS = ("turn.completed", "turn.failed", "turn.stopped")


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
class Load:
    """People: they write, ask for reminders, stop and send to sleep. What was accepted is remembered."""

    chat: Chat
    agents: Agents
    users: list[UUID]
    conversations: dict[UUID, list[UUID]]
    dice: random.Random
    accepted: list[Turn] = field(default_factory=list)
    unsure: int = 0

    async def run(self, until: float) -> None:
        number = 0
        while time.monotonic() < until:
            number += 1
            user = self.dice.choice(self.users)
            try:
                what = self.dice.random()
                if what < 0.85:
                    await self._write(user, number)
                elif what < 0.92 and self.accepted:
                    turn = self.dice.choice(self.accepted[-20:])
                    await self.chat.stop(turn.user_id, turn.id)
                elif what < 0.96:
                    await self.agents.ask_stopped(user)
                else:
                    await self.agents.ask_restart(user)
            except OcmtError:
                self.unsure += 1  # refused, or a database that is away: the person is told, and tries again
            await asyncio.sleep(self.dice.uniform(0.0, 0.12))

    async def _write(self, user: UUID, number: int) -> None:
        conversation = self.dice.choice(self.conversations[user])
        text = f"message {number}"
        if self.dice.random() < 0.15:
            text = f"{REMIND_ME} by {text} in {self.dice.uniform(0.5, 8):.2f}"
        for _ in range(40):
            with contextlib.suppress(OcmtError):
                self.accepted.append(await self.chat.post(user, conversation, text, key=text))
                return
            await asyncio.sleep(
                0.25
            )  # the same key again: it is accepted once, whatever became of the answer


class Faults:
    """What goes wrong, by the dice."""

    def __init__(self, stage: Stage, dice: random.Random):
        self._stage = stage
        self._replicas = stage.replicas
        self._world = stage.world
        self._postmaster = stage.postmaster
        self._order = random.Random(dice.random())
        self._dice = dice
        self.happened: Counter[str] = Counter()

    async def run(self, until: float) -> None:
        kinds: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.replica_killed, 3),
            (self.replica_held_up, 3),
            (self.gateway_dies, 6),
            (self.database_held_up, 1),
            (self.database_crashes, 1),
            (self.network_cut, 2),
            (self.objects_down, 2),
            (self.objects_slow, 1),
        ]
        while time.monotonic() < until:
            await asyncio.sleep(self._order.uniform(0.3, 1.5))
            (fault,) = self._order.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
            self.happened[fault.__name__] += 1
            await fault()

    async def replica_killed(self) -> None:
        slot = self._dice.randrange(REPLICAS)
        if slot in self._replicas.processes:
            await self._replicas.kill(slot)
        await asyncio.sleep(self._dice.uniform(0, 1))
        await self._replicas.start(slot)

    async def replica_held_up(self) -> None:
        """At times for longer than its leases last."""
        slot = self._dice.randrange(REPLICAS)
        self._replicas.signal(slot, signal.SIGSTOP)
        await asyncio.sleep(self._dice.uniform(0.2, 4))
        self._replicas.signal(slot, signal.SIGCONT)

    async def gateway_dies(self) -> None:
        alive = self._world.alive()
        if alive:
            await self._world.crash(self._dice.choice(alive))

    async def database_held_up(self) -> None:
        processes = [self._postmaster(), *self._postmaster().children()]
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        await asyncio.sleep(self._dice.uniform(0.2, 3))
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    async def database_crashes(self) -> None:
        """A server process dies: PostgreSQL ends all connections and recovers."""
        children = [child for child in self._postmaster().children() if "ocmt" in "".join(child.cmdline())]
        if children:
            self._dice.choice(children).kill()

    async def network_cut(self) -> None:
        """Between one replica and the database; when it is mended, connections go on or have broken."""
        relay = self._dice.choice(self._stage.relays)
        relay.cut()
        await asyncio.sleep(self._dice.uniform(0.2, 4))
        if self._dice.random() < 0.5:
            await relay.hang_up()
        relay.mend()

    async def objects_down(self) -> None:
        """For all replicas."""
        await self._trouble_with_objects("down")

    async def objects_slow(self) -> None:
        """For all replicas."""
        await self._trouble_with_objects("slow")

    async def _trouble_with_objects(self, trouble: str) -> None:
        sign = self._stage.folder / "objects-trouble"
        sign.write_text(trouble)
        await asyncio.sleep(self._dice.uniform(0.2, 4))
        sign.unlink()


@dataclass
class Stage:
    """All of it."""

    database: Database
    world: World
    replicas: Replicas
    relays: list[Relay]
    postmaster: Callable[[], psutil.Process]
    folder: Path


@pytest.fixture
async def stage(postgres_binaries: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """A database server of its own (it will be maltreated), the world, and three replicas."""
    monkeypatch.setattr(gateway, "RESUME_DELAY", 0.2)
    monkeypatch.setattr(gateway_cron, "CATCH_UP_DELAY", timedelta(seconds=2))
    monkeypatch.setattr(gateway_cron, "CATCH_UP_STAGGER", timedelta(seconds=0.2))
    monkeypatch.setattr(gateway_cron, "DECISION_DELAY", 0.2)
    folder = open_temporary_folder()
    server = EmbeddedPostgres(folder / "pg", binaries=postgres_binaries, log=structlog.get_logger("chaos"))
    dsn = await server.start()
    await migrate(dsn)
    database = await Database.open(dsn, pool_size=5)
    world = World(folder / "world", folder / "disk")
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
        pid = int((folder / "pg" / "data" / "postmaster.pid").read_text().split()[0])
        return psutil.Process(pid)

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


async def test_nothing_is_lost_nothing_doubled_nothing_stuck(stage: Stage) -> None:
    print(f"chaos: seed {SEED}, {SECONDS:.0f} s")
    dice = random.Random(SEED)
    clock = SystemClock()
    chat = Chat(stage.database, clock, MemoryObjects())
    agents = Agents(stage.database, clock, runtime="world")
    users = [await make_user(stage.database, f"user{number}@example.org") for number in range(USERS)]
    conversations = {user: [(await chat.create_conversation(user)).id for _ in range(2)] for user in users}
    load = Load(chat, agents, users, conversations, random.Random(dice.random()))
    faults = Faults(stage, random.Random(dice.random()))

    until = time.monotonic() + SECONDS
    await asyncio.gather(load.run(until), faults.run(until))
    await stage.replicas.revive()

    await _settled(stage)
    assert stage.world.violations == []
    statuses = await _reconciled(stage.database, load.accepted)
    jobs = _all_jobs_ran(stage.world)
    await _all_is_saved(stage, load.accepted)
    print(
        f"chaos: {len(load.accepted)} turns {dict(statuses)}, {jobs} jobs, {stage.world.starts} starts,"
        f" {dict(faults.happened)}, {stage.replicas.ended} replicas ended by themselves"
    )
    assert statuses[TurnStatus.COMPLETED] > 0.5 * len(load.accepted)


async def _settled(stage: Stage) -> None:
    """No turn is open, no job waits, and every agent sleeps."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        with contextlib.suppress(OcmtError):
            async with stage.database.connection() as connection:
                turns = await connection.fetch(
                    "select id, status, attempt, user_id from turns where status in ('accepted', 'running')"
                )
                awake = await connection.fetch(
                    "select user_id, state, error from agents where state <> 'stopped'"
                )
            jobs = [
                job for it in stage.world.gateways.values() for job in it.cron.jobs.values() if job.enabled
            ]
            if not turns and not awake and not jobs:
                return
            if time.monotonic() >= deadline:
                for slot in range(REPLICAS):
                    stage.replicas.signal(slot, signal.SIGUSR1)
                await asyncio.sleep(1)
                pytest.fail(f"stuck: {turns} {awake} {jobs}\n{_last_words(stage)}")
        await asyncio.sleep(0.3)


def _last_words(stage: Stage) -> str:
    return "\n".join(path.read_text()[-20_000:] for path in sorted(stage.folder.glob("replica-*.log")))


async def _reconciled(database: Database, accepted: list[Turn]) -> Counter[TurnStatus]:
    """Every accepted turn has ended once, in its row and in its stream, and with its own answer."""
    statuses: Counter[TurnStatus] = Counter()
    chat = Chat(database, SystemClock(), MemoryObjects())
    assert len({turn.id for turn in accepted}) == len(accepted)
    for turn in accepted:
        page = await chat.history(turn.user_id, turn.conversation_id, limit=1_000)
        now = next(found for found in page.turns if found.id == turn.id)
        statuses[now.status] += 1
        events = [
            event
            for event in await log.read(
                database, user_id=turn.user_id, conversation_id=turn.conversation_id, after=0, limit=100_000
            )
            if event.turn_id == turn.id
        ]
        ends = [event.type.value for event in events if event.type.value in ENDS]
        assert ends == [f"turn.{now.status.value}"], f"turn {turn.id} ended as {ends}"
        assert events[-1].type.value in ENDS, "nothing comes behind the end"
        if now.status is TurnStatus.COMPLETED:
            assert now.answer == f"You said: {turn.text}"
    return statuses


def _all_jobs_ran(world: World) -> int:
    """Every job ran to its end, and began anew only where its agent had died; returns how many there were."""
    count = 0
    for agent in world.gateways.values():
        for job in agent.cron.jobs.values():
            count += 1
            assert job.last_status == "ok", job
            assert len(job.started) <= 1 + agent.deaths, job
    return count


async def _all_is_saved(stage: Stage, accepted: list[Turn]) -> None:
    """The newest snapshot of each agent that sleeps restores to all that it has written, and that is all that
    it has answered."""
    snapshots = Snapshots(stage.database, LocalObjects(stage.folder / "objects"), SystemClock())
    chat = Chat(stage.database, SystemClock(), MemoryObjects())
    elsewhere = stage.folder / "elsewhere"
    for user_id in {turn.user_id for turn in accepted}:
        async with stage.database.connection() as connection:
            token = await connection.fetchval("select lease_token from agents where user_id = $1", user_id)
        lease = Lease(user_id, token, "ledger", SystemClock().now())
        written = _notes(stage.world.disk, user_id)
        if written:
            await snapshots.restore(lease, FilesOnDisk(folder_of(elsewhere, user_id)))
        assert _notes(elsewhere, user_id) == written, f"agent {user_id} was stopped unsaved"
        answered = [turn for turn in accepted if turn.user_id == user_id]
        for turn in answered:
            page = await chat.history(user_id, turn.conversation_id, limit=1_000)
            now = next(found for found in page.turns if found.id == turn.id)
            assert now.answer is None or now.answer in written, f"{now.answer!r} is nowhere"


def _notes(disk: Path, user_id: UUID) -> list[str]:
    path = folder_of(disk, user_id).root / NOTES
    return path.read_text().splitlines() if path.exists() else []
