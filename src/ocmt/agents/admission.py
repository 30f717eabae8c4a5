"""How many agents may be awake on this machine at once: each takes the memory that its plan allows it.

Who finds no room waits in line, and sees the place in it; meanwhile the reconciler puts to sleep who has been
idle for the longest time. What is counted is what this process runs: a machine has one that runs agents.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from ocmt.errors import LimitReached, SetupProblem, Unavailable
from ocmt.platform.clock import Clock, happens

MAX_WAITING = 1_000
"""Agents in line; further ones are told to come back."""
RETRY_AFTER = 30.0
"""Seconds after which one that was not let in is told to try again."""

ShowPlace = Callable[[int], None]
"""Called with the place in line, 1 for the next; must not block."""


@dataclass(eq=False)
class _Waiting:
    user_id: UUID
    size: int
    show: ShowPlace
    admitted: asyncio.Event = field(default_factory=asyncio.Event)


class Admission:
    """The memory for agents, and the line of those that wait for some. First come, first served."""

    def __init__(self, capacity: int, clock: Clock) -> None:
        """`capacity`: bytes for all awake agents together."""
        self.capacity = capacity
        self._clock = clock
        self._inside: dict[UUID, int] = {}
        self._line: deque[_Waiting] = deque()

    @property
    def used(self) -> int:
        """Bytes that are given away."""
        return sum(self._inside.values())

    @property
    def shortage(self) -> int:
        """Bytes that the next in line lacks; 0 where nobody waits."""
        return max(0, self.used + self._line[0].size - self.capacity) if self._line else 0

    async def enter(self, user_id: UUID, size: int, *, timeout: float, show: ShowPlace) -> None:
        """Wait for room for that agent, or for what it lacks where it is inside already.

        Raises: Unavailable after `timeout` seconds, LimitReached where too many wait, SetupProblem where the
        machine could not hold even this one alone.
        """
        size -= self._inside.get(user_id, 0)
        if size <= 0:
            return
        if size > self.capacity:
            raise SetupProblem(
                f"This agent may use {_gigabytes(size)}, all agents together {_gigabytes(self.capacity)}: "
                "raise OCMT_AGENTS_MEMORY, or give the agent a smaller plan."
            )
        if not self._line and self.used + size <= self.capacity:
            self._let_in(user_id, size)
            return
        if len(self._line) >= MAX_WAITING:
            raise LimitReached(
                "Too many agents wait for room on this machine. Try again in a minute.",
                retry_after=RETRY_AFTER,
            )
        waiting = _Waiting(user_id, size, show)
        self._line.append(waiting)
        show(len(self._line))
        try:
            await self._admitted(waiting, timeout)
        finally:
            if not waiting.admitted.is_set():
                self._line.remove(waiting)
                self._move_up()

    def shrink(self, user_id: UUID, size: int) -> None:
        """It holds no more than `size` bytes now: the rest is free for others, until it enters again."""
        if self._inside.get(user_id, 0) > size:
            self._inside[user_id] = size
            self._move_up()

    def leave(self, user_id: UUID) -> None:
        """Its memory is free again. Leaving twice does nothing."""
        if self._inside.pop(user_id, None) is not None:
            self._move_up()

    async def _admitted(self, waiting: _Waiting, timeout: float) -> None:
        try:
            admitted = await happens(waiting.admitted, timeout, self._clock)
        except asyncio.CancelledError:
            if waiting.admitted.is_set():
                self.shrink(waiting.user_id, self._inside.get(waiting.user_id, 0) - waiting.size)
            raise
        if not admitted:
            raise Unavailable(
                "All the memory for agents is in use just now. Try again in a minute.",
                retry_after=RETRY_AFTER,
            )

    def _move_up(self) -> None:
        """Let in from the front. The small do not pass the large, which would else wait for ever."""
        while self._line and self.used + self._line[0].size <= self.capacity:
            first = self._line.popleft()
            self._let_in(first.user_id, first.size)
            first.admitted.set()
        for place, waiting in enumerate(self._line, start=1):
            waiting.show(place)

    def _let_in(self, user_id: UUID, size: int) -> None:
        self._inside[user_id] = self._inside.get(user_id, 0) + size


def _gigabytes(size: int) -> str:
    return f"{size / 1024**3:.3g} GiB"
