"""How often something may be done: a pure value, counted by `rates`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Rate:
    """`count` in every `period` in the long run, `burst` of them at once."""

    name: str
    count: int
    period: timedelta
    burst: int

    @property
    def interval(self) -> timedelta:
        """Between two that come as fast as they may for ever."""
        return self.period / self.count
