"""A leaky bucket in memory, for the limits of one process; those of the whole installation are `rates`'s."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from ocmt.errors import LimitReached
from ocmt.platform.clock import Clock

_MOST_BUCKETS = 10_000


@dataclass(slots=True)
class Bucket:
    """So much at once (`burst`), and then `rate` a second. Times are a clock's monotonic seconds."""

    rate: float
    burst: float
    _level: float = 0.0
    _at: float = 0.0

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much more fits in; 0: it does now."""
        self._level = max(0.0, self._level - self.rate * (now - self._at))
        self._at = now
        return max(0.0, (self._level + amount - self.burst) / self.rate)

    def pour(self, amount: float, now: float) -> None:
        """Count it, whether it fits in or not."""
        self.wait(0, now)
        self._level += amount


class Buckets:
    """A bucket for each key: so many at once (`burst`), and then so many a second."""

    def __init__(self, clock: Clock, *, burst: float, per_second: float) -> None:
        self._clock = clock
        self._burst = burst
        self._per_second = per_second
        self._of: OrderedDict[Hashable, Bucket] = OrderedDict()

    def take(self, key: Hashable) -> None:
        """Take one. Raises: LimitReached, with the seconds until there is another."""
        now = self._clock.monotonic()
        bucket = self._of.setdefault(key, Bucket(self._per_second, self._burst))
        if wait := bucket.wait(1, now):
            raise LimitReached("That was too often. Try again in a moment.", retry_after=wait)
        bucket.pour(1, now)
        self._of.move_to_end(key)
        if len(self._of) > _MOST_BUCKETS:
            self._of.popitem(last=False)
