"""Drives one agent: wakes it, watches it, lets it sleep. One `Driver` per agent and lease.

All changes of an agent's state happen under its driver's lock, so a wake and a pause can not cross. Waking is
single-flight: whoever asks while it wakes waits for the same start and sees the same progress.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from math import inf
from uuid import UUID

import structlog

from ocmt.agents.admission import Admission
from ocmt.agents.cron import CronWatch
from ocmt.agents.ending import Ending
from ocmt.agents.falling_asleep import FallingAsleep, told_to_stop
from ocmt.agents.files import FileKeeper
from ocmt.agents.model import ENDED, SETTLED, Agent, Event, Policy, State
from ocmt.agents.revisions.service import Revisions
from ocmt.agents.running import Running
from ocmt.agents.saving import Saving
from ocmt.agents.service import Agents, Change
from ocmt.agents.starting import AgentFailed, Report, StartFailed
from ocmt.agents.waking import SpecOf, Starter, Telling
from ocmt.errors import LeaseLost
from ocmt.openclaw.client import GatewayClient
from ocmt.platform.clock import Clock
from ocmt.platform.leases import Lease
from ocmt.runtimes.base import START_STEPS, AgentRuntime

log = structlog.get_logger(__name__)

NOT_HERE = "Another server, or the next start of this one, looks after your agent."
SHUT_OUT = "This account may not use its agent any more. An administrator knows why."
REPAIRING = "OpenClaw refuses this agent's configuration; its own doctor is trying to mend it."
SAVE_AT_THE_END = 2.0
"""Seconds for the files of an agent that nobody wants awake, when the process ends."""


class Driver:
    """The hand on one agent, for as long as this process holds its lease."""

    def __init__(
        self,
        lease: Lease,
        *,
        agents: Agents,
        runtime: AgentRuntime,
        spec_of: SpecOf,
        clock: Clock,
        policy: Policy,
        admission: Admission,
        files: FileKeeper,
        revisions: Revisions,
        starts: asyncio.Semaphore,
    ) -> None:
        self.user_id: UUID = lease.key
        self.lease = lease
        self._agents = agents
        self._running = Running(self.user_id, runtime, clock)
        self._clock = clock
        self._policy = policy
        self._admission = admission
        self._saving = Saving(files, self._running, clock, policy)
        self._ending = Ending(lease, agents, self._running, self._saving, clock, policy, admission)
        self._telling = Telling(agents, lease)
        self._starter = Starter(
            lease, agents, runtime, spec_of, clock, policy, admission, files, revisions, starts, self._telling
        )
        self._lock = asyncio.Lock()
        self._waking: asyncio.Task[GatewayClient] | None = None
        self._cron = CronWatch(agents, lease, clock, policy)
        self._falling_asleep = FallingAsleep(
            lease,
            agents,
            self._running,
            self._saving,
            self._ending,
            self._cron,
            clock,
            policy,
            admission,
            hand=self._hand,
            resume=self._resume,
        )
        self._lease_until = clock.monotonic()
        self._closed = False
        self._users = 0

    @property
    def asleep(self) -> bool:
        """Whether nothing of it runs here and nobody works with it, so that its lease can be given back."""
        return (
            self._users == 0
            and self._running.gateway is None
            and not self._lock.locked()
            and (self._waking is None or self._waking.done())
        )

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the lease, awake or not: what a turn writes of a failed wake is written under it, too."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1

    @property
    def retired(self) -> bool:
        """Whether this hand is no longer on the agent."""
        return self._closed

    @property
    def paged_out(self) -> bool:
        """Whether it is paused and holds next to no memory."""
        return self._running.paged_out

    async def awake(self, report: Report | None = None) -> GatewayClient:
        """The gateway of the awake agent; wakes it if need be.

        Raises: AgentFailed with plain words, LeaseLost.
        """
        if self._closed:
            raise LeaseLost(NOT_HERE)
        gateway = self._running.living
        # While it goes to sleep the lock is held; then the slow way finds out what became of it.
        if gateway is not None and self._running.frozen is None and not self._lock.locked():
            return gateway
        if self._waking is None or self._waking.done():
            self._telling.begin()
            self._waking = asyncio.create_task(self._wake(), name=f"wake {self.user_id}")
            self._waking.add_done_callback(_noticed)
        waking = self._waking
        with self._telling.to(report):
            try:
                return await asyncio.shield(waking)
            except asyncio.CancelledError:
                if waking.cancelled() and not self._closed and not _cancelling():
                    raise AgentFailed(SHUT_OUT) from None
                raise

    async def dial(self, report: Report | None = None) -> socket.socket:
        """A connection of its own to the gateway of the awake agent, for its user's program.

        Raises: AgentFailed, LeaseLost, NotYet, Unavailable.
        """
        await self.awake(report)
        agent = await self._agents.find(self.user_id)
        return await self._running.runtime.dial(self.user_id, agent.runtime_state)

    async def tick(self, agent: Agent | None = None) -> None:
        """Look after it once: notice a crash, follow what is desired, let it sleep when it is truly idle.

        `agent`: as it was read just now. What is decided by it is looked at again under the lock.
        """
        if agent is not None and agent.shut_out:
            await self._cancel_wake()
        if self._lock.locked() or self._closed:
            return
        agent = agent or await self._agents.find(self.user_id)
        if agent.shut_out:
            await self._end_for_good()
        elif agent.restart_asked:
            await self._restart()
        elif agent.state is State.STOPPING and await self._cron.is_due(agent):
            await self.awake()
        elif self._ending.broken(agent) or self._ending.runs_on(agent):
            await self._mend()
        elif agent.wanted and agent.state in (State.PAUSED, State.STOPPED):
            await self.awake()
        elif told_to_stop(agent):
            await self._falling_asleep.stop(idle_for=None)
        elif await self._cron.is_due(agent):
            await self.awake()
        else:
            agent = await self._cron.look(agent, self._running.gateway)
            await self._falling_asleep.look(agent)
            await self._saving.look(agent, self._agents.find, self._hand)

    async def make_room(self) -> bool:
        """Stop it for the sake of another, if it has been idle for a moment; whether it was stopped."""
        await self._falling_asleep.stop(idle_for=self._policy.evict_after)
        return self._running.gateway is None

    async def adopt(self) -> None:
        """Clear away what an earlier holder of the lease left: its sandbox is gone or must go."""
        async with self._hand():
            agent = await self._agents.find(self.user_id)
            if agent.state not in ENDED:
                state = await self._running.runtime.stop(self.user_id, agent.runtime_state, grace=5)
                await self._ending.cleared(agent, state)

    async def close(self, *, grace: float) -> None:
        """The process ends: stop the agent, keep what is desired so that the next holder goes on."""
        self._closed = True
        if self._waking is not None:
            self._waking.cancel()
            await asyncio.wait([self._waking])
        async with self._saving.before_all(self._lock):
            agent = await self._agents.find(self.user_id)
            await self._ending.end(agent.runtime_state, grace=grace)
            if agent.state not in ENDED:
                # What is not saved by then is saved by the next holder.
                with contextlib.suppress(LeaseLost, TimeoutError):
                    async with asyncio.timeout(SAVE_AT_THE_END):
                        await self._ending.put_to_rest(await self._ending.cleared(agent, {}))

    async def renew(self, until: float) -> None:
        """The lease is ours until then (monotonic seconds; for ever: inf); so long may the agent run."""
        self._lease_until = until
        if until < inf:
            await self._running.renew(until)

    def retire(self) -> None:
        """The lease goes back: whoever still holds this driver asks the reconciler for a new one."""
        self._closed = True

    async def abandon(self) -> None:
        """The lease is lost: end what runs here at once and write nothing. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._waking is not None:
            self._waking.cancel()
            await asyncio.wait([self._waking])
        async with self._saving.before_all(self._lock):
            await self._ending.end({}, grace=0)

    # Waking

    async def _wake(self) -> GatewayClient:
        try:
            return await self._awake_by_all_means()
        finally:
            if self._running.gateway is None:
                self._admission.leave(self.user_id)

    async def _awake_by_all_means(self) -> GatewayClient:
        async with self._hand():
            deadline = self._clock.monotonic() + self._policy.wake_timeout.total_seconds()
            if self._running.frozen is not None:
                if self.paged_out:
                    await self._starter.find_room(await self._agents.find(self.user_id), deadline)
                resumed = await self._resume()
                if resumed is not None:
                    return resumed
            agent = await self._agents.find(self.user_id)
            if agent.shut_out:
                raise AgentFailed(SHUT_OUT)
            if self._ending.broken(agent):
                agent = await self._ending.lost(replace(agent, desired=State.AWAKE))
            elif self._ending.runs_on(agent):
                agent = await self._agents.apply(agent, self.lease, Change(Event.RESUME, desired=State.AWAKE))
            if agent.state is State.AWAKE:
                # It was about to sleep when it was needed, and stayed awake.
                assert self._running.gateway is not None
                return self._running.gateway
            return await self._start_until(agent, deadline)

    async def _resume(self) -> GatewayClient | None:
        """From the pause; None where it did not survive it."""
        # First of all, and the row after it: somebody waits for every millisecond of this.
        self._saving.give_way()
        gateway = await self._running.resume()
        agent = await self._agents.find(self.user_id)
        if gateway is None:
            await self._ending.lost(replace(agent, desired=State.AWAKE))
        else:
            await self._agents.apply(agent, self.lease, Change(Event.RESUME, desired=State.AWAKE))
        return gateway

    async def _start_until(self, agent: Agent, deadline: float) -> GatewayClient:
        repair = False
        while True:
            if agent.retry_at is not None and agent.retry_at > self._clock.now():
                await self._wait_for_retry(agent, deadline)
            try:
                return await self._start(agent, deadline, repair=repair)
            except StartFailed as failure:
                log.warning(
                    "agent failed to start",
                    user_id=str(self.user_id),
                    failures=agent.failures + 1,
                    reason=failure.words,
                    detail=failure.detail,
                )
                if failure.repairable and not repair:
                    repair = True
                    agent = replace(await self._ending.failed(REPAIRING, final=False), retry_at=None)
                    continue
                agent = await self._ending.failed(failure.words, final=failure.final)
                if agent.retry_at is None:
                    raise AgentFailed(failure.words, detail=failure.detail) from None

    async def _wait_for_retry(self, agent: Agent, deadline: float) -> None:
        assert agent.retry_at is not None
        wait = (agent.retry_at - self._clock.now()).total_seconds()
        if self._clock.monotonic() + wait > deadline:
            raise AgentFailed(f"{_words(agent)} It will be tried again in {wait:.0f} s.", retry_after=wait)
        self._telling.tell("retry", f"OpenClaw stopped; starting it again in {wait:.0f} s")
        await self._clock.sleep(wait)

    async def _start(self, agent: Agent, deadline: float, *, repair: bool) -> GatewayClient:
        await self._starter.find_room(agent, deadline)
        async with self._starter.turn():
            agent = await self._agents.apply(agent, self.lease, Change(Event.START, desired=State.AWAKE))
            gateway, state = await self._starter.start(
                agent,
                deadline,
                repair=repair,
                lease_until=lambda: self._lease_until if self._lease_until < inf else None,
            )
            self._running.gateway = gateway
            await self._agents.apply(
                agent, self.lease, Change(Event.HELLO, failures=agent.failures, runtime_state=state)
            )
            self._telling.tell("ready", START_STEPS["ready"])
            return gateway

    # Watching

    async def _mend(self) -> None:
        """Make the row true again: the connection to the gateway is gone, or a change was cut short."""
        async with self._hand():
            agent = await self._agents.find(self.user_id)
            if agent.state is State.STOPPING and not agent.wanted:
                await self._ending.put_to_rest(agent)
            elif self._ending.runs_on(agent):
                await self._agents.apply(agent, self.lease, Change(Event.RESUME))
            elif self._ending.broken(agent):
                seen = await self._running.runtime.observe(self.user_id, agent.runtime_state)
                log.warning(
                    "agent lost",
                    user_id=str(self.user_id),
                    phase=seen.phase,
                    exit_code=seen.exit_code,
                    log_tail=seen.log_tail[-2000:],
                )
                await self._ending.put_to_rest(await self._ending.lost(agent, seen))

    async def _cancel_wake(self) -> None:
        """End a start that is under way. Who waits for it hears why."""
        if self._waking is not None and not self._waking.done():
            self._waking.cancel()
            await asyncio.wait([self._waking])

    async def _end_for_good(self) -> None:
        """End it at once, whatever it is doing, because its user was shut out. Its files are saved."""
        async with self._hand():
            agent = await self._agents.find(self.user_id)
            if not agent.shut_out:
                return
            if self._ending.broken(agent):
                await self._ending.put_to_rest(await self._ending.lost(replace(agent, desired=State.STOPPED)))
            elif agent.state in SETTLED:
                log.info("agent ended with the suspension of its user", user_id=str(self.user_id))
                agent = await self._agents.apply(agent, self.lease, Change(Event.STOP, desired=State.STOPPED))
                await self._ending.end(agent.runtime_state, grace=1)
                await self._ending.put_to_rest(agent)

    async def _restart(self) -> None:
        async with self._hand():
            agent = await self._agents.find(self.user_id)
            if agent.state in SETTLED:
                agent = await self._agents.apply(agent, self.lease, Change(Event.STOP))
                await self._ending.end(agent.runtime_state, grace=5)
                # As at every stop; where it cannot be saved it is started all the same.
                await self._ending.put_to_rest(agent)
        await self.awake()

    @contextlib.asynccontextmanager
    async def _hand(self) -> AsyncIterator[None]:
        """The lock, as long as the lease is ours."""
        async with self._saving.before_all(self._lock):
            if self._closed:
                raise LeaseLost(NOT_HERE)
            yield


def _words(agent: Agent) -> str:
    return (agent.error or {}).get("message") or "Your agent keeps failing to start."


def _cancelling() -> bool:
    """Whether it is the asking task itself that is cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _noticed(wake: asyncio.Task[GatewayClient]) -> None:
    """Whoever waits for it hears of its failure; that nobody may wait any more is no reason to complain."""
    if not wake.cancelled():
        wake.exception()
