"""The lifecycle of agents as a model: whatever people do and whatever dies between any two steps, there is at
most one gateway for each user, an accepted turn ends exactly once, who sleeps has been saved, and nobody waits
for ever.

Slow because it is hundreds of lives: 30 s; OCMT_MODEL_EXAMPLES (default 12) says how many of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ocmt.agents import cron, schedule, starting
from ocmt.agents.model import Policy
from ocmt.agents.service import Agents
from ocmt.chat.answer import Answerer
from ocmt.chat.model import Fault, Turn
from ocmt.chat.service import Chat
from ocmt.chat.worker import TurnWorker
from ocmt.errors import OcmtError
from ocmt.platform.database import Database, Hints
from ocmt.testing import gateway_cron
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects
from tests.accounts import make_user
from tests.agents.dying import (
    NOTES,
    AtOnce,
    DatabaseTime,
    Machine,
    Process,
    ProcessClock,
    ProcessDatabase,
    ProcessObjects,
    ProcessRuntime,
    calm,
    owned_task,
)
from tests.agents.replica import Gateways, Replica
from tests.conftest import open_temporary_folder

EXAMPLES = int(os.environ.get("OCMT_MODEL_EXAMPLES", "12"))
STEPS = 25
TICK = 0.25
"""Virtual seconds that pass at once."""
PATIENCE = 240
"""Virtual seconds after the last fault in which all must have come to rest."""
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
ENDS = ("turn.completed", "turn.failed", "turn.stopped")
T = TypeVar("T")


class Office(Gateways):
    """The gateways that drivers start, each told its token."""

    def __init__(self, machine: Machine) -> None:
        super().__init__(machine.clock)
        self._machine = machine

    def of(self, user_id: UUID) -> Any:
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
        for _ in range(round(seconds / TICK)):
            await self.clock.advance(TICK)
            await self.time.follow()
            await self.machine.time_has_passed()
            await calm()
            await self.bury()

    async def close(self) -> None:
        for living in self.replicas.values():
            await living.process.end()
        await self.hints.close()
        await self.machine.close()
        shutil.rmtree(self.machine.disk, ignore_errors=True)

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


class Lives(RuleBasedStateMachine):
    """See the module. `number`: of a user or a replica, 0 or 1."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    dsn: ClassVar[str]
    pool: ClassVar[Database]
    admin: ClassVar[asyncpg.Connection[asyncpg.Record]]

    who = st.integers(0, 1)
    soon = st.integers(0, 25)

    def run_it(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        self.world = self.run_it(World.make(self.dsn, self.pool, self.admin))

    def living(self, number: int) -> Living | None:
        return self.world.replicas.get(number)

    # People

    @rule(user=who, remind=st.booleans())
    def somebody_writes(self, user: int, remind: bool) -> None:
        world, user_id = self.world, self.world.users[user]
        text = f"message {len(world.accepted)}"

        async def write() -> None:
            turn = await world.chat.post(user_id, world.conversations[user_id], text, key=text)
            world.accepted.append(turn)
            await world.time_passes(TICK)

        self.run_it(write())

    @rule(user=who)
    def the_last_turn_is_stopped(self, user: int) -> None:
        theirs = [turn for turn in self.world.accepted if turn.user_id == self.world.users[user]]
        if theirs:
            self.run_it(self.world.chat.stop(theirs[-1].user_id, theirs[-1].id))

    @rule(user=who)
    def somebody_sends_it_to_sleep(self, user: int) -> None:
        with suppress(OcmtError):  # it works
            self.run_it(self.world.agents.ask_stopped(self.world.users[user]))

    @rule(user=who)
    def somebody_restarts_it(self, user: int) -> None:
        self.run_it(self.world.agents.ask_restart(self.world.users[user]))

    @rule(seconds=st.sampled_from([0.5, 2, 5, 10, 20]))
    def time_passes(self, seconds: float) -> None:
        self.run_it(self.world.time_passes(seconds))

    # What agents do

    @rule(user=who, after=st.sampled_from([1.0, 6.0, 30.0]))
    def it_plans_a_job(self, user: int, after: float) -> None:
        it = self.world.machine.gateways[self.world.users[user]]

        async def plan() -> None:
            if not it.dead and it.suspension is None:
                it.cron.add(f"job {len(it.cron.jobs)}", after=after)

        self.run_it(plan())

    @rule(user=who, busy=st.booleans())
    def it_is_busy_or_not(self, user: int, busy: bool) -> None:
        self.world.machine.gateways[self.world.users[user]].busy = ["1 background task"] if busy else []

    @rule(user=who)
    def it_dies(self, user: int) -> None:
        self.run_it(self.world.machine.crash(self.world.users[user]))

    # What else goes wrong

    @rule(number=who, steps=soon)
    def a_replica_dies_in_so_many_steps(self, number: int, steps: int) -> None:
        if living := self.living(number):
            living.process.dies_in = steps

    @rule(number=who)
    def a_replica_comes_back(self, number: int) -> None:
        if self.living(number) is None:
            self.run_it(self._start(number))

    async def _start(self, number: int) -> None:
        self.world.start(number)

    @rule(number=who)
    def a_replica_freezes(self, number: int) -> None:
        if living := self.living(number):
            living.process.awake.clear()

    @rule(number=who)
    def a_replica_thaws(self, number: int) -> None:
        if living := self.living(number):
            living.process.awake.set()

    @rule(number=who, kind=st.sampled_from(["database", "objects", "runtime"]), steps=soon)
    def a_call_fails_in_so_many_steps(self, number: int, kind: str, steps: int) -> None:
        if living := self.living(number):
            living.process.faults[kind] = steps

    # What must be so

    @invariant()
    def all_is_well(self) -> None:
        if hasattr(self, "world"):
            self.run_it(self.world.check())

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.run_it(self._come_to_rest())
        finally:
            self.run_it(self.world.close())

    async def _come_to_rest(self) -> None:
        """Faults have an end: then nobody waits for ever, and all of it is saved."""
        world = self.world
        for living in world.replicas.values():
            living.process.awake.set()
            living.process.dies_in = None
            living.process.faults.clear()
        for it in world.machine.gateways.values():
            it.busy = []
        for number in range(2):
            if number not in world.replicas:
                world.start(number)
        for _ in range(PATIENCE // 5):
            await world.time_passes(5)
            await world.check()
            if not await world.unrest():
                return
        raise AssertionError(f"after {PATIENCE} s: {await world.unrest()}")


@pytest.fixture
def stage(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One database for all lives, and a loop whose tasks know their process."""
    monkeypatch.setattr(starting, "WATCH_INTERVAL", 0.005)
    monkeypatch.setattr(gateway_cron, "CATCH_UP_DELAY", timedelta(seconds=10))
    for module in (schedule, cron):
        monkeypatch.setattr(module, "HOLD_AHEAD", timedelta(seconds=5))
    monkeypatch.setattr(cron, "LOOK_INTERVAL", timedelta(seconds=1))
    monkeypatch.setattr(cron, "SETTLING", timedelta(seconds=2))
    monkeypatch.setattr(cron, "HOLD_TTL", timedelta(seconds=10))
    loop = asyncio.new_event_loop()
    loop.set_task_factory(owned_task)
    loop.set_default_executor(AtOnce())
    loop.set_exception_handler(lambda *_: None)  # tasks of the dead
    name = f"model_{uuid4().hex}"
    dsn = postgres.replace("@/ocmt?", f"@/{name}?")

    async def create() -> None:
        server = await asyncpg.connect(postgres)
        await server.execute(f"create database {name} template template")
        await server.close()
        await DatabaseTime.install(dsn)
        Lives.dsn = dsn
        Lives.pool = await Database.open(dsn, pool_size=10)
        Lives.admin = await asyncpg.connect(dsn)

    async def drop() -> None:
        await Lives.admin.close()
        await Lives.pool.close()
        server = await asyncpg.connect(postgres)
        await server.execute(f"drop database {name} with (force)")
        await server.close()

    Lives.loop = loop
    loop.run_until_complete(create())
    yield
    loop.run_until_complete(drop())
    loop.close()


@pytest.mark.usefixtures("stage")
@pytest.mark.timeout(60 + 20 * EXAMPLES)
def test_whatever_dies_nothing_is_lost_doubled_or_stuck() -> None:
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
