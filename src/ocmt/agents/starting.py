"""One attempt to start an agent: from the runtime's "on its way" to the gateway's hello, or to its death."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from uuid import UUID

from ocmt.errors import OcmtError, Unavailable
from ocmt.openclaw.client import GatewayClient, GatewayError
from ocmt.platform.clock import Clock
from ocmt.runtimes.base import START_STEPS, AgentRuntime, Observation, RuntimeState

Report = Callable[[str, str], None]
"""Called with (step, text) for each step of a wake; must not block."""

CONFIGURATION_REFUSED = 78
"""OpenClaw's exit code for a configuration that it does not accept (and for a state folder in use)."""

WATCH_INTERVAL = 0.1
"""Seconds between two looks at an agent that starts."""


class AgentFailed(Unavailable):
    """The agent could not be woken; the message says so in plain words."""

    code = "agent_failed"


class StartFailed(Exception):
    """One attempt failed. `words` are for the user, `detail` for the log."""

    by_agent = False
    """Whether it was the OpenClaw that failed, once it had been started, and nothing around it."""

    def __init__(self, words: str, *, detail: str, repairable: bool = False, final: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.detail = detail
        self.repairable = repairable
        """Whether OpenClaw's own doctor may mend it."""
        self.final = final
        """Whether another attempt is of no use."""


async def wait_for_hello(
    runtime: AgentRuntime,
    user_id: UUID,
    state: RuntimeState,
    *,
    token: str,
    clock: Clock,
    timeout: float,
    show: Callable[[str], Awaitable[None]],
) -> GatewayClient:
    """The connected client once the gateway says hello; `show` is awaited at each new step on the way.

    Raises: StartFailed when the gateway dies first, GatewayError when it refuses us, Unavailable after
    `timeout` seconds.
    """

    async def dial() -> socket.socket:
        return await runtime.dial(user_id, state)

    connecting = asyncio.create_task(GatewayClient.connect(dial, token=token, clock=clock, timeout=timeout))
    shown = None
    try:
        while True:
            await asyncio.wait([connecting], timeout=WATCH_INTERVAL)
            seen = await runtime.observe(user_id, state)
            connected = connecting.done() and not connecting.exception()
            if not connected and seen.phase in ("exited", "absent"):
                break  # what the runtime saw says more than that nobody can be reached any more
            if connecting.done():
                return connecting.result()
            # Runtimes know finer steps than people want to see.
            if seen.step is not None and seen.step in START_STEPS and seen.step != shown:
                shown = seen.step
                await show(shown)
    except BaseException:
        await _end(connecting)
        raise
    await _end(connecting)
    raise _died(seen)


async def _end(connecting: asyncio.Task[GatewayClient]) -> None:
    connecting.cancel()
    await asyncio.wait([connecting])
    if not connecting.cancelled() and connecting.exception() is None:
        # It got through in the very moment in which nobody wants it any more.
        await connecting.result().close()


def failed_by(error: OcmtError | GatewayError) -> StartFailed:
    """An attempt that ended with this error."""
    if isinstance(error, GatewayError):
        return StartFailed("OpenClaw refuses our connection.", detail=str(error), final=not error.retryable)
    return StartFailed(error.message, detail=error.detail or "", final=error.kind != "temporary")


def _died(seen: Observation) -> StartFailed:
    if seen.exit_code == CONFIGURATION_REFUSED:
        return StartFailed(
            "OpenClaw refuses this agent's configuration, and its own doctor could not mend it. "
            "An administrator finds the reason with `ocmt agents logs`.",
            detail=seen.log_tail[-2000:],
            repairable=True,
            final=True,
        )
    detail = f"exit code {seen.exit_code}: {seen.log_tail[-2000:]}"
    return StartFailed("OpenClaw stopped while it was starting.", detail=detail)
