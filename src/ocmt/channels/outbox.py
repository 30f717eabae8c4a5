"""Sends what we owe to the channels, in the order of each thread, again and again until it is taken.

A row's lease is its try: where it ran out nobody knows whether the channel had taken the message, and the
next try may double it, which is written down before it is made.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import structlog

from ocmt.channels.base import SendFailed
from ocmt.channels.claims import Claims
from ocmt.channels.delivering import OUTBOX_CHANNEL, chance
from ocmt.channels.endpoints import Endpoints, queries
from ocmt.channels.model import OUTBOX_TRIES, fault, pause
from ocmt.errors import OcmtError, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database, Hints

SEND_SECONDS = 20.0
"""A try; the lease is longer, so that no second one begins before it has ended."""
PARALLEL = 32
_PAUSES = (0.2, 0.5, 1.0, 2.0)

log = structlog.get_logger(__name__)


class OutboxWorker:
    """Sends, in any number of processes."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hints: Hints,
        endpoints: Endpoints,
    ) -> None:
        self._database = database
        self._clock = clock
        self._endpoints = endpoints
        self._claims = Claims(
            database,
            clock,
            hints,
            channel=OUTBOX_CHANNEL,
            parallel=PARALLEL,
            claim=lambda connection, now, until, most: queries.claim_outbox(
                connection, now=now, until=until, limit=most
            ),
            work_on=self._work_on,
        )

    async def run(self) -> None:
        """Until cancelled; what is being sent then is sent again, and may be double."""
        await self._claims.run()

    async def _work_on(self, row: Any) -> None:
        try:
            try:
                await self._send(row)
            except OcmtError as error:
                await self._failed(row, error)
            except TimeoutError:
                slow = SendFailed("The channel did not answer in time.", uncertain=True)
                await self._failed(row, slow)
            except Exception as error:
                log.exception("outbox_failed", outbox_id=str(row["id"]))
                ours = SendFailed(
                    "Something went wrong on our side.", uncertain=True, detail=repr(error)[:500]
                )
                await self._failed(row, ours)
            else:
                await self._sent(row)
        except OcmtError as error:
            # The lease runs out; whether it had been sent is not known then.
            log.warning("outbox_left", outbox_id=str(row["id"]), error=error.message)
        except Exception:
            log.exception("outbox_left", outbox_id=str(row["id"]))

    async def _send(self, row: Any) -> None:
        connected = await self._endpoints.connected(row["endpoint_id"])
        if connected is None:
            # Gone with what is owed there, or its owner was suspended just now: then it is not claimed again.
            raise SendFailed("This channel is not connected any more.")
        channel, endpoint = connected
        async with asyncio.timeout(SEND_SECONDS):
            await channel.send(endpoint, row["reply"], row["text"], key=str(row["id"]))

    async def _sent(self, row: Any) -> None:
        """Write down that it is done, and not give up easily: else it is sent once more."""
        for seconds in _PAUSES:
            try:
                await self._note_sent(row)
            except Unavailable:
                await self._clock.sleep(seconds)
            else:
                return
        await self._note_sent(row)

    async def _note_sent(self, row: Any) -> None:
        async with self._database.connection() as connection:
            await queries.outbox_sent(
                connection,
                user_id=row["user_id"],
                id=row["id"],
                token=row["lease_token"],
                now=self._clock.now(),
            )

    async def _failed(self, row: Any, error: OcmtError) -> None:
        failures = row["attempts"] + 1
        uncertain = isinstance(error, SendFailed) and error.uncertain
        permanent = error.permanent if isinstance(error, SendFailed) else not error.retryable
        why = fault(error.code, error.message)
        log.info("outbox_not_sent", outbox_id=str(row["id"]), failures=failures, detail=error.detail, **why)
        mine = {"user_id": row["user_id"], "id": row["id"], "token": row["lease_token"]}
        async with self._database.transaction() as connection:
            if permanent or failures >= OUTBOX_TRIES:
                log.warning("outbox_dead", outbox_id=str(row["id"]), **why)
                await queries.outbox_dead(connection, error=why, uncertain=uncertain, **mine)
                return
            next_at = self._clock.now() + pause(failures, chance(), error.retry_after)
            await queries.outbox_later(connection, error=why, uncertain=uncertain, next_at=next_at, **mine)
            if error.retry_after:
                await queries.outbox_hold_back(
                    connection,
                    user_id=row["user_id"],
                    endpoint_id=row["endpoint_id"],
                    next_at=self._clock.now() + timedelta(seconds=error.retry_after),
                )
