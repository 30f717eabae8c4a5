"""Places for transfers: one for each user, a fair line, and no place for ever for whoever is slow."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ocmt.errors import Unavailable
from ocmt.platform.places import Pace, Places, Rates

pytestmark = pytest.mark.anyio

QUICK = Rates(least=1000, grace=30, crowded=100_000, crowded_grace=0.05, longest=30)


@asynccontextmanager
async def holding(places: Places, *owners: str) -> AsyncIterator[list[Pace]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(places.place(owner)) for owner in owners]


async def transfer(places: Places, owner: str, order: list[str]) -> None:
    async with places.place(owner):
        order.append(owner)


async def until(places: Places, waiting: int) -> None:
    async with asyncio.timeout(10):
        while len(places._waiting) != waiting:
            await asyncio.sleep(0.001)


async def test_one_user_has_one_place_and_waits_once() -> None:
    places = Places(1, rates=QUICK)
    async with holding(places, "a"):
        with pytest.raises(Unavailable, match="already"):
            await transfer(places, "a", [])
        waiting = asyncio.create_task(transfer(places, "b", []))
        await until(places, 1)
        with pytest.raises(Unavailable, match="already"):
            await transfer(places, "b", [])
    await waiting
    await transfer(places, "a", [])


async def test_who_waits_comes_in_order() -> None:
    places, order = Places(1, rates=QUICK), list[str]()
    async with holding(places, "a"):
        waiting = []
        for number, owner in enumerate("bcd", 1):
            waiting.append(asyncio.create_task(transfer(places, owner, order)))
            await until(places, number)
    late = asyncio.create_task(transfer(places, "e", order))
    await asyncio.gather(*waiting, late)
    assert order == ["b", "c", "d", "e"]


async def test_who_gives_up_waiting_costs_no_place() -> None:
    places, order = Places(1, rates=QUICK), list[str]()
    async with holding(places, "a"):
        gone = asyncio.create_task(transfer(places, "b", order))
        await until(places, 1)
        stays = asyncio.create_task(transfer(places, "c", order))
        await until(places, 2)
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone
    await stays
    assert order == ["c"]
    assert not places._taken


async def test_who_is_called_and_goes_in_the_same_moment_gives_the_place_on() -> None:
    places, order = Places(1, rates=QUICK), list[str]()
    async with holding(places, "a"):
        gone = asyncio.create_task(transfer(places, "b", order))
        await until(places, 1)
        stays = asyncio.create_task(transfer(places, "c", order))
        await until(places, 2)
    gone.cancel()  # the place is its own by now, and it has not run yet
    await asyncio.gather(gone, stays, return_exceptions=True)
    assert order == ["c"]
    assert not places._taken


async def test_nobody_waits_for_ever_and_the_line_has_an_end() -> None:
    places = Places(1, rates=QUICK, patience=0.02, line=1)
    async with holding(places, "a"):
        waiting = asyncio.create_task(transfer(places, "b", []))
        await until(places, 1)
        with pytest.raises(Unavailable, match="Too many"):
            await transfer(places, "c", [])
        with pytest.raises(Unavailable, match="Too many"):
            await waiting


async def test_the_slowest_gives_way_to_who_waits_and_only_it() -> None:
    places = Places(3, rates=QUICK)
    ended: list[str] = []

    async def user_who_sends_nothing(owner: str, moved: int) -> None:
        async with places.place(owner) as pace:
            pace.moved(moved)
            try:
                async with pace.waiting_for_user():
                    await asyncio.sleep(20)
            except Unavailable:
                ended.append(owner)
                raise

    sizes = {"quick": 100_000_000, "slow": 0, "middling": 50_000_000}
    holders = [asyncio.create_task(user_who_sends_nothing(*item)) for item in sizes.items()]
    await asyncio.sleep(0.2)
    assert not ended, "while nobody waits nobody is in the way"
    async with asyncio.timeout(10):
        await transfer(places, "new", [])
    assert ended == ["slow"]
    for holder in holders:
        holder.cancel()
    results = await asyncio.gather(*holders, return_exceptions=True)
    assert sum(isinstance(result, Unavailable) for result in results) == 1


async def test_work_of_the_server_is_not_counted_against_its_user() -> None:
    places, now = Places(1, rates=QUICK, now=lambda: clock[0]), 0.0
    clock = [now]
    async with holding(places, "a") as (pace,):
        clock[0] = 25.0
        pace.begin()
        assert pace.ends(crowded=False) == 25.0 + 30
        pace.moved(2000)
        assert pace.ends(crowded=False) == 25.0 + 30, "never longer than a whole transfer may take"


@pytest.mark.parametrize(
    ("rates", "moved"),
    [
        (Rates(least=1000, grace=0.02, longest=100), 10),
        (Rates(least=1000, grace=0.01, longest=0.02), 10_000_000),
    ],
    ids=["a rate below the least", "a transfer that never ends"],
)
async def test_too_slow_is_too_slow_even_where_nobody_waits(rates: Rates, moved: int) -> None:
    places = Places(1, rates=rates)
    async with holding(places, "a") as (pace,):
        pace.moved(moved)
        with pytest.raises(Unavailable, match="too slow"):
            async with pace.waiting_for_user():
                await asyncio.sleep(20)


async def test_a_timeout_of_the_piece_itself_stays_what_it_is() -> None:
    async with holding(Places(1), "a") as (pace,):
        with pytest.raises(TimeoutError):
            async with pace.waiting_for_user(), asyncio.timeout(0.001):
                await asyncio.sleep(20)
