"""From one OpenClaw to the next: saved before, judged after, and back with its files; killed at any line."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from ocmt.agents.files import FileKeeper
from ocmt.agents.model import Plan, State
from ocmt.agents.plans import Plans
from ocmt.agents.revisions.service import Revisions
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.starting import AgentFailed
from ocmt.errors import Conflict, InvalidInput, LeaseLost, NotFound, SetupProblem, Unavailable
from ocmt.openclaw.client import GatewayClient
from ocmt.platform.database import Database, Hints
from ocmt.platform.leases import Leases
from ocmt.runtimes.base import AgentSpec, RuntimeState
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects
from tests.accounts import make_user
from tests.agents.machine import MachineRuntime
from tests.agents.replica import Gateways, Replica, time_flies

pytestmark = pytest.mark.anyio

OLD, NEW = "2026.9.6", "2026.10.1"
MINUTE = 60.0


class Killed(Exception):
    """What a test ends the platform with: nobody catches it, and nothing after it happens."""


class TwoOpenClaws(MachineRuntime):
    """A machine with several OpenClaws. Each brings the agent's files into a shape of its own, and the older
    one dies of the newer one's."""

    def __init__(self, clock: VirtualClock, gateways: Gateways, disk: Path) -> None:
        super().__init__(clock, gateways, disk)
        self._gateways_of = gateways
        self.installed = {OLD, NEW}
        self.dies: dict[str, int] = {}
        """Fault: image → the exit code with which it ends at once."""
        self.deaf: set[str] = set()
        """Fault: images that say hello and refuse all that they are asked."""
        self.breaks: list[Exception] = []
        """Faults of the machine, one for each start to come."""
        self.started: list[AgentSpec] = []

    @property
    def own_image(self) -> str:
        return OLD

    async def has_image(self, image: str) -> bool:
        return image in self.installed

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        if self.breaks:
            raise self.breaks.pop(0)
        self.started.append(spec)
        self._gateways_of.of(spec.user_id).cron.refuses = spec.image in self.deaf
        state = await super().start(spec, state)
        shape = self.shape(spec.user_id)
        found = shape.read_text() if shape.exists() else None
        assert spec.image is not None
        if spec.repair:
            shape.write_text(f"{spec.image} mended")
        elif found is None or found in (OLD, spec.image):
            shape.write_text(spec.image)
        code = 1 if found == NEW and spec.image == OLD else self.dies.get(spec.image)
        if code is not None and not spec.repair:
            await self.crash(spec.user_id, code, log=f"{spec.image} died\n")
        return state

    def shape(self, user_id: UUID) -> Path:
        return self._disk / str(user_id) / "state" / "shape"

    def images(self) -> list[str | None]:
        """Of all starts, in order."""
        return [spec.image for spec in self.started]


@dataclass
class World:
    """One machine whose replica can be killed, and comes back as another one."""

    anna: UUID
    clock: VirtualClock
    database: Database
    hints: Hints
    gateways: Gateways
    runtime: TwoOpenClaws
    snapshots: Snapshots
    revisions: Revisions
    objects: MemoryObjects
    replicas: list[Replica] = field(default_factory=list)

    @property
    def replica(self) -> Replica:
        return self.replicas[-1]

    async def begin(self) -> None:
        """A replica. What the one before drove is free to be taken."""
        async with self.database.connection() as connection:
            await connection.execute("update agents set lease_expires_at = now() - interval '1 second'")
        self.replicas.append(
            Replica.build(
                clock=self.clock,
                database=self.database,
                hints=self.hints,
                runtime=self.runtime,
                gateways=self.gateways,
                owner=f"replica {len(self.replicas)}",
                objects=self.objects,
            )
        )

    async def wake(self, user_id: UUID | None = None) -> list[str]:
        """Wake the agent; the steps that were told."""
        told: list[str] = []
        driver = await self.replica.driver(user_id or self.anna)
        async with time_flies(self.clock):
            await driver.awake(lambda _, text: told.append(text))
        return told

    async def sleep(self) -> None:
        await self.clock.advance(30 * MINUTE)
        await (await self.replica.driver(self.anna)).tick()
        assert (await self.replica.agents.find(self.anna)).state is State.STOPPED

    async def worked_on_the_old(self) -> None:
        """The agent has run on revision 1 and has written something; now it sleeps."""
        await self.wake()
        self.runtime.note(self.anna).write_text("remember")
        await self.sleep()

    async def runs(self) -> tuple[int | None, str | None]:
        """Revision and image of the row."""
        agent = await self.replica.agents.find(self.anna)
        return agent.revision, agent.image

    def shape(self) -> str:
        return self.runtime.shape(self.anna).read_text()

    async def trials(self) -> dict[int, tuple[str | None, bool]]:
        """Revision → (outcome, whether it is open)."""
        async with self.database.connection() as connection:
            rows = await connection.fetch("select * from revision_trials where user_id = $1", self.anna)
        return {row["revision"]: (row["outcome"], row["open"]) for row in rows}


@pytest.fixture
async def world(
    anna: UUID, clock: VirtualClock, database: Database, hints: Hints, tmp_path: Path
) -> AsyncIterator[World]:
    gateways = Gateways(clock)
    runtime = TwoOpenClaws(clock, gateways, tmp_path / "disk")
    objects = MemoryObjects()
    agents = Agents(database, clock, runtime=runtime.name)
    revisions = Revisions(database, agents, clock)
    snapshots = Snapshots(database, objects, clock)
    world = World(anna, clock, database, hints, gateways, runtime, snapshots, revisions, objects)
    await revisions.know(OLD)
    await world.begin()
    yield world
    await world.begin()  # takes over what others left
    await world.replica.driver(anna)
    for replica in world.replicas:
        await replica.reconciler.close()
    await gateways.close()


# An upgrade


async def test_an_agent_runs_what_the_installation_brings_and_stays_on_it(world: World) -> None:
    await world.worked_on_the_old()
    await world.revisions.know(OLD)
    await world.wake()
    assert world.runtime.images() == [OLD, OLD]
    assert await world.runs() == (1, OLD)


async def test_an_upgrade_saves_first_and_counts_once_the_agent_answers(world: World) -> None:
    await world.worked_on_the_old()
    world.runtime.note(world.anna).write_text("and this, which no snapshot has")
    await world.revisions.know(NEW)
    told = await world.wake()
    assert told[1] == "Saving your files before an upgrade"
    assert await world.runs() == (2, NEW)
    assert await world.trials() == {1: ("passed", False), 2: ("passed", False)}
    newest = (await world.snapshots.list(world.anna))[0]
    assert newest.image == OLD, "the snapshot says what it belongs to"
    await world.sleep()
    assert (await world.snapshots.list(world.anna))[0].image == NEW
    await world.wake()
    assert world.runtime.images() == [OLD, NEW, NEW]


async def test_an_agent_that_does_not_come_up_goes_back_with_its_files(world: World) -> None:
    await world.worked_on_the_old()
    world.runtime.dies[NEW] = 1
    await world.revisions.know(NEW)
    with capture_logs() as logs:
        told = await world.wake()
    assert "Going back to your files from before the upgrade" in told
    assert world.runtime.images() == [OLD, NEW, OLD], "the old one would die of the new one's files"
    assert world.shape() == OLD
    assert world.runtime.note(world.anna).read_text() == "remember"
    assert await world.runs() == (1, OLD)
    agent = await world.replica.agents.find(world.anna)
    assert (agent.state, agent.failures) == (State.AWAKE, 0), "its user has lost nothing but time"
    assert any(entry["event"] == "agent goes back from a revision" for entry in logs)

    await world.sleep()
    await world.wake()
    assert world.runtime.images()[3:] == [OLD], "and it is not tried again"
    count = (await world.revisions.counts())[2]
    assert (count.agents, count.tried, count.failed) == (0, 1, 1)
    assert count.reason == "OpenClaw stopped while it was starting."


async def test_hello_is_not_enough_it_must_answer(world: World) -> None:
    await world.worked_on_the_old()
    world.runtime.deaf.add(NEW)
    await world.revisions.know(NEW)
    with capture_logs():
        await world.wake()
    assert world.runtime.images() == [OLD, NEW, OLD]
    assert (await world.runs())[0] == 1
    assert world.shape() == OLD


async def test_one_that_never_gets_ready_leaves_the_old_one_time_enough(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.worked_on_the_old()
    await world.revisions.know(NEW)
    connect = GatewayClient.connect

    async def never(dial: Any, *, timeout: float, clock: VirtualClock, **given: Any) -> GatewayClient:
        given_to.append(timeout)
        if world.runtime.images()[-1] == NEW:
            await clock.sleep(timeout)
            raise Unavailable("OpenClaw did not get ready.")
        return await connect(dial, timeout=timeout, clock=clock, **given)

    given_to: list[float] = []
    monkeypatch.setattr(GatewayClient, "connect", never)
    with capture_logs():
        await world.wake()
    assert (await world.runs())[0] == 1
    assert [round(timeout) for timeout in given_to] == [120, 120]


async def test_openclaws_own_doctor_may_bring_it_over(world: World) -> None:
    await world.worked_on_the_old()
    world.runtime.dies[NEW] = 78
    await world.revisions.know(NEW)
    await world.wake()
    assert [(spec.image, spec.repair) for spec in world.runtime.started[1:]] == [(NEW, False), (NEW, True)]
    assert (await world.runs())[0] == 2


async def test_a_new_agent_gets_the_one_before_with_no_file_of_the_broken_one(world: World) -> None:
    world.runtime.dies[NEW] = 1
    await world.revisions.know(NEW)
    with capture_logs():
        await world.wake()
    assert world.runtime.images() == [NEW, OLD]
    assert world.shape() == OLD


async def test_a_new_agent_with_no_other_to_go_to_is_not_tried_out(world: World) -> None:
    await world.wake()
    assert await world.snapshots.list(world.anna) == []
    assert await world.trials() == {1: ("passed", False)}


async def test_what_fails_around_openclaw_says_nothing_about_it(world: World) -> None:
    await world.worked_on_the_old()
    await world.revisions.know(NEW)
    world.runtime.breaks = [Unavailable("The sandbox did not start.")]
    with capture_logs():
        await world.wake()
    assert (await world.runs())[0] == 2, "at the next attempt"


async def test_an_upgrade_that_cannot_be_saved_first_is_not_made(world: World) -> None:
    await world.worked_on_the_old()
    await world.revisions.know(NEW)

    world.runtime.note(world.anna).write_text("more")
    with world.objects.taking_nothing(), capture_logs() as logs:
        await world.wake()
    assert world.runtime.images() == [OLD, OLD]
    assert any(entry["event"] == "agent not saved, so it is not upgraded" for entry in logs)
    await world.sleep()
    await world.wake()
    assert world.runtime.images()[-1] == NEW, "next time"


async def test_what_is_saved_before_an_upgrade_is_bound_by_the_plan(world: World) -> None:
    await world.worked_on_the_old()
    plans = Plans(world.database, world.replica.agents)
    await plans.put(Plan("tiny", snapshot_files=1))
    await plans.assign(world.anna, "tiny")
    await world.revisions.know(NEW)
    world.runtime.note(world.anna).write_text("more")
    await world.wake()
    assert world.runtime.images() == [OLD, OLD]
    await plans.put(Plan("tiny", snapshot_files=300))
    await world.sleep()
    await world.wake()
    assert world.runtime.images()[-1] == NEW


async def test_what_is_not_installed_here_is_said_and_not_tried(world: World) -> None:
    await world.worked_on_the_old()
    await world.revisions.know(NEW)
    world.runtime.installed.discard(NEW)
    with capture_logs() as logs:
        await world.wake()
    assert world.runtime.images() == [OLD, OLD]
    said = f"revision 2 (OpenClaw {NEW}) is not installed on this machine, and not tried"
    assert [entry["event"] for entry in logs].count(said) == 1


async def test_an_agent_does_not_start_on_an_older_one_only_because_its_own_is_not_here(world: World) -> None:
    await world.revisions.know(NEW)
    await world.wake()
    await world.sleep()
    world.runtime.installed.discard(NEW)
    with capture_logs(), pytest.raises(AgentFailed, match="not installed on this machine"):
        await world.wake()
    await world.revisions.withdraw(2)
    await world.replica.agents.ask_awake(world.anna)
    with capture_logs(), pytest.raises(AgentFailed):
        await world.wake()
    assert world.runtime.images()[-1] == OLD, "it was told to"
    world.runtime.installed.add(NEW)


async def test_a_withdrawn_one_is_left_and_kept_only_by_who_cannot(world: World) -> None:
    await world.revisions.know(NEW)
    await world.wake()
    await world.sleep()
    await world.revisions.withdraw(2)
    with capture_logs():
        await world.wake()
    assert world.runtime.images() == [NEW, OLD, NEW], "the old one dies of the new one's files"
    assert await world.runs() == (2, NEW)


async def test_the_configuration_of_a_revision_is_merged_in(world: World) -> None:
    await world.revisions.add(NEW, share=100, config={"gateway": {"port": 1}})
    await world.wake()
    assert world.runtime.started[-1].config == '{\n  "gateway": {\n    "port": 1\n  }\n}'


# Killed in the middle

STEPS: list[tuple[type, str]] = [
    (FileKeeper, "keep"),
    (Revisions, "open"),
    (TwoOpenClaws, "start"),
    (GatewayClient, "schedule"),
    (Revisions, "passed"),
    (Revisions, "refuse"),
    (FileKeeper, "go_back"),
    (Revisions, "close"),
]


@pytest.mark.parametrize("good", [True, False], ids=["good", "bad"])
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("room", "step"), STEPS, ids=[step for _, step in STEPS])
async def test_killed_at_any_step_it_comes_out_right_at_the_next_start(
    world: World, room: type, step: str, moment: str, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.worked_on_the_old()
    if not good:
        world.runtime.deaf.add(NEW)
    await world.revisions.know(NEW)
    real = getattr(room, step)
    killed = False

    @wraps(real)
    async def deadly(*given: Any, **named: Any) -> Any:
        nonlocal killed
        killed, first = True, not killed
        if first and moment == "before":
            raise Killed
        try:
            return await real(*given, **named)
        finally:
            if first:
                raise Killed

    monkeypatch.setattr(room, step, deadly)
    with capture_logs():
        try:
            await world.wake()
        except Killed:
            await world.begin()
            await world.wake()
        else:
            assert not killed, "a step that this way does not come by"
    assert world.runtime.note(world.anna).read_text() == "remember"
    image, number = (NEW, 2) if good else (OLD, 1)
    assert await world.runs() == (number, image)
    assert world.shape() == image
    assert world.runtime.images()[-1] == image
    assert (await world.trials())[2] == ("passed" if good else "refused", False)
    agent = await world.replica.agents.find(world.anna)
    assert agent.state is State.AWAKE


async def test_one_that_kills_the_platform_each_time_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.worked_on_the_old()
    await world.revisions.know(NEW)
    start = TwoOpenClaws.start

    async def deadly(self: TwoOpenClaws, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        state = await start(self, spec, state)
        if spec.image == NEW:
            raise Killed
        return state

    monkeypatch.setattr(TwoOpenClaws, "start", deadly)
    for _ in range(3):
        with capture_logs(), pytest.raises(Killed):
            await world.wake()
        await world.begin()
    await world.wake()
    assert world.runtime.images() == [OLD, NEW, NEW, NEW, OLD]
    assert world.shape() == OLD
    assert (await world.trials())[2] == ("refused", False)


async def test_a_damaged_snapshot_is_not_gone_back_to_but_the_user_may_choose_another(world: World) -> None:
    await world.worked_on_the_old()
    (first,) = await world.snapshots.list(world.anna)
    world.runtime.note(world.anna).write_text("of later")
    world.runtime.deaf.add(NEW)
    await world.revisions.know(NEW)
    kept = dict(world.objects.stored)

    async def rot(*_: object) -> None:
        for key in world.objects.stored.keys() - kept.keys():
            if "/.blobs/" in key:
                world.objects.stored[key] = b"rotten"
        await refuse(*_)  # type: ignore[arg-type]

    refuse = Revisions.refuse
    with pytest.MonkeyPatch.context() as patch, capture_logs():
        patch.setattr(Revisions, "refuse", rot)
        with pytest.raises(AgentFailed, match=f"not complete.*Generation {first.generation} can be restored"):
            await world.wake()
    await world.snapshots.ask_restore(world.anna, first.generation)
    await world.replica.agents.ask_awake(world.anna)
    await world.wake()
    assert world.runtime.note(world.anna).read_text() == "remember"
    assert world.runtime.images()[-1] == OLD


async def test_a_replica_that_lost_its_lease_writes_nothing_about_an_upgrade(world: World) -> None:
    await world.worked_on_the_old()
    await world.revisions.know(NEW)
    leases = Leases(world.database, table="agents", key="user_id", owner="z")
    async with world.database.connection() as connection:
        await connection.execute("update agents set lease_expires_at = now() - interval '1 second'")
    lease = await leases.take(world.anna)
    assert lease is not None
    late = replace(lease, token=lease.token - 1)
    revision = (await world.revisions.all())[1]
    for write in (
        lambda: world.revisions.standing(late),
        lambda: world.revisions.open(late, 2, 1),
        lambda: world.revisions.refuse(late, "no"),
        lambda: world.revisions.close(late),
        lambda: world.revisions.passed(late, revision),
    ):
        with pytest.raises(LeaseLost):
            await write()
    assert await world.trials() == {1: ("passed", False)}
    await leases.release(lease)


# What an operator does


async def test_one_user_a_share_or_all(world: World, database: Database) -> None:
    ben = await make_user(database, "ben@example.org")
    await world.revisions.add(NEW)
    await world.revisions.pin(ben, 2)
    await world.wake(ben)
    await world.worked_on_the_old()
    assert world.runtime.images() == [NEW, OLD]
    await world.revisions.roll_out(2, 100)
    await world.wake()
    assert world.runtime.images()[-1] == NEW
    counts = await world.revisions.counts()
    assert (counts[2].agents, counts[2].pinned, counts[1].agents) == (2, 1, 0)
    await world.revisions.unpin(ben)
    assert (await world.revisions.counts())[2].pinned == 0
    await (await world.replica.driver(ben)).close(grace=0)


@pytest.mark.parametrize("ask", ["retry", "pin"])
async def test_an_operator_has_it_tried_again(world: World, ask: str) -> None:
    await world.worked_on_the_old()
    world.runtime.deaf.add(NEW)
    await world.revisions.know(NEW)
    with capture_logs():
        await world.wake()
    await world.sleep()
    world.runtime.deaf.clear()
    if ask == "retry":
        assert await world.revisions.retry(2) == 1
    else:
        await world.revisions.pin(world.anna, 2)
    await world.wake()
    assert (await world.runs())[0] == 2


async def test_it_may_be_tried_again_before_the_files_are_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.worked_on_the_old()
    world.runtime.deaf.add(NEW)
    await world.revisions.know(NEW)

    async def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, capture_logs():
        patch.setattr(FileKeeper, "go_back", killed)
        with pytest.raises(Killed):
            await world.wake()
    assert (await world.trials())[2] == ("refused", True)
    await world.revisions.retry(2)
    world.runtime.deaf.clear()
    await world.begin()
    told = await world.wake()
    assert "Going back to your files from before the upgrade" in told
    assert await world.runs() == (2, NEW)


async def test_nobody_is_left_without_anything_to_run(world: World) -> None:
    with pytest.raises(Conflict, match="100 %"):
        await world.revisions.withdraw(1)
    with pytest.raises(Conflict, match="100 %"):
        await world.revisions.roll_out(1, 99)
    await world.revisions.add(NEW, share=100)
    await world.revisions.withdraw(1)
    with pytest.raises(Conflict, match="withdrawn"):
        await world.revisions.roll_out(1, 100)
    with pytest.raises(Conflict, match="withdrawn"):
        await world.revisions.pin(world.anna, 1)
    with pytest.raises(NotFound, match="revisions list"):
        await world.revisions.withdraw(7)
    with pytest.raises(InvalidInput):
        await world.revisions.roll_out(2, 101)
    assert [(each.number, each.share, each.withdrawn) for each in await world.revisions.all()] == [
        (1, 100, True),
        (2, 100, False),
    ]


async def test_nothing_can_be_added_before_it_is_known_what_runs(database: Database, anna: UUID) -> None:
    clock = VirtualClock()
    revisions = Revisions(database, Agents(database, clock, runtime="fake"), clock)
    with pytest.raises(Conflict, match="ocmt up"):
        await revisions.add(NEW)


async def test_a_machine_that_cannot_run_agents_is_no_verdict(world: World) -> None:
    await world.worked_on_the_old()
    await world.revisions.know(NEW)
    world.runtime.breaks = [SetupProblem("No namespaces here.")]
    with capture_logs(), pytest.raises(AgentFailed, match="namespaces"):
        await world.wake()
    assert (await world.trials())[2] == (None, True)
    await world.replica.agents.ask_awake(world.anna)
    await world.wake()
    assert (await world.runs())[0] == 2
