"""One turn for nobody, to record what a first turn loads; whether it succeeds is no matter."""

from __future__ import annotations

import asyncio
import contextlib

from ocmt.errors import OcmtError
from ocmt.openclaw.client import RETRY_DELAY, Dial, GatewayClient, GatewayError
from ocmt.openclaw.protocol import Aborted, Failed, Final
from ocmt.platform.clock import Clock

SESSION = "agent:main:web:exercise"
TIMEOUT = 60.0


async def exercise(dial: Dial, *, token: str, clock: Clock) -> None:
    """Say hello to a gateway and see the answer, or the refusal, through. What goes wrong is not raised."""
    with contextlib.suppress(OcmtError, GatewayError, TimeoutError):
        async with asyncio.timeout(TIMEOUT):
            gateway = await GatewayClient.connect(dial, token=token, clock=clock, timeout=TIMEOUT)
            try:
                await _turn(gateway, clock)
            finally:
                await gateway.close()


async def _turn(gateway: GatewayClient, clock: Clock) -> None:
    with gateway.run_events(SESSION) as events:
        await send_until_taken(
            gateway, clock, session_key=SESSION, message="Hello", idempotency_key="exercise"
        )
        async for event in events:
            if isinstance(event, Final | Failed | Aborted):
                return


async def send_until_taken(
    gateway: GatewayClient, clock: Clock, *, session_key: str, message: str, idempotency_key: str
) -> str:
    """Hand a message over, again and again while the gateway says "not now"; the run's id. Without an end of
    its own: the caller bounds it. Raises: GatewayError, Unavailable."""
    while True:
        try:
            sent = await gateway.send_chat(
                session_key=session_key, message=message, idempotency_key=idempotency_key
            )
            return sent.run_id
        except GatewayError as error:
            if not error.retryable:
                raise
            await clock.sleep(RETRY_DELAY)
