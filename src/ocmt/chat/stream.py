"""The event stream (SSE) of one conversation, as a bare ASGI endpoint: a hot path, open for minutes.

It replays what the browser has not seen and then follows; after any break the browser comes back with the
last number that it saw, on whatever replica. Looking at a stream does not wake an agent.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from ocmt.chat.feed import Feeds, Window
from ocmt.chat.model import Conversation
from ocmt.chat.service import UNKNOWN, Chat
from ocmt.errors import InvalidInput, LimitReached, OcmtError, Unauthenticated
from ocmt.platform.clock import Clock, happens
from ocmt.platform.database import Database, Hints
from ocmt.platform.http import disconnected, path_id, principal

logger = structlog.get_logger(__name__)

MAX_STREAMS = 20
"""Of one user in this process: windows, not programs."""
PING_INTERVAL = 15.0
"""Seconds; keeps proxies from closing a quiet stream, and finds browsers that are gone."""
CHECK_EVERY = 30.0
"""Seconds between two looks whether the user may still read this."""
LIFETIME = 300.0
"""Seconds after which the browser is sent to connect anew, and so to sign in anew."""
RECONNECT_MS = 500


Still = Callable[[], Awaitable[object | None]]
"""Who asks by now, None or Unauthenticated where nobody does any more."""


class EventStream:
    """`GET /agent/conversations/{id}/events?after=SEQ`, or with the header Last-Event-ID.

    With `follow=0` the answer ends once everything so far was sent: for a browser that has no connection to
    spare.
    """

    def __init__(self, chat: Chat, database: Database, hints: Hints, clock: Clock) -> None:
        self._chat = chat
        self._feeds = Feeds(database, hints, clock)
        self._clock = clock
        self._open: Counter[UUID] = Counter()
        self.closing = asyncio.Event()
        """Set when the process ends: the streams end, and browsers connect to the next one."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one stream. Raises NotFound, InvalidInput, LimitReached before it begins."""
        request = Request(scope, receive)
        user_id = principal(request).user_id
        conversation = await self._chat.conversation(user_id, path_id(request, "conversation_id", UNKNOWN))
        after = _after(request)
        still = scope["state"].get("still")
        if self._open[user_id] >= MAX_STREAMS:
            raise LimitReached(f"You have {MAX_STREAMS} windows open on your conversations. Close some.")
        self._open[user_id] += 1
        try:
            await _begin(send)
            if request.query_params.get("follow") == "0":
                replaying = self._replay(user_id, conversation.id, after, send)
                await self._until_one_ends(conversation.id, replaying, still, receive, send)
            else:
                await self._serve(user_id, conversation, after, still, receive, send)
        finally:
            self._open[user_id] -= 1
            if not self._open[user_id]:
                del self._open[user_id]

    async def _serve(
        self,
        user_id: UUID,
        conversation: Conversation,
        after: int,
        still: Still | None,
        receive: Receive,
        send: Send,
    ) -> None:
        async with self._feeds.window(user_id, conversation.id, conversation.last_seq) as window:
            following = self._follow(user_id, conversation.id, after, window, send)
            await self._until_one_ends(conversation.id, following, still, receive, send, window.let_go.wait())

    async def _until_one_ends(
        self,
        conversation_id: UUID,
        sending: Coroutine[Any, Any, object],
        still: Still | None,
        receive: Receive,
        send: Send,
        *others: Coroutine[Any, Any, object],
    ) -> None:
        """Send until all is sent, the browser has gone or may not read this anymore, or its time is over."""
        following = asyncio.create_task(sending)
        leaving = asyncio.create_task(disconnected(receive))
        tasks: set[asyncio.Task[Any]] = {following, leaving, asyncio.create_task(self.closing.wait())}
        tasks.update(asyncio.create_task(other) for other in others)
        if still is not None:
            tasks.add(asyncio.create_task(self._until_signed_out(still)))
        try:
            await asyncio.wait(tasks, timeout=LIFETIME, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if following.done() and not following.cancelled():
            try:
                following.result()
            except OcmtError as error:
                # The answer has begun: all that can be done is to end it, and the browser comes back.
                logger.warning(
                    "event stream broken off", conversation_id=str(conversation_id), error=str(error)
                )
        if not leaving.done() or leaving.cancelled():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _until_signed_out(self, still: Still) -> None:
        """Return once the session or token that opened the stream is not valid any more."""
        # Spread, or those of a reconnecting crowd would all be checked in the same second.
        await self._clock.sleep(random.uniform(0.5, 1) * CHECK_EVERY)  # noqa: S311
        while True:
            try:
                if await still() is None:
                    return
            except Unauthenticated:
                return
            except OcmtError as error:
                logger.info("could not look who follows a stream", error=str(error))
            await self._clock.sleep(CHECK_EVERY)

    async def _replay(self, user_id: UUID, conversation_id: UUID, after: int, send: Send) -> int:
        """Send what is in the database behind number `after`; return the number of the last event."""
        while (missed := await self._feeds.missed(user_id, conversation_id, after)) is not None:
            after, body = missed
            await _send(send, body)
        return after

    async def _follow(
        self, user_id: UUID, conversation_id: UUID, after: int, window: Window, send: Send
    ) -> None:
        after = await self._replay(user_id, conversation_id, after, send)
        while not window.let_go.is_set():
            came = window.take(after)
            if came is not None:
                after, body = came
                await _send(send, body)
            elif not await happens(window.came, PING_INTERVAL, self._clock):
                await _send(send, b": ping\n\n")


async def _begin(send: Send) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream; charset=utf-8"),
                (b"cache-control", b"no-store"),
                (b"x-accel-buffering", b"no"),
            ],
        }
    )
    await _send(send, f"retry: {RECONNECT_MS}\n\n".encode())


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


def _after(request: Request) -> int:
    # After a break the header tells more than the address, which is that of the first connection.
    text = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidInput("`after` is the number of the last event that you have seen.")
    return int(text)
