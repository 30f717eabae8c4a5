"""Virtual time passes only when told, and wakes sleepers in order."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from ocmt.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio


async def test_sleepers_wake_in_the_order_of_their_deadlines_at_their_own_time(clock: VirtualClock) -> None:
    begin = clock.now()
    woken: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float, then: float | None = None) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))
        if then is not None:
            await clock.sleep(then)
            woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sleep("late", 30))
        tasks.create_task(sleep("twice", 10, then=15))
        tasks.create_task(sleep("now", 0))
        await clock.advance(29)
        assert woken == [("now", 0), ("twice", 10), ("twice", 25)]
        await clock.advance(1)
    assert woken[-1] == ("late", 30)
    assert clock.now() - begin == timedelta(seconds=30)


async def test_a_sleep_that_was_cancelled_wakes_nobody(clock: VirtualClock) -> None:
    task = asyncio.ensure_future(clock.sleep(5))
    await clock.wait_for_sleepers(1)
    task.cancel()
    await clock.advance(10)
    assert task.cancelled()
    assert clock.sleepers == 0
