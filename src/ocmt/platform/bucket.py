"""A leaky bucket in memory, for the limits of one process; those of the whole installation are `rates`'s."""

from __future__ import annotations

from dataclasses import dataclass


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
