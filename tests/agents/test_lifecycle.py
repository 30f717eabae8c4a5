"""How an agent wakes, sleeps, fails and is mended: its driver on a real database, the rest as doubles."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from typing import Protocol
from uuid import UUID

import pytest

from ocmt.agents.model import Agent, Event, Policy, State
from ocmt.agents.schedule import Projection
from ocmt.agents.service import Agents, Change
from ocmt.agents.starting import AgentFailed
from ocmt.chat.service import Chat
from ocmt.errors import Conflict, Unavailable
from ocmt.platform.database import Database, Hints
from ocmt.platform.leases import Lease
from ocmt.runtimes.base import AgentSpec, RuntimeState
from ocmt.testing.clock import VirtualClock
from ocmt.testing.misbehaving import FlakyRuntime, NeverRuntime
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.runtimes import FakeRuntime
from tests.agents.replica import Gateways, Replica, time_flies, until

pytestmark = pytest.mark.anyio

MINUTE = 60.0


class Build(Protocol):
    """Builds a replica with another runtime, policy or service than usual; it is closed at the end."""

    def __call__(
        self, runtime: FakeRuntime, *, policy: Policy | None = None, agents: Agents | None = None
    ) -> Replica: ...


@pytest.fixture
async def build(
    clock: VirtualClock, database: Database, hints: Hints, gateways: Gateways
) -> AsyncIterator[Build]:
    built: list[Replica] = []

    def build(runtime: FakeRuntime, *, policy: Policy | None = None, agents: Agents | None = None) -> Replica:
        replica = Replica.build(
            clock=clock,
            database=database,
            hints=hints,
            runtime=runtime,
            gateways=gateways,
            policy=policy,
            agents=agents,
        )
        built.append(replica)
        return replica

    yield build
    for replica in built:
        await replica.reconciler.close()


async def accept_message(database: Database, clock: VirtualClock, user_id: UUID) -> None:
    chat = Chat(database, clock, MemoryObjects())
    conversation = await chat.create_conversation(user_id)
    await chat.post(user_id, conversation.id, "hello", key="k1")


# Waking


async def test_ten_who_need_it_share_one_start_and_all_see_its_steps(replica: Replica, anna: UUID) -> None:
    driver = await replica.driver(anna)
    seen: list[list[str]] = [[] for _ in range(10)]
    gateways = await asyncio.gather(
        *(driver.awake(lambda step, _, steps=steps: steps.append(step)) for steps in seen)  # type: ignore[misc]
    )
    assert replica.starts() == 1
    assert len(set(map(id, gateways))) == 1
    assert all(steps == seen[0] for steps in seen)
    assert seen[0][0] == "sandbox"
    assert seen[0][-1] == "ready"
    assert (await replica.agents.find(anna)).state is State.AWAKE


async def test_who_comes_later_is_told_how_far_it_is(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build(FakeRuntime(clock, make_gateway=gateways.make, boot_seconds=30))
    driver = await replica.driver(anna)
    first = asyncio.create_task(driver.awake())

    async def shows_gateway() -> bool:
        return bool(((await replica.row(anna))["progress"] or {}).get("step") == "gateway")

    await until(shows_gateway)
    told: list[str] = []
    second = asyncio.create_task(driver.awake(lambda step, _: told.append(step)))
    await until(lambda: bool(told))
    async with time_flies(clock):
        assert await first is await second
    assert told[0] == "gateway"


async def test_nobody_who_stops_waiting_stops_the_wake(replica: Replica, anna: UUID) -> None:
    driver = await replica.driver(anna)
    impatient = asyncio.create_task(driver.awake())
    await asyncio.sleep(0)
    impatient.cancel()
    await driver.awake()
    assert replica.starts() == 1


async def test_a_wake_that_takes_too_long_ends_with_words_and_leaves_no_sandbox(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = NeverRuntime(clock, make_gateway=gateways.make)
    replica = build(runtime, policy=Policy(wake_timeout=timedelta(seconds=10)))
    driver = await replica.driver(anna)
    began = clock.monotonic()
    async with time_flies(clock):
        with pytest.raises(AgentFailed, match=r"within \d+ seconds"):
            await driver.awake()
    assert clock.monotonic() - began < 15
    assert (await runtime.observe(anna, {})).phase == "absent"
    assert (await replica.agents.find(anna)).state is State.FAILED


async def test_a_start_that_dies_is_noticed_at_once_and_tried_again(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    replica = build(FlakyRuntime(clock, failures=1, exit_code=1, make_gateway=gateways.make))
    driver = await replica.driver(anna)
    async with time_flies(clock):
        await driver.awake()
    assert clock.monotonic() < 10, "not only at the timeout of two minutes"
    assert replica.starts() == 2


class RecordingRuntime(FlakyRuntime):
    """Remembers when it was asked to start, and whether to repair."""

    def __init__(self, clock: VirtualClock, gateways: Gateways, **more: int) -> None:
        super().__init__(clock, make_gateway=gateways.make, **more)
        self.asked: list[tuple[float, bool]] = []

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        self.asked.append((self._clock.monotonic(), spec.repair))
        return await super().start(spec, state)


async def test_what_keeps_failing_is_given_up_and_started_again_when_a_person_asks(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = RecordingRuntime(clock, gateways, failures=5)
    replica = build(runtime)
    driver = await replica.driver(anna)
    async with time_flies(clock):
        with pytest.raises(AgentFailed, match="sandbox did not start"):
            await driver.awake()
    times = [at for at, _ in runtime.asked]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) == 5
    assert all(pause >= least for pause, least in zip(pauses, [1, 2, 4, 8], strict=True))
    given_up = await replica.agents.find(anna)
    assert (given_up.state, given_up.failures, given_up.retry_at) == (State.FAILED, 5, None)
    assert given_up.error is not None
    assert given_up.error["message"] == "The agent's sandbox did not start."

    async with replica.running(), time_flies(clock):
        await asyncio.sleep(0.1)
        assert len(runtime.asked) == 5, "nobody tries again by itself"
        await replica.agents.ask_awake(anna)
        await until(lambda: len(runtime.asked) == 6)

        async def awake() -> bool:
            return (await replica.agents.find(anna)).state is State.AWAKE

        await until(awake)


async def test_a_refused_configuration_is_mended_once_by_openclaws_doctor(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = RecordingRuntime(clock, gateways, failures=1, exit_code=78)
    replica = build(runtime)
    await (await replica.driver(anna)).awake()
    assert [repair for _, repair in runtime.asked] == [False, True]


async def test_a_configuration_that_stays_refused_ends_with_the_clear_word(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = RecordingRuntime(clock, gateways, failures=99, exit_code=78)
    replica = build(runtime)
    driver = await replica.driver(anna)
    with pytest.raises(AgentFailed, match="its own doctor could not mend it"):
        await driver.awake()
    assert [repair for _, repair in runtime.asked] == [False, True]
    agent = await replica.agents.find(anna)
    assert (agent.state, agent.retry_at) == (State.FAILED, None), "no further attempt by itself"
    assert (await runtime.observe(anna, {})).phase == "absent"


async def test_a_gateway_that_refuses_us_is_a_failed_start_and_no_crash_of_ours(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = FakeRuntime(clock, make_gateway=gateways.make)
    replica = build(runtime)
    gateways.deaf_to_tokens = True
    with pytest.raises(AgentFailed, match="refuses our connection"):
        await (await replica.driver(anna)).awake()
    assert (await replica.agents.find(anna)).state is State.FAILED
    assert (await runtime.observe(anna, {})).phase == "absent"


# Going to sleep


async def test_idle_it_pauses_and_resumes_without_a_start(
    replica: Replica, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    driver = await replica.driver(anna)
    gateway = await driver.awake()
    await clock.advance(4 * MINUTE)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.AWAKE
    await clock.advance(1 * MINUTE)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.PAUSED
    assert gateways.of(anna).suspension is not None

    assert await driver.awake() is gateway
    assert [call for call, _ in replica.runtime.calls] == ["start", "pause", "resume"]
    assert gateways.of(anna).suspension is None
    assert (await replica.agents.find(anna)).state is State.AWAKE


async def test_a_busy_gateway_is_left_in_peace_for_a_while(
    replica: Replica, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    gateway = gateways.of(anna)
    gateway.busy = ["1 background task"]
    await clock.advance(5 * MINUTE)

    def questions() -> int:
        return sum(method == "gateway.suspend.prepare" for method, _ in gateway.received)

    await driver.tick()
    await driver.tick()
    assert questions() == 1
    gateway.busy = []
    await clock.advance(15)
    await driver.tick()
    assert questions() == 2
    assert (await replica.agents.find(anna)).state is State.PAUSED


class InterruptedAgents(Agents):
    """Something happens between the gateway's yes and the commit, or behind that."""

    async def meanwhile(self) -> None:
        """To be set by the test."""

    async def afterwards(self) -> None:
        """To be set by the test."""

    async def apply_pause(
        self, agent: Agent, lease: Lease, plan: Projection | None, *, idle_for: timedelta
    ) -> bool:
        await self.meanwhile()
        done = await super().apply_pause(agent, lease, plan, idle_for=idle_for)
        await self.afterwards()
        return done


async def unanswered() -> None:
    raise Unavailable("The database does not answer just now.")


async def test_a_message_accepted_after_the_gateway_agreed_wins(
    build: Build,
    anna: UUID,
    clock: VirtualClock,
    database: Database,
    runtime: FakeRuntime,
    gateways: Gateways,
) -> None:
    agents = InterruptedAgents(database, clock, runtime="fake")
    replica = build(runtime, agents=agents)
    driver = await replica.driver(anna)
    gateway = await driver.awake()
    needed: list[asyncio.Task[object]] = []

    async def meanwhile() -> None:
        await accept_message(database, clock, anna)
        needed.append(asyncio.create_task(driver.awake()))
        await asyncio.sleep(0)

    agents.meanwhile = meanwhile  # type: ignore[method-assign]
    await clock.advance(5 * MINUTE)
    await driver.tick()
    assert (await agents.find(anna)).state is State.AWAKE
    assert gateways.of(anna).suspension is None, "it takes messages again"
    assert await needed[0] is gateway
    assert [call for call, _ in runtime.calls] == ["start"], "neither paused nor started anew"


async def test_a_database_that_fails_at_the_commit_leaves_the_gateway_at_work(
    build: Build,
    anna: UUID,
    clock: VirtualClock,
    database: Database,
    runtime: FakeRuntime,
    gateways: Gateways,
) -> None:
    agents = InterruptedAgents(database, clock, runtime="fake")
    replica = build(runtime, agents=agents)
    driver = await replica.driver(anna)
    await driver.awake()

    agents.meanwhile = unanswered  # type: ignore[method-assign]
    await clock.advance(5 * MINUTE)
    with pytest.raises(Unavailable):
        await driver.tick()
    assert gateways.of(anna).suspension is None


async def test_a_pause_of_whose_commit_nobody_heard_is_taken_back_and_made_again(
    build: Build,
    anna: UUID,
    clock: VirtualClock,
    database: Database,
    runtime: FakeRuntime,
    gateways: Gateways,
) -> None:
    agents = InterruptedAgents(database, clock, runtime="fake")
    replica = build(runtime, agents=agents)
    driver = await replica.driver(anna)
    gateway = await driver.awake()
    await clock.advance(5 * MINUTE)
    with pytest.MonkeyPatch.context() as once:
        once.setattr(agents, "afterwards", unanswered)
        with pytest.raises(Unavailable):
            await driver.tick()
    assert gateways.of(anna).suspension is None
    assert (await agents.find(anna)).state is State.PAUSED, "on record only"
    await driver.tick()
    assert (await agents.find(anna)).state is State.AWAKE
    await driver.tick()
    assert (await agents.find(anna)).state is State.PAUSED
    assert [call for call, _ in runtime.calls] == ["start", "pause"]
    assert await driver.awake() is gateway


class Unpausable(FakeRuntime):
    """Says that it can pause, and can not."""

    async def pause(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        self.calls.append(("pause", user_id))
        raise Unavailable("The processes could not be frozen.")


async def test_a_pause_that_fails_leaves_it_awake_in_fact_and_on_record(
    build: Build, anna: UUID, clock: VirtualClock, gateways: Gateways
) -> None:
    runtime = Unpausable(clock, make_gateway=gateways.make)
    replica = build(runtime)
    driver = await replica.driver(anna)
    gateway = await driver.awake()
    await clock.advance(5 * MINUTE)
    await driver.tick()
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.AWAKE
    assert gateways.of(anna).suspension is None
    assert await driver.awake() is gateway
    assert [call for call, _ in runtime.calls].count("pause") == 1, "it is not tried again at once"


async def test_it_stops_after_a_long_idle_time_and_leaves_no_process(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    await clock.advance(5 * MINUTE)
    await driver.tick()
    await clock.advance(25 * MINUTE)
    await driver.tick()
    agent = await replica.agents.find(anna)
    assert (agent.state, agent.desired) == (State.STOPPED, State.STOPPED)
    assert (await replica.runtime.observe(anna, {})).phase == "absent"
    assert driver.asleep


async def test_it_is_not_put_to_sleep_while_it_works(
    replica: Replica, anna: UUID, clock: VirtualClock, database: Database
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    await accept_message(database, clock, anna)
    with pytest.raises(Conflict, match="working on an answer"):
        await replica.agents.ask_stopped(anna)
    await clock.advance(60 * MINUTE)
    await driver.tick()
    agent = await replica.agents.find(anna)
    assert agent.state is State.AWAKE
    assert [hold.reason for hold in agent.holds] == ["turn"]


async def test_asked_to_sleep_it_stops_at_once(replica: Replica, anna: UUID) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    await replica.agents.ask_stopped(anna)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.STOPPED


async def test_called_before_it_has_begun_to_stop_it_stays_awake(replica: Replica, anna: UUID) -> None:
    driver = await replica.driver(anna)
    gateway = await driver.awake()
    await replica.agents.ask_stopped(anna)
    told_to_stop = await replica.agents.find(anna)
    await replica.agents.ask_awake(anna)
    await driver.tick(told_to_stop)
    agent = await replica.agents.find(anna)
    assert (agent.state, agent.desired) == (State.AWAKE, State.AWAKE)
    assert await driver.awake() is gateway


async def test_called_while_what_is_left_of_it_is_cleared_away_it_wakes(replica: Replica, anna: UUID) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    await replica.agents.ask_stopped(anna)
    read_before = await replica.agents.find(anna)
    await replica.agents.ask_awake(anna)
    lease = driver.lease
    await replica.agents.apply(read_before, lease, Change(Event.STOP, desired=State.STOPPED))
    assert (await replica.agents.find(anna)).desired is State.AWAKE


async def test_one_that_takes_no_work_after_its_pause_is_started_anew(
    replica: Replica,
    anna: UUID,
    clock: VirtualClock,
    gateways: Gateways,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ocmt.agents.suspension.ANSWER_TIMEOUT", 0.1)
    driver = await replica.driver(anna)
    await driver.awake()
    await clock.advance(5 * MINUTE)
    await driver.tick()
    gateways.of(anna).unanswered.add("gateway.suspend.resume")
    before = await driver.awake()
    await asyncio.wait_for(before.wait_closed(), 10)
    async with time_flies(clock):
        assert await driver.awake() is not before
    assert replica.starts() == 2
    assert (await replica.agents.find(anna)).state is State.AWAKE


async def test_asked_to_wake_from_a_pause_it_does(replica: Replica, anna: UUID, clock: VirtualClock) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    await clock.advance(5 * MINUTE)
    await driver.tick()
    await replica.agents.ask_awake(anna)
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.AWAKE
    assert replica.starts() == 1


# Restarting and failing


async def test_a_restart_is_one_stop_and_one_start(replica: Replica, anna: UUID) -> None:
    driver = await replica.driver(anna)
    before = await driver.awake()
    await replica.agents.ask_restart(anna)
    await driver.tick()
    await driver.tick()
    assert replica.starts() == 2
    assert before.closed
    assert (await replica.agents.find(anna)).state is State.AWAKE


async def test_a_restart_of_a_stopped_agent_starts_it_once(replica: Replica, anna: UUID) -> None:
    await replica.agents.ask_restart(anna)
    driver = await replica.driver(anna)
    await driver.awake()
    await driver.tick()
    assert replica.starts() == 1


async def test_a_crash_is_noted_and_the_next_wake_waits_a_little(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    driver = await replica.crash(anna)
    agent = await replica.agents.find(anna)
    assert (agent.state, agent.failures) == (State.FAILED, 1)
    assert agent.retry_at == clock.now() + timedelta(seconds=1)
    async with time_flies(clock):
        await driver.awake()
    assert replica.starts() == 2


async def test_a_paused_agent_that_dies_is_only_stopped(
    replica: Replica, anna: UUID, clock: VirtualClock
) -> None:
    driver = await replica.driver(anna)
    gateway = await driver.awake()
    await clock.advance(5 * MINUTE)
    await driver.tick()
    await replica.runtime.crash(anna, 137)
    await gateway.wait_closed()
    await driver.tick()
    agent = await replica.agents.find(anna)
    assert (agent.state, agent.error) == (State.STOPPED, None)
    await driver.awake()
    assert replica.starts() == 2


async def test_a_change_that_was_cut_short_is_mended(
    replica: Replica, anna: UUID, database: Database
) -> None:
    driver = await replica.driver(anna)
    await driver.awake()
    async with database.connection() as connection:
        await connection.execute("update agents set state = 'stopping', desired = 'stopped'")
    await driver.tick()
    assert (await replica.agents.find(anna)).state is State.STOPPED
    assert (await replica.runtime.observe(anna, {})).phase == "absent"
