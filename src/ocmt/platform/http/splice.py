"""Two connections joined byte for byte, one of them a client's WebSocket.

What is decided here is what a relay owes both sides: back-pressure, half-close, an end that each of them
understands. Who they are and whether they may is decided before (`upgrade`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ocmt.platform.http.frames import FrameMeter, FrameTooLarge, close_frame, masked_close_frame

MAX_BUFFERED = 128 * 1024
"""Bytes that wait for a slow reader before its peer is not read from any more."""
LAST_WORDS_SECONDS = 1.0
"""For a frame that is under way to end before a close frame follows it, and for that to be read."""

GOING_AWAY = 1001
POLICY = 1008
TOO_BIG = 1009
RESTART = 1012
"""IANA: Service Restart. Clients are to connect anew after a short, random pause."""


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
        self,
        client: asyncio.Transport,
        upstream: asyncio.Transport,
        most: int,
        on_end: Callable[[Splice], None],
    ) -> None:
        """`most`: bytes that one frame of the client may carry. `on_end` is called once, at its end."""
        for transport in (client, upstream):
            transport.set_write_buffer_limits(high=MAX_BUFFERED)
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
        self.upstream.write(data)
        if self._on_bytes is not None:
            on_bytes, self._on_bytes = self._on_bytes, None
            on_bytes()

    def watch(self, on_bytes: Callable[[], None]) -> None:
        """Call that, once, when the client next sends something."""
        self._on_bytes = on_bytes

    def to_client(self, data: bytes) -> None:
        """From the other side."""
        self.from_upstream.feed(data)
        self.client.write(data)

    def throttle(self, throttled: bool) -> None:
        """Stop, or go on, reading from a client that sends more than its share."""
        self._throttled = throttled
        if throttled and not self.client.is_closing():
            self.client.pause_reading()
        else:
            self.resume_client()

    def resume_client(self) -> None:
        """Read from the client again, unless it is throttled."""
        if not self._throttled and not self.client.is_closing():
            self.client.resume_reading()

    def pause_client(self) -> None:
        """Read nothing more from the client: the other side is slow."""
        self.client.pause_reading()

    def pause_upstream(self) -> None:
        """Read nothing more from the other side: the client is slow."""
        self.upstream.pause_reading()

    def resume_upstream(self) -> None:
        """The client has caught up."""
        if not self.upstream.is_closing():
            self.upstream.resume_reading()

    def client_finished(self) -> bool:
        """The client has half-closed; so do we. True: keep its connection for what is still to come."""
        if self.over or self.upstream.is_closing():
            return False
        self._said_all = True
        _finish(self.upstream)
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
        if self.client.is_closing():
            self._cut()
            return
        if self.from_upstream.between and not self.from_upstream.closing:
            self._say_goodbye(code, reason)
            self._leave_upstream()
        elif self.from_upstream.closing or self.upstream.is_closing():
            self.client.close()
            self._leave_upstream()
        else:
            # The frame under way may end soon; else it is cut.
            asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._last_words, code, reason)
            return
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._cut)

    def _say_goodbye(self, code: int, reason: str) -> None:
        """And read on, into nothing: what lies unread when a socket is closed makes the kernel reset it, and
        the client would never see our frame."""
        self.client.write(close_frame(code, reason))
        _finish(self.client)
        self._throttled = False
        self.resume_client()

    def _leave_upstream(self) -> None:
        if self.upstream.is_closing():
            return
        if self.from_client.between and not self.from_client.closing and not self._said_all:
            self.upstream.write(masked_close_frame(GOING_AWAY))
        self.upstream.close()

    def _last_words(self, code: int, reason: str) -> None:
        if self.from_upstream.between and not self.client.is_closing():
            self._say_goodbye(code, reason)
        self.upstream.abort()
        asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._cut)

    def _cut(self) -> None:
        self.client.abort()
        self.upstream.abort()

    def ended(self) -> None:
        """One of the two is gone, and so the other goes."""
        if self._on_end is None:
            return
        on_end, self._on_end = self._on_end, None
        if not self.client.is_closing():
            self.close(RESTART, "Your agent went to sleep or restarts: connect again.")
        else:
            self.over = True
            # What was written to it is still sent.
            self.client.close()
            self.upstream.close()
        on_end(self)


def _finish(transport: asyncio.Transport) -> None:
    """Write no more."""
    try:
        transport.write_eof()
    except OSError:
        transport.abort()  # it is gone, and its protocol just has not heard of it yet
