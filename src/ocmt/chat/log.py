"""The event log: appending to it in order, in batches, under the lease; and reading it from any point."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from uuid import UUID, uuid4

import structlog

from ocmt.chat.model import EVENT_BYTES, Event, EventType, Turn, merge_deltas
from ocmt.chat.noted import MORE, Noted, Verdict
from ocmt.errors import LeaseLost, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import every, load_queries
from ocmt.platform.storage import Budgets

log = structlog.get_logger(__name__)

queries = load_queries(__package__)

CHANNEL = "conversations"
"""LISTEN channel: the payload is the conversation that has new events."""

BATCH_INTERVAL = 0.04
"""Seconds between two batches of one turn; with the insert itself, events are at most 50 ms late."""
GATHER = 0.004
"""Seconds of them that are left for what comes together: an answer's last piece and, 1 ms behind, its end,
which would else wait for the batch before it.
"""
RETRY_INTERVAL = 1.0
MAX_FAILURES = 60
"""How often in a row a database that does not answer is tried again, before the turn is left to be found."""
MAX_BUFFERED = 2_000
MAX_BUFFERED_TEXT = 4 * 1024 * 1024
"""Events, and characters of them, that may wait for the database before the gateway's stream is slowed."""


@dataclass(frozen=True)
class Appended:
    """What became of events that were appended."""

    last_seq: int
    """The number of the last one."""
    bytes_left: int
    """How much of the user's budget is left; negative where it is passed."""


async def append(
    connection: Connection,
    clock: Clock,
    *,
    user_id: UUID,
    conversation_id: UUID,
    events: Sequence[Event],
    lease_token: int | None,
    batch: UUID | None = None,
    budgets: Budgets | None = None,
) -> Appended:
    """Store events, count them, and announce them.

    `lease_token` None: written by the user's own request rather than by the driver of the agent.
    `batch`: a name for them; where the conversation's last batch had it, they are written already.
    Raises LeaseLost where the lease or the conversation is gone: nothing was written.
    """
    datas = [json.dumps(dict(event.data)) for event in events]
    row = await queries.append_events(
        connection,
        user_id=user_id,
        conversation_id=conversation_id,
        count=len(events),
        now=clock.now(),
        lease_token=lease_token,
        turn_ids=[event.turn_id for event in events],
        types=[event.type.value for event in events],
        datas=datas,
        # JSON as `dumps` writes it is ASCII: a character is a byte.
        bytes=sum(map(len, datas)) + EVENT_BYTES * len(datas),
        batch=batch,
        most_bytes=(budgets or Budgets()).conversation_bytes,
    )
    if row is None:
        raise LeaseLost(
            "Another replica answers this conversation now, or it was deleted.",
            detail=f"conversation {conversation_id}",
        )
    return Appended(**row)


async def read(
    database: Database, *, user_id: UUID, conversation_id: UUID, after: int, limit: int = 500
) -> list[Event]:
    """The events behind number `after`, oldest first. Empty also for a conversation of somebody else."""
    async with database.connection() as connection:
        rows = await every(
            queries.read_events(
                connection, user_id=user_id, conversation_id=conversation_id, after=after, limit=limit
            )
        )
    return [Event(EventType(row["type"]), row["turn_id"], row["data"], row["seq"]) for row in rows]


@dataclass(frozen=True)
class _Batch:
    """What is being written, or may have been: the same again until the database has said that it is."""

    id: UUID
    events: list[Event]
    count: int
    """How many of the buffer they are."""


class TurnWriter:
    """Writes one turn's events as they come: the first at once, then in batches.

    As a context manager it flushes in the background; leaving it flushes what is left. After the lease is
    lost `check` and `put_delta` raise LeaseLost.
    """

    def __init__(
        self, database: Database, clock: Clock, turn: Turn, lease_token: int, budgets: Budgets | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._turn = turn
        self._lease_token = lease_token
        self._budgets = budgets or Budgets()
        self._noted = Noted()
        self.full = asyncio.Event()
        """The user's budget for conversations is used up: the turn has to end."""
        self._buffer: list[Event] = []
        self._buffered_text = 0
        self._batch: _Batch | None = None
        self._writing = asyncio.Lock()
        self._filled = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._flushing: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None

    async def __aenter__(self) -> Self:
        """Start flushing."""
        self._flushing = asyncio.create_task(self._flush_for_ever(), name=f"events of {self._turn.id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop flushing; write what is left unless writing has failed."""
        assert self._flushing is not None
        try:
            async with self._writing:
                pass  # a batch under way is written first
        finally:
            self._flushing.cancel()
            await asyncio.wait([self._flushing])
        if self._failure is None:
            await self._flush()
        elif error is None:
            raise self._failure

    def put(self, type_: EventType, **data: object) -> None:
        """Add an event; returns at once. Of tool calls and remarks a turn has a bounded number: what comes
        behind it is left out, and one remark says so. For the answer use `put_delta`."""
        match self._noted.take(type_, data):
            case Verdict.LEFT_OUT:
                return
            case Verdict.LAST:
                type_, data = EventType.PROGRESS, {"step": "note", "text": MORE}
        self._buffer.append(Event(type_, self._turn.id, data))
        self._filled.set()

    async def put_delta(self, text: str, *, replace: bool = False) -> None:
        """Add a piece of the answer, or with `replace` begin it anew with this one.

        Waits while too much is buffered. Raises LeaseLost.
        """
        if len(self._buffer) >= MAX_BUFFERED or self._buffered_text >= MAX_BUFFERED_TEXT:
            self._drained.clear()
            await self._drained.wait()
        self.check()
        self._buffered_text += len(text)
        self.put(EventType.DELTA, text=text, **({"replace": True} if replace else {}))

    def check(self) -> None:
        """Raises what ended the writing, if anything did."""
        if self._failure is not None:
            raise self._failure

    @asynccontextmanager
    async def held(self) -> AsyncIterator[list[Event]]:
        """What is not written yet, for a transaction of the caller's; at its end that counts as written.

        Nothing else is written meanwhile, so nothing comes behind what the caller writes. Whatever fails in
        here leaves the events where they are.
        """
        async with self._writing:
            await self._write_batch()
            count = len(self._buffer)
            yield merge_deltas(self._buffer[:count])
            self._count_as_written(count)

    def _count_as_written(self, count: int) -> None:
        del self._buffer[:count]
        self._buffered_text = 0  # at most a batch too little: what came meanwhile is counted anew
        self._drained.set()

    async def _flush_for_ever(self) -> None:
        failures, gathers = 0, False
        try:
            while True:
                await self._filled.wait()
                if gathers:
                    await self._clock.sleep(GATHER)
                self._filled.clear()
                try:
                    await self._flush()
                    failures, gathers = 0, True
                    await self._clock.sleep(BATCH_INTERVAL - GATHER)
                except Unavailable as error:
                    failures += 1
                    if failures > MAX_FAILURES:
                        raise
                    log.warning("events not written yet", turn_id=str(self._turn.id), error=str(error))
                    self._filled.set()
                    await self._clock.sleep(RETRY_INTERVAL)
        except Exception as error:
            # Handed to the turn's own task by `check`.
            self._failure = error
            self._drained.set()

    async def _flush(self) -> None:
        async with self._writing:
            await self._write_batch()
            if self._buffer:
                self._batch = _Batch(uuid4(), merge_deltas(self._buffer), len(self._buffer))
                await self._write_batch()

    async def _write_batch(self) -> None:
        """What was begun, to its end. Raises Unavailable: perhaps it is written."""
        if self._batch is None:
            return
        async with self._database.connection() as connection:
            written = await append(
                connection,
                self._clock,
                user_id=self._turn.user_id,
                conversation_id=self._turn.conversation_id,
                events=self._batch.events,
                lease_token=self._lease_token,
                batch=self._batch.id,
                budgets=self._budgets,
            )
        if written.bytes_left < 0:
            self.full.set()
        self._count_as_written(self._batch.count)
        self._batch = None
