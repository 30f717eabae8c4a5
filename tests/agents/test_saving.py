"""Files are saved at every pause and between turns; of one moment, and never to anybody's delay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ocmt.agents.model import Agent, Hold, Policy, State
from ocmt.agents.saving import Due, due, is_unsaved
from ocmt.agents.snapshots.service import Snapshots
from ocmt.errors import Unavailable
from ocmt.platform.database import Database, Hints
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects
from tests.agents.machine import MachineRuntime
from tests.agents.replica import Gateways, Replica, until

pytestmark = pytest.mark.anyio

NOW = datetime.fromisoformat("2026-11-24T12:00:00+00:00")
MINUTE = timedelta(minutes=1)
TURN = Hold("turn", "t", None)
SOCKET = Hold("socket", "s", NOW)


def an_agent(state: State = State.AWAKE, *holds: Hold, active: datetime = NOW) -> Agent:
    return Agent(
        user_id=UUID(int=1),
        slot=1,
        runtime="fake",
        desired=state,
        state=state,
        since=NOW,
        progress=None,
        runtime_state={},
        egress=False,
        last_active_at=active,
        failures=0,
        retry_at=None,
        error=None,
        next_wake_at=None,
        restart_asked=False,
        image=None,
        lease_token=1,
        holds=holds,
    )


@pytest.mark.parametrize(
    ("agent", "unsaved_for", "expected"),
    [
        (an_agent(), None, Due.NO),
        (an_agent(), 4 * MINUTE, Due.NO),
        (an_agent(), 5 * MINUTE, Due.IF_QUIET),
        (an_agent(State.AWAKE, SOCKET), 5 * MINUTE, Due.IF_QUIET),
        (an_agent(State.AWAKE, TURN), 5 * MINUTE, Due.NO),
        (an_agent(State.AWAKE, TURN), 29 * MINUTE, Due.NO),
        (an_agent(State.AWAKE, TURN), 30 * MINUTE, Due.IN_ANY_CASE),
        (an_agent(), 30 * MINUTE, Due.IN_ANY_CASE),
        (an_agent(State.PAUSED), 0 * MINUTE, Due.IN_ANY_CASE),
        (an_agent(State.PAUSED), None, Due.NO),
        (an_agent(State.STARTING), 60 * MINUTE, Due.NO),
        (an_agent(State.STOPPING), 60 * MINUTE, Due.NO),
        (an_agent(State.STOPPED), 60 * MINUTE, Due.NO),
        (an_agent(State.FAILED), 60 * MINUTE, Due.NO),
    ],
)
def test_when_it_is_time(agent: Agent, unsaved_for: timedelta | None, expected: Due) -> None:
    unsaved_since = NOW - unsaved_for if unsaved_for is not None else None
    assert due(agent, unsaved_since, NOW, Policy()) is expected


@pytest.mark.parametrize(
    ("agent", "saved_at", "expected"),
    [
        (an_agent(), None, True),
        (an_agent(active=NOW), NOW - MINUTE, True),
        (an_agent(active=NOW), NOW, False),
        (an_agent(State.AWAKE, SOCKET), NOW, True),
        (an_agent(State.PAUSED, SOCKET), NOW, False),
    ],
)
def test_what_may_have_changed(agent: Agent, saved_at: datetime | None, expected: bool) -> None:
    assert is_unsaved(agent, saved_at) is expected


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def disk(clock: VirtualClock, gateways: Gateways, tmp_path: Path) -> MachineRuntime:
    return MachineRuntime(clock, gateways, tmp_path)


@pytest.fixture
async def here(
    clock: VirtualClock,
    database: Database,
    hints: Hints,
    gateways: Gateways,
    objects: MemoryObjects,
    disk: MachineRuntime,
) -> AsyncIterator[Replica]:
    policy = Policy(pause_after=60 * MINUTE, stop_after=600 * MINUTE)
    replica = Replica.build(
        clock=clock,
        database=database,
        hints=hints,
        runtime=disk,
        gateways=gateways,
        policy=policy,
        objects=objects,
    )
    yield replica
    await replica.reconciler.close()


@pytest.fixture
def snapshots(database: Database, objects: MemoryObjects, clock: VirtualClock) -> Snapshots:
    return Snapshots(database, objects, clock)


async def tick(here: Replica, user_id: UUID, clock: VirtualClock, minutes: float = 0) -> None:
    await clock.advance(60 * minutes)
    await (await here.driver(user_id)).tick()


def still_calls(disk: MachineRuntime) -> list[str]:
    return [call for call, _ in disk.calls if call in ("pause", "resume")]


def hold_back(objects: MemoryObjects, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """New contents are not taken until that is called."""
    real = objects.put_if_absent
    free = asyncio.Event()

    async def waits(key: str, data: bytes) -> bool:
        if "/.blobs/" in key:
            await free.wait()
        return await real(key, data)

    monkeypatch.setattr(objects, "put_if_absent", waits)
    return free.set


async def until_saved(snapshots: Snapshots, user_id: UUID) -> None:
    """For the first time."""

    async def saved() -> bool:
        return len(await snapshots.list(user_id)) == 1

    await until(saved)


async def test_at_a_pause_all_is_saved(
    here: Replica, disk: MachineRuntime, anna: UUID, clock: VirtualClock, snapshots: Snapshots
) -> None:
    await (await here.driver(anna)).awake()
    disk.note(anna).write_text("remember")
    await tick(here, anna, clock, 61)
    assert (await here.agents.find(anna)).state is State.PAUSED
    await until_saved(snapshots, anna)
    found = (await here.agents.find(anna)).saved
    assert (found.at, found.generation, found.problem) == (clock.now(), 1, None)
    await tick(here, anna, clock, 1)
    assert still_calls(disk) == ["pause"], "nothing is left to be done"


async def test_whoever_needs_a_paused_agent_does_not_wait_for_its_files(
    here: Replica,
    disk: MachineRuntime,
    anna: UUID,
    clock: VirtualClock,
    objects: MemoryObjects,
    snapshots: Snapshots,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = await here.driver(anna)
    first = await driver.awake()
    disk.note(anna).write_text("one")
    go_on = hold_back(objects, monkeypatch)
    await tick(here, anna, clock, 61)
    assert await driver.awake() is first
    disk.note(anna).write_text("two")
    go_on()
    await here.agents.touch(anna)
    await tick(here, anna, clock)
    assert await snapshots.list(anna) == [], "what is of two moments is no generation"
    await tick(here, anna, clock, 61)
    await until_saved(snapshots, anna)


async def test_a_save_that_failed_at_a_pause_is_tried_again(
    here: Replica,
    disk: MachineRuntime,
    anna: UUID,
    clock: VirtualClock,
    objects: MemoryObjects,
    snapshots: Snapshots,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await (await here.driver(anna)).awake()

    with objects.taking_nothing():
        await tick(here, anna, clock, 61)

        async def noted() -> bool:
            return (await here.agents.find(anna)).saved.problem is not None

        await until(noted)
    await tick(here, anna, clock, 5)
    await until_saved(snapshots, anna)
    assert (await here.agents.find(anna)).saved.problem is None


async def test_between_turns_it_is_saved_every_five_minutes_of_activity(
    here: Replica,
    disk: MachineRuntime,
    gateways: Gateways,
    anna: UUID,
    clock: VirtualClock,
    snapshots: Snapshots,
) -> None:
    await (await here.driver(anna)).awake()
    await tick(here, anna, clock)
    disk.note(anna).write_text("one")
    await tick(here, anna, clock, 4)
    assert still_calls(disk) == []
    active = (await here.agents.find(anna)).last_active_at
    await tick(here, anna, clock, 1)
    assert still_calls(disk) == ["pause", "resume"]
    agent = await here.agents.find(anna)
    assert (agent.state, agent.last_active_at) == (State.AWAKE, active), "it is no activity"
    await until_saved(snapshots, anna)
    await tick(here, anna, clock, 10)
    assert still_calls(disk) == ["pause", "resume"], "nobody has used it since"
    await here.agents.touch(anna)
    await tick(here, anna, clock)
    await tick(here, anna, clock, 5)
    assert still_calls(disk) == ["pause", "resume"] * 2


async def test_one_at_work_is_left_alone_and_saved_when_it_is_done(
    here: Replica, disk: MachineRuntime, gateways: Gateways, anna: UUID, clock: VirtualClock
) -> None:
    await (await here.driver(anna)).awake()
    await tick(here, anna, clock)
    gateways.of(anna).busy = ["a long run"]
    await tick(here, anna, clock, 6)
    await tick(here, anna, clock, 1)
    assert still_calls(disk) == []
    gateways.of(anna).busy = []
    await tick(here, anna, clock, 1)
    assert still_calls(disk) == ["pause", "resume"]


async def test_one_that_is_never_done_is_saved_in_the_middle_of_its_work(
    here: Replica, disk: MachineRuntime, gateways: Gateways, anna: UUID, clock: VirtualClock
) -> None:
    await (await here.driver(anna)).awake()
    await tick(here, anna, clock)
    gateways.of(anna).busy = ["a long run"]
    for _ in range(29):
        await here.agents.touch(anna)
        await tick(here, anna, clock, 1)
    assert still_calls(disk) == []
    await tick(here, anna, clock, 1)
    assert still_calls(disk) == ["pause", "resume"]


async def test_whoever_needs_an_agent_between_turns_does_not_wait_for_its_files(
    here: Replica,
    disk: MachineRuntime,
    anna: UUID,
    clock: VirtualClock,
    objects: MemoryObjects,
    snapshots: Snapshots,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = await here.driver(anna)
    first = await driver.awake()
    await tick(here, anna, clock)
    hold_back(objects, monkeypatch)
    await clock.advance(300)
    ticking = asyncio.create_task(driver.tick())
    await until(lambda: ("pause", anna) in disk.calls)
    async with asyncio.timeout(5):
        assert await driver.awake() is first
    assert disk.calls[-1] == ("resume", anna)
    await ticking
    assert await snapshots.list(anna) == []
    assert not first.closed


async def test_a_pause_that_follows_a_save_is_saved_too(
    here: Replica,
    disk: MachineRuntime,
    anna: UUID,
    clock: VirtualClock,
    objects: MemoryObjects,
    snapshots: Snapshots,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the first one has all it must read, and is still being written."""
    await (await here.driver(anna)).awake()
    await tick(here, anna, clock)
    real, free = objects.persist, asyncio.Event()

    async def slowly(keys: Sequence[str]) -> None:
        await free.wait()
        await real(keys)

    monkeypatch.setattr(objects, "persist", slowly)
    await tick(here, anna, clock, 5)
    assert still_calls(disk) == ["pause", "resume"], "it goes on before that"
    disk.note(anna).write_text("later")
    await tick(here, anna, clock, 60)
    assert (await here.agents.find(anna)).state is State.PAUSED
    free.set()

    async def both() -> bool:
        return len(await snapshots.list(anna)) == 2

    await until(both)


async def test_one_that_cannot_be_held_still_goes_on(
    here: Replica, disk: MachineRuntime, anna: UUID, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = await here.driver(anna)
    first = await driver.awake()
    await tick(here, anna, clock)

    async def refuses(*_: Any) -> None:
        raise Unavailable("It does not stand still.")

    with monkeypatch.context() as refusing:
        refusing.setattr(disk, "pause", refuses)
        await tick(here, anna, clock, 5)
    assert disk.calls[-1] == ("resume", anna)
    assert await driver.awake() is first


async def test_the_end_of_the_process_waits_for_no_file(
    here: Replica,
    disk: MachineRuntime,
    anna: UUID,
    clock: VirtualClock,
    objects: MemoryObjects,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = await here.driver(anna)
    await driver.awake()
    hold_back(objects, monkeypatch)
    await tick(here, anna, clock, 61)
    async with asyncio.timeout(5):
        await here.reconciler.close()
    assert disk.calls[-1] == ("stop", anna)
