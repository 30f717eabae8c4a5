"""How long a user's operations take while a hostile user of the same process does their worst.

A case is a *load*: a coroutine that keeps the work of one hostile user going until it is cancelled.
`compare` times the same operations of another user with and without it, in turns, so that whatever else the
machine does touches both alike. Further loads need nothing but a function that makes such a coroutine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Operation = Callable[[], Awaitable[object]]
Load = Callable[[], Awaitable[object]]

FACTOR = 2.0
"""So much slower an operation may be at its 95th percentile."""
CONSTANT = 0.1
"""Seconds beside that: what a busy machine adds now and then to anything."""
ROUNDS = 2
SAMPLES = 15
"""Of each operation in each round."""
SETTLE = 0.3
"""Seconds that a load is given before anything is measured."""
ATTEMPTS = 3
OPERATION_SECONDS = 30.0
A_SECOND = 20
"""So often all copies of a load begin anew in a second: twice as often as a user's rate of writes allows."""


@dataclass
class Times:
    """Seconds that each operation took."""

    quiet: dict[str, list[float]] = field(default_factory=dict)
    hostile: dict[str, list[float]] = field(default_factory=dict)

    def too_slow(self) -> dict[str, str]:
        """Return the operations that the load slows down by too much, and by how much."""
        found = {}
        for name, quiet in self.quiet.items():
            before, after = p95(quiet), p95(self.hostile[name])
            if after > FACTOR * before + CONSTANT:
                found[name] = f"{1000 * before:.1f} ms, with the load {1000 * after:.1f} ms"
        return found


def p95(times: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(times)[int(0.95 * (len(times) - 1))]


async def compare(operations: Mapping[str, Operation], load: Load, *, at_once: int = 8) -> Times:
    """Time the operations without and with `at_once` copies of the load, in turns."""
    times = Times()
    for _ in range(ROUNDS):
        await _measure(operations, times.quiet)
        async with going_on(load, at_once=at_once):
            await asyncio.sleep(SETTLE)
            await _measure(operations, times.hostile)
    return times


async def assert_neighbour_is_fine(
    operations: Mapping[str, Operation], load: Load, *, at_once: int = 8
) -> None:
    """Fail where a load slows an operation down by more than `FACTOR`, three times in a row.

    On a machine with other work a single comparison may fail by chance; a fault of ours fails each time.
    """
    for operation in operations.values():
        await operation()  # what is made once
    found: dict[str, str] = {}
    for _ in range(ATTEMPTS):
        found = (await compare(operations, load, at_once=at_once)).too_slow()
        if not found:
            return
    raise AssertionError(f"a hostile neighbour slows this down: {found}")


@asynccontextmanager
async def going_on(load: Load, *, at_once: int) -> AsyncIterator[None]:
    """Keep that many copies of the load going. What a load raises is raised at the end."""
    tasks = [asyncio.create_task(_for_ever(load, at_once / A_SECOND)) for _ in range(at_once)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    faults = [one for one in done if isinstance(one, Exception)]
    if faults:
        raise faults[0]


async def _for_ever(load: Load, pause: float) -> None:
    while True:
        await load()
        await asyncio.sleep(pause)


async def _measure(operations: Mapping[str, Operation], times: dict[str, list[float]]) -> None:
    for _ in range(SAMPLES):
        for name, operation in operations.items():
            began = time.perf_counter()
            with contextlib.suppress(TimeoutError):  # its time says it
                async with asyncio.timeout(OPERATION_SECONDS):
                    await operation()
            times.setdefault(name, []).append(time.perf_counter() - began)
