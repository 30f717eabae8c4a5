"""A double of the port AgentRuntime that behaves; those that do not are in `misbehaving`.

They run gateways inside this process, on real loopback sockets, so that what dials them cannot tell. The
contract tests of `tests/runtimes/test_contract.py` hold the well-behaved one to the same as the real sandbox.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, Protocol
from uuid import UUID

from ocmt.errors import NotYet, Unavailable
from ocmt.platform.clock import Clock
from ocmt.runtimes.base import AgentSpec, Isolation, Observation, RuntimeState
from ocmt.testing.gateway_wire import stream_to


class GatewayDouble(Protocol):
    """What a double of a runtime runs: `EchoGateway`, or `ocmt.testing.gateway.FakeGateway`."""

    async def dial(self) -> socket.socket:
        """A connected, non-blocking stream to it. Raises: NotYet, Unavailable."""

    async def kill(self) -> None:
        """End it and all connections to it; what it would have on disk it keeps."""

    async def restart(self) -> None:
        """Come back after `kill`."""


MakeGateway = Callable[[AgentSpec], Awaitable[GatewayDouble]]
"""Called at the first start of an agent; a later start restarts what it has made."""


class EchoGateway:
    """The least of all gateways: sends back what it is sent."""

    _server: asyncio.Server

    def __init__(self) -> None:
        self._connections: set[asyncio.Transport] = set()

    @classmethod
    async def make(cls, spec: AgentSpec) -> EchoGateway:
        """One for that agent; it takes no notice of the specification."""
        gateway = cls()
        await gateway.restart()
        return gateway

    async def restart(self) -> None:
        """See GatewayDouble."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Echo(self._connections), "127.0.0.1", 0)

    async def dial(self) -> socket.socket:
        """See GatewayDouble."""
        return await stream_to(self._server.sockets[0].getsockname())

    async def kill(self) -> None:
        """See GatewayDouble."""
        await asyncio.sleep(0)  # those just accepted get their transports
        self._server.close()
        while self._connections:
            for transport in list(self._connections):
                transport.abort()
            await asyncio.sleep(0)


class _Echo(asyncio.Protocol):
    def __init__(self, connections: set[asyncio.Transport]) -> None:
        self._connections = connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._connections.add(transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self._transport)


@dataclass
class _Agent:
    listens_at: float
    lease_until: float = float("inf")
    paused: bool = False
    exit_code: int | None = None
    log: str = "fake gateway: started\n"


class FakeRuntime:
    """A runtime that does what it should. `calls` records what it was asked, as (method, user id)."""

    name = "fake"

    def __init__(
        self, clock: Clock, *, make_gateway: MakeGateway = EchoGateway.make, boot_seconds: float = 0.0
    ) -> None:
        """`boot_seconds` pass on the clock from a start until the gateway listens."""
        self._clock = clock
        self._make_gateway = make_gateway
        self._boot_seconds = boot_seconds
        self._agents: dict[UUID, _Agent] = {}
        self._gateways: dict[UUID, GatewayDouble] = {}
        self.detached: dict[UUID, list[str]] = {}
        """For tests to set: what an agent has left running outside of its gateway's tree."""
        self.calls: list[tuple[Literal["start", "stop", "pause", "resume", "page_out"], UUID]] = []

    async def crash(self, user_id: UUID, exit_code: int, log: str = "fake gateway: crashed\n") -> None:
        """For tests: the agent ends by itself."""
        agent = self._agents[user_id]
        agent.exit_code = exit_code
        agent.log += log
        agent.paused = False
        await self._gateways[user_id].kill()

    async def probe(self) -> Isolation:
        """See AgentRuntime."""
        return Isolation("none", "These agents are doubles for tests.")

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        """See AgentRuntime."""
        self.calls.append(("start", spec.user_id))
        agent = self._agents.get(spec.user_id)
        if agent is None or agent.exit_code is not None:
            if spec.user_id in self._gateways:
                await self._gateways[spec.user_id].restart()
            else:
                self._gateways[spec.user_id] = await self._make_gateway(spec)
            self._agents[spec.user_id] = _Agent(
                self._clock.monotonic() + self._boot_seconds,
                lease_until=float("inf") if spec.lease_until is None else spec.lease_until,
            )
        return {"fake": str(spec.user_id)}

    async def observe(self, user_id: UUID, state: RuntimeState) -> Observation:
        """See AgentRuntime."""
        agent = self._agents.get(user_id)
        if agent is None:
            return Observation("absent")
        if agent.exit_code is not None:
            return Observation("exited", exit_code=agent.exit_code, log_tail=agent.log)
        if agent.paused:
            return Observation("paused")
        if self._clock.monotonic() < agent.listens_at:
            return Observation("starting", step="gateway")
        return Observation("running")

    async def dial(self, user_id: UUID, state: RuntimeState) -> socket.socket:
        """See AgentRuntime."""
        agent = self._agents.get(user_id)
        if agent is None or agent.exit_code is not None or agent.paused:
            raise Unavailable("The agent is not running.")
        if self._clock.monotonic() < agent.listens_at:
            raise NotYet("OpenClaw is not listening yet.", retry_after=0.05)
        return await self._gateways[user_id].dial()

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        """See AgentRuntime."""
        self.calls.append(("stop", user_id))
        agent = self._agents.pop(user_id, None)
        self.detached.pop(user_id, None)
        if agent is not None and agent.exit_code is None:
            await self._gateways[user_id].kill()
        return {}

    async def logs(self, user_id: UUID, state: RuntimeState, *, lines: int = 200) -> str:
        """See AgentRuntime."""
        agent = self._agents.get(user_id)
        return "\n".join(agent.log.splitlines()[-lines:]) if agent else ""

    async def close(self) -> None:
        """See AgentRuntime."""
        for user_id in list(self._agents):
            await self.stop(user_id, {}, grace=0)

    async def pause(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """See CanPause. Connections that exist stay; what flows on them is not held back."""
        self.calls.append(("pause", user_id))
        self._running(user_id).paused = True
        return {"fake": str(user_id)}

    async def resume(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """See CanPause."""
        self.calls.append(("resume", user_id))
        self._running(user_id).paused = False
        return {"fake": str(user_id)}

    async def page_out(self, user_id: UUID, state: RuntimeState) -> bool:
        """See CanPageOut."""
        self.calls.append(("page_out", user_id))
        return self._running(user_id).paused

    async def jobs(self, user_id: UUID) -> list[str]:
        """See KnowsJobs."""
        return self.detached.get(user_id, []) if user_id in self._agents else []

    async def renew(self, user_id: UUID, *, until: float) -> None:
        """See EndsWithLease. Nobody watches here: `lapse` is for tests to call."""
        agent = self._agents.get(user_id)
        if agent is not None:
            agent.lease_until = until

    async def lapse(self) -> None:
        """For tests: end those whose lease has not been renewed in time."""
        for user_id, agent in list(self._agents.items()):
            if agent.exit_code is None and self._clock.monotonic() >= agent.lease_until:
                await self.crash(user_id, 137)

    def _running(self, user_id: UUID) -> _Agent:
        agent = self._agents.get(user_id)
        if agent is None or agent.exit_code is not None:
            raise Unavailable("The agent is not running.")
        return agent
