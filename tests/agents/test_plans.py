"""Plans are data: what they say counts for the agents that have them, and the settings for the rest."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from ocmt.agents.model import Plan, State
from ocmt.agents.plans import Plans, check
from ocmt.errors import InvalidInput, NotFound
from ocmt.platform.database import Database, Hints
from ocmt.testing.clock import VirtualClock
from ocmt.testing.runtimes import FakeRuntime
from tests.accounts import make_user
from tests.agents.replica import SLEEPY, Gateways, Replica, time_flies, until

pytestmark = pytest.mark.anyio

MINUTE = 60.0
GIBIBYTE = 1024**3


@pytest.fixture
def plans(database: Database, replica: Replica) -> Plans:
    return Plans(database, replica.agents)


async def test_there_are_three_and_all_can_be_edited(plans: Plans) -> None:
    assert [plan.name for plan in await plans.all()] == ["enterprise", "free", "pro"]
    changed = Plan("pro", memory_bytes=GIBIBYTE, cpus=1.5, pids=100, pause_after=timedelta(seconds=5))
    await plans.put(changed)
    assert changed in await plans.all()


async def test_an_agent_sleeps_by_its_plan(
    replica: Replica, plans: Plans, anna: UUID, clock: VirtualClock
) -> None:
    await plans.put(Plan("brief", pause_after=timedelta(seconds=20), stop_after=timedelta(seconds=60)))
    await plans.assign(anna, "brief")
    driver = await replica.driver(anna)
    await driver.awake()
    await clock.advance(20)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.PAUSED
    await clock.advance(40)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.STOPPED


async def test_a_plan_that_does_not_exist_is_not_assigned(plans: Plans, anna: UUID) -> None:
    with pytest.raises(NotFound, match="plans list"):
        await plans.assign(anna, "gold")


@pytest.mark.parametrize(
    "plan",
    [
        Plan("Free"),
        Plan("x" * 33),
        Plan("9lives"),
        Plan("free", memory_bytes=0),
        Plan("free", cpus=-1),
        Plan("free", pause_after=timedelta()),
    ],
)
def test_nonsense_is_refused(plan: Plan) -> None:
    with pytest.raises(InvalidInput):
        check(plan)


# Where more agents are wanted than fit


@pytest.fixture
def crowded(
    clock: VirtualClock, database: Database, hints: Hints, runtime: FakeRuntime, gateways: Gateways
) -> Replica:
    """Room for two agents."""
    policy = replace(SLEEPY, memory_bytes=GIBIBYTE)
    return Replica.build(
        clock=clock,
        database=database,
        hints=hints,
        runtime=runtime,
        gateways=gateways,
        policy=policy,
        capacity=2 * GIBIBYTE,
    )


async def test_the_one_idle_for_the_longest_time_makes_room(
    crowded: Replica, database: Database, clock: VirtualClock
) -> None:
    users = [await make_user(database, f"{name}@example.org") for name in ("anna", "ben", "cleo")]
    async with crowded.running():
        for user in users[:2]:
            await (await crowded.driver(user)).awake()
            await crowded.agents.touch(user)
            await clock.advance(60)
        told: list[str] = []
        driver = await crowded.driver(users[2])
        waking = asyncio.create_task(driver.awake(lambda _, text: told.append(text)))
        await until(lambda: bool(told))
        async with time_flies(clock):
            await waking
        assert told[0] == "Waiting for room on this machine: number 1 in line"
        states = [(await crowded.agents.find(user)).state for user in users]
        assert states == [State.STOPPED, State.AWAKE, State.AWAKE]


async def test_nobody_who_is_at_work_makes_room(
    crowded: Replica, database: Database, clock: VirtualClock
) -> None:
    users = [await make_user(database, f"{name}@example.org") for name in ("anna", "ben", "cleo")]
    async with crowded.running():
        for user in users[:2]:
            await (await crowded.driver(user)).awake()
            await crowded.agents.hold(user, "operator", "test", ttl=timedelta(hours=1))
        await clock.advance(60)
        async with time_flies(clock):
            with pytest.raises(Exception, match="memory for agents is in use"):
                await (await crowded.driver(users[2])).awake()
        states = [(await crowded.agents.find(user)).state for user in users]
        assert states[:2] == [State.AWAKE, State.AWAKE]


async def test_an_agent_that_stays_paused_gives_its_memory_back_and_takes_it_again(
    crowded: Replica, database: Database, clock: VirtualClock
) -> None:
    users = [await make_user(database, f"{name}@example.org") for name in ("anna", "ben", "cleo")]
    drivers = [await crowded.driver(user) for user in users]
    first = await drivers[0].awake()
    await drivers[1].awake()
    await clock.advance(5 * MINUTE)
    await drivers[0].tick()
    await drivers[0].tick()
    assert ("page_out", users[0]) not in crowded.runtime.calls, "not at once: it may be needed in a moment"
    await clock.advance(MINUTE)
    await drivers[0].tick()
    await drivers[0].tick()
    assert crowded.runtime.calls.count(("page_out", users[0])) == 1
    assert drivers[0].paged_out
    assert await drivers[0].awake() is first
    assert not drivers[0].paged_out

    await clock.advance(5 * MINUTE)
    await drivers[0].tick()
    await clock.advance(MINUTE)
    await drivers[0].tick()
    async with crowded.running(), time_flies(clock):
        await drivers[2].awake()
        assert (await crowded.agents.find(users[0])).state is State.PAUSED, "there was room beside it"
