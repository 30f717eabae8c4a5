"""The world of the model of agents' lives: two users, two replicas, one machine; and what must be so."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

import asyncpg

from ocmt.agents.model import Policy
from ocmt.agents.service import Agents
from ocmt.chat.answer import Answerer
from ocmt.chat.attachments import Attachments
from ocmt.chat.model import Fault, Turn
from ocmt.chat.service import Chat
from ocmt.chat.worker import TurnWorker
from ocmt.platform.database import Database, Hints
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import FakeGateway
from ocmt.testing.objects import MemoryObjects
from tests.accounts import make_user
from tests.agents.dying import (
    NOTES,
    DatabaseTime,
    Machine,
    Process,
    ProcessClock,
    ProcessDatabase,
    ProcessObjects,
    ProcessRuntime,
    calm,
)
from tests.agents.replica import Gateways, Replica
from tests.conftest import open_temporary_folder

TICK = 0.25
"""Virtual seconds that pass at once."""
POLICY = Policy(
    pause_after=timedelta(seconds=4),
    stop_after=timedelta(seconds=12),
    wake_timeout=timedelta(seconds=60),
    steady_after=timedelta(seconds=20),
    busy_retry=timedelta(seconds=3),
    page_out_after=timedelta(seconds=3),
    wake_ahead=timedelta(seconds=4),
    no_stop_before=timedelta(seconds=6),
)
SETTLED = timedelta(seconds=2)
"""After so long a replica that lives has done what its row says."""
ENDS = ("turn.completed", "turn.failed", "turn.stopped")


class Office(Gateways):
    """The gateways that drivers start, each told its token."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.clock)
        self._machine = machine

    def of(self, user_id: UUID) -> FakeGateway:
        return self._machine.gateways[user_id]


@dataclass
class Living:
    """One replica while it lives."""

    process: Process
    runtime: ProcessRuntime
    replica: Replica
    worker: TurnWorker

    def start(self) -> None:
        self.process.spawn(self.replica.reconciler.run())
        self.process.spawn(self.worker.run())


@dataclass
class World:
    """One example's: two users, two replicas, a machine, and people who ask for things."""

    dsn: str
    pool: Database
    clock: VirtualClock
    time: DatabaseTime
    hints: Hints
    machine: Machine
    objects: MemoryObjects
    users: list[UUID]
    chat: Chat
    agents: Agents
    conversations: dict[UUID, UUID]
    replicas: dict[int, Living] = field(default_factory=dict)
    accepted: list[Turn] = field(default_factory=list)
    started: int = 0

    @classmethod
    async def make(cls, dsn: str, pool: Database, admin: asyncpg.Connection[asyncpg.Record]) -> World:
        async with pool.connection() as connection:
            await connection.execute("truncate users cascade")
        clock = VirtualClock()
        time = DatabaseTime(admin, clock)
        await time.follow()
        hints = Hints(dsn, clock)
        await hints.start()
        machine = Machine(clock, open_temporary_folder())
        objects = MemoryObjects()
        chat = Chat(pool, clock, objects)
        users = [await make_user(pool, f"{name}@example.org") for name in ("anna", "bert")]
        conversations = {user: (await chat.create_conversation(user)).id for user in users}
        for user in users:
            await machine.add(user)
        agents = Agents(pool, clock, runtime="fake")
        world = cls(dsn, pool, clock, time, hints, machine, objects, users, chat, agents, conversations)
        for number in range(2):
            world.start(number)
        return world

    def start(self, number: int) -> None:
        """That replica begins anew, under a name that nobody has had."""
        self.started += 1
        process = Process()
        clock = ProcessClock(self.clock, process)
        database = ProcessDatabase(self.pool, process)
        runtime = ProcessRuntime(self.machine, process)
        replica = Replica.build(
            clock=clock,
            database=database,
            hints=self.hints,
            runtime=runtime,
            gateways=Office(self.machine),
            policy=POLICY,
            owner=f"replica {number}.{self.started}",
            objects=ProcessObjects(self.objects, process),
        )

        async def usage_of(user_id: UUID, turn_id: UUID) -> dict[str, int] | None:
            return None

        async def explain(user_id: UUID, turn_id: UUID) -> Fault | None:
            return None

        answerer = Answerer(
            database,
            clock,
            replica.agents,
            usage_of=usage_of,
            explain=explain,
            turn_timeout=timedelta(minutes=2),
            attachments=Attachments(database, clock, ProcessObjects(self.objects, process)),
        )
        turns = TurnWorker(database, clock, self.hints, replica.reconciler, answerer)
        self.replicas[number] = Living(process, runtime, replica, turns)
        self.replicas[number].start()

    async def bury(self) -> None:
        """What died between two steps is dead altogether: its connections break, its agents end."""
        for number, living in list(self.replicas.items()):
            if living.process.dead:
                del self.replicas[number]
                await living.process.end()
                await living.runtime.end()

    async def time_passes(self, seconds: float) -> None:
        for number in range(round(seconds / TICK)):
            await self.clock.advance(TICK)
            await self.time.follow()
            await self.machine.time_has_passed()
            await calm()
            await self.bury()
            if number % 4 == 3:
                await self.check()

    async def close(self) -> None:
        for living in self.replicas.values():
            await living.process.end()
        await self.hints.close()
        await self.machine.close()
        shutil.rmtree(self.machine.disk, ignore_errors=True)

    async def driving(self, user_id: UUID) -> int | None:
        """The number of the replica that has the lease of that agent."""
        async with self.pool.connection() as connection:
            owner = await connection.fetchval("select lease_owner from agents where user_id = $1", user_id)
        return int(owner.split()[1].split(".")[0]) if owner else None

    # What must be so

    async def check(self) -> None:
        assert self.machine.violations == []
        for turn_id, status, events in await self._turns():
            ends = [event for event in events if event in ENDS]
            if status in ("accepted", "running"):
                assert ends == [], f"turn {turn_id} goes on behind its end"
            else:
                assert ends == [f"turn.{status}"], f"turn {turn_id} is {status} and ended as {ends}"
                assert events[-1] in ENDS, f"turn {turn_id}: something came behind the end"
        for user_id in await self._asleep():
            saved = await self.saved(user_id)
            written = self.machine.gateways[user_id].written()
            assert saved == written, f"{user_id} was put to sleep, and of {written!r} only {saved!r} is saved"
        for user_id in await self._paused_for_a_while():
            number = await self.driving(user_id)
            driver = self.replicas.get(number) if number is not None else None
            if driver is not None and driver.process.awake.is_set():
                assert not driver.runtime.moves(user_id), f"{user_id} is paused and runs all the same"

    async def _turns(self) -> list[tuple[UUID, str, list[str]]]:
        async with self.pool.connection() as connection:
            rows = await connection.fetch("""
                select t.id, t.status, array_agg(e.type order by e.seq) as events
                from turns t join events e on e.turn_id = t.id group by t.id, t.status
            """)
        return [(row["id"], row["status"], row["events"]) for row in rows]

    async def _asleep(self) -> list[UUID]:
        """Those that have stopped, and that nobody wants awake."""
        async with self.pool.connection() as connection:
            rows = await connection.fetch(
                "select user_id from agents where state = 'stopped' and desired <> 'awake'"
            )
        return [row["user_id"] for row in rows]

    async def _paused_for_a_while(self) -> list[UUID]:
        """Those that should be held still by now."""
        async with self.pool.connection() as connection:
            rows = await connection.fetch(
                "select user_id from agents where state = 'paused' and since < $1 and lease_expires_at > $2",
                self.clock.now() - SETTLED,
                self.clock.now(),
            )
        return [row["user_id"] for row in rows]

    async def saved(self, user_id: UUID) -> bytes:
        """The notes in the newest snapshot, every hash checked."""
        async with self.pool.connection() as connection:
            row = await connection.fetchrow(
                "select generation, manifest from snapshots s join agents a using (user_id) "
                "where user_id = $1 and generation = a.snapshot_generation",
                user_id,
            )
        if row is None:
            return b""
        data = self.objects.stored[f"users/{user_id}/.snapshots/{row['generation']:08d}.json"]
        assert hashlib.sha256(data).hexdigest() == row["manifest"]
        (name,) = [it["sha256"] for it in json.loads(data)["entries"] if it["path"] == NOTES] or [None]
        if name is None:
            return b""
        content = self.objects.stored[f"users/{user_id}/.blobs/{name}"]
        assert hashlib.sha256(content).hexdigest() == name
        return content

    async def unrest(self) -> str:
        """What has not come to its end; empty where everything has."""
        async with self.pool.connection() as connection:
            turns = await connection.fetch(
                "select id, status from turns where status in ('accepted', 'running')"
            )
            agents = await connection.fetch(
                "select user_id, state, desired, lease_owner from agents "
                "where not (state = 'stopped' or (state = 'failed' and error ->> 'message' <> ''))"
            )
        jobs = [job for it in self.machine.gateways.values() for job in it.cron.jobs.values() if job.enabled]
        return f"{turns} {agents} {jobs}" if turns or agents or jobs else ""
