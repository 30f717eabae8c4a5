"""Makes what is desired true: takes leases, keeps one driver per agent, and looks after each of them.

Hints make it quick, polling makes it right. Any number of replicas may run one; a lease decides who drives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from math import inf
from uuid import UUID

import structlog

from ocmt.agents.admission import Admission
from ocmt.agents.lifecycle import Driver
from ocmt.agents.model import ENDED, Agent, Policy, State
from ocmt.agents.service import CHANNEL, Agents
from ocmt.agents.starting import AgentFailed
from ocmt.errors import LeaseLost, OcmtError, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Hints
from ocmt.platform.leases import Lease, Leases

log = structlog.get_logger(__name__)

DriverFor = Callable[[Lease], Driver]

HEARTBEAT_INTERVAL = 4.0
"""Seconds; a third of the leases' duration at most."""
LEASE_MARGIN = 2.0
"""Seconds before a lease's end at which its agent is gone: another replica may take it right then."""
LOOK_INTERVAL = 1.0
TIDY_INTERVAL = 60.0
SHUTDOWN_GRACE = 5.0


class Reconciler:
    """All agents that this process drives."""

    def __init__(
        self,
        agents: Agents,
        leases: Leases,
        driver_for: DriverFor,
        hints: Hints,
        clock: Clock,
        admission: Admission,
        *,
        alone: bool = False,
        wake_ahead: timedelta = Policy.wake_ahead,
    ) -> None:
        """`alone`: no other replica can exist, so agents need not end where this one is held up."""
        self._agents = agents
        self._leases = leases
        self._driver_for = driver_for
        self._hints = hints
        self._clock = clock
        self._admission = admission
        self._lease_seconds = inf if alone else leases.duration.total_seconds() - LEASE_MARGIN
        self._wake_ahead = wake_ahead
        self._drivers: dict[UUID, Driver] = {}
        self._taking: dict[UUID, asyncio.Task[Driver | None]] = {}
        self._jobs: dict[UUID, asyncio.Task[None]] = {}
        self._endings: dict[UUID, asyncio.Task[None]] = {}
        self._making_room: asyncio.Task[None] | None = None
        self._closing = False

    async def drive(self, user_id: UUID) -> Driver | None:
        """This process's hand on the agent, or None while another replica drives it, or nobody yet again."""
        driver = self._drivers.get(user_id)
        if driver is not None:
            return None if driver.retired else driver
        if self._closing:
            return None
        taking = self._taking.get(user_id)
        if taking is None:
            taking = self._taking[user_id] = asyncio.create_task(self._take(user_id))
            # Whoever waits hears of its failure; that nobody may wait any more is no reason to complain.
            taking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(taking)

    async def run(self) -> None:
        """Look after the agents until cancelled; then `close`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeats())
            tasks.create_task(self._looks())
            tasks.create_task(self._tidies())

    async def close(self) -> None:
        """Stop every agent that runs here and give the leases back."""
        self._closing = True
        for job in self._jobs.values():
            job.cancel()
        under_way = [*self._jobs.values(), *self._taking.values(), *self._endings.values()]
        if self._making_room is not None:
            under_way.append(self._making_room)
        if under_way:
            await asyncio.wait(under_way)
        await asyncio.gather(*(self._close(driver) for driver in tuple(self._drivers.values())))

    async def _take(self, user_id: UUID) -> Driver | None:
        try:
            if user_id in self._endings:
                await asyncio.wait([self._endings[user_id]])
            await self._agents.find(user_id)
            asked = self._clock.monotonic()
            lease = await self._leases.take(user_id)
            if lease is None:
                return None
            driver = self._driver_for(lease)
            await driver.renew(asked + self._lease_seconds)
            await driver.adopt()
            self._drivers[user_id] = driver
            return driver
        finally:
            del self._taking[user_id]

    async def _heartbeats(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_INTERVAL)
            asked = self._clock.monotonic()
            drivers = dict(self._drivers)
            try:
                lost = await self._leases.heartbeat(list(drivers))
            except OcmtError as error:
                log.warning("heartbeat failed", error=str(error))
                continue
            ours = [driver for user_id, driver in drivers.items() if self._drivers.get(user_id) is driver]
            for driver in ours:
                if driver.user_id in lost:
                    self._abandon(driver)
            # At once: an agent that is slow to listen must not cost the others their lease.
            kept = [driver for driver in ours if driver.user_id not in lost]
            await asyncio.gather(*(driver.renew(asked + self._lease_seconds) for driver in kept))

    async def _looks(self) -> None:
        with self._hints.subscribe(CHANNEL) as hinted:
            named: set[str] | None = None
            while True:
                try:
                    await self._look(None if named is None else [UUID(name) for name in named])
                except OcmtError as error:
                    log.warning("could not look after the agents", error=str(error))
                now = self._clock.monotonic()
                if named is None:
                    next_round = now + LOOK_INTERVAL
                was_hinted = await hinted.wait(max(0.0, next_round - now))
                # Of a hint only those that it names: in a storm of wakes each would else cost a look at all.
                named = hinted.named if was_hinted and self._clock.monotonic() < next_round else None

    async def _look(self, user_ids: list[UUID] | None) -> None:
        """At those agents; at all that are due, or driven here (None)."""
        for user_id in await self._agents.due(user_ids, wake_ahead=self._wake_ahead):
            self._start_job(user_id, self._wake(user_id))
        ours = self._drivers.keys() if user_ids is None else self._drivers.keys() & user_ids
        # Read for all of them at once: one by one it was most of what an idle control plane did. What is read
        # while a job is at work may be old when that ends.
        for agent in await self._agents.find_all([one for one in ours if one not in self._jobs]):
            driver = self._drivers.get(agent.user_id)
            if driver is not None:
                self._start_job(agent.user_id, self._look_after(driver, agent))
        if self._admission.shortage and (self._making_room is None or self._making_room.done()):
            self._making_room = asyncio.create_task(self._make_room(), name="make room")

    async def _tidies(self) -> None:
        while True:
            await self._clock.sleep(TIDY_INTERVAL)
            try:
                await self._agents.tidy()
            except OcmtError as error:
                log.warning("could not tidy up", error=str(error))

    def _start_job(self, user_id: UUID, job: Coroutine[None, None, None]) -> None:
        """At most one job per agent at a time; what is due comes up again at the next look."""
        if user_id in self._jobs:
            job.close()
            return
        task = asyncio.create_task(job)
        self._jobs[user_id] = task
        task.add_done_callback(lambda _: self._jobs.pop(user_id, None))

    async def _make_room(self) -> None:
        """Stop who has been idle for the longest time, one by one, until the next in line fits in."""
        for user_id in await self._agents.idlest(list(self._drivers)):
            driver = self._drivers.get(user_id)
            if not self._admission.shortage:
                return
            if driver is None or driver.asleep or driver.paged_out:
                continue
            try:
                if await driver.make_room():
                    log.info("agent stopped to make room", user_id=str(user_id))
            except (LeaseLost, Unavailable) as error:
                log.info("agent not stopped to make room", user_id=str(user_id), reason=error.message)

    async def _wake(self, user_id: UUID) -> None:
        try:
            driver = await self.drive(user_id)
            if driver is not None:
                agent = await self._agents.find(user_id)
                if agent.wanted:
                    await driver.awake()
                else:
                    await driver.tick()
        except (AgentFailed, LeaseLost) as error:
            log.info("agent not woken", user_id=str(user_id), reason=error.message)
        except Exception:
            # One agent's trouble must not end the look after all the others.
            log.exception("waking failed", user_id=str(user_id))

    async def _look_after(self, driver: Driver, agent: Agent) -> None:
        """`agent`: as it was read just now."""
        try:
            await driver.tick(agent)
            if not driver.asleep:
                return
            agent = await self._agents.find(driver.user_id)
            restart = agent.restart_asked and not agent.shut_out
            wanted = restart or (agent.wanted and agent.state is State.STOPPED)
            if driver.asleep and agent.state in ENDED and not wanted:
                await self._give_back(driver)
        except LeaseLost:
            self._abandon(driver)
        except AgentFailed as error:
            log.info("agent not woken", user_id=str(driver.user_id), reason=error.message)
        except Exception:
            # As above.
            log.exception("looking after an agent failed", user_id=str(driver.user_id))

    async def _give_back(self, driver: Driver) -> None:
        # Retired before anything is awaited, so that whoever still holds this driver does not use its lease;
        # and kept until the lease is back, so that no new driver gets a token that is void a moment later.
        driver.retire()
        try:
            await self._leases.release(driver.lease)
        finally:
            self._forget(driver)

    def _abandon(self, driver: Driver) -> None:
        """End what runs here of an agent that another replica drives now; nothing else waits for that."""
        self._forget(driver)
        if driver.user_id in self._endings:
            return
        log.warning("lease lost", user_id=str(driver.user_id))
        ending = asyncio.create_task(self._end(driver), name=f"end {driver.user_id}")
        self._endings[driver.user_id] = ending
        ending.add_done_callback(lambda _: self._endings.pop(driver.user_id))

    def _forget(self, driver: Driver) -> None:
        if self._drivers.get(driver.user_id) is driver:
            del self._drivers[driver.user_id]

    async def _end(self, driver: Driver) -> None:
        try:
            await driver.abandon()
        except Exception:
            # The runtime itself ends what is left when this process does.
            log.exception("ending an agent failed", user_id=str(driver.user_id))

    async def _close(self, driver: Driver) -> None:
        try:
            await driver.close(grace=SHUTDOWN_GRACE)
            await self._leases.release(driver.lease)
        except Exception as error:
            # One agent's trouble must not keep the others from being closed.
            log.warning("agent not closed in order", user_id=str(driver.user_id), error=repr(error))
