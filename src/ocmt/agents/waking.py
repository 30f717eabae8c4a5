"""One start of one agent, from "somebody needs it" to the gateway's hello; and how far it has come.

The driver (`lifecycle`) decides when to start, holds the lock meanwhile and keeps the row; what is made here
and does not come to a hello is gone again when `start` raises.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace

from ocmt.agents.admission import Admission
from ocmt.agents.files import Keeper
from ocmt.agents.model import Agent, Policy
from ocmt.agents.service import Agents
from ocmt.agents.starting import AgentFailed, Report, StartFailed, failed_by, wait_for_hello
from ocmt.errors import LeaseLost, OcmtError
from ocmt.openclaw.client import GatewayClient, GatewayError
from ocmt.platform.clock import Clock
from ocmt.platform.leases import Lease
from ocmt.runtimes.base import START_STEPS, AgentRuntime, AgentSpec, RuntimeState

SpecOf = Callable[[Agent, str, str], AgentSpec]
"""(agent, broker token, gateway token) → what the runtime needs to run it."""


class Telling:
    """Who waits for a wake, and what they are told."""

    def __init__(self, agents: Agents, lease: Lease) -> None:
        self._agents = agents
        self._lease = lease
        self._reports: set[Report] = set()
        self._latest: tuple[str, str] | None = None

    @contextlib.contextmanager
    def to(self, report: Report | None) -> Iterator[None]:
        """Tell them, from how far it has come already, until the block ends."""
        if report is None:
            yield
            return
        self._reports.add(report)
        if self._latest is not None:
            report(*self._latest)
        try:
            yield
        finally:
            self._reports.discard(report)

    def begin(self) -> None:
        """A new wake."""
        self._latest = None

    def tell(self, step: str, text: str) -> None:
        """All who wait."""
        self._latest = (step, text)
        for report in tuple(self._reports):
            report(step, text)

    async def show(self, step: str, text: str | None = None) -> None:
        """All who wait, and whoever looks at the agent. Without a text: that of START_STEPS."""
        text = text or START_STEPS[step]
        self.tell(step, text)
        await self._agents.apply_progress(self._lease, step, text)


@dataclass(frozen=True)
class Starter:
    """What it takes to start one agent."""

    lease: Lease
    agents: Agents
    runtime: AgentRuntime
    spec_of: SpecOf
    clock: Clock
    policy: Policy
    admission: Admission
    files: Keeper
    starts: asyncio.Semaphore
    telling: Telling

    async def find_room(self, agent: Agent, deadline: float) -> None:
        """Wait for the memory that its plan allows it. Raises: AgentFailed."""

        def show(place: int) -> None:
            self.telling.tell("room", f"Waiting for room on this machine: number {place} in line")

        try:
            await self.admission.enter(
                agent.user_id,
                agent.plan.memory_bytes or self.policy.memory_bytes,
                timeout=max(1.0, deadline - self.clock.monotonic()),
                show=show,
            )
        except OcmtError as error:
            raise AgentFailed(error.message, retry_after=error.retry_after) from error

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A start is bound by the processor: only so many at a time."""
        if self.starts.locked():
            self.telling.tell("queue", "Waiting for other agents to start")
        async with self.starts:
            yield

    async def start(
        self, agent: Agent, deadline: float, *, repair: bool, lease_until: Callable[[], float | None]
    ) -> tuple[GatewayClient, RuntimeState]:
        """The gateway that has said hello, and the runtime's notes. `lease_until`: as it is by then.

        Raises: StartFailed, LeaseLost; nothing of it is left then.
        """
        await self.telling.show("sandbox")
        broker_token = await self.agents.mint_broker_token(self.lease)
        gateway_token = secrets.token_urlsafe(32)
        spec = self.spec_of(agent, broker_token, gateway_token)
        try:
            await self.files.make_ready(agent, self._show_restoring)
            spec = replace(spec, repair=repair, lease_until=lease_until())
            state = await self.runtime.start(spec, agent.runtime_state)
            gateway = await wait_for_hello(
                self.runtime,
                agent.user_id,
                state,
                token=gateway_token,
                clock=self.clock,
                timeout=max(1.0, deadline - self.clock.monotonic()),
                show=self.telling.show,
            )
        except (StartFailed, OcmtError, GatewayError) as error:
            await self.runtime.stop(agent.user_id, agent.runtime_state, grace=1)
            if isinstance(error, StartFailed | LeaseLost):
                raise
            raise failed_by(error) from error
        return gateway, state

    async def _show_restoring(self) -> None:
        await self.telling.show("files", "Restoring your files")
