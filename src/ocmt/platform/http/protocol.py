"""One HTTP/1.1 connection of somebody who is not trusted: what is bounded, and how an upgrade leaves it.

It is uvicorn's protocol class, which is not documented: uvicorn is pinned by the lock file, and
`tests/platform/test_listener.py`, `tests/hostile` and `tests/gateway` hold it to what we need.
"""

from __future__ import annotations

import asyncio
import functools
import resource
from typing import Any
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ocmt.platform.http.upgrade import Upgrade

MAX_HEAD = 128 * 1024
HEAD_SECONDS = 15.0
"""In which a request's head has to be here: from the opening of the connection, or from its first byte. And
what is still missing of a body once its request is answered."""
BODY_SECONDS = 60.0
"""In which at least LEAST_BODY bytes of a body come, where we take them. A room may have less patience."""
LEAST_BODY = 16 * 1024
READ_SECONDS = 300.0
"""In which a client for whom an answer waits takes something of it."""


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, with bounds. httptools keeps heads of any size; uvicorn waits for ever for what a client has
    begun to send, and keeps any number of requests that come at once.

    One request may wait behind another: an answer can have come whole before the application has said that it
    is. What is behind that one is not taken, and the connection ends with its answer (RFC 9112 9.3.2 has
    clients expect that; proxies and browsers send none so).
    """

    _moved = False
    _unfinished = 0
    _left = False
    """Whether the connection is gone, or another's."""
    _served: RequestResponseCycle | None = None
    """What the application answers or has answered last; `cycle`, uvicorn's, is what came last."""
    _behind = False
    """Whether what comes in is behind a request that is not answered yet."""
    _due: float | None = None
    """When we lose patience with a client that is to send (the rest of) a request."""
    _body_bytes = 0
    """Of the body under way, since `_due` was set."""
    _looking: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hang up at once where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.abort()
            return
        self._expect(HEAD_SECONDS)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol. uvicorn tells the last request only, which may not have been begun."""
        self._leave()
        super().connection_lost(exc)
        if self._served is not None:
            self._served.disconnected = True
            self._served.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Parse it; hang up on a head, or on trailers, of more than MAX_HEAD bytes beside the first piece."""
        self._moved = False
        super().data_received(data)
        if self._left:
            return
        if self._due is None and not self._answering:
            # The end of a body that was answered before, or an empty line: uvicorn's timer is off by now.
            self._expect(HEAD_SECONDS)
        if self._due is not None and self._looking is None:
            self._look()
        self._unfinished = 0 if self._moved else self._unfinished + len(data)
        if self._unfinished <= MAX_HEAD:
            return
        if self._answering:
            self.transport.abort()
        else:
            self.send_400_response("The head of the request is too large.")

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over, without the detour of writing its request out and reading it again.

        uvicorn drops what came right behind the head, before our answer. No client may send that early
        (RFC 6455 4.1), and one that does must not have half of it got through.
        """
        if self._answering:
            self.send_400_response("An upgrade behind a request that is not answered yet.")
            return
        # uvicorn adds these only behind the question whether it is an upgrade.
        try:
            url = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            self.send_400_response("Invalid HTTP request received.")
            return
        address = {
            "path": unquote((url.path or b"/").decode("latin-1")),
            "raw_path": url.path or b"/",
            "query_string": url.query or b"",
        }
        self._leave()
        self.connections.discard(self)
        Upgrade(self.app, {**self.scope, **address}, self.transport, self.server_state).begin()

    def send_400_response(self, msg: str) -> None:
        """Say so and hang up; but what makes no sense behind a request does not get into its answer."""
        served = self._served
        if served is None or served.response_complete:
            super().send_400_response(msg)
        elif not self.cycle.more_body:
            self.cycle.keep_alive = False
        elif self.cycle is not served:
            self.pipeline.clear()
            served.keep_alive = False
        elif served.response_started:
            self.transport.abort()
        else:
            super().send_400_response(msg)
            served.disconnected = True
            served.message_event.set()

    def on_message_begin(self) -> None:
        """See httptools; and the class on what is raised."""
        if self.pipeline:
            raise ConnectionRefusedError("one waits already")
        self._behind = self._answering
        self._expect(HEAD_SECONDS)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See httptools. RFC 9112 3.2: without exactly one Host it is no request of HTTP/1.1."""
        self._moved = True
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            raise ValueError("Host")  # uvicorn answers 400
        self._expect(BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self._moved = True
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        self._moved = True
        self._due = None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """uvicorn's word; the body may still come, and be thrown away."""
        super().on_response_complete()
        if self._due is not None:
            self._expect(BODY_SECONDS if self._answering else HEAD_SECONDS)
            self._look()

    def pause_writing(self) -> None:
        """The client does not read: for a while."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    @property
    def _answering(self) -> bool:
        return self._served is not None and not self._served.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        self._behind = False
        super()._start_asgi_task(cycle, app)

    def _should_upgrade(self) -> bool:
        # RFC 6455 4.1: nothing else begins one, and what does not is a request like any other.
        begins = self.parser.get_method() == b"GET" and self.parser.get_http_version() == "1.1"
        return begins and super()._should_upgrade()

    def _expect(self, seconds: float) -> None:
        self._due = self.loop.time() + seconds
        self._body_bytes = 0

    def _look(self) -> None:
        """Whether the client keeps us waiting for too long, now and when that can be so again."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        if self._due is None:
            return
        left = self._due - self.loop.time()
        if left <= 0 and self._answering and (self._body_bytes >= LEAST_BODY or self._hold_up):
            left = BODY_SECONDS
            self._expect(left)
        if left > 0:
            self._looking = self.loop.call_later(left, self._look)
        else:
            self.transport.abort()

    @property
    def _hold_up(self) -> bool:
        """Whether it is we who do not take what comes in, or who are to do something first."""
        return self._behind or self.flow.read_paused or self.cycle.waiting_for_100_continue

    def _watch_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(READ_SECONDS, self._see_reader, unread)

    def _see_reader(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:
            self._watch_reader()
        else:
            self.transport.abort()

    def _leave(self) -> None:
        for timer in (self._looking, self._unread):
            if timer is not None:
                timer.cancel()
        self._looking = self._unread = self._due = None
        self._left = True


@functools.cache
def most_connections() -> int:
    """Half of the files that this process may open: the rest is for agents, databases, and the other ends of
    sockets that are passed on."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 32_768 if soft == resource.RLIM_INFINITY else soft // 2
