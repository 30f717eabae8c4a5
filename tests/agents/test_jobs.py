"""Programs that OpenClaw does not know of keep their agent awake for a while; their end is told."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest

from ocmt.agents import jobs
from ocmt.agents.holds import words
from ocmt.agents.model import Policy, State
from ocmt.platform.database import Database, Hints
from ocmt.testing.clock import VirtualClock
from ocmt.testing.runtimes import FakeRuntime
from tests.agents.replica import Gateways, Replica

pytestmark = pytest.mark.anyio
MINUTE = 60.0


@pytest.fixture
async def replica(
    clock: VirtualClock, database: Database, hints: Hints, runtime: FakeRuntime, gateways: Gateways
) -> Replica:
    policy = Policy(
        pause_after=timedelta(minutes=5), stop_after=timedelta(minutes=30), job_awake=timedelta(minutes=20)
    )
    return Replica.build(
        clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways, policy=policy
    )


async def test_a_detached_program_keeps_its_agent_awake_and_then_no_more(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    replica.runtime.detached[anna] = ["backup.sh"]
    for _ in range(19):
        await clock.advance(1 * MINUTE)
        await driver.tick()
        assert (await replica.agents.find(anna)).state is State.AWAKE
    held = (await replica.agents.find(anna)).holds
    assert [words(hold) for hold in held] == ["A program runs in the background: backup.sh"]
    await clock.advance(2 * MINUTE)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.PAUSED
    await clock.advance(10 * MINUTE)
    await driver.tick()
    stopped = await replica.agents.find(anna)
    assert stopped.state is State.STOPPED
    assert stopped.error is not None
    assert stopped.error["code"] == "job_ended"
    assert "backup.sh" in stopped.error["message"]


async def test_when_the_program_has_ended_it_sleeps_and_nothing_is_said(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    replica.runtime.detached[anna] = ["backup.sh"]
    await clock.advance(6 * MINUTE)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.AWAKE
    del replica.runtime.detached[anna]
    await clock.advance(1 * MINUTE + 1)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.PAUSED
    await clock.advance(30 * MINUTE)
    await driver.tick()
    stopped = await replica.agents.find(anna)
    assert (stopped.state, stopped.error) == (State.STOPPED, None)


async def test_use_of_the_agent_begins_the_time_anew(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    replica.runtime.detached[anna] = ["backup.sh"]
    await clock.advance(15 * MINUTE)
    await replica.agents.touch(anna)
    await clock.advance(15 * MINUTE)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.AWAKE


async def test_who_asks_for_sleep_gets_it_at_once_and_reads_what_was_ended(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    replica.runtime.detached[anna] = ["backup.sh", "rsync"]
    await clock.advance(6 * MINUTE)
    await driver.tick()
    assert (await replica.agents.find(anna)).holds
    await replica.agents.ask_stopped(anna)
    await driver.tick()
    stopped = await replica.agents.find(anna)
    assert stopped.state is State.STOPPED
    assert stopped.error is not None
    assert "backup.sh, rsync" in stopped.error["message"]
    assert not stopped.holds


async def test_it_is_not_stopped_to_make_room(replica: Replica, anna: UUID, clock: VirtualClock) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    replica.runtime.detached[anna] = ["backup.sh"]
    await clock.advance(2 * MINUTE)
    assert not await driver.make_room()
    assert (await replica.agents.find(anna)).state is State.AWAKE


async def test_the_longest_time_awake_ends_it_too(replica: Replica, anna: UUID, clock: VirtualClock) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    replica.runtime.detached[anna] = ["miner"]
    for _ in range(24 * 6 + 1):  # used every ten minutes, so that it never is idle for long
        await clock.advance(10 * MINUTE)
        if (await replica.agents.find(anna)).state is State.AWAKE:
            await driver.tick()
            await replica.agents.touch(anna)
    stopped = await replica.agents.find(anna)
    assert stopped.error is not None
    assert stopped.error["code"] == "awake_too_long"
    assert "miner" in stopped.error["message"]


def test_many_programs_are_named_briefly() -> None:
    assert jobs.named(["a"]) == "a"
    assert jobs.named(["a", "a", "b"]) == "a, b"
    assert jobs.named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert jobs.ended([], None) is None
