"""What an agent has planned happens in time, although it sleeps: by virtual time, on a real database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from ocmt.agents.cron import HOLD_TTL, Planned
from ocmt.agents.model import Agent, Policy, State
from ocmt.agents.schedule import describe
from ocmt.openclaw.client import GatewayClient
from ocmt.platform.database import Database, Hints
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway_cron import CATCH_UP_DELAY, PlannedJob
from ocmt.testing.misbehaving import FlakyRuntime
from ocmt.testing.runtimes import FakeRuntime
from tests.agents.replica import Gateways, Replica, time_flies, until

pytestmark = pytest.mark.anyio

BRISK = Policy(
    pause_after=timedelta(seconds=10),
    stop_after=timedelta(seconds=30),
    no_stop_before=timedelta(seconds=25),
)
BOOT = 8.0
"""Seconds on the clock that a start takes here."""
PATIENCE = 60.0
"""Real seconds; what is waited for takes some, and many on a busy machine."""

Build = Callable[..., Replica]


@pytest.fixture
async def build(
    clock: VirtualClock, database: Database, hints: Hints, gateways: Gateways
) -> AsyncIterator[Build]:
    built: list[Replica] = []

    def build(runtime: FakeRuntime | None = None, *, policy: Policy = BRISK, owner: str = "a") -> Replica:
        runtime = runtime or FakeRuntime(clock, make_gateway=gateways.make, boot_seconds=BOOT)
        made = Replica.build(
            clock=clock,
            database=database,
            hints=hints,
            runtime=runtime,
            gateways=gateways,
            policy=policy,
            owner=owner,
        )
        built.append(made)
        return made

    yield build
    for made in built:
        await made.reconciler.close()


async def reach(replica: Replica, user_id: UUID, *states: State) -> Agent:
    """The agent, once it is in one of these states."""

    async def reached() -> bool:
        return (await replica.agents.find(user_id)).state in states

    await until(reached, timeout=PATIENCE)
    return await replica.agents.find(user_id)


async def woken(replica: Replica, user_id: UUID) -> None:
    await replica.agents.ask_awake(user_id)
    # Not by looking at its row: on a busy machine it may have gone back to sleep between two looks.
    await (await replica.driver(user_id)).awake()


async def ran(job: PlannedJob, times: int = 1) -> None:
    await until(lambda: len(job.started) >= times and job.running_since is None, timeout=PATIENCE)


async def shown(replica: Replica, user_id: UUID) -> dict[str, Any]:
    """As `GET /agent/schedule` answers."""
    agent = await replica.agents.find(user_id)
    return describe(agent, await replica.agents.schedule_of(user_id))


def holds_of(agent: Agent) -> list[str]:
    return [hold.reason for hold in agent.holds]


async def test_a_paused_agent_is_woken_in_the_moment_and_rests_again(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build(policy=replace(BRISK, stop_after=timedelta(hours=1)))
    async with replica.running(), time_flies(clock):
        await woken(replica, anna)
        job = gateways.of(anna).cron.add("report", after=60)
        due = job.next_run_at
        paused = await reach(replica, anna, State.PAUSED)
        assert paused.next_wake_at == due
        await ran(job)
        assert due is not None
        assert job.started[0] - due < timedelta(seconds=5)
        asleep = await reach(replica, anna, State.PAUSED)
        assert holds_of(asleep) == []
        assert asleep.next_wake_at is None, "there is nothing more to wake it for"
    assert len(job.started) == 1


async def test_a_stopped_agent_is_woken_ahead_to_be_ready_in_time_even_if_its_user_put_it_to_sleep(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build()
    async with replica.running(), time_flies(clock):
        await woken(replica, anna)
        job = gateways.of(anna).cron.add("report", after=90)
        due = job.next_run_at
        assert due is not None
        await replica.agents.ask_stopped(anna)
        stopped = await reach(replica, anna, State.STOPPED)
        assert stopped.next_wake_at == due
        awake = await reach(replica, anna, State.AWAKE)
        assert timedelta(0) < due - awake.since < replica.policy.wake_ahead
        assert holds_of(awake) == ["cron"]
        await ran(job)
        assert job.started[0] - due < timedelta(seconds=1)
        await reach(replica, anna, State.STOPPED)
        (line,) = (await shown(replica, anna))["jobs"]
        assert (line["late"], line["last_status"]) == (False, "ok")
    assert (len(job.started), replica.starts()) == (1, 2)


async def test_what_was_due_while_the_platform_was_down_runs_once_and_is_called_late(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = FakeRuntime(clock, make_gateway=gateways.make, boot_seconds=BOOT)
    before = build(runtime)
    async with before.running(), time_flies(clock):
        await woken(before, anna)
        job = gateways.of(anna).cron.add("report", after=90, every=86_400)
        due = job.next_run_at
        assert due is not None
        await before.agents.ask_stopped(anna)
        await reach(before, anna, State.STOPPED)
    await clock.advance(3600)
    began, after = clock.now(), build(runtime, owner="b")
    async with after.running(), time_flies(clock):
        await reach(after, anna, State.AWAKE)
        await ran(job)
        # OpenClaw puts off at a start what it has missed. From before the start: on a busy machine the agent
        # may have paused and gone on again between two looks.
        assert job.started[0] - began >= CATCH_UP_DELAY
        await reach(after, anna, State.PAUSED, State.STOPPED)
        (line,) = (await shown(after, anna))["jobs"]
        assert (line["late"], line["late_for"]) == (True, due.isoformat())
    assert len(job.started) == 1


async def test_two_replicas_wake_it_once(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = FakeRuntime(clock, make_gateway=gateways.make, boot_seconds=BOOT)
    one, other = build(runtime), build(runtime, owner="b")
    async with one.running(), time_flies(clock):
        await woken(one, anna)
        async with other.running():
            job = gateways.of(anna).cron.add("report", after=90)
            await one.agents.ask_stopped(anna)
            await reach(one, anna, State.STOPPED)
            await ran(job)
            await reach(one, anna, State.STOPPED)
    assert (len(job.started), one.starts()) == (1, 2)


async def test_a_long_run_keeps_it_awake_and_then_no_longer(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build()
    done = asyncio.Event()
    async with replica.running(), time_flies(clock):
        await woken(replica, anna)
        job = gateways.of(anna).cron.add("report", after=40, until=done)
        await until(lambda: job.running_since is not None, timeout=PATIENCE)
        began = clock.now()
        await until(lambda: clock.now() - began > 2.5 * HOLD_TTL, timeout=PATIENCE)
        agent = await replica.agents.find(anna)
        assert (agent.state, holds_of(agent)) == (State.AWAKE, ["cron"])
        done.set()
        await ran(job)
        asleep = await reach(replica, anna, State.PAUSED, State.STOPPED)
        assert holds_of(asleep) == []


async def test_a_wake_that_fails_is_tried_again_and_shown(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways, database: Database
) -> None:
    replica = build(FlakyRuntime(clock, failures=2, make_gateway=gateways.make))
    await replica.agents.find(anna)
    job = gateways.of(anna).cron.add("report", after=30)
    async with database.connection() as connection:
        await connection.execute("update agents set next_wake_at = $1", job.next_run_at)
    failed: list[int] = []
    async with replica.running(), time_flies(clock):

        async def awake() -> bool:
            agent = await replica.agents.find(anna)
            if agent.state is State.FAILED:
                assert agent.error is not None
                failed.append(agent.failures)
            return agent.state is State.AWAKE

        await until(awake, timeout=PATIENCE)
        await ran(job)
    assert failed
    assert (replica.starts(), len(job.started)) == (3, 1)


async def test_a_suspended_users_agent_is_not_woken(
    build: Build, anna: UUID, clock: VirtualClock, database: Database
) -> None:
    replica = build()
    await replica.agents.find(anna)
    async with database.connection() as connection:
        await connection.execute("update users set status = 'suspended'")
        await connection.execute("update agents set next_wake_at = $1", clock.now())
    assert await replica.agents.due() == []


async def test_what_is_planned_is_kept_at_once_in_case_the_server_is_lost(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build()
    async with replica.running(), time_flies(clock):
        await woken(replica, anna)
        job = gateways.of(anna).cron.add("report", after=3600)

        async def kept() -> bool:
            return (await replica.agents.find(anna)).next_wake_at == job.next_run_at

        await until(kept)
        (line,) = (await shown(replica, anna))["jobs"]
        assert (line["name"], line["kind"], line["enabled"]) == ("report", "at", True)


async def test_an_idle_agent_is_not_asked_again_and_again(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build()
    async with replica.running(), time_flies(clock):
        await woken(replica, anna)
        began = clock.now()
        await until(lambda: clock.now() - began > timedelta(minutes=1), timeout=PATIENCE)
    asked = [method for method, _ in gateways.of(anna).received if method == "cron.status"]
    assert len(asked) == 1


async def test_a_job_that_is_near_pauses_an_agent_that_would_be_stopped(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build(policy=replace(BRISK, no_stop_before=timedelta(minutes=3)))
    async with replica.running(), time_flies(clock):
        await woken(replica, anna)
        job = gateways.of(anna).cron.add("report", after=100)
        await ran(job)
    assert replica.starts() == 1
    assert ("pause", anna) in replica.runtime.calls


async def test_a_gateway_that_refuses_to_tell_sleeps_with_what_is_known(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build()
    gateways.of(anna).cron.refuses = True
    async with replica.running(), time_flies(clock):
        await woken(replica, anna)
        await reach(replica, anna, State.STOPPED)
    assert await replica.agents.schedule_of(anna) is None


async def test_one_that_is_stopped_after_its_longest_time_awake_keeps_what_it_planned(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build(policy=replace(BRISK, max_awake=timedelta(minutes=2), evict_after=timedelta(seconds=1)))
    driver = await replica.driver(anna)
    async with time_flies(clock):
        await driver.awake()
    gateways.of(anna).busy = ["1 background task"]
    await replica.agents.hold(anna, "operator", "x", ttl=timedelta(hours=1))
    await clock.advance(130)
    due = gateways.of(anna).cron.add("report", after=600).next_run_at
    await driver.tick()
    agent = await replica.agents.find(anna)
    assert agent.state is State.STOPPED
    assert agent.error is not None
    assert agent.error["code"] == "awake_too_long"
    assert (agent.next_wake_at, agent.schedule_unread) == (due, False)


async def test_a_schedule_that_changes_while_it_falls_asleep_keeps_it_awake(
    build: Build, anna: UUID, gateways: Gateways, clock: VirtualClock
) -> None:
    async with gateways.of(anna) as gateway:
        client = await GatewayClient.connect(gateway.dial, token=gateway.token, clock=clock, timeout=5)
        planned = Planned(None, client, client.schedule_changes)
        commits: list[object] = []

        async def commit(plan: object) -> bool:
            commits.append(plan)
            return True

        assert await planned.unless_changed(commit)
        gateway.cron.add("reminder", after=60)
        await until(lambda: client.schedule_changes > 0)
        assert not await planned.unless_changed(commit)
        assert len(commits) == 1
        await client.close()


async def test_a_turn_by_schedule_is_not_its_users_activity(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build()
    async with replica.running(), time_flies(clock):
        await woken(replica, anna)
        active = (await replica.agents.find(anna)).last_active_at
        job = gateways.of(anna).cron.add("report", after=90)
        await ran(job)
        await reach(replica, anna, State.PAUSED, State.STOPPED)
    assert (await replica.agents.find(anna)).last_active_at == active
