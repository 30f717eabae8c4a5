"""Time as a port, so that tests never sleep: everything that asks for the time or waits takes a Clock.

The virtual one for tests is `ocmt.testing.clock.VirtualClock`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from ocmt.errors import OcmtError


class Clock(Protocol):
    """What time it is, and how to wait."""

    def now(self) -> datetime:
        """The wall-clock time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward; differences are what counts."""

    async def sleep(self, seconds: float) -> None:
        """Return after that many seconds of this clock."""


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """See Clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)


async def happens(event: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Wait for it, that many seconds of the clock at most; whether it is set by then."""
    if not event.is_set():
        happening = asyncio.ensure_future(event.wait())
        timer = asyncio.ensure_future(clock.sleep(seconds))
        try:
            await asyncio.wait((happening, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            happening.cancel()
            timer.cancel()
    return event.is_set()


async def again(
    clock: Clock, pause: timedelta, work: Callable[[], Awaitable[object]], log: Any, failed: str
) -> None:
    """Do it, and again after each pause, until cancelled. Our own errors are told to `log`, as `failed`."""
    while True:
        try:
            await work()
        except OcmtError as error:
            log.warning(failed, error=error.message)
        await clock.sleep(pause.total_seconds())
