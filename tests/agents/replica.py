"""One replica as far as agents are concerned: reconciler and drivers, over doubles of runtime and gateway.

The gateways keep their conversations when they are started anew, as OpenClaw does with its database. Several
replicas can share a database and a runtime.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from ocmt.agents.admission import Admission
from ocmt.agents.files import FileKeeper
from ocmt.agents.holds import Holds
from ocmt.agents.lifecycle import Driver
from ocmt.agents.model import Agent, Policy
from ocmt.agents.reconciler import Reconciler
from ocmt.agents.revisions.service import Revisions
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.platform.database import Database, Hints
from ocmt.platform.leases import Lease, Leases
from ocmt.platform.objects import Objects
from ocmt.runtimes.base import AgentSpec
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import FakeGateway
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.runtimes import FakeRuntime

SLEEPY = Policy(pause_after=timedelta(minutes=5), stop_after=timedelta(minutes=30))
"""Of a replica that is not given another."""


class Gateways:
    """The gateways of all agents, by user; a runtime's `make_gateway`."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._gateways: dict[UUID, FakeGateway] = {}
        self._opening: list[asyncio.Task[FakeGateway]] = []
        self.deaf_to_tokens = False
        """Fault: gateways keep the token that they have, and so refuse us."""

    def of(self, user_id: UUID) -> FakeGateway:
        """That user's, which may not run yet: to be scripted, and to be asked what it got."""
        if user_id not in self._gateways:
            self._gateways[user_id] = FakeGateway(self._clock)
        return self._gateways[user_id]

    async def make(self, spec: AgentSpec) -> FakeGateway:
        """See MakeGateway. Whoever is no longer waited for is opened all the same, to be closed in order."""
        opening = asyncio.create_task(self.of(spec.user_id).__aenter__())
        self._opening.append(opening)
        return await asyncio.shield(opening)

    def spec_of(self, agent: Agent, broker_token: str, gateway_token: str) -> AgentSpec:
        """What bootstrap would make of it, as far as doubles care; the gateway is told its token."""
        if not self.deaf_to_tokens:
            self.of(agent.user_id).token = gateway_token
        environment = {"OPENCLAW_GATEWAY_PASSWORD": gateway_token, "ANTHROPIC_API_KEY": broker_token}
        return AgentSpec(agent.user_id, agent.slot, config="{}", environment=environment)

    async def close(self) -> None:
        for opening in self._opening:
            await (await opening).__aexit__()


@dataclass
class Replica:
    """Reconciler and all that it needs. `owner` is its name in the leases."""

    clock: VirtualClock
    database: Database
    hints: Hints
    runtime: FakeRuntime
    agents: Agents
    leases: Leases
    policy: Policy
    reconciler: Reconciler

    @classmethod
    def build(
        cls,
        *,
        clock: VirtualClock,
        database: Database,
        hints: Hints,
        runtime: FakeRuntime,
        gateways: Gateways,
        policy: Policy | None = None,
        agents: Agents | None = None,
        owner: str = "a",
        capacity: int = 1024**4,
        objects: Objects | None = None,
    ) -> Replica:
        agents = agents or Agents(database, clock, runtime=runtime.name)
        policy = policy or SLEEPY
        leases = Leases(database, table="agents", key="user_id", owner=owner)
        starts = asyncio.Semaphore(2)
        admission = Admission(capacity, clock)
        objects = objects or MemoryObjects()
        snapshots = Snapshots(database, objects, clock)
        folder = Path(tempfile.gettempdir())
        transfers = Transfers(snapshots, database, objects, agents, Holds(agents, clock), folder)

        def driver_for(lease: Lease) -> Driver:
            return Driver(
                lease,
                agents=agents,
                runtime=runtime,
                spec_of=gateways.spec_of,
                clock=clock,
                policy=policy,
                admission=admission,
                files=FileKeeper(snapshots, runtime, lease, transfers),
                revisions=Revisions(database, agents, clock),
                starts=starts,
            )

        reconciler = Reconciler(
            agents, leases, driver_for, hints, clock, admission, wake_ahead=policy.wake_ahead
        )
        return cls(clock, database, hints, runtime, agents, leases, policy, reconciler)

    async def driver(self, user_id: UUID) -> Driver:
        """This replica's hand on that agent."""
        driver = await self.reconciler.drive(user_id)
        assert driver is not None
        return driver

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Its reconciler at work, closed in order at the end."""
        task = asyncio.create_task(self.reconciler.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.reconciler.close()

    async def crash(self, user_id: UUID) -> Driver:
        """Its agent, awake, dies by itself, and is looked at once."""
        driver = await self.driver(user_id)
        gateway = await driver.awake()
        await self.runtime.crash(user_id, 137)
        await gateway.wait_closed()
        await driver.tick()
        return driver

    def starts(self) -> int:
        """How often an agent was started here."""
        return sum(call == "start" for call, _ in self.runtime.calls)

    async def row(self, user_id: UUID) -> Any:
        """The agent's row as it stands in the database."""
        async with self.database.connection() as connection:
            return await connection.fetchrow("select * from agents where user_id = $1", user_id)


@asynccontextmanager
async def time_flies(clock: VirtualClock) -> AsyncIterator[None]:
    """Virtual time runs on by itself, many times faster than real time."""

    async def fly() -> None:
        while True:
            await clock.advance(0.05)
            await asyncio.sleep(0.001)

    flying = asyncio.create_task(fly())
    try:
        yield
    finally:
        flying.cancel()
        await asyncio.wait([flying])


async def until(holds: Callable[[], Awaitable[Any]] | Callable[[], bool], *, timeout: float = 10) -> None:
    """Wait in real time, because what is waited for is outside of virtual time: sockets, the database."""
    async with asyncio.timeout(timeout):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.005)
