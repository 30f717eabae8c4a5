"""Who drives which agent: leases, two replicas, a lost one, and the end of the process."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from ocmt.agents.egress import Egress
from ocmt.agents.model import Agent, Policy, State
from ocmt.agents.service import CHANNEL, Agents
from ocmt.errors import LeaseLost, Unavailable
from ocmt.platform.database import Connection, Database, Hints, notify
from ocmt.runtimes.base import RuntimeState
from ocmt.testing.clock import VirtualClock
from ocmt.testing.misbehaving import NeverRuntime
from ocmt.testing.runtimes import FakeRuntime
from tests.accounts import make_user
from tests.agents.replica import SLEEPY, Gateways, Replica, time_flies, until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other_gateways(clock: VirtualClock) -> AsyncIterator[Gateways]:
    gateways = Gateways(clock)
    yield gateways
    await gateways.close()


@pytest.fixture
def other(clock: VirtualClock, database: Database, hints: Hints, other_gateways: Gateways) -> Replica:
    """A second replica, on another machine: with a runtime of its own."""
    return Replica.build(
        clock=clock,
        database=database,
        hints=hints,
        runtime=FakeRuntime(clock, make_gateway=other_gateways.make),
        gateways=other_gateways,
        owner="b",
    )


async def state(replica: Replica, user_id: UUID) -> State:
    return (await replica.agents.find(user_id)).state


async def expire_lease(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("update agents set lease_expires_at = now() - interval '1 second'")


async def test_two_replicas_never_drive_one_agent(replica: Replica, other: Replica, anna: UUID) -> None:
    drivers = await asyncio.gather(replica.reconciler.drive(anna), other.reconciler.drive(anna))
    assert sorted(driver is None for driver in drivers) == [False, True]
    await other.reconciler.close()


async def test_all_who_ask_for_an_agent_get_the_same_hand_on_it(replica: Replica, anna: UUID) -> None:
    drivers = await asyncio.gather(*(replica.reconciler.drive(anna) for _ in range(5)))
    assert len(set(map(id, drivers))) == 1


async def test_what_is_wanted_awake_is_woken_and_what_is_not_is_let_go(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    await replica.agents.ask_awake(anna)
    async with replica.running(), time_flies(clock):

        async def awake() -> bool:
            return await state(replica, anna) is State.AWAKE

        await until(awake)
        await replica.agents.ask_stopped(anna)

        async def given_back() -> bool:
            row = await replica.row(anna)
            return bool(row["state"] == "stopped" and row["lease_owner"] is None)

        await until(given_back)
    assert (await replica.runtime.observe(anna, {})).phase == "absent"


async def test_a_crash_is_noticed_and_mended_without_anybody_asking(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    await replica.agents.ask_awake(anna)
    async with replica.running(), time_flies(clock):

        async def awake() -> bool:
            return await state(replica, anna) is State.AWAKE and replica.starts() == wanted

        wanted = 1
        await until(awake)
        await replica.runtime.crash(anna, 137)
        wanted = 2
        await until(awake)


async def test_one_that_was_given_up_and_is_told_to_sleep_comes_to_rest_though_no_hint_arrives(
    clock: VirtualClock, database: Database, hints: Hints, gateways: Gateways, anna: UUID
) -> None:
    replica = Replica.build(
        clock=clock,
        database=database,
        hints=hints,
        runtime=FakeRuntime(clock, make_gateway=gateways.make),
        gateways=gateways,
        policy=replace(SLEEPY, max_failures=1),
    )
    await replica.crash(anna)
    assert (await replica.agents.find(anna)).state is State.FAILED
    await replica.reconciler.close()
    await replica.agents.ask_stopped(anna)
    assert await replica.agents.due() == [anna]
    await replica.agents.hold(anna, "operator", "x", ttl=timedelta(minutes=1))
    assert await replica.agents.due() == [], "not before what holds it"
    await clock.advance(60)
    assert await replica.agents.due() == [anna]


async def test_one_that_failed_is_asked_what_it_planned_before_it_comes_to_rest(
    replica: Replica, other: Replica, anna: UUID, clock: VirtualClock
) -> None:
    await replica.crash(anna)
    await replica.reconciler.close()
    await replica.agents.ask_stopped(anna)
    assert await replica.agents.due() == [], "not before it may be tried again"
    await clock.advance(1)
    assert await replica.agents.due() == [anna]
    async with other.running(), time_flies(clock):

        async def awake() -> bool:
            return await state(other, anna) is State.AWAKE

        await until(awake)


async def test_a_lost_lease_ends_the_sandbox_and_writes_nothing(
    replica: Replica, anna: UUID, database: Database, clock: VirtualClock
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    async with database.connection() as connection:
        await connection.execute(
            "update agents set lease_owner = 'somebody', lease_token = lease_token + 1, "
            "lease_expires_at = now() + interval '1 hour'"
        )
    before = dict(await replica.row(anna))
    async with replica.running(), time_flies(clock):

        async def ended() -> bool:
            return (await replica.runtime.observe(anna, {})).phase == "absent"

        await until(ended)
    assert dict(await replica.row(anna)) == before
    with pytest.raises(LeaseLost):
        await driver.awake()


async def test_an_agent_left_by_a_process_that_died_is_taken_over(
    replica: Replica,
    other: Replica,
    anna: UUID,
    database: Database,
    clock: VirtualClock,
) -> None:
    await replica.agents.ask_awake(anna)
    await (await replica.driver(anna)).awake()
    await expire_lease(database)  # as if it had died: it sends no heartbeats
    async with other.running(), time_flies(clock):

        async def driven_by_the_other() -> bool:
            row = await other.row(anna)
            return bool(row["state"] == "awake" and other.starts() == 1)

        await until(driven_by_the_other)
    assert other.runtime.calls[:2] == [("stop", anna), ("start", anna)], "what may be left is cleared away"
    with pytest.raises(LeaseLost):
        await replica.agents.apply_progress((await replica.driver(anna)).lease, "hello", "I am still here")


async def test_closing_leaves_nothing_running_and_what_was_desired(
    replica: Replica, anna: UUID, database: Database, clock: VirtualClock
) -> None:
    bert = await make_user(database, "bert@example.org")
    async with replica.running(), time_flies(clock):
        for user_id in (anna, bert):
            await replica.agents.ask_awake(user_id)
            await (await replica.driver(user_id)).awake()
    for user_id in (anna, bert):
        row = await replica.row(user_id)
        assert (row["state"], row["desired"], row["lease_owner"]) == ("stopped", "awake", None)
        assert (await replica.runtime.observe(user_id, {})).phase == "absent"
    assert await replica.reconciler.drive(anna) is None, "nothing is begun any more"


async def test_closing_does_not_wait_for_a_start(
    anna: UUID, database: Database, hints: Hints, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = NeverRuntime(clock, make_gateway=gateways.make)
    replica = Replica.build(clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways)
    waking = asyncio.create_task((await replica.driver(anna)).awake())
    await until(lambda: replica.starts() == 1)
    async with asyncio.timeout(5):
        await replica.reconciler.close()
    with pytest.raises(asyncio.CancelledError):
        await waking
    assert (await runtime.observe(anna, {})).phase == "absent"
    assert (await replica.row(anna))["lease_owner"] is None


class SlowToStop(FakeRuntime):
    """Clearing away what was left takes until it is told to go on."""

    def __init__(self, clock: VirtualClock, gateways: Gateways) -> None:
        super().__init__(clock, make_gateway=gateways.make)
        self.stopping = asyncio.Event()
        self.go_on = asyncio.Event()

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        self.stopping.set()
        await self.go_on.wait()
        return await super().stop(user_id, state, grace=grace)


async def test_closing_in_the_middle_of_a_take_over_gives_the_lease_back(
    anna: UUID, database: Database, hints: Hints, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = SlowToStop(clock, gateways)
    replica = Replica.build(clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways)
    await replica.agents.find(anna)
    async with database.connection() as connection:
        await connection.execute("update agents set state = 'awake'")
    taking = asyncio.create_task(replica.reconciler.drive(anna))
    await runtime.stopping.wait()
    closing = asyncio.create_task(replica.reconciler.close())
    await asyncio.sleep(0)
    runtime.go_on.set()
    await closing
    await taking
    row = await replica.row(anna)
    assert (row["state"], row["lease_owner"]) == ("stopped", None)


class Unstoppable(FakeRuntime):
    """Can not end an agent."""

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        raise Unavailable("The sandbox does not end.")


async def test_one_agents_trouble_does_not_end_the_look_after_the_others(
    anna: UUID, database: Database, hints: Hints, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = Unstoppable(clock, make_gateway=gateways.make)
    replica = Replica.build(clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways)
    await (await replica.driver(anna)).awake()
    async with database.connection() as connection:
        await connection.execute("update agents set lease_owner = 'somebody', lease_token = lease_token + 1")
    bert = await make_user(database, "bert@example.org")
    async with replica.running(), time_flies(clock):
        await until(lambda: anna not in replica.reconciler._drivers)
        await replica.agents.ask_awake(bert)

        async def awake() -> bool:
            return await state(replica, bert) is State.AWAKE

        await until(awake)


FIRST_LOOKS = 2
"""At all agents: the first, and the one that follows from having begun to listen for hints."""


class Watched(Agents):
    """Notes what is read: of one agent alone, and of several at once."""

    def __init__(self, database: Database, clock: VirtualClock) -> None:
        super().__init__(database, clock, runtime="fake")
        self.alone: list[UUID] = []
        self.together: list[set[UUID]] = []

    async def find(self, user_id: UUID) -> Agent:
        self.alone.append(user_id)
        return await super().find(user_id)

    async def find_all(self, user_ids: Sequence[UUID]) -> list[Agent]:
        self.together.append(set(user_ids))
        return await super().find_all(user_ids)


@pytest.fixture
async def watched(
    anna: UUID,
    database: Database,
    hints: Hints,
    runtime: FakeRuntime,
    gateways: Gateways,
    clock: VirtualClock,
) -> AsyncIterator[tuple[Replica, Watched, set[UUID]]]:
    """A replica whose three agents are awake and idle."""
    agents = Watched(database, clock)
    replica = Replica.build(
        clock=clock, database=database, hints=hints, runtime=runtime, gateways=gateways, agents=agents
    )
    users = {anna, *[await make_user(database, f"{name}@example.org") for name in ("bert", "carl")]}
    for user_id in users:
        await (await replica.driver(user_id)).awake()
    yield replica, agents, users
    await replica.reconciler.close()


async def test_idle_agents_are_looked_at_all_at_once(
    watched: tuple[Replica, Watched, set[UUID]], clock: VirtualClock
) -> None:
    replica, agents, users = watched
    async with replica.running():
        await until(lambda: len(agents.together) == FIRST_LOOKS)
        agents.alone.clear()
        async with time_flies(clock):
            await until(lambda: len(agents.together) >= FIRST_LOOKS + 20)
            alone = Counter(agents.alone)
    assert users in agents.together[FIRST_LOOKS:]
    assert alone <= Counter(users)  # once each, when its schedule has been read


async def test_a_hint_costs_no_look_at_the_agents_that_it_does_not_name(
    watched: tuple[Replica, Watched, set[UUID]], database: Database, anna: UUID
) -> None:
    replica, agents, _ = watched
    async with replica.running():
        await until(lambda: len(agents.together) == FIRST_LOOKS)
        agents.together.clear()
        async with database.transaction() as connection:
            await notify(connection, CHANNEL, str(anna))
        await until(lambda: bool(agents.together))
    assert agents.together == [{anna}]


async def test_agents_rows_are_each_users_own(database: Database, clock: VirtualClock, anna: UUID) -> None:
    bert = await make_user(database, "bert@example.org")
    agents = Agents(database, clock, runtime="fake")
    egress = Egress(database, clock, agents, Policy(egress="opt-in"), daily_bytes=1)

    async def record(_: Connection) -> None:
        return None

    assert await egress.change(anna, True, record)
    assert (await agents.find(bert)).egress is False
    assert (await agents.find(bert)).slot != (await agents.find(anna)).slot


async def test_a_lease_is_kept_while_somebody_works_with_the_agent(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    driver = await replica.driver(anna)
    async with replica.running(), time_flies(clock):
        with driver.in_use():
            await asyncio.sleep(0.2)  # many looks, in virtual time
            assert await replica.driver(anna) is driver
            assert not driver.retired
        await until(lambda: driver.retired)
