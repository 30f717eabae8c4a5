"""The agent's side of a call as bare ASGI: reading its body, answering it, noticing that it hung up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog

from ocmt.broker.events import error_event
from ocmt.platform.http import disconnected
from ocmt.platform.http.headers import checked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

log = structlog.get_logger(__name__)

_LAST_WORDS_SECONDS = 5
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
    """One HTTP answer, written in pieces. Each waits while the agent is slow: that is the back-pressure."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.complete = False

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head."""
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": checked(headers)})

    async def piece(self, data: bytes) -> None:
        """Send a piece of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece."""
        # Before the sending: the server reports a disconnect as soon as the answer is complete.
        self.complete = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def whole(self, status: int, body: bytes, headers: Headers = ()) -> None:
        """Send a whole answer."""
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, [*headers, length])
        await self.end(body)

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


class Admission:
    """Bounds on what agents may have in hand at once: calls per user, and bytes of requests altogether."""

    def __init__(self, *, calls_per_user: int = 16, total_bytes: int = 256 * 1024 * 1024) -> None:
        self._calls_per_user = calls_per_user
        self._free_bytes = total_bytes
        self._calls: dict[UUID, int] = {}

    @contextmanager
    def seat(self, user_id: UUID) -> Iterator[Seat]:
        """A place for one call, with room for its body. Raises Answer where the user has too many."""
        if self._calls.get(user_id, 0) >= self._calls_per_user:
            raise Answer(529, "overloaded_error", "Too many calls at once.", retry_after=1)
        self._calls[user_id] = self._calls.get(user_id, 0) + 1
        seat = Seat(self)
        try:
            yield seat
        finally:
            self._free_bytes += seat.bytes
            if self._calls[user_id] == 1:
                del self._calls[user_id]
            else:
                self._calls[user_id] -= 1

    def take(self, size: int) -> None:
        """Reserve bytes. Raises Answer where there are none left."""
        if size > self._free_bytes:
            raise Answer(529, "overloaded_error", "Too many large requests at once.", retry_after=1)
        self._free_bytes -= size


class Seat:
    """One admitted call and the bytes it holds."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    async def read_body(self, scope: Scope, receive: Receive, *, limit: int, timeout: float) -> bytes:
        """The request's whole body. Raises Answer (too large, too slow) or ClientGone."""
        too_large = Answer(413, "request_too_large", f"The request is larger than {limit} bytes.")
        declared = header(scope, b"content-length")
        if declared.isdigit() and int(declared) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    piece = message.get("body", b"")
                    if len(body) + len(piece) > limit:
                        raise too_large
                    self._admission.take(len(piece))
                    self.bytes += len(piece)
                    body += piece
                    if not message.get("more_body", False):
                        return bytes(body)
        except TimeoutError:
            raise Answer(408, "timeout_error", "The request did not arrive in time.") from None


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
