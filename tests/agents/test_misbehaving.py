"""What the lifecycle makes of agents that do not end, do not sleep, or die while they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from ocmt.agents.model import State
from ocmt.errors import NotYet
from ocmt.openclaw.client import GatewayClient
from ocmt.platform.database import Database
from ocmt.runtimes.base import AgentSpec, RuntimeState
from ocmt.testing.clock import VirtualClock
from ocmt.testing.misbehaving import DiesMidTurn, DiskFiller, ForkBomb, RefusesSuspend, SlowToDie
from tests.accounts import make_user
from tests.agents.replica import Gateways, Replica, time_flies, until

from .test_lifecycle import MINUTE, Build, build

__all__ = ["build"]

pytestmark = pytest.mark.anyio


class WatchfulSlowToDie(SlowToDie):
    """Notes when it started agents, in seconds of the clock."""

    def __init__(self, clock: VirtualClock, gateways: Gateways, *, seconds: float) -> None:
        super().__init__(clock, seconds=seconds, make_gateway=gateways.make)
        self.started_at: list[float] = []

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        started = await super().start(spec, state)
        self.started_at.append(self._clock.monotonic())
        return started


class TestSlowToDie:
    """A minute, where stopping gives it ten seconds."""

    @pytest.fixture
    def runtime(self, clock: VirtualClock, gateways: Gateways) -> WatchfulSlowToDie:
        return WatchfulSlowToDie(clock, gateways, seconds=60)

    @pytest.fixture
    def replica(self, build: Build, runtime: WatchfulSlowToDie) -> Iterator[Replica]:
        yield build(runtime)
        runtime.relent()  # for what is still there when the test is over

    async def test_it_is_stopping_until_nothing_of_it_is_left_and_only_then_stopped(
        self, replica: Replica, anna: UUID, clock: VirtualClock
    ) -> None:
        await (await replica.driver(anna)).awake()
        await replica.agents.ask_stopped(anna)
        began = clock.monotonic()
        with capture_logs():
            async with time_flies(clock), replica.running():
                await until(is_in(replica, anna, State.STOPPING))
                assert (await replica.runtime.observe(anna, {})).phase == "running"
                await until(is_in(replica, anna, State.STOPPED))
        assert clock.monotonic() - began >= 60
        assert (await replica.runtime.observe(anna, {})).phase == "absent"

    async def test_who_needs_it_meanwhile_gets_a_new_one_but_never_beside_the_old(
        self, replica: Replica, runtime: WatchfulSlowToDie, anna: UUID, clock: VirtualClock
    ) -> None:
        driver = await replica.driver(anna)
        await driver.awake()
        await replica.agents.ask_stopped(anna)
        with capture_logs():
            async with time_flies(clock):
                began = clock.monotonic()
                with pytest.raises(NotYet, match="still ending"):
                    await driver.tick()
                with pytest.raises(NotYet):
                    await driver.awake()
                assert (await replica.agents.find(anna)).state is State.STOPPING
                async with replica.running():
                    await replica.agents.ask_awake(anna)
                    await until(is_in(replica, anna, State.AWAKE))
        assert len(runtime.started_at) == 2
        assert runtime.started_at[1] - began >= 60

    async def test_a_shutdown_keeps_the_lease_until_it_runs_out_rather_than_hand_over_a_living_agent(
        self, replica: Replica, anna: UUID, clock: VirtualClock
    ) -> None:
        await (await replica.driver(anna)).awake()
        with capture_logs() as said:
            async with time_flies(clock):
                await replica.reconciler.close()
        assert [line["event"] for line in said if line["log_level"] == "warning"] == [
            "agent not closed in order"
        ]
        row = await replica.row(anna)
        assert (row["state"], row["lease_owner"]) == ("awake", "a"), "the next holder clears it away first"


class TestRefusesSuspend:
    async def test_it_is_asked_again_and_again_and_neither_paused_nor_stopped(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(RefusesSuspend(clock, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        gateway = await driver.awake()
        asked = []
        for _ in range(60):  # an hour: also beyond the half that stops others
            await clock.advance(MINUTE)
            await driver.tick()
            received = gateways.of(anna).received
            asked.append(sum(method == "gateway.suspend.prepare" for method, _ in received))
        assert asked[-1] == 56, "once a minute from the fifth on"
        assert [call for call, _ in replica.runtime.calls] == ["start"]
        assert (await replica.agents.find(anna)).state is State.AWAKE
        assert await driver.awake() is gateway

    async def test_a_day_awake_ends_it_even_so_and_its_user_reads_why(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(RefusesSuspend(clock, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        await driver.awake()
        await replica.agents.hold(anna, "operator", "cli", ttl=timedelta(days=7))
        await clock.advance(23 * 60 * MINUTE)
        await driver.tick()
        assert (await replica.agents.find(anna)).state is State.AWAKE
        await clock.advance(60 * MINUTE)
        with capture_logs():
            await driver.tick()
        agent = await replica.agents.find(anna)
        assert (agent.state, agent.desired) == (State.STOPPED, State.STOPPED)
        assert agent.error is not None
        assert "24 hours awake" in agent.error["message"]
        await driver.awake()
        assert (await replica.agents.find(anna)).error is None

    async def test_not_even_its_user_puts_it_to_sleep_but_a_restart_ends_it(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(RefusesSuspend(clock, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        gateway = await driver.awake()
        await replica.agents.ask_stopped(anna)
        await driver.tick()
        assert (await replica.agents.find(anna)).state is State.AWAKE
        await replica.agents.ask_restart(anna)
        await driver.tick()
        assert gateway.closed
        assert replica.starts() == 2


async def dies_over(gateway: GatewayClient, message: str, number: int = 0) -> None:
    """Send it a message, and wait for its end."""
    await gateway.send_chat(session_key=f"s{number}", message=message, idempotency_key=f"k{number}")
    await asyncio.wait_for(gateway.wait_closed(), 5)


class TestDiesMidTurn:
    async def test_its_death_is_noted_with_its_cause_and_the_next_wake_starts_another(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(DiesMidTurn(clock, times=1, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        gateway = await driver.awake()
        await dies_over(gateway, "hello")
        with capture_logs() as said:
            await driver.tick()
        (lost,) = [line for line in said if line["event"] == "agent lost"]
        assert (lost["phase"], lost["exit_code"]) == ("exited", 137)
        agent = await replica.agents.find(anna)
        assert (agent.state, agent.failures) == (State.FAILED, 1)
        async with time_flies(clock):
            again = await driver.awake()
        assert again is not gateway
        assert replica.starts() == 2

    async def test_one_that_always_dies_is_given_up_until_a_person_asks(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(DiesMidTurn(clock, times=99, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        with capture_logs():
            async with time_flies(clock):
                for number in range(replica.policy.max_failures):
                    await dies_over(await driver.awake(), "hello", number)
                    await driver.tick()
        agent = await replica.agents.find(anna)
        assert (agent.state, agent.failures, agent.retry_at) == (State.FAILED, 5, None)


class TestForkBomb:
    """It cannot be held still; whoever is connected is served."""

    async def test_it_is_not_paused_and_goes_on_working(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(ForkBomb(clock, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        gateway = await driver.awake()
        await clock.advance(replica.policy.pause_after.total_seconds())
        with capture_logs() as said:
            await driver.tick()
        assert [line["event"] for line in said if line["log_level"] == "warning"] == ["agent not paused"]
        assert (await replica.agents.find(anna)).state is State.AWAKE
        assert await driver.awake() is gateway
        await gateway.send_chat(session_key="s", message="hello", idempotency_key="k")
        assert replica.starts() == 1

    async def test_a_pause_is_tried_again_after_a_while_and_the_stop_takes_no_pause(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(ForkBomb(clock, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        await driver.awake()
        with capture_logs():
            for _ in range(31):
                await clock.advance(MINUTE)
                await driver.tick()
        calls = [call for call, _ in replica.runtime.calls]
        assert calls.count("pause") > 1
        assert calls[-1] == "stop"
        assert (await replica.agents.find(anna)).state is State.STOPPED

    async def test_its_user_ends_it_by_a_restart(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(ForkBomb(clock, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        gateway = await driver.awake()
        await replica.agents.ask_restart(anna)
        await driver.tick()
        assert gateway.closed
        assert replica.starts() == 2
        assert await driver.awake() is not gateway


class TestDiskFiller:
    async def test_its_user_reads_why_it_was_stopped_and_may_wake_it_to_tidy_up(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(DiskFiller(clock, times=1, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        gateway = await driver.awake()
        await dies_over(gateway, "fill it")
        with capture_logs():
            await driver.tick()
        agent = await replica.agents.find(anna)
        assert agent.state is State.FAILED
        assert agent.error is not None
        assert agent.error["message"] == DiskFiller.WORDS
        async with time_flies(clock):
            assert await driver.awake() is not gateway
        assert (await replica.agents.find(anna)).state is State.AWAKE

    async def test_who_wakes_it_before_that_was_noticed_gets_a_new_one(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(DiskFiller(clock, times=1, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        gateway = await driver.awake()
        await dies_over(gateway, "fill it")
        async with time_flies(clock):
            assert await driver.awake() is not gateway
        assert replica.starts() == 2

    async def test_one_that_always_does_it_is_given_up_with_those_words(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
    ) -> None:
        replica = build(DiskFiller(clock, times=99, make_gateway=gateways.make))
        driver = await replica.driver(anna)
        with capture_logs():
            async with time_flies(clock):
                for number in range(replica.policy.max_failures):
                    await dies_over(await driver.awake(), "fill it", number)
                    await driver.tick()
        agent = await replica.agents.find(anna)
        assert (agent.state, agent.retry_at) == (State.FAILED, None)
        assert agent.error is not None
        assert agent.error["message"] == DiskFiller.WORDS

    async def test_its_neighbour_notices_nothing(
        self, build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways, database: Database
    ) -> None:
        replica = build(DiskFiller(clock, times=1, make_gateway=gateways.make))
        filling = await replica.driver(anna)
        gateway = await filling.awake()
        ben = await make_user(database, "ben@example.org")
        other = await replica.driver(ben)
        neighbour = await other.awake()
        await dies_over(gateway, "fill it")
        with capture_logs():
            await filling.tick()
            await other.tick()
        assert await other.awake() is neighbour
        assert (await replica.agents.find(ben)).state is State.AWAKE


def is_in(replica: Replica, user_id: UUID, state: State) -> Callable[[], Awaitable[bool]]:
    async def found() -> bool:
        return (await replica.agents.find(user_id)).state is state

    return found
