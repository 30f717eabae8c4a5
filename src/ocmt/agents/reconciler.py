"""Makes what is desired true: takes leases, keeps one driver per agent, and looks after each of them.

Hints make it quick, polling makes it right. Any number of replicas may run one; a lease decides who drives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from uuid import UUID

import structlog

from ocmt.agents.lifecycle import Driver
from ocmt.agents.service import CHANNEL, Agents
from ocmt.agents.starting import AgentFailed
from ocmt.errors import LeaseLost, OcmtError
from ocmt.platform.clock import Clock
from ocmt.platform.database import Hints
from ocmt.platform.leases import Lease, Leases

log = structlog.get_logger(__name__)

DriverFor = Callable[[Lease], Driver]

HEARTBEAT_INTERVAL = 4.0
"""Seconds; a third of the leases' duration at most."""
LOOK_INTERVAL = 1.0
SHUTDOWN_GRACE = 5.0


class Reconciler:
    """All agents that this process drives."""

    def __init__(
        self, agents: Agents, leases: Leases, driver_for: DriverFor, hints: Hints, clock: Clock
    ) -> None:
        self._agents = agents
        self._leases = leases
        self._driver_for = driver_for
        self._hints = hints
        self._clock = clock
        self._drivers: dict[UUID, Driver] = {}
        self._taking: dict[UUID, asyncio.Task[Driver | None]] = {}
        self._jobs: dict[UUID, asyncio.Task[None]] = {}
        self._closing = False

    async def drive(self, user_id: UUID) -> Driver | None:
        """This process's hand on the agent, or None while another replica drives it."""
        driver = self._drivers.get(user_id)
        if driver is not None:
            return driver
        if self._closing:
            return None
        taking = self._taking.get(user_id)
        if taking is None:
            taking = self._taking[user_id] = asyncio.create_task(self._take(user_id))
        return await asyncio.shield(taking)

    async def run(self) -> None:
        """Look after the agents until cancelled; then `close`."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._heartbeats())
            tasks.create_task(self._looks())

    async def close(self) -> None:
        """Stop every agent that runs here and give the leases back."""
        self._closing = True
        for job in self._jobs.values():
            job.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs.values())
        await asyncio.gather(*(self._close(driver) for driver in tuple(self._drivers.values())))

    async def _take(self, user_id: UUID) -> Driver | None:
        try:
            await self._agents.find(user_id)
            lease = await self._leases.take(user_id)
            if lease is None:
                return None
            driver = self._driver_for(lease)
            await driver.adopt()
            self._drivers[user_id] = driver
            return driver
        finally:
            del self._taking[user_id]

    async def _heartbeats(self) -> None:
        while True:
            await self._clock.sleep(HEARTBEAT_INTERVAL)
            try:
                lost = await self._leases.heartbeat(list(self._drivers))
            except OcmtError as error:
                log.warning("heartbeat failed", error=str(error))
                continue
            for user_id in lost:
                driver = self._drivers.pop(user_id, None)
                if driver is not None:
                    log.warning("lease lost", user_id=str(user_id))
                    await driver.abandon()

    async def _looks(self) -> None:
        with self._hints.subscribe(CHANNEL) as hinted:
            while True:
                try:
                    for user_id in await self._agents.due():
                        self._start_job(user_id, self._wake(user_id))
                    for user_id, driver in tuple(self._drivers.items()):
                        self._start_job(user_id, self._look_after(driver))
                except OcmtError as error:
                    log.warning("could not look after the agents", error=str(error))
                await hinted.wait(LOOK_INTERVAL)

    def _start_job(self, user_id: UUID, job: Coroutine[None, None, None]) -> None:
        """At most one job per agent at a time; what is due comes up again at the next look."""
        if user_id in self._jobs:
            job.close()
            return
        task = asyncio.create_task(job)
        self._jobs[user_id] = task
        task.add_done_callback(lambda _: self._jobs.pop(user_id, None))

    async def _wake(self, user_id: UUID) -> None:
        try:
            driver = await self.drive(user_id)
            if driver is not None:
                agent = await self._agents.find(user_id)
                if agent.desired == "awake":
                    await driver.awake()
        except (AgentFailed, LeaseLost) as error:
            log.info("agent not woken", user_id=str(user_id), reason=error.message)
        except Exception:
            # One agent's trouble must not end the look after all the others.
            log.exception("waking failed", user_id=str(user_id))

    async def _look_after(self, driver: Driver) -> None:
        try:
            await driver.tick()
            agent = await self._agents.find(driver.user_id)
            if agent.desired == "awake" and driver.asleep and agent.state == "stopped":
                await driver.awake()
            elif driver.asleep and agent.state in ("stopped", "failed"):
                # Retired before anything is awaited: whoever still holds this driver must not use its lease.
                driver.retire()
                self._drivers.pop(driver.user_id, None)
                await self._leases.release(driver.lease)
        except LeaseLost:
            self._drivers.pop(driver.user_id, None)
            await driver.abandon()
        except AgentFailed as error:
            log.info("agent not woken", user_id=str(driver.user_id), reason=error.message)
        except Exception:
            # As above.
            log.exception("looking after an agent failed", user_id=str(driver.user_id))

    async def _close(self, driver: Driver) -> None:
        try:
            await driver.close(grace=SHUTDOWN_GRACE)
            await self._leases.release(driver.lease)
        except OcmtError as error:
            log.warning("agent not closed in order", user_id=str(driver.user_id), error=str(error))
