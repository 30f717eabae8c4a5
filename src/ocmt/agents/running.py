"""What runs of one agent here: its processes in the runtime's hands, and the connection to its gateway.

Nothing in here decides or writes a row; that does the driver (`lifecycle`), who holds the lock meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from uuid import UUID

import structlog

from ocmt.agents.suspension import take_work_or_close
from ocmt.errors import OcmtError, Unavailable
from ocmt.openclaw.client import GatewayClient
from ocmt.platform.clock import Clock
from ocmt.runtimes.base import AgentRuntime, CanPageOut, CanPause, EndsWithLease, KnowsJobs, RuntimeState

log = structlog.get_logger(__name__)


class Running:
    """One agent's processes and gateway: running, held still, or nothing at all."""

    def __init__(self, user_id: UUID, runtime: AgentRuntime, clock: Clock) -> None:
        self.user_id = user_id
        self.runtime = runtime
        self._clock = clock
        self.gateway: GatewayClient | None = None
        self.frozen: RuntimeState | None = None
        """The runtime's notes, where it is held still."""
        self.paged_out = False
        self._page_out_from = clock.now()
        self._taking_work: asyncio.Task[None] | None = None
        # Asked once: isinstance with a protocol is slow, and these are wanted at every look at every agent.
        self.can_pause = isinstance(runtime, CanPause)
        """Whether the runtime can hold it still."""
        self._knows_jobs = runtime if isinstance(runtime, KnowsJobs) else None
        self._leased = runtime if isinstance(runtime, EndsWithLease) else None

    @property
    def living(self) -> GatewayClient | None:
        """Its gateway, as long as that is connected, running or not."""
        return self.gateway if self.gateway is not None and not self.gateway.closed else None

    async def pause(self, state: RuntimeState) -> None:
        """Hold it still. Raises OcmtError; then nobody knows what it does, and `resume` finds out."""
        assert isinstance(self.runtime, CanPause)
        self.frozen = state
        await self.runtime.pause(self.user_id, state)

    async def resume(self) -> GatewayClient | None:
        """From the pause; None where it did not survive it, and what is left is to be ended."""
        gateway, state = self.living, self.frozen
        if gateway is None or state is None or not isinstance(self.runtime, CanPause):
            return None
        try:
            await self.runtime.resume(self.user_id, state)
        except OcmtError as error:
            log.warning("agent did not survive its pause", user_id=str(self.user_id), error=str(error))
            return None
        self.frozen = None
        self.paged_out = False
        # Not waited for: the gateway takes requests in their order, so a message may follow at once.
        self._taking_work = asyncio.create_task(take_work_or_close(gateway, self.user_id))
        return gateway

    async def page_out(self, again_after: timedelta) -> bool:
        """Free its memory while it is held still; whether that is done now. Tried once in `again_after`.

        May run beside everything else: who needs it meanwhile does not wait.
        """
        frozen = self.frozen
        if frozen is None or self.paged_out or not isinstance(self.runtime, CanPageOut):
            return False
        if self._clock.now() < self._page_out_from:
            return False
        self._page_out_from = self._clock.now() + again_after
        if await self.runtime.page_out(self.user_id, frozen) and self.frozen is frozen:
            self.paged_out = True
        return self.paged_out

    async def jobs(self) -> list[str]:
        """The programs that it has left running, of which its gateway does not know."""
        return await self._knows_jobs.jobs(self.user_id) if self._knows_jobs is not None else []

    async def renew(self, until: float) -> None:
        """It may run until then (monotonic seconds), where the runtime ends it with its lease."""
        if self._leased is not None:
            # One that does not listen ends with its lease, as it should.
            with contextlib.suppress(Unavailable):
                await self._leased.renew(self.user_id, until=until)

    async def end(self, state: RuntimeState, *, grace: float) -> None:
        """All of it, with `grace` seconds to shut down in order. Raises Unavailable."""
        if self.gateway is not None:
            gateway, self.gateway = self.gateway, None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gateway.close(), 1)
        if isinstance(self.runtime, CanPause):
            # A frozen agent can not shut down in order. One that is gone already has nothing to resume.
            with contextlib.suppress(OcmtError):
                await self.runtime.resume(self.user_id, state)
        self.frozen = None
        self.paged_out = False
        await self.runtime.stop(self.user_id, state, grace=grace)
