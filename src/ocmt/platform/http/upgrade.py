"""A connection that asks to become a WebSocket, and the splice that joins it to another one, byte for byte.

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
from ocmt.platform.http.frames import FrameMeter, FrameTooLarge, close_frame, masked_close_frame

log = structlog.get_logger(__name__)

MAX_BUFFERED = 128 * 1024
"""Bytes that wait for a slow reader before its peer is not read from any more."""
MAX_UPSTREAM_HEAD = 16 * 1024
ANSWER_SECONDS = 15.0
"""For the other side to answer the handshake."""
LAST_WORDS_SECONDS = 1.0
"""For a frame that is under way to end before a close frame follows it, and for that to be read."""

GOING_AWAY = 1001
POLICY = 1008
TOO_BIG = 1009
RESTART = 1012
"""IANA: Service Restart. Clients are to connect anew after a short, random pause."""
TRY_LATER = 1013


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
        self._lines: list[bytes] = []
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
        other = _Upstream()
        try:
            transport, _ = await loop.create_connection(lambda: other, sock=upstream)
        except OSError as error:
            upstream.close()
            raise Unavailable("Your agent does not answer just now.", detail=repr(error)) from error
        transport.write(head)
        try:
            answer, rest = await self._answer_of(other, gone)
        except BaseException:
            transport.abort()
            raise
        splice = self.splice = Splice(self, other, most, on_end)
        other.splice = splice
        self._answered = True
        # What the application needed is not kept for hours.
        self._gone = None
        self._scope = {}
        self._app = _nobody
        self.transport.set_write_buffer_limits(high=MAX_BUFFERED)
        transport.set_write_buffer_limits(high=MAX_BUFFERED)
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
            self.splice.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self.splice is not None and not self.splice.upstream.transport.is_closing():
            self.splice.upstream.transport.resume_reading()

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
            return
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
            self._lines = [name + b": " + value for name, value in message.get("headers", ())]
        elif kind == "websocket.http.response.body":
            # One piece: what refuses is a problem of a few hundred bytes.
            self._refuse(self._status, self._lines, message.get("body", b""))
        else:
            raise RuntimeError("WebSockets are only passed on here, by the extension ocmt.splice.")

    def _refuse(self, status: int, lines: list[bytes], body: bytes) -> None:
        self._answered = True
        try:
            phrase = HTTPStatus(status).phrase
        except ValueError:
            phrase = "Unknown"
        given = {line.partition(b":")[0].lower() for line in lines}
        if b"content-length" not in given:
            lines = [*lines, b"content-length: %d" % len(body)]
        first = b"HTTP/1.1 %d %s" % (status, phrase.encode())
        self.transport.write(b"\r\n".join([first, *lines, b"connection: close", b"", body]))
        self.transport.close()


class _Upstream(asyncio.Protocol):
    """The other side: first its answer to the handshake, then the other half of the splice."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[bytes, bytes]] = asyncio.get_running_loop().create_future()
        self._head = b""
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.splice: Splice | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by inheritance.
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.splice is not None:
            self.splice.to_client(data)
            return
        if self.answer.done():
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if end:
            self._head = b""
            self.transport.pause_reading()
            self._judge(head, rest)
        elif len(self._head) > MAX_UPSTREAM_HEAD:
            self._refused("an endless head")

    def _judge(self, head: bytes, rest: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        parts = first.split(b" ", 2)
        if len(parts) < 2 or parts[1] != b"101":
            self._refused(f"it answered {first[:100]!r}")
            return
        # The agent is not trusted: of its head only what belongs to a handshake gets through.
        kept = [line for line in lines if line.partition(b":")[0].strip().lower() in _HANDSHAKE]
        answer = b"\r\n".join(
            [
                b"HTTP/1.1 101 Switching Protocols",
                b"Upgrade: websocket",
                b"Connection: Upgrade",
                *kept,
                b"",
                b"",
            ]
        )
        self.answer.set_result((answer, rest))

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
            self.splice.client.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.splice is not None:
            self.splice.resume_client()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.splice is not None:
            self.splice.ended()
        elif not self.answer.done():
            self._refused("it hung up")


_HANDSHAKE = frozenset({b"sec-websocket-accept", b"sec-websocket-protocol", b"sec-websocket-extensions"})


class Splice:
    """Two connections that pass bytes on to each other."""

    __slots__ = (
        "_on_bytes",
        "_on_end",
        "_said_all",
        "_throttled",
        "bytes_in",
        "client",
        "from_client",
        "from_upstream",
        "over",
        "upstream",
    )

    def __init__(
        self, client: Upgrade, upstream: _Upstream, most: int, on_end: Callable[[Splice], None]
    ) -> None:
        self.client = client
        self.upstream = upstream
        self.from_client = FrameMeter(most)
        # What an agent sends to its own user is bounded by back-pressure, not by size.
        self.from_upstream = FrameMeter(1 << 62)
        self._on_end: Callable[[Splice], None] | None = on_end
        self._on_bytes: Callable[[], None] | None = None
        self._said_all = False
        self._throttled = False
        self.bytes_in = 0
        """That came from the client."""
        self.over = False
        """Whether its end has been decided."""

    def to_upstream(self, data: bytes) -> None:
        """From the client."""
        if self.over:
            return
        self.bytes_in += len(data)
        try:
            self.from_client.feed(data)
        except FrameTooLarge:
            self.close(TOO_BIG, "This message is too large.")
            return
        self.upstream.transport.write(data)
        if self._on_bytes is not None:
            on_bytes, self._on_bytes = self._on_bytes, None
            on_bytes()

    def watch(self, on_bytes: Callable[[], None]) -> None:
        """Call that, once, when the client next sends something."""
        self._on_bytes = on_bytes

    def to_client(self, data: bytes) -> None:
        """From the other side."""
        self.from_upstream.feed(data)
        self.client.transport.write(data)

    def throttle(self, throttled: bool) -> None:
        """Stop, or go on, reading from a client that sends more than its share."""
        self._throttled = throttled
        if throttled and not self.client.transport.is_closing():
            self.client.transport.pause_reading()
        else:
            self.resume_client()

    def resume_client(self) -> None:
        """Read from the client again, unless it is throttled."""
        if not self._throttled and not self.client.transport.is_closing():
            self.client.transport.resume_reading()

    def client_finished(self) -> bool:
        """The client has half-closed; so do we. True: keep its connection for what is still to come."""
        if self.over or self.upstream.transport.is_closing():
            return False
        self._said_all = True
        _finish(self.upstream.transport)
        return True

    def upstream_finished(self) -> bool:
        """As `client_finished`, the other way round: an agent that leaves has nothing more to say."""
        self.close(RESTART, "Your agent went to sleep or restarts: connect again.")
        return False

    def close(self, code: int, reason: str) -> None:
        """End it: with a close frame to the client as soon as no other frame is under way. Idempotent."""
        if self.over:
            return
        self.over = True
        if self.client.transport.is_closing():
            self._cut()
            return
        if self.from_upstream.between and not self.from_upstream.closing:
            self._say_goodbye(code, reason)
            self._leave_upstream()
        elif self.from_upstream.closing or self.upstream.transport.is_closing():
            self.client.transport.close()
            self._leave_upstream()
        else:
            # The frame under way may end soon; else it is cut.
            asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._last_words, code, reason)
            return
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._cut)

    def _say_goodbye(self, code: int, reason: str) -> None:
        """And read on, into nothing: what lies unread when a socket is closed makes the kernel reset it, and
        the client would never see our frame."""
        self.client.transport.write(close_frame(code, reason))
        _finish(self.client.transport)
        self._throttled = False
        self.resume_client()

    def _leave_upstream(self) -> None:
        if self.upstream.transport.is_closing():
            return
        if self.from_client.between and not self.from_client.closing and not self._said_all:
            self.upstream.transport.write(masked_close_frame(GOING_AWAY))
        self.upstream.transport.close()

    def _last_words(self, code: int, reason: str) -> None:
        if self.from_upstream.between and not self.client.transport.is_closing():
            self._say_goodbye(code, reason)
        self.upstream.transport.abort()
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._cut)

    def _cut(self) -> None:
        self.client.transport.abort()
        self.upstream.transport.abort()

    def ended(self) -> None:
        """One of the two is gone, and so the other goes."""
        if self._on_end is None:
            return
        on_end, self._on_end = self._on_end, None
        if not self.client.transport.is_closing():
            self.close(RESTART, "Your agent went to sleep or restarts: connect again.")
        else:
            self.over = True
            # What was written to it is still sent.
            self.client.transport.close()
            self.upstream.transport.close()
        on_end(self)


def _finish(transport: asyncio.Transport) -> None:
    """Write no more."""
    try:
        transport.write_eof()
    except OSError:
        transport.abort()  # it is gone, and its protocol just has not heard of it yet


async def _nobody(scope: Any, receive: Any, send: Any) -> None:
    """In the place of an application that has done its part."""
