"""What is said to a gateway around its agent's sleep: may it be frozen, and that it shall take work again."""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog

from ocmt.errors import Unavailable
from ocmt.openclaw.client import GatewayClient, GatewayError

log = structlog.get_logger(__name__)

ANSWER_TIMEOUT = 10.0
"""Seconds; a gateway that has just been thawed may be slow."""


async def may_be_frozen(gateway: GatewayClient, user_id: UUID) -> bool:
    """Whether the gateway has nothing to do; if so it takes no work until `take_work`."""
    try:
        answer = await gateway.prepare_suspend(_request_id(user_id))
    except (GatewayError, Unavailable) as error:
        log.info("gateway did not answer whether it may sleep", user_id=str(user_id), error=str(error))
        return False
    return answer.ready


async def take_work(gateway: GatewayClient, user_id: UUID) -> None:
    """Have it take work again. Raises: GatewayError, Unavailable."""
    # The suspension may have run out by itself while it was paused; then there is nothing to resume.
    try:
        await asyncio.wait_for(gateway.resume_suspend(_request_id(user_id)), ANSWER_TIMEOUT)
    except TimeoutError as error:
        raise Unavailable("OpenClaw does not wake from its pause.") from error


async def take_work_or_close(gateway: GatewayClient, user_id: UUID) -> None:
    """Have it take work again; one that does not would refuse every message, so its connection is closed."""
    try:
        await take_work(gateway, user_id)
    except (GatewayError, Unavailable) as error:
        log.warning("agent takes no work any more", user_id=str(user_id), error=str(error))
        await gateway.close()


def _request_id(user_id: UUID) -> str:
    return f"ocmt-{user_id}"
