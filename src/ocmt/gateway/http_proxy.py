"""The gateway's own HTTP addresses that a user may use (`model.may_ask`): OpenAI's protocol, for instance.

A request is read whole and written anew by h11, never passed on as it came: what two parsers could read in
two ways does not reach the second. The answer streams. Back-pressure is the client's own reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import h11
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.errors import LimitReached, OcmtError, TooLarge, Unavailable
from ocmt.gateway.model import may_ask, sent_back, sent_on, status_back
from ocmt.platform.bucket import Bucket
from ocmt.platform.http import disconnected, principal, problem
from ocmt.platform.http.headers import checked

MAX_REQUESTS = 8
"""Of one user at a time."""
MAX_BODY = 2 * 1024**2
MAX_HEAD = 32 * 1024
SILENCE_SECONDS = 300.0
"""Between two pieces of an answer: an agent may think before it says its first word."""
_PIECE = 64 * 1024
PARTS_PER_SECOND = 1000
BURST_PARTS = 2000
"""Of one answer: heads and chunks, each of which costs the event loop as much however small it is. One that
has more waits, and the agent with it."""
_AT_A_TIME = 32
"""Parts after which others have their turn."""
MOST_BEFORE = 20
"""Informational answers before the answer itself."""

_Result = TypeVar("_Result")


class HttpProxy:
    """ASGI, mounted at `/agent/gateway`."""

    def __init__(self, dial: Callable[[UUID], Awaitable[socket.socket]], elsewhere: ASGIApp) -> None:
        """`dial`: a connection to that user's gateway, awake by then. `elsewhere`: for all else."""
        self._dial = dial
        self._elsewhere = elsewhere
        self._under_way: Counter[UUID] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        # As it was sent: `%2e%2e` or `//` decoded might mean something else to the gateway.
        path = scope["raw_path"].decode("ascii", "replace").removeprefix("/agent/gateway")
        if not may_ask(scope["method"], path):
            await self._elsewhere(scope, receive, send)
            return
        try:
            await self._serve(path, Request(scope, receive), send)
        except OcmtError as error:
            await problem(error)(scope, receive, send)

    async def _serve(self, path: str, request: Request, send: Send) -> None:
        user_id = principal(request).user_id
        body = await request.body()
        if len(body) > MAX_BODY:
            raise TooLarge(f"This is too large: at most {MAX_BODY // 1024**2} MB can be sent at once.")
        if self._under_way[user_id] >= MAX_REQUESTS:
            raise LimitReached("Your agent has too many requests under way. Try again later.", retry_after=5)
        self._under_way[user_id] += 1
        try:
            headers = [*sent_on(request.headers.raw), (b"Content-Length", b"%d" % len(body))]
            head = h11.Request(method=request.method, target=path, headers=headers)
            async with _Exchange(await self._dial(user_id)) as exchange:
                await exchange.ask(head, body)
                await exchange.answer(request, send)
        finally:
            self._under_way[user_id] -= 1
            if not self._under_way[user_id]:
                del self._under_way[user_id]


class _Exchange:
    """One request and its answer on a connection of its own, which ends with it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._parts = Bucket(PARTS_PER_SECOND, BURST_PARTS)
        self._number = 0

    async def __aenter__(self) -> _Exchange:
        self._reader, self._writer = await asyncio.open_connection(sock=self._socket)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.transport.abort()

    async def ask(self, head: h11.Request, body: bytes) -> None:
        for event in (head, h11.Data(body), h11.EndOfMessage()):
            self._writer.write(self._protocol.send(event) or b"")
        await self._in_time(self._writer.drain())

    async def answer(self, request: Request, send: Send) -> None:
        """Pass it on as it comes, until its end or the client's."""
        response = await self._next()
        for _ in range(MOST_BEFORE):
            if not isinstance(response, h11.InformationalResponse):
                break
            response = await self._next()
        if not isinstance(response, h11.Response):
            raise _unavailable("an answer that does not begin")
        status = status_back(response.status_code)
        if status is None:
            raise _unavailable(f"an answer with the status {response.status_code}")
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": checked(sent_back(response.headers)),
            }
        )
        leaving = asyncio.ensure_future(disconnected(request.receive))
        passing = asyncio.ensure_future(self._body(send))
        try:
            await asyncio.wait([leaving, passing], return_when=asyncio.FIRST_COMPLETED)
            if passing.done():
                # An answer that breaks off stays incomplete: the server cuts the connection.
                passing.result()
        finally:
            for task in (leaving, passing):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OcmtError):
                    await task

    async def _body(self, send: Send) -> None:
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                # Not one of ours: the answer has begun, and the server has to cut it off.
                raise ConnectionError("the agent's answer broke off")
            await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _next(self) -> object:
        now = asyncio.get_running_loop().time()
        wait = self._parts.wait(1, now)
        self._parts.pour(1, now)
        self._number += 1
        if wait > 0 or self._number % _AT_A_TIME == 0:
            await asyncio.sleep(wait)
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                self._protocol.receive_data(await self._in_time(self._reader.read(_PIECE)))
        except (h11.RemoteProtocolError, OSError) as error:
            raise _unavailable(repr(error)) from error
        return event

    async def _in_time(self, waiting: Awaitable[_Result]) -> _Result:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                return await waiting
        except TimeoutError as error:
            raise _unavailable("silence") from error


def _unavailable(detail: str) -> Unavailable:
    return Unavailable("Your agent does not answer just now.", detail=detail, retry_after=5)
