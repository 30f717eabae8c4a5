"""A connection that asks to become a WebSocket, and how it is joined to another one.

uvicorn hands us the connection once the head of the request is read. The application is asked as for any
other WebSocket (ASGI scope `websocket`), so whoever authenticates requests authenticates these, too. It may
refuse, or take the connection: `scope["extensions"]["ocmt.splice"].join(…)`. From then on no application runs
for it any more: two protocols pass bytes on, and `Splice` is what is left to look at them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, cast

import structlog
from starlette.types import ASGIApp, Message, Scope
from uvicorn.server import ServerState

from ocmt.errors import Unavailable
from ocmt.platform.http.handshake import ClientHandshake, HandshakeFailed
from ocmt.platform.http.headers import UnsafeHeader, checked
from ocmt.platform.http.splice import RESTART, Splice

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 15.0
"""For the other side to answer the handshake."""


class UpstreamRefused(Unavailable):
    """The other side does not want the WebSocket."""

    code = "upstream_refused"
    status = 502


class Upgrade(asyncio.Protocol):
    """The client's side: first a question to the application, then one half of a splice."""

    def __init__(
        self,
        app: ASGIApp,
        scope: Mapping[str, Any],
        transport: asyncio.Transport,
        state: ServerState,
    ) -> None:
        self._app = app
        self._scope: Mapping[str, Any] = scope
        self.transport = transport
        self._state = state
        self._gone: asyncio.Event | None = asyncio.Event()
        self._answered = False
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self.splice: Splice | None = None

    def begin(self) -> None:
        """Ask the application. Until it has decided nothing is read."""
        self._state.connections.add(self)  # type: ignore[arg-type]
        self.transport.set_protocol(self)
        self.transport.pause_reading()
        task = asyncio.get_running_loop().create_task(self._ask(), name="upgrade")
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    async def join(
        self, upstream: socket.socket, head: bytes, *, most: int, on_end: Callable[[Splice], None]
    ) -> Splice:
        """Send `head` (a handshake) there and pass everything on from the answer's end, both ways.

        `most`: bytes that one frame of the client may carry. `on_end` is called once, when it has ended.
        Owns the socket. Raises: UpstreamRefused for another answer than 101, Unavailable without one.
        """
        gone = self._gone
        assert gone is not None
        loop = asyncio.get_running_loop()
        handshake = ClientHandshake(head)
        other = _Upstream(handshake)
        try:
            transport, _ = await loop.create_connection(lambda: other, sock=upstream)
        except OSError as error:
            upstream.close()
            raise Unavailable("Your agent does not answer just now.", detail=repr(error)) from error
        transport.write(handshake.request)
        try:
            answer, rest = await self._answer_of(other, gone)
        except BaseException:
            transport.abort()
            raise
        splice = self.splice = Splice(self.transport, transport, most, on_end)
        other.splice = splice
        self._answered = True
        # What the application needed is not kept for hours.
        self._gone = None
        self._scope = {}
        self._app = _nobody
        self.transport.write(answer)
        if rest:
            splice.to_client(rest)
        if not transport.is_closing():
            transport.resume_reading()
            self.transport.resume_reading()
        return splice

    async def _answer_of(self, other: _Upstream, gone: asyncio.Event) -> tuple[bytes, bytes]:
        leaving = asyncio.create_task(gone.wait())
        leaving.add_done_callback(lambda _: other.give_up())
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await other.answer
        except TimeoutError as error:
            raise Unavailable("Your agent does not answer just now.", detail="to a handshake") from error
        finally:
            leaving.cancel()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """From the client."""
        if self.splice is not None:
            self.splice.to_upstream(data)

    def eof_received(self) -> bool:
        """The client writes no more; what is on its way to it still gets there."""
        if self.splice is None:
            return False
        return self.splice.client_finished()

    def pause_writing(self) -> None:
        """The client reads slowly."""
        if self.splice is not None:
            self.splice.pause_upstream()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self.splice is not None:
            self.splice.resume_upstream()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        self._state.connections.discard(self)
        if self._gone is not None:
            self._gone.set()
        if self.splice is not None:
            self.splice.ended()

    def shutdown(self) -> None:
        """The server ends (uvicorn's word to each connection)."""
        if self.splice is not None:
            self.splice.close(RESTART, "The server restarts: connect again.")

    # The application's side

    async def _ask(self) -> None:
        scope: Scope = {
            **self._scope,
            "type": "websocket",
            "scheme": "wss" if self._scope.get("scheme") == "https" else "ws",
            "subprotocols": [],
            "extensions": {"websocket.http.response": {}, "ocmt.splice": self},
        }
        scope.pop("method", None)
        scope["state"] = {}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception:
            log.exception("upgrade_failed", path=scope["path"])
        if not self._answered:
            self._refuse(500, [], b"")

    async def _receive(self) -> Message:
        if self._gone is not None:
            await self._gone.wait()
        return {"type": "websocket.disconnect", "code": 1006}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._answered:
            return
        if kind == "websocket.close":
            self._refuse(403, [], b"")
        elif kind == "websocket.http.response.start":
            self._status = message["status"]
            self._headers = list(message.get("headers", ()))
        elif kind == "websocket.http.response.body":
            # One piece: what refuses is a problem of a few hundred bytes.
            self._refuse(self._status, self._headers, message.get("body", b""))
        else:
            raise RuntimeError("WebSockets are only passed on here, by the extension ocmt.splice.")

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        """Answer in place of the application, and end the connection: nothing can come behind the answer."""
        self._answered = True
        try:
            phrase = HTTPStatus(status).phrase if status >= HTTPStatus.MULTIPLE_CHOICES else ""
            headers = [pair for pair in checked(headers) if pair[0].lower() != b"content-length"]
        except (ValueError, UnsafeHeader):
            log.exception("upgrade_answer_unsafe", status=status)
            phrase = ""
        if not phrase:
            # Only a refusal gets here; anything else is a fault of ours.
            status, phrase, headers, body = 500, HTTPStatus(500).phrase, [], b""
        lines = [
            f"HTTP/1.1 {status} {phrase}".encode(),
            *(name + b": " + value for name, value in headers),
            b"content-length: %d" % len(body),
            b"connection: close",
        ]
        self.transport.write(b"\r\n".join([*lines, b"", body]))
        self.transport.close()


class _Upstream(asyncio.Protocol):
    """The other side: first its answer to the handshake, then the other half of the splice."""

    def __init__(self, handshake: ClientHandshake) -> None:
        self.answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self._handshake: ClientHandshake | None = handshake
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.splice: Splice | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by inheritance.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.splice is not None:
            self.splice.to_client(data)
            return
        if self.answer.done() or self._handshake is None:
            return
        try:
            answer = self._handshake.feed(data)
        except HandshakeFailed as error:
            self._refused(str(error))
            return
        if answer is not None:
            self._handshake = None
            self.transport.pause_reading()
            self.answer.set_result(answer)

    def give_up(self) -> None:
        """Nobody waits for the answer any more."""
        if not self.answer.done():
            self._refused("the client is gone")

    def _refused(self, detail: str) -> None:
        self.answer.set_exception(UpstreamRefused("Your agent refuses this connection.", detail=detail))
        self.transport.abort()

    def eof_received(self) -> bool:
        return self.splice.upstream_finished() if self.splice is not None else False

    def pause_writing(self) -> None:
        if self.splice is not None:
            self.splice.pause_client()

    def resume_writing(self) -> None:
        if self.splice is not None:
            self.splice.resume_client()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.splice is not None:
            self.splice.ended()
        elif not self.answer.done():
            self._refused("it hung up")


async def _nobody(scope: Any, receive: Any, send: Any) -> None:
    """In the place of an application that has done its part."""
