"""Places for long transfers to and from browsers: one for each user, and a fair line where all are taken.

A slow connection costs nobody anything while there is a free place. Once somebody waits, the slowest transfer
must keep up a decent rate or give up its place, so a few slow connections cannot shut everybody else out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ocmt.errors import Unavailable


@dataclass(frozen=True)
class Rates:
    """How fast a transfer must be. A rate is an average from the beginning, apart from the first seconds."""

    least: float = 16 * 1024
    """Bytes a second, after `grace` seconds, even where nobody waits."""
    grace: float = 60.0
    crowded: float = 512 * 1024
    """The same for the slowest transfer while somebody waits for a place."""
    crowded_grace: float = 15.0
    longest: float = 2 * 3600.0
    """Seconds for a whole transfer."""


class Pace:
    """One transfer under way: how much it has moved, and until when it may wait for its user."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._began = places.now()
        self._moved = 0
        self._timeout: asyncio.Timeout | None = None

    def begin(self) -> None:
        """Count from now on. What came before was the server's work and no fault of the user's connection."""
        self._began, self._moved = self._places.now(), 0

    def moved(self, size: int) -> None:
        """Count bytes that have come or gone."""
        self._moved += size

    @asynccontextmanager
    async def waiting_for_user(self) -> AsyncIterator[None]:
        """Wait for the user's side, as long as the transfer is fast enough. Raises: Unavailable."""
        try:
            async with asyncio.timeout(None) as self._timeout:
                self._places.settle()
                yield
        except TimeoutError as error:
            if self._timeout is None or not self._timeout.expired():
                raise
            raise Unavailable(
                "Your connection is too slow for this transfer, or others are waiting. Try again later.",
                retry_after=60.0,
            ) from error
        finally:
            self._timeout = None

    @property
    def waits(self) -> bool:
        """Whether it waits for its user's side just now."""
        return self._timeout is not None and not self._timeout.expired()

    def ends(self, *, crowded: bool) -> float:
        """Return the moment at which it is too slow if nothing more moves."""
        rates = self._places.rates
        rate, grace = (rates.crowded, rates.crowded_grace) if crowded else (rates.least, rates.grace)
        return self._began + min(rates.longest, grace + self._moved / rate)

    def end_at(self, moment: float) -> None:
        """End what waits for the user at that moment."""
        if self._timeout is not None and not self._timeout.expired():
            # The clock of the loop may be another one.
            left = max(0.0, moment - self._places.now())
            self._timeout.reschedule(asyncio.get_running_loop().time() + left)


class Places:
    """The places of one process."""

    def __init__(
        self,
        at_once: int,
        *,
        rates: Rates | None = None,
        patience: float = 45.0,
        line: int = 100,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: `patience` is how long a user waits for a place, `line` how many users may wait at once."""
        self.rates = rates or Rates()
        self.now = now
        self._at_once = at_once
        self._patience = patience
        self._line = line
        self._taken: dict[Hashable, Pace] = {}
        self._waiting: dict[Hashable, tuple[asyncio.Future[None], Pace]] = {}
        """In the order in which they came."""

    @asynccontextmanager
    async def place(self, owner: Hashable) -> AsyncIterator[Pace]:
        """Take a place until the block ends; waits in line for one.

        Raises: Unavailable where that user has a transfer already, or where no place becomes free in time.
        """
        if owner in self._taken or owner in self._waiting:
            raise Unavailable(
                "Your files are being copied already. Wait until that has ended, then try again.",
                retry_after=10.0,
            )
        pace = Pace(self)
        if len(self._taken) < self._at_once and not self._waiting:
            self._taken[owner] = pace
        else:
            await self._wait(owner, pace)
        try:
            pace.begin()
            yield pace
        finally:
            self._leave(owner)

    async def _wait(self, owner: Hashable, pace: Pace) -> None:
        """Wait in line. Whoever leaves hands the place over, so nobody can come in between."""
        if len(self._waiting) >= self._line:
            raise _full()
        called = asyncio.get_running_loop().create_future()
        self._waiting[owner] = (called, pace)
        self.settle()
        try:
            async with asyncio.timeout(self._patience):
                await called
        except BaseException as error:
            if self._waiting.pop(owner, None) is None:
                self._leave(owner)  # called in the very moment in which it gave up
            self.settle()
            if isinstance(error, TimeoutError):
                raise _full() from error
            raise

    def _leave(self, owner: Hashable) -> None:
        del self._taken[owner]
        while self._waiting and len(self._taken) < self._at_once:
            following = next(iter(self._waiting))
            called, pace = self._waiting.pop(following)
            self._taken[following] = pace
            if not called.done():
                called.set_result(None)
        self.settle()

    def settle(self) -> None:
        """Say to each transfer until when it may wait: the slowest ones less long, one for each who waits."""
        waiting = (pace for pace in self._taken.values() if pace.waits)
        slowest = sorted(waiting, key=lambda pace: pace.ends(crowded=True))
        for place, pace in enumerate(slowest):
            pace.end_at(pace.ends(crowded=place < len(self._waiting)))


def _full() -> Unavailable:
    return Unavailable("Too many files are being copied just now. Try again in a minute.", retry_after=30.0)
