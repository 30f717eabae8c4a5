"""Doubles of the port AgentRuntime that misbehave, each in one way."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

from ocmt.errors import NotYet, Unavailable
from ocmt.platform.clock import Clock
from ocmt.runtimes.base import AgentSpec, Observation, RuntimeState
from ocmt.testing.gateway import Die, FakeGateway, Say
from ocmt.testing.runtimes import EchoGateway, FakeRuntime, MakeGateway


class SlowRuntime(FakeRuntime):
    """Takes a minute on the clock to start."""

    def __init__(self, clock: Clock, *, make_gateway: MakeGateway = EchoGateway.make) -> None:
        super().__init__(clock, make_gateway=make_gateway, boot_seconds=60.0)


class NeverRuntime(FakeRuntime):
    """Says that agents start, and they never do."""

    def __init__(self, clock: Clock, *, make_gateway: MakeGateway = EchoGateway.make) -> None:
        super().__init__(clock, make_gateway=make_gateway, boot_seconds=float("inf"))


class FlakyRuntime(FakeRuntime):
    """Fails the first so many starts: by an error, or by a gateway that ends at once with `exit_code`."""

    def __init__(
        self,
        clock: Clock,
        *,
        failures: int,
        exit_code: int | None = None,
        make_gateway: MakeGateway = EchoGateway.make,
    ) -> None:
        super().__init__(clock, make_gateway=make_gateway)
        self._failures = failures
        self._exit_code = exit_code

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        """See FlakyRuntime."""
        if self._failures == 0:
            return await super().start(spec, state)
        self._failures -= 1
        if self._exit_code is None:
            self.calls.append(("start", spec.user_id))
            raise Unavailable("The agent's sandbox did not start.", detail="a fault made for a test")
        state = await super().start(spec, state)
        await self.crash(spec.user_id, self._exit_code)
        return state


class LyingRuntime(FakeRuntime):
    """Says that agents run, and hands out connections behind which there is nobody."""

    async def observe(self, user_id: UUID, state: RuntimeState) -> Observation:
        """See LyingRuntime."""
        return Observation("running")

    async def dial(self, user_id: UUID, state: RuntimeState) -> socket.socket:
        """See LyingRuntime."""
        ours, theirs = socket.socketpair()
        theirs.close()
        ours.setblocking(False)
        return ours


class SlowToDie(FakeRuntime):
    """Its agents outlive the grace of their stop: they are gone `seconds` after they were first asked to end.

    Until then a stop waits for its grace, and then says when to ask again.
    """

    def __init__(self, clock: Clock, *, seconds: float, make_gateway: MakeGateway = EchoGateway.make) -> None:
        super().__init__(clock, make_gateway=make_gateway)
        self._seconds = seconds
        self._gone_at: dict[UUID, float] = {}

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        """See AgentRuntime. Beside one that is dying no other starts."""
        if spec.user_id in self._gone_at:
            await self.stop(spec.user_id, state, grace=0)
        return await super().start(spec, state)

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        """See SlowToDie. Raises NotYet."""
        if user_id in self._agents:
            gone_at = self._gone_at.setdefault(user_id, self._clock.monotonic() + self._seconds)
            await self._clock.sleep(max(0.0, min(grace, gone_at - self._clock.monotonic())))
            left = gone_at - self._clock.monotonic()
            if left > 0:
                self.calls.append(("stop", user_id))
                raise NotYet("The agent is still ending.", retry_after=left)
        self._gone_at.pop(user_id, None)
        return await super().stop(user_id, state, grace=grace)

    def relent(self) -> None:
        """From now on they end at once, those that are ending as well."""
        self._seconds = 0
        self._gone_at.clear()

    async def close(self) -> None:
        """See AgentRuntime: in the end by force."""
        self.relent()
        await super().close()


MakeFakeGateway = Callable[[AgentSpec], Awaitable[FakeGateway]]


class RefusesSuspend(FakeRuntime):
    """Its agents' gateways never agree to sleep: there is always something that they do."""

    def __init__(self, clock: Clock, *, make_gateway: MakeFakeGateway) -> None:
        async def make_busy(spec: AgentSpec) -> FakeGateway:
            gateway = await make_gateway(spec)
            gateway.busy = ["1 background task"]
            return gateway

        super().__init__(clock, make_gateway=make_busy)


class ForkBomb(FakeRuntime):
    """Its agents start processes as fast as they end: they cannot be held still, and take no new connections.

    Who is connected already is served. Ending them takes force, which always works.
    """

    def __init__(self, clock: Clock, *, make_gateway: MakeGateway = EchoGateway.make) -> None:
        super().__init__(clock, make_gateway=make_gateway)
        self._busy: set[UUID] = set()

    async def dial(self, user_id: UUID, state: RuntimeState) -> socket.socket:
        """See ForkBomb. The first connection still comes about."""
        if user_id in self._busy:
            self._running(user_id)
            raise NotYet("The agent did not answer.", retry_after=0.05)
        connection = await super().dial(user_id, state)
        self._busy.add(user_id)
        return connection

    async def pause(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """See ForkBomb. Raises Unavailable, as the real ones do in the end."""
        self._running(user_id)
        self.calls.append(("pause", user_id))
        raise Unavailable("The agent cannot be held still.")

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        """See AgentRuntime."""
        self._busy.discard(user_id)
        return await super().stop(user_id, state, grace=grace)


class DiesMidTurn(FakeRuntime):
    """Its agents are killed in the middle of their first `times` answers, as by a lack of memory."""

    def __init__(self, clock: Clock, *, times: int, make_gateway: MakeFakeGateway) -> None:
        async def make(spec: AgentSpec) -> FakeGateway:
            self._fakes[spec.user_id] = gateway = await make_gateway(spec)
            return gateway

        super().__init__(clock, make_gateway=make)
        self._fakes: dict[UUID, FakeGateway] = {}
        self._times = times

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        """See AgentRuntime. The answer that comes next is the agent's last, as long as there are such."""
        await self.observe(spec.user_id, state)
        state = await super().start(spec, state)
        if self._times > 0:
            self._times -= 1
            self._fakes[spec.user_id].script(Say("I was about to "), Die())
        return state

    async def observe(self, user_id: UUID, state: RuntimeState) -> Observation:
        """See AgentRuntime."""
        agent, gateway = self._agents.get(user_id), self._fakes.get(user_id)
        if agent is not None and agent.exit_code is None and gateway is not None and gateway.dead:
            agent.exit_code = 137
            agent.log += "fake gateway: killed\n"
        return await super().observe(user_id, state)


class DiskFiller(DiesMidTurn):
    """Its agents fill the disk in the midst of their first `times` answers, and are ended for it."""

    WORDS = "Your agent was stopped: its files take more than the 1 GiB of disk that it may use."

    async def observe(self, user_id: UUID, state: RuntimeState) -> Observation:
        """See AgentRuntime. Says why."""
        seen = await super().observe(user_id, state)
        return replace(seen, reason=self.WORDS) if seen.phase == "exited" else seen
