"""All generations of one agent together have a budget of bytes: the newest stays, the others go by and by."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest

from ocmt.agents.snapshots.keeping import Limits
from ocmt.errors import LimitReached
from ocmt.platform.storage import Budgets, Store, Used, used
from tests.agents.snapshots.snapshotting import Bench

pytestmark = pytest.mark.anyio
KB = 1024
LIMITS = Limits(total_bytes=300 * KB, file_bytes=300 * KB)


async def counted(bench: Bench) -> Used:
    found = await used(bench.database, bench.user_id, Budgets())
    return next(one for one in found if one.store is Store.SNAPSHOTS)


def stored(bench: Bench) -> int:
    return sum(len(data) for key, data in bench.objects.stored.items() if "/.blobs/" in key)


async def test_noise_that_is_saved_again_and_again_stays_within_the_budget(bench: Bench) -> None:
    """Each stop makes a generation; all of the last hour used to be kept, up to 2 GiB each."""
    most = 0
    for _ in range(20):
        bench.write("workspace/noise", os.urandom(250 * KB))
        snapshot = await bench.take(limits=LIMITS, reread=True)
        most = max(most, stored(bench))
        await bench.clock.advance(19)
    assert most <= LIMITS.budget
    assert snapshot.generation == 20
    assert (await bench.generations())[0] == 20
    assert await bench.content_of() == bench.content()
    for generation in await bench.generations():
        await bench.content_of(generation)  # what is listed can be restored
    kept = await counted(bench)
    assert kept.items == len(await bench.generations())
    assert stored(bench) <= kept.bytes <= LIMITS.budget + 10 * KB
    assert kept.bytes < 3 * 250 * KB


async def test_small_changes_beside_a_large_file_cost_what_they_are(bench: Bench) -> None:
    """Equal contents count once, so a history of small changes is kept whole."""
    bench.write("workspace/large", os.urandom(250 * KB))
    for number in range(15):
        bench.write("workspace/small", f"{number}")
        await bench.take(limits=LIMITS)
        await bench.clock.advance(19)
    assert len(await bench.generations()) == 15


async def test_what_was_there_yesterday_outlives_todays_noise(bench: Bench) -> None:
    bench.write("workspace/work", b"w" * 100 * KB)
    first = await bench.take(limits=LIMITS)
    await bench.clock.advance(timedelta(days=1, hours=3).total_seconds())
    for _ in range(10):
        bench.write("workspace/work", os.urandom(100 * KB))
        await bench.take(limits=LIMITS)
        await bench.clock.advance(60)
    assert first.generation in await bench.generations()
    assert (await bench.content_of(first.generation))["workspace/work"] == b"w" * 100 * KB


async def test_a_save_that_cannot_fit_is_refused_in_plain_words_and_the_newest_stays(bench: Bench) -> None:
    limits = Limits(total_bytes=300 * KB, file_bytes=300 * KB, kept_bytes=400 * KB)
    bench.write("workspace/a", os.urandom(200 * KB))
    await bench.take(limits=limits)
    bench.write("workspace/a", os.urandom(250 * KB))
    with pytest.raises(LimitReached, match=r"400 KB of saved files .*delete files of your agent"):
        await bench.take(limits=limits)
    assert await bench.generations() == [1]
    row = await bench.row()
    assert row["save_problem"]["code"] == "limit_reached"
    (bench.workspace / "a").unlink()
    await bench.take(limits=limits)
    assert (await counted(bench)).bytes < 400 * KB


async def test_what_was_left_by_saves_that_were_given_up_goes_before_it_counts(bench: Bench) -> None:
    bench.write("workspace/a", os.urandom(100 * KB))
    await bench.take(limits=LIMITS)
    for number in range(5):
        bench.objects.stored[bench.key(f".blobs/{number:064x}")] = os.urandom(100 * KB)
    bench.write("workspace/a", os.urandom(200 * KB))
    await bench.take(limits=LIMITS)
    assert stored(bench) <= LIMITS.budget
    assert await bench.content_of() == bench.content()


async def test_contents_that_the_agent_had_once_are_whole_after_room_was_made(bench: Bench) -> None:
    """The note beside the folder may know a content that was given up a moment ago: it is written again."""
    contents: list[Any] = [os.urandom(140 * KB) for _ in range(4)]
    for data in (*contents, *contents, contents[0]):
        bench.write("workspace/a", data)
        bench.write("workspace/b", data[::-1])
        await bench.take(limits=LIMITS)
        assert await bench.content_of() == bench.content()
        await bench.clock.advance(30)
