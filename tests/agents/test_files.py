"""An agent's files: saved and read back before it is stopped, brought back before it starts, never lost."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO
from uuid import UUID

import pytest

from ocmt.agents.holds import Holds
from ocmt.agents.model import Plan, State
from ocmt.agents.plans import Plans
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.agents.starting import AgentFailed
from ocmt.platform.database import Database, Hints
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects
from tests.agents.machine import MachineRuntime
from tests.agents.replica import Gateways, Replica

pytestmark = pytest.mark.anyio

MINUTE = 60.0


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
async def machines(
    clock: VirtualClock, database: Database, hints: Hints, objects: MemoryObjects, tmp_path: Path
) -> AsyncIterator[list[tuple[Replica, MachineRuntime]]]:
    """Two, with one database and one object store."""
    built = []
    for name in ("a", "b"):
        gateways = Gateways(clock)
        runtime = MachineRuntime(clock, gateways, tmp_path / name)
        replica = Replica.build(
            clock=clock,
            database=database,
            hints=hints,
            runtime=runtime,
            gateways=gateways,
            owner=name,
            objects=objects,
        )
        built.append((replica, runtime, gateways))
    yield [(replica, runtime) for replica, runtime, _ in built]
    for replica, _, gateways in built:
        await replica.reconciler.close()
        await gateways.close()


async def sleep(replica: Replica, user_id: UUID, clock: VirtualClock) -> None:
    await clock.advance(30 * MINUTE)
    await (await replica.driver(user_id)).tick()


async def work(replica: Replica, disk: MachineRuntime, user_id: UUID, clock: VirtualClock, text: str) -> None:
    """It wakes, writes that and sleeps again."""
    await (await replica.driver(user_id)).awake()
    disk.note(user_id).write_text(text)
    await sleep(replica, user_id, clock)


async def test_what_one_machine_has_saved_another_goes_on_with(
    machines: list[tuple[Replica, MachineRuntime]], anna: UUID, clock: VirtualClock
) -> None:
    (here, disk), (there, other_disk) = machines
    driver = await here.driver(anna)
    await driver.awake()
    disk.note(anna).write_text("remember")
    await sleep(here, anna, clock)
    assert (await here.agents.find(anna)).state is State.STOPPED
    assert ("pause", anna) in disk.calls, "held still while it was read"
    await here.reconciler.close()

    told: list[str] = []
    await (await there.driver(anna)).awake(lambda step, _: told.append(step))
    assert other_disk.note(anna).read_text() == "remember"
    assert told[:2] == ["sandbox", "files"]


async def test_a_restart_saves_as_every_stop_does(
    machines: list[tuple[Replica, MachineRuntime]], anna: UUID
) -> None:
    here, disk = machines[0]
    driver = await here.driver(anna)
    await driver.awake()
    disk.note(anna).write_text("remember")
    await here.agents.ask_restart(anna)
    await driver.tick()
    agent = await here.agents.find(anna)
    assert (agent.state, agent.saved.generation) == (State.AWAKE, 1)


async def test_a_restart_does_not_wait_for_a_store_that_is_away(
    machines: list[tuple[Replica, MachineRuntime]],
    anna: UUID,
    objects: MemoryObjects,
) -> None:
    here, disk = machines[0]
    driver = await here.driver(anna)
    before = await driver.awake()
    disk.note(anna).write_text("remember")

    await here.agents.ask_restart(anna)
    with objects.taking_nothing():
        await driver.tick()
    agent = await here.agents.find(anna)
    assert (agent.state, agent.saved.generation) == (State.AWAKE, 0)
    assert before.closed
    assert disk.note(anna).read_text() == "remember"


async def test_what_cannot_be_saved_is_not_stopped(
    machines: list[tuple[Replica, MachineRuntime]],
    anna: UUID,
    clock: VirtualClock,
    objects: MemoryObjects,
) -> None:
    here, disk = machines[0]
    driver = await here.driver(anna)
    await driver.awake()
    disk.note(anna).write_text("remember")

    with objects.taking_nothing():
        await sleep(here, anna, clock)
    assert (await here.agents.find(anna)).state is State.AWAKE
    assert disk.calls[-1] == ("resume", anna), "and it goes on"
    await sleep(here, anna, clock)
    assert (await here.agents.find(anna)).state is State.STOPPED


async def test_an_agent_whose_files_are_damaged_does_not_wake_with_an_empty_workspace(
    machines: list[tuple[Replica, MachineRuntime]], anna: UUID, clock: VirtualClock, objects: MemoryObjects
) -> None:
    (here, disk), (there, other_disk) = machines
    await work(here, disk, anna, clock, "remember")
    await here.reconciler.close()
    for key in [key for key in objects.stored if "/.blobs/" in key]:
        objects.stored[key] = b"rotten"

    with pytest.raises(AgentFailed, match="not complete in the file store"):
        await (await there.driver(anna)).awake()
    assert (await there.agents.find(anna)).state is State.FAILED
    assert not other_disk.note(anna).exists()


async def test_what_a_plan_does_not_allow_is_stopped_unsaved_and_its_user_is_told(
    machines: list[tuple[Replica, MachineRuntime]], anna: UUID, clock: VirtualClock, database: Database
) -> None:
    here, disk = machines[0]
    plans = Plans(database, here.agents)
    await plans.put(Plan("tiny", snapshot_files=3))
    await plans.assign(anna, "tiny")
    await work(here, disk, anna, clock, "remember")
    agent = await here.agents.find(anna)
    assert agent.state is State.STOPPED
    assert agent.saved.problem == {
        "code": "limit_reached",
        "message": "There are more than the 3 files and folders that your plan allows. "
        "Delete some, or list folders in .ocmtignore.",
    }
    assert agent.saved.at is None
    await plans.put(Plan("tiny", snapshot_files=300))
    await (await here.driver(anna)).awake()
    assert disk.note(anna).read_text() == "remember"
    await sleep(here, anna, clock)
    saved = (await here.agents.find(anna)).saved
    assert (saved.at, saved.generation, saved.problem) == (clock.now(), 1, None)


async def test_what_its_user_has_sent_in_is_there_at_the_next_start(
    machines: list[tuple[Replica, MachineRuntime]],
    anna: UUID,
    clock: VirtualClock,
    database: Database,
    objects: MemoryObjects,
    tmp_path: Path,
) -> None:
    here, disk = machines[0]
    snapshots = Snapshots(database, objects, clock)
    holds = Holds(here.agents, clock)
    transfers = Transfers(snapshots, database, objects, here.agents, holds, tmp_path / "transfers")
    for text in ("first", "second"):
        await work(here, disk, anna, clock, text)

    async def sent(file: IO[bytes]) -> AsyncIterator[bytes]:
        yield file.read()

    async with transfers.archive(anna, 1) as ready:
        archive = io.BytesIO(ready.file.read())
    await transfers.receive(anna, sent(archive))
    assert disk.note(anna).read_text() == "second", "not before"
    await (await here.driver(anna)).awake()
    assert disk.note(anna).read_text() == "first"


async def test_a_user_gets_an_earlier_state_back(
    machines: list[tuple[Replica, MachineRuntime]],
    anna: UUID,
    clock: VirtualClock,
    database: Database,
    objects: MemoryObjects,
) -> None:
    here, disk = machines[0]
    snapshots = Snapshots(database, objects, clock)
    for text in ("first", "second"):
        await work(here, disk, anna, clock, text)
    oldest = (await snapshots.list(anna))[-1]
    await snapshots.ask_restore(anna, oldest.generation)
    await (await here.driver(anna)).awake()
    assert disk.note(anna).read_text() == "first"
    assert len(await snapshots.list(anna)) == 3, "and the state that it replaced can come back, too"


async def test_a_machine_on_which_it_never_ran_saves_nothing_over_what_another_has_saved(
    machines: list[tuple[Replica, MachineRuntime]], anna: UUID, clock: VirtualClock, objects: MemoryObjects
) -> None:
    (here, disk), (there, other_disk) = machines
    await work(here, disk, anna, clock, "remember")
    await here.reconciler.close()
    kept = dict(objects.stored)
    for key in [key for key in objects.stored if "/.blobs/" in key]:
        del objects.stored[key]
    with pytest.raises(AgentFailed):
        await (await there.driver(anna)).awake()

    await there.agents.ask_stopped(anna)
    await (await there.driver(anna)).tick()
    assert (await there.agents.find(anna)).state is State.STOPPED
    objects.stored |= kept
    await (await there.driver(anna)).awake()
    assert other_disk.note(anna).read_text() == "remember"


async def test_what_a_dead_replica_left_has_stopped_only_once_it_is_saved(
    machines: list[tuple[Replica, MachineRuntime]],
    anna: UUID,
    clock: VirtualClock,
    database: Database,
    objects: MemoryObjects,
) -> None:
    (here, disk), (there, other_disk) = machines
    other_disk._disk = disk._disk  # two replicas on one server
    await (await here.driver(anna)).awake()
    disk.note(anna).write_text("remember")
    await clock.advance(5 * MINUTE)
    await (await here.driver(anna)).tick()
    assert (await here.agents.find(anna)).state is State.PAUSED
    async with database.connection() as connection:
        await connection.execute("update agents set lease_expires_at = now() - interval '1 second'")

    driver = await there.driver(anna)
    with objects.taking_nothing():
        await driver.tick()
        assert (await there.agents.find(anna)).state is State.STOPPING
        assert not driver.retired
    await clock.advance(MINUTE)
    await driver.tick()
    assert (await there.agents.find(anna)).state is State.STOPPED
    assert b"remember" in objects.stored.values()


async def test_one_that_is_not_saved_yet_wakes_all_the_same(
    machines: list[tuple[Replica, MachineRuntime]],
    anna: UUID,
    database: Database,
    objects: MemoryObjects,
) -> None:
    here, _ = machines[0]
    await here.agents.find(anna)
    async with database.connection() as connection:
        await connection.execute("update agents set state = 'stopping'")

    with objects.taking_nothing():
        await here.agents.ask_awake(anna)
        driver = await here.driver(anna)
        await driver.tick()
        await driver.awake()
    assert (await here.agents.find(anna)).state is State.AWAKE
