"""Reasons to stay awake, for as long as what needs the agent lasts: named, expiring, renewed, released.

A hold does not wake an agent. Looking at it (a page, a poll, an event stream) is no reason, only intent is:
a turn, a connected program, a message from a channel, a job that is due, a file on its way, a question that
waits for its user, an operator's word.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

import structlog

from ocmt.agents.model import Hold
from ocmt.agents.service import Agents
from ocmt.errors import LimitReached, OcmtError
from ocmt.platform.clock import Clock

log = structlog.get_logger(__name__)

WORDS: Mapping[str, str] = {
    "turn": "It is answering a message",
    "socket": "A program of yours is connected to it",
    "delivery": "A message from a channel is being handled",
    "cron": "A scheduled task is due or running",
    "transfer": "Files are being copied",
    "operator": "An operator keeps it awake",
    "job": "A program runs in the background",
    "approval": "It waits for your approval",
}
"""Every reason, as its user reads it."""

TTL = timedelta(seconds=90)
"""How long a hold lasts that nobody renews any more: the holder has died, or the database is away."""
MAX_HELD = 10_000
"""By one process at a time."""
MAX_OPERATOR_HOLD = timedelta(days=7)
OPERATOR = "cli"
"""Reference of the one hold that operators have on an agent."""


def words(hold: Hold) -> str:
    """The reason for people, with the holder's own words where there are some."""
    reason = WORDS.get(hold.reason, hold.reason)
    return f"{reason}: {hold.note}" if hold.note else reason


class Holds:
    """What this process holds awake."""

    def __init__(self, agents: Agents, clock: Clock) -> None:
        self._agents = agents
        self._clock = clock
        self._held = 0

    @asynccontextmanager
    async def held(
        self, user_id: UUID, reason: str, reference: str, *, ttl: timedelta = TTL
    ) -> AsyncIterator[None]:
        """The agent stays awake while the context is open. `reason`: of WORDS; `reference`: which one.

        Renewed every third of `ttl`; a database that is away is tried again, and the hold lasts unless it is
        away for longer than `ttl`. Raises on entry: Unavailable, LimitReached.
        """
        if self._held >= MAX_HELD:
            raise LimitReached("This server keeps too many agents awake already.")
        self._held += 1
        try:
            await self._agents.find(user_id)
            await self._agents.hold(user_id, reason, reference, ttl=ttl)
            renewing = asyncio.create_task(
                self._renew(user_id, reason, reference, ttl), name=f"hold {user_id} {reason}"
            )
            try:
                yield
            finally:
                renewing.cancel()
                await asyncio.wait([renewing])
                await self._release(user_id, reason, reference)
        finally:
            self._held -= 1

    async def _renew(self, user_id: UUID, reason: str, reference: str, ttl: timedelta) -> None:
        while True:
            await self._clock.sleep(ttl.total_seconds() / 3)
            try:
                await self._agents.hold(user_id, reason, reference, ttl=ttl)
            except OcmtError as error:
                log.warning("hold not renewed", user_id=str(user_id), reason=reason, error=str(error))

    async def _release(self, user_id: UUID, reason: str, reference: str) -> None:
        try:
            await self._agents.release(user_id, reason, reference)
        except OcmtError as error:
            # It runs out by itself.
            log.warning("hold not released", user_id=str(user_id), reason=reason, error=str(error))
