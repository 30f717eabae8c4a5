"""A person at a browser with a stopwatch: the event stream is open, a message is sent, events are timed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from ocmt.testing.installation import ANSWER_TIMEOUT, Person, StreamEvent

MESSAGE = "Say hello, please."
ENDS = ("turn.completed", "turn.failed", "turn.stopped")


@dataclass(frozen=True)
class Timed:
    """One turn, in seconds from the moment at which the message was sent (not: accepted)."""

    accepted: float
    progress: float | None
    """To the first line about the agent's waking; None where it was awake."""
    started: float
    """To the event that says that the agent has the message."""
    first: float
    """To the first piece of the answer."""
    whole: float


class Timekeeper:
    """One conversation, its stream open as in a browser."""

    def __init__(self, person: Person, conversation: str) -> None:
        self._person = person
        self._conversation = conversation
        self._events: asyncio.Queue[StreamEvent] = asyncio.Queue()
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the stream."""
        self._following = asyncio.create_task(self._follow())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        assert self._following is not None
        self._following.cancel()
        await asyncio.wait([self._following])

    async def ask(self) -> Timed:
        """Send the message and follow its turn to the end."""
        began = time.monotonic()
        turn = await self._person.post(self._conversation, MESSAGE)
        accepted = time.monotonic() - began
        at: dict[str, float] = {}
        async with asyncio.timeout(ANSWER_TIMEOUT):
            while not at.keys() & set(ENDS):
                event = await self._events.get()
                if event.data["turn_id"] == turn["id"]:
                    at.setdefault(event.type, event.at - began)
        assert "turn.completed" in at, f"the turn was not answered: {at}"
        return Timed(
            accepted, at.get("agent.progress"), at["turn.started"], at["turn.delta"], at["turn.completed"]
        )

    async def _follow(self) -> None:
        after = 0
        while True:
            # The server ends a stream after some minutes; a browser then opens the next.
            async for event in self._person.events(self._conversation, after):
                after = event.seq
                self._events.put_nowait(event)
