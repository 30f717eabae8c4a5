"""Virtual time: tests say when time passes, so that none of them sleeps.

`await clock.advance(60)` wakes every sleeper that is due within the next minute, in the order of their
deadlines, and lets each run until it waits again. Waiting for the outside world (a socket, the database) is
not covered by that: use `wait_for_sleepers` to know that a task has come to its next sleep.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta

_SETTLING_TURNS = 25


class VirtualClock:
    """A Clock whose time stands still until `advance`."""

    def __init__(self, start: datetime = datetime(2030, 1, 1, 12, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()

    def now(self) -> datetime:
        """The virtual wall-clock time in UTC."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Virtual seconds since this clock was made."""
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved this clock that far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), woken))
        self._arrived.set()
        await woken

    @property
    def sleepers(self) -> int:
        """How many tasks sleep on this clock now."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        await self._settle()
        target = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= target:
            deadline, _, woken = heapq.heappop(self._sleepers)
            if woken.done():
                continue
            self._elapsed = max(self._elapsed, deadline)
            woken.set_result(None)
            await self._settle()
        self._elapsed = target

    async def wait_for_sleepers(self, count: int = 1, *, timeout: float = 5) -> None:
        """Wait (in real time, at most `timeout` seconds) until that many tasks sleep on this clock."""
        async with asyncio.timeout(timeout):
            while self.sleepers < count:
                self._arrived.clear()
                await self._arrived.wait()

    async def _settle(self) -> None:
        for _ in range(_SETTLING_TURNS):
            await asyncio.sleep(0)
