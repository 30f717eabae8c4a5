"""The lifecycle of agents as a model: whatever people do and whatever dies between any two steps, there is at
most one gateway for each user, an accepted turn ends exactly once, who sleeps has been saved, and nobody
waits for ever.

Slow because it is many lives: about 20 s; OCMT_MODEL_EXAMPLES (default 8) says how many of them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from ocmt.agents import cron, schedule, starting
from ocmt.errors import OcmtError
from ocmt.platform.database import Database
from ocmt.testing import gateway_cron
from tests.agents.dying import AtOnce, DatabaseTime, owned_task
from tests.agents.small_world import Living, World

EXAMPLES = int(os.environ.get("OCMT_MODEL_EXAMPLES", "8"))
STEPS = 25
PATIENCE = 240
"""Virtual seconds after the last fault in which all must have come to rest."""
T = TypeVar("T")


class Lives(RuleBasedStateMachine):
    """See the module. `number`: of a user or a replica, 0 or 1."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    dsn: ClassVar[str]
    pool: ClassVar[Database]
    admin: ClassVar[asyncpg.Connection[asyncpg.Record]]

    who = st.integers(0, 1)
    soon = st.integers(0, 40)
    later = st.sampled_from([0.25, 1.0, 6.0, 6.0, 20.0])
    """Virtual seconds that pass behind each step."""

    def run_it(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def begin(self) -> None:
        self.world = self.run_it(World.make(self.dsn, self.pool, self.admin))
        for user in range(2):
            self.somebody_writes(user, then=1.0)

    def living(self, number: int) -> Living | None:
        """The replica that drives that user's agent; where none does, the one of that number."""
        driving = self.run_it(self.world.driving(self.world.users[number]))
        return self.world.replicas.get(number if driving is None else driving)

    # People

    @rule(user=who, then=later)
    def somebody_writes(self, user: int, then: float) -> None:
        world, user_id = self.world, self.world.users[user]
        text = f"message {len(world.accepted)}"

        async def write() -> None:
            turn = await world.chat.post(user_id, world.conversations[user_id], text, key=text)
            world.accepted.append(turn)

        self.run_it(write())
        self.run_it(self.world.time_passes(then))

    @rule(user=who, then=later)
    def the_last_turn_is_stopped(self, user: int, then: float) -> None:
        theirs = [turn for turn in self.world.accepted if turn.user_id == self.world.users[user]]
        if theirs:
            self.run_it(self.world.chat.stop(theirs[-1].user_id, theirs[-1].id))
        self.run_it(self.world.time_passes(then))

    @rule(user=who, then=later)
    def somebody_sends_it_to_sleep(self, user: int, then: float) -> None:
        with suppress(OcmtError):  # it works
            self.run_it(self.world.agents.ask_stopped(self.world.users[user]))
        self.run_it(self.world.time_passes(then))

    @rule(user=who, then=later)
    def somebody_restarts_it(self, user: int, then: float) -> None:
        self.run_it(self.world.agents.ask_restart(self.world.users[user]))
        self.run_it(self.world.time_passes(then))

    # What agents do

    @rule(user=who, after=st.sampled_from([1.0, 6.0, 30.0]), then=later)
    def it_plans_a_job(self, user: int, after: float, then: float) -> None:
        it = self.world.machine.gateways[self.world.users[user]]

        async def plan() -> None:
            if not it.dead and it.suspension is None:
                it.cron.add(f"job {len(it.cron.jobs)}", after=after)

        self.run_it(plan())
        self.run_it(self.world.time_passes(then))

    @rule(user=who, busy=st.booleans(), then=later)
    def it_is_busy_or_not(self, user: int, busy: bool, then: float) -> None:
        self.world.machine.gateways[self.world.users[user]].busy = ["1 background task"] if busy else []
        self.run_it(self.world.time_passes(then))

    @rule(user=who, then=later)
    def it_dies(self, user: int, then: float) -> None:
        self.run_it(self.world.machine.crash(self.world.users[user]))
        self.run_it(self.world.time_passes(then))

    # What else goes wrong

    @rule(number=who, steps=soon, then=later)
    def a_replica_dies_in_so_many_steps(self, number: int, steps: int, then: float) -> None:
        if living := self.living(number):
            living.process.dies_in = steps
        self.run_it(self.world.time_passes(then))

    @rule(number=who, then=later)
    def a_replica_comes_back(self, number: int, then: float) -> None:
        if number not in self.world.replicas:
            self.run_it(self._start(number))
        self.run_it(self.world.time_passes(then))

    async def _start(self, number: int) -> None:
        self.world.start(number)

    @rule(number=who, then=later)
    def a_replica_freezes(self, number: int, then: float) -> None:
        if living := self.living(number):
            living.process.awake.clear()
        self.run_it(self.world.time_passes(then))

    @rule(number=who, then=later)
    def a_replica_thaws(self, number: int, then: float) -> None:
        if living := self.living(number):
            living.process.awake.set()
        self.run_it(self.world.time_passes(then))

    @rule(number=who, kind=st.sampled_from(["database", "objects", "runtime"]), steps=soon, then=later)
    def a_call_fails_in_so_many_steps(self, number: int, kind: str, steps: int, then: float) -> None:
        if living := self.living(number):
            living.process.faults[kind] = steps
        self.run_it(self.world.time_passes(then))

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
    loop.set_task_factory(owned_task)  # type: ignore[arg-type]
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
def test_an_agent_whose_driver_freezes_goes_on_elsewhere_and_only_there() -> None:
    lives = Lives()
    lives.begin()
    lives.a_replica_freezes(0, then=0.25)
    lives.somebody_writes(0, then=20.0)
    lives.a_replica_thaws(0, then=6.0)
    lives.all_is_well()
    lives.teardown()


@pytest.mark.usefixtures("stage")
def test_an_agent_whose_driver_dies_while_it_is_paused_is_saved_by_the_next() -> None:
    lives = Lives()
    lives.begin()
    lives.run_it(lives.world.time_passes(6))
    lives.a_replica_dies_in_so_many_steps(0, 0, then=20.0)
    lives.all_is_well()
    lives.teardown()


@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize("noticed_after", [0.0, 0.25, 1.0])
def test_what_an_agent_planned_just_before_it_died_is_done_although_it_was_sent_to_sleep(
    noticed_after: float,
) -> None:
    lives = Lives()
    lives.begin()
    lives.it_plans_a_job(0, after=30.0, then=0.0)
    lives.it_dies(0, then=noticed_after)
    lives.somebody_sends_it_to_sleep(0, then=6.0)
    lives.teardown()


@pytest.mark.usefixtures("stage")
@pytest.mark.parametrize("steps", range(0, 30, 3))
def test_nor_is_it_lost_with_the_replicas_that_start_it_anew(steps: int) -> None:
    lives = Lives()
    lives.begin()
    lives.it_plans_a_job(0, after=30.0, then=0.0)
    lives.a_replica_dies_in_so_many_steps(0, 0, then=0.25)
    lives.somebody_sends_it_to_sleep(0, then=6.0)
    lives.a_replica_dies_in_so_many_steps(0, steps, then=0.25)
    lives.somebody_sends_it_to_sleep(0, then=6.0)
    lives.teardown()


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
