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
from ocmt.agents.files import FileKeeper
from ocmt.agents.model import Agent, Policy
from ocmt.agents.revisions.model import Revision
from ocmt.agents.revisions.service import Revisions
from ocmt.agents.revisions.upgrading import Started, Upgrades
from ocmt.agents.service import Agents
from ocmt.agents.starting import AgentFailed, Report, StartFailed, failed_by, wait_for_hello
from ocmt.errors import LeaseLost, OcmtError
from ocmt.openclaw.client import GatewayError
from ocmt.openclaw.config import patched
from ocmt.platform.clock import Clock
from ocmt.platform.leases import Lease
from ocmt.runtimes.base import START_STEPS, AgentRuntime, AgentSpec

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
    files: FileKeeper
    revisions: Revisions
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
    ) -> Started:
        """The gateway that has said hello, and the runtime's notes. `lease_until`: as it is by then.

        Raises: StartFailed, LeaseLost; nothing of it is left then.
        """
        upgrades = Upgrades(self.lease, self.revisions, self.runtime, self.files, self.telling.show)
        tried = False

        async def attempt(revision: Revision | None, *, repair: bool, trial: bool) -> Started:
            nonlocal deadline, tried
            tried |= trial
            if tried:
                # A verdict must not depend on how long it had to wait in line; nor may the way back.
                deadline = self.clock.monotonic() + self.policy.wake_timeout.total_seconds()
            spec, token = await self._specification(agent, revision)
            spec = replace(spec, repair=repair, lease_until=lease_until())
            return await self._attempt(agent, spec, token, revision, deadline, trial=trial)

        await self.telling.show("sandbox")
        await upgrades.settle(agent)
        try:
            await self.files.make_ready(agent, self._show_restoring)
        except LeaseLost:
            raise
        except OcmtError as error:
            raise failed_by(error) from error
        return await upgrades.start(agent, attempt, repair=repair)

    async def _specification(self, agent: Agent, revision: Revision | None) -> tuple[AgentSpec, str]:
        """What the runtime is told, and the gateway's token."""
        gateway_token = secrets.token_urlsafe(32)
        spec = self.spec_of(agent, await self.agents.mint_broker_token(self.lease), gateway_token)
        if revision is not None:
            spec = replace(spec, image=revision.image, config=patched(spec.config, revision.config))
        return spec, gateway_token

    async def _attempt(
        self,
        agent: Agent,
        spec: AgentSpec,
        token: str,
        revision: Revision | None,
        deadline: float,
        *,
        trial: bool,
    ) -> Started:
        """Up to hello; in a `trial` through the health gate; then the row says that it runs that revision."""
        gateway = None
        by_agent = False

        async def show(step: str) -> None:
            nonlocal by_agent
            by_agent = False
            await self.telling.show(step)
            by_agent = True

        try:
            state = await self.runtime.start(spec, agent.runtime_state)
            by_agent = True
            gateway = await wait_for_hello(
                self.runtime,
                agent.user_id,
                state,
                token=token,
                clock=self.clock,
                timeout=max(1.0, deadline - self.clock.monotonic()),
                show=show,
            )
            if trial:
                await gateway.schedule()
            by_agent = False
            if revision is not None and (trial or revision.number != agent.revision):
                await self.revisions.passed(self.lease, revision)
        except (StartFailed, OcmtError, GatewayError) as error:
            if gateway is not None:
                await gateway.close()
            await self.runtime.stop(agent.user_id, agent.runtime_state, grace=1)
            if isinstance(error, LeaseLost):
                raise
            failure = error if isinstance(error, StartFailed) else failed_by(error)
            failure.by_agent = by_agent
            raise failure from failure.__cause__ or (None if failure is error else error)
        return gateway, state

    async def _show_restoring(self) -> None:
        await self.telling.show("files", "Restoring your files")
