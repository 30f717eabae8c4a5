"""What follows a delivery's turn: meanwhile its sender sees "is typing", at its end the answer is owed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog

from ocmt.channels.delivering import can_answer, owe
from ocmt.channels.endpoints import Endpoints, queries
from ocmt.channels.model import State, clean, fault
from ocmt.channels.wording import of_fault
from ocmt.errors import OcmtError
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database, Hints
from ocmt.platform.queries import every

POLL_INTERVAL = 1.0
BATCH = 50
TYPING_EVERY = timedelta(seconds=4)
TYPING_SECONDS = 5.0
TYPING_AT_ONCE = 8
TYPING_MOST = 100

log = structlog.get_logger(__name__)


class AnswerKeeper:
    """Puts answers into the outbox, in any number of processes."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hints: Hints,
        endpoints: Endpoints,
    ) -> None:
        self._database = database
        self._clock = clock
        self._hints = hints
        self._endpoints = endpoints
        self._waited_for: set[str] = set()
        """Conversations of which an answer was owed at the last look."""

    async def run(self) -> None:
        """Until cancelled."""
        with self._hints.subscribe("conversations") as hinted:
            while True:
                try:
                    while await self.look() == BATCH:
                        pass
                except OcmtError as error:
                    log.warning("answers_not_looked_for", error=error.message)
                except Exception:
                    log.exception("answers_not_looked_for")
                # Every piece of every answer on the platform is a hint: only those that concern us count.
                until = self._clock.monotonic() + POLL_INTERVAL
                while (left := until - self._clock.monotonic()) > 0 and await hinted.wait(left):
                    if hinted.named is None or hinted.named & self._waited_for:
                        break

    async def look(self) -> int:
        """Take up the turns that have ended; how many. In one transaction: an answer is owed once."""
        async with self._database.transaction() as connection:
            rows = await every(queries.answered_deliveries(connection, limit=BATCH))
            for row in rows:
                await self._finish(connection, row)
            waited_for = await every(queries.answering_conversations(connection))
        self._waited_for = {str(row["conversation_id"]) for row in waited_for}
        return len(rows)

    async def _finish(self, connection: Connection, row: Any) -> None:
        state, error, parts = State.DONE, None, []
        channel = self._endpoints.kinds.get(row["channel"])
        text = answer_of(row)
        if row["status"] is None:
            error = fault("conversation_deleted", "Its conversation was deleted before the answer was sent.")
        elif channel is not None and text.strip() and can_answer(channel, row["settings"]):
            try:
                parts = channel.split(text)
            except Exception:
                log.exception("answer_not_split", delivery_id=str(row["id"]))
                state, error = State.DEAD, fault("internal", "The answer could not be cut into messages.")
        await owe(connection, self._clock, row, run=row["replays"], texts=parts, reply=row["reply"] or {})
        await queries.delivery_closed(
            connection,
            user_id=row["user_id"],
            id=row["id"],
            token=row["lease_token"],
            state=state.value,
            error=error,
            sender=None,
            reply=None,
            failed=0,
            now=self._clock.now(),
        )

    async def show_typing(self) -> None:
        """Show senders that an answer is on its way, again and again, until cancelled. Best effort."""
        at_once = asyncio.Semaphore(TYPING_AT_ONCE)
        while True:
            try:
                now = self._clock.now()
                async with self._database.connection() as connection:
                    rows = await every(
                        queries.typing_deliveries(
                            connection, now=now, before=now - TYPING_EVERY, limit=TYPING_MOST
                        )
                    )
                await asyncio.gather(*(self._type(row["endpoint_id"], row["reply"], at_once) for row in rows))
            except OcmtError as error:
                log.warning("typing_not_shown", error=error.message)
            await self._clock.sleep(POLL_INTERVAL)

    async def _type(self, endpoint_id: UUID, reply: Mapping[str, Any], at_once: asyncio.Semaphore) -> None:
        try:
            async with at_once, asyncio.timeout(TYPING_SECONDS):
                connected = await self._endpoints.connected(endpoint_id)
                if connected is not None and can_answer(connected[0], connected[1].settings):
                    await connected[0].typing(connected[1], reply)
        except Exception as error:
            log.info("typing_not_shown", endpoint_id=str(endpoint_id), error=repr(error)[:200])


def answer_of(row: Any) -> str:
    """What is said to the sender at a turn's end; "" for nothing."""
    match row["status"]:
        case "completed":
            return clean(row["answer"] or "")
        case "failed":
            return clean(of_fault(row["error"]))
        case "stopped":
            return "The answer was stopped."
        case _:
            return ""
