"""Rate limits that all replicas share: the generic cell rate algorithm, one row and one statement a request.

A rate is `burst` at once and then one every `period / count`. Nothing is written where a request is refused,
so a flood that is refused costs a read. Source: ITU-T I.371; https://brandur.org/rate-limiting.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from ocmt.errors import LimitReached
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.queries import load_queries
from ocmt.platform.rate import Rate

_queries = load_queries("ocmt.platform")
_LONGEST_KEY = 300
_SWEEP = timedelta(minutes=10)


class Rates:
    """The rates of this installation."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._swept = clock.now()

    async def take(self, rate: Rate, who: str) -> None:
        """Count one for `who` (an address, an account). Raises: LimitReached, with the seconds to wait."""
        now = self._clock.now()
        async with self._database.connection() as connection:
            wait = await _queries.take_rate(
                connection,
                key=f"{rate.name} {who}"[:_LONGEST_KEY],
                now=now,
                interval=rate.interval,
                tolerance=rate.interval * (rate.burst - 1),
            )
            await self._sweep(connection, now)
        if wait is not None:
            seconds = max(1.0, wait.total_seconds())
            raise LimitReached(f"That was too often. Try again in {_in_words(seconds)}.", retry_after=seconds)

    async def forgive(self, rate: Rate, who: str) -> None:
        """Forget what `who` has used up: they have shown that they are not guessing."""
        async with self._database.connection() as connection:
            await _queries.forgive_rate(connection, key=f"{rate.name} {who}"[:_LONGEST_KEY])

    async def _sweep(self, connection: object, now: datetime) -> None:
        if now - self._swept >= _SWEEP:
            self._swept = now
            await _queries.sweep_rates(connection, now=now)


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes"
