"""The events of a conversation on their way to who listens: a bounded queue that ends with an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ocmt.errors import Unavailable
from ocmt.openclaw import protocol
from ocmt.openclaw.protocol import Aborted, Delta, Failed, Final, RunEvent

MAX_QUEUED_EVENTS = 5_000
MAX_QUEUED_TEXT = 64 * 1024 * 1024
"""Characters, of all events together that wait to be taken."""
MAX_RUNS = 10_000
"""Of one conversation while somebody listens; a turn has one, or a few where OpenClaw resumes it."""


class RunStream:
    """A bounded queue of run events, that ends with an error."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[RunEvent | str] = asyncio.Queue()
        self._text = 0
        self._ended = False
        self._over: set[str] = set()

    def put(self, event: RunEvent) -> None:
        """Add one; too many, or too much text, end the stream."""
        if self._ended or event.run_id in self._over:
            # OpenClaw tells the end of a failed run twice, in other words.
            return
        self._text += _size(event)
        if (
            self._queue.qsize() >= MAX_QUEUED_EVENTS
            or self._text > MAX_QUEUED_TEXT
            or len(self._over) >= MAX_RUNS
        ):
            self.end("OpenClaw's events come faster than they can be taken.")
            return
        if isinstance(event, Final | Failed | Aborted):
            self._over.add(event.run_id)
        self._queue.put_nowait(event)

    def end(self, reason: str) -> None:
        """Nothing more comes: once all is taken, the reader gets Unavailable with these words."""
        if not self._ended:
            self._ended = True
            self._queue.put_nowait(reason)

    def __aiter__(self) -> AsyncIterator[RunEvent]:
        return self

    async def __anext__(self) -> RunEvent:
        event = await self._queue.get()
        if isinstance(event, str):
            self._queue.put_nowait(event)
            raise Unavailable(event)
        self._text -= _size(event)
        return event


def _size(event: RunEvent) -> int:
    match event:
        case Delta():
            return len(event.text) + len(event.message)
        case Final() | Aborted():
            return len(event.text)
        case _:
            return protocol.MAX_REMARK
