"""The agent's side of a call as bare ASGI: answering it, noticing that it hung up or does not read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable, MutableMapping
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send

from ocmt.broker.events import error_event
from ocmt.platform.http import disconnected
from ocmt.platform.http.headers import checked

log = structlog.get_logger(__name__)

_LAST_WORDS_SECONDS = 5
_SLICE = 64 * 1024
"""Bytes that are written at once: what the agent does not read waits in memory that nobody counts."""
Headers = Iterable[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The agent closed its connection before it had the whole answer."""


class Answer(Exception):
    """What to answer instead of a model's reply, in Anthropic's shape."""

    def __init__(self, status: int, error_type: str, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error_type = error_type
        self.message = message
        self.retry_after = retry_after


def ended_by_us() -> Answer:
    """The answer that makes OpenClaw end its turn at once, with no retry and no cooldown of its token.

    OpenClaw classifies errors by the words of their message as well, so this one says nothing: the reason,
    in words for the user, is in the ledger. Measured on 2026.9.6, see docs/openclaw.md.
    """
    return Answer(400, "ocmt_refused", "The platform ended this call.")


class Reply:
    """One HTTP answer, written in pieces. Each waits while the agent is slow: that is the back-pressure.

    An agent that takes nothing for `patience` seconds is treated as one that hung up (ClientGone).
    """

    def __init__(self, send: Send, *, patience: float = 60) -> None:
        self._raw_send = send
        self._patience = patience
        self.started = False
        self.complete = False

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head."""
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": checked(headers)})

    async def piece(self, data: bytes) -> None:
        """Send a piece of the body."""
        if len(data) <= _SLICE:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            return
        for at in range(0, len(data), _SLICE):
            await self.piece(data[at : at + _SLICE])

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece."""
        if len(data) > _SLICE:
            await self.piece(data)
            data = b""
        # Before the sending: the server reports a disconnect as soon as the answer is complete.
        self.complete = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def whole(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send a whole answer."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, [*headers, length])
        await self.end(body)

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._raw_send(message)
        except TimeoutError:
            raise ClientGone from None

    async def json(self, status: int, data: object, headers: Headers = ()) -> None:
        """Send a whole answer in JSON."""
        await self.whole(
            status, json.dumps(data).encode(), [*headers, (b"content-type", b"application/json")]
        )

    async def give(self, answer: Answer) -> None:
        """Send an answer in Anthropic's error shape; into a stream that has begun, as its error event."""
        if self.complete:
            return
        if self.started:
            await self.end(error_event(answer.error_type, answer.message))
            return
        error = {"type": answer.error_type, "message": answer.message}
        wait = [] if answer.retry_after is None else [(b"retry-after", str(answer.retry_after).encode())]
        await self.json(answer.status, {"type": "error", "error": error}, wait)


async def last_words(reply: Reply, answer: Answer) -> None:
    """Answer an agent that may not be listening any more. Unfinished answers end with the connection."""
    try:
        async with asyncio.timeout(_LAST_WORDS_SECONDS):
            await reply.give(answer)
    except TimeoutError:
        log.info("agent did not take its answer", status=answer.status)


def header(scope: Scope, name: bytes) -> bytes:
    """A request header's first value, empty where there is none."""
    return next((value for key, value in scope["headers"] if key == name), b"")


async def while_connected(receive: Receive, reply: Reply, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, or stop it as soon as the agent hangs up. Raises ClientGone, or what the work raises."""
    working = asyncio.create_task(work)
    gone = asyncio.create_task(disconnected(receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and not reply.complete:
            raise ClientGone
        await working
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)
