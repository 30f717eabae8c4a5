"""Rate limits: a burst, then a steady trickle, the same for all replicas; a refused flood writes nothing."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocmt.errors import LimitReached
from ocmt.platform.database import Database
from ocmt.platform.rate import Rate
from ocmt.platform.rates import Rates
from ocmt.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

RATE = Rate("tests by", count=6, period=timedelta(minutes=1), burst=3)


async def taken(rates: Rates, who: str, times: int) -> int:
    """How many of so many at once are let through."""
    results = await asyncio.gather(*(rates.take(RATE, who) for _ in range(times)), return_exceptions=True)
    assert all(result is None or isinstance(result, LimitReached) for result in results)
    return results.count(None)


async def test_a_burst_and_then_one_every_ten_seconds(database: Database, clock: VirtualClock) -> None:
    rates = Rates(database, clock)
    assert await taken(rates, "ada", 10) == 3
    await clock.advance(10)
    assert await taken(rates, "ada", 10) == 1
    await clock.advance(20)
    assert await taken(rates, "ada", 10) == 2
    await clock.advance(3600)
    assert await taken(rates, "ada", 10) == 3, "nobody saves up more than the burst"


async def test_everybody_has_their_own_and_replicas_count_together(
    database: Database, clock: VirtualClock
) -> None:
    one, other = Rates(database, clock), Rates(database, clock)
    assert await taken(one, "ada", 2) == 2
    assert await taken(other, "ada", 2) == 1
    assert await taken(other, "bob", 3) == 3


async def test_who_is_refused_hears_for_how_long(database: Database, clock: VirtualClock) -> None:
    rates = Rates(database, clock)
    await taken(rates, "ada", 3)
    with pytest.raises(LimitReached) as refused:
        await rates.take(RATE, "ada")
    assert refused.value.retry_after == 10
    await clock.advance(refused.value.retry_after)
    await rates.take(RATE, "ada")


async def test_a_refused_flood_writes_nothing(database: Database, clock: VirtualClock) -> None:
    rates = Rates(database, clock)
    await taken(rates, "ada", 3)
    async with database.connection() as connection:
        before = await connection.fetchrow("select xmin::text, arrival from rate_limits")
        await taken(rates, "ada", 20)
        assert await connection.fetchrow("select xmin::text, arrival from rate_limits") == before


async def test_the_forgiven_begin_anew_and_the_idle_are_forgotten(
    database: Database, clock: VirtualClock
) -> None:
    rates = Rates(database, clock)
    assert await taken(rates, "ada", 5) == 3
    await rates.forgive(RATE, "ada")
    assert await taken(rates, "ada", 5) == 3
    await clock.advance(601)
    await rates.take(RATE, "bob")
    async with database.connection() as connection:
        kept = [row["key"] for row in await connection.fetch("select key from rate_limits")]
    assert len(kept) == 1
    assert "bob" not in kept[0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(gaps=st.lists(st.integers(0, 25), max_size=15))
async def test_it_is_a_bucket_that_leaks(database: Database, gaps: list[int]) -> None:
    clock, level, last = VirtualClock(), 0.0, 0.0
    rates = Rates(database, clock)
    await rates.forgive(RATE, "model")
    for gap in gaps:
        await clock.advance(gap)
        level = max(0.0, level - (clock.monotonic() - last) / RATE.interval.total_seconds())
        last = clock.monotonic()
        let_through = level <= RATE.burst - 1 + 1e-9
        try:
            await rates.take(RATE, "model")
            assert let_through
            level += 1
        except LimitReached:
            assert not let_through
