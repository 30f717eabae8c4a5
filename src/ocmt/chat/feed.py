"""One reader for each conversation that somebody follows, however many windows show it.

A window joins the feed before it reads what it has missed, so that nothing falls between the two; what comes
by both ways is known by its number. A window that does not keep up is let go: its browser comes back with the
last number that it has, and misses nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from ocmt.chat import log
from ocmt.chat.model import Event
from ocmt.errors import OcmtError
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database, Hints

logger = structlog.get_logger(__name__)

BATCH = 500
POLL_INTERVAL = 15.0
"""Seconds after which the database is asked without a hint, too."""
RETRY_INTERVAL = 1.0
MAX_QUEUED = 1024 * 1024
"""Bytes that wait for one slow window before it is let go."""

Framed = tuple[int, bytes]
"""An event's number, and the event as it goes over the wire."""


@dataclass(eq=False)
class Window:
    """One reader's place in a feed."""

    queue: deque[Framed] = field(default_factory=deque)
    size: int = 0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)
    """It reads too slowly, and gets nothing more."""

    def offer(self, events: Sequence[Framed], size: int) -> None:
        """The next events of the conversation; `size`: their bytes."""
        if self.let_go.is_set():
            return
        self.size += size
        if self.size > MAX_QUEUED:
            self.queue.clear()
            self.let_go.set()
        else:
            self.queue.extend(events)
        self.came.set()

    def take(self, after: int) -> Framed | None:
        """All that waits behind number `after`, as one piece with its last number; None: nothing."""
        pieces = []
        while self.queue:
            seq, piece = self.queue.popleft()
            if seq > after:
                after = seq
                pieces.append(piece)
        self.size = 0
        self.came.clear()
        return (after, b"".join(pieces)) if pieces else None


@dataclass(eq=False)
class _Feed:
    windows: set[Window] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


class Feeds:
    """Of this process."""

    def __init__(self, database: Database, hints: Hints, clock: Clock) -> None:
        self._database = database
        self._hints = hints
        self._clock = clock
        self._feeds: dict[tuple[UUID, UUID], _Feed] = {}

    @asynccontextmanager
    async def window(self, user_id: UUID, conversation_id: UUID, newest: int) -> AsyncIterator[Window]:
        """A place in the feed of the user's conversation, until the block ends. `newest`: number of its last
        event, or of an earlier one."""
        key = (user_id, conversation_id)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = _Feed()
            feed.task = asyncio.create_task(self._follow(feed, *key, newest), name=f"feed {conversation_id}")
        window = Window()
        feed.windows.add(window)
        try:
            yield window
        finally:
            feed.windows.discard(window)
            if not feed.windows:
                del self._feeds[key]
                assert feed.task is not None
                feed.task.cancel()
                await asyncio.wait([feed.task])

    async def missed(self, user_id: UUID, conversation_id: UUID, after: int) -> Framed | None:
        """What is in the database behind number `after`, a batch at a time; None: nothing more."""
        events = await log.read(
            self._database, user_id=user_id, conversation_id=conversation_id, after=after, limit=BATCH
        )
        return (events[-1].seq, b"".join(_frame(event) for event in events)) if events else None

    async def _follow(self, feed: _Feed, user_id: UUID, conversation_id: UUID, after: int) -> None:
        with self._hints.subscribe(log.CHANNEL, str(conversation_id)) as hinted:
            while True:
                try:
                    events = await log.read(
                        self._database,
                        user_id=user_id,
                        conversation_id=conversation_id,
                        after=after,
                        limit=BATCH,
                    )
                except OcmtError as error:
                    logger.warning("feed held up", conversation_id=str(conversation_id), error=str(error))
                    await self._clock.sleep(RETRY_INTERVAL)
                    continue
                if events:
                    after = events[-1].seq
                    framed = [(event.seq, _frame(event)) for event in events]
                    size = sum(len(piece) for _, piece in framed)
                    for window in feed.windows:
                        window.offer(framed, size)
                if len(events) < BATCH:
                    await hinted.wait(POLL_INTERVAL)


def _frame(event: Event) -> bytes:
    data = json.dumps(
        {"turn_id": str(event.turn_id), **event.data}, ensure_ascii=False, separators=(",", ":")
    )
    return f"id: {event.seq}\nevent: {event.type.value}\ndata: {data}\n\n".encode()
