"""A WebSocket connection to an agent's gateway that takes a bounded part of the event loop's time.

The library answers pings and joins fragments before anybody sees a message, however many come in one piece: a
quarter of a megabyte holds more than a hundred thousand. So what comes is handed to it in small slices, and
whoever has used up their time waits, and with them their own socket.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from websockets.asyncio.client import ClientConnection

from ocmt.platform.bucket import Bucket

SLICE = 4096
PART = 0.2
"""Of the event loop's time, for one connection."""
AT_ONCE = 0.1
"""Seconds of it without a pause: several of the largest frames."""


class BoundedConnection(ClientConnection):
    """See the module."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._time = Bucket(PART, AT_ONCE)
        self._left = bytearray()
        """What has come and was not handed on."""
        self._resting: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        self._left += data
        if self._resting is None:
            self._hand_on()
        else:
            self.transport.pause_reading()  # the library has let it go on

    def _hand_on(self) -> None:
        while self._left:
            piece = bytes(self._left[:SLICE])
            del self._left[:SLICE]
            begun = time.thread_time()
            super().data_received(piece)
            now = self.loop.time()
            self._time.pour(time.thread_time() - begun, now)
            if wait := self._time.wait(0, now):
                self.transport.pause_reading()
                self._resting = self.loop.call_later(wait + SLICE / 1e6, self._go_on)
                return

    def _go_on(self) -> None:
        self._resting = None
        self._hand_on()
        if self._resting is None and not self.recv_messages.paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _drop(self) -> None:
        self._left.clear()
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def eof_received(self) -> None:
        """See asyncio.Protocol."""
        self._drop()
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._drop()
        super().connection_lost(exc)
