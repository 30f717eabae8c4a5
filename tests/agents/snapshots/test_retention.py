"""Old generations are thinned out the older they are, and nothing is given up that a kept one needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ocmt.agents.snapshots.manifest import Entry, Manifest
from ocmt.agents.snapshots.retention import NONE, Retention, needed, succeed

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HASHES = [f"{number:064x}" for number in range(8)]
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
AT_MOST = 10 + 13 + 25 + 31
"""The newest, one every five minutes of an hour, one an hour of a day, one a day of a month."""

histories = st.lists(st.integers(1, 60 * 24 * 4), max_size=80).map(
    lambda steps: [NOW - 40 * DAY + sum(steps[:number]) * MINUTE for number in range(1, len(steps) + 1)]
)
"""When generations were made, the oldest first, minutes to days apart."""


def numbered(times: list[datetime]) -> dict[int, datetime]:
    return dict(enumerate(times, 1))


@given(histories, st.integers(1, 12))
def test_young_ones_are_all_kept_and_of_older_ones_the_last_of_each_hour_and_day(
    times: list[datetime], newest: int
) -> None:
    made = numbered(times)
    now = times[-1] if times else NOW
    kept = made.keys() - Retention(newest).dropped(made, now)
    assert set(sorted(made)[-newest:]) <= kept
    assert all(number in kept for number, at in made.items() if now - at < HOUR)
    for length, young in ((13, DAY), (10, 30 * DAY)):
        last_of = {at.isoformat()[:length]: number for number, at in made.items()}
        assert all(number in kept for number in last_of.values() if now - made[number] < young)


@given(histories)
def test_however_often_it_is_asked_the_same_are_kept(times: list[datetime]) -> None:
    """Thinned out at every save, or only once at the end: nothing is lost by asking often."""
    retention = Retention()
    there: dict[int, datetime] = {}
    for number, at in numbered(times).items():
        there[number] = at
        for gone in retention.dropped(there, at):
            del there[gone]
    made = numbered(times)
    now = times[-1] if times else NOW
    at_once = made.keys() - retention.dropped(made, now)
    assert at_once <= there.keys()
    assert len(there.keys() - at_once) <= retention.newest


def test_a_month_of_saves_every_five_minutes_leaves_a_few_dozen() -> None:
    retention = Retention()
    there: dict[int, datetime] = {}
    for number in range(35 * 24 * 12):
        now = NOW + 5 * number * MINUTE
        there[number] = now
        for gone in retention.dropped(there, now):
            del there[gone]
        assert len(there) <= AT_MOST
    assert len(there) >= 60
    assert min(there.values()) < now - 29 * DAY


@given(
    st.lists(
        st.tuples(st.frozensets(st.sampled_from(HASHES)), st.integers(0, 60 * 30)), min_size=1, max_size=60
    ),
    st.integers(1, 3),
)
def test_no_content_is_given_up_that_a_kept_generation_needs(
    history: list[tuple[frozenset[str], int]], newest: int
) -> None:
    """A history of generations, each some minutes or hours after the one before, with whatever contents."""
    retention = Retention(newest, HOUR, 6 * HOUR, 3 * DAY)
    now = NOW
    made: dict[int, datetime] = {}
    manifests: dict[int, Manifest] = {}
    stored: set[str] = set()
    previous: Manifest | None = None
    for generation, (contents, minutes) in enumerate(history, 1):
        now += minutes * MINUTE
        stored |= contents
        kept = made.keys() - retention.dropped(made, now)
        manifest = succeed(a_generation(generation, *sorted(contents), at=now), previous, kept)
        manifests[generation] = previous = manifest
        made[generation] = now
        for gone in retention.dropped(made, now):
            del made[gone]
        stored &= needed(manifest, made)
        for kept_generation in made:
            assert manifests[kept_generation].blobs.keys() <= stored


def a_generation(number: int, *contents: str, at: datetime = NOW) -> Manifest:
    entries = tuple(Entry(f"workspace/{name}", "file", 0o600, 1, 1, name) for name in contents)
    return Manifest(number, at, None, entries)


def test_contents_that_nobody_needs_any_more_are_given_up() -> None:
    first = succeed(a_generation(1, HASHES[1]), None, [])
    second = succeed(a_generation(2), first, [1])
    assert needed(second, [1, 2]) == {HASHES[1]}
    assert needed(second, [2]) == set()
    assert succeed(a_generation(3), replace(second, older={}), [2]).older == {}


def test_contents_of_the_middle_of_the_history_are_given_up_with_it() -> None:
    """Or a database that is saved every five minutes would be kept in thousands of states."""
    manifest = succeed(a_generation(1, HASHES[0], HASHES[1]), None, [])
    for number in range(2, 6):
        manifest = succeed(a_generation(number, HASHES[0], HASHES[number]), manifest, range(1, number))
    assert needed(manifest, [1, 5]) == {HASHES[0], HASHES[1], HASHES[5]}


def test_the_clock_may_have_been_ahead() -> None:
    made = {1: NOW + DAY, 2: NOW - DAY, 3: NOW}
    assert Retention(1, HOUR, NONE, NONE).dropped(made, NOW) == {2}


# Thinned out by bytes


def total(kept: set[int], sizes: dict[int, int], contents: list[tuple[tuple[int, int], int]]) -> int:
    """The plain definition: each content that a kept generation may need, once."""
    needed_bytes = sum(size for (first, last), size in contents if any(first <= one <= last for one in kept))
    return needed_bytes + sum(sizes.get(one, 0) for one in kept)


spans_of_contents = st.lists(
    st.tuples(
        st.tuples(st.integers(1, 30), st.integers(1, 30)).map(lambda s: (min(s), max(s))), st.integers(0, 50)
    ),
    max_size=40,
)


@given(histories.filter(bool), spans_of_contents, st.integers(0, 20), st.integers(0, 600))
def test_what_is_kept_fits_and_no_more_is_given_up_than_that_needs(
    times: list[datetime], contents: list[tuple[tuple[int, int], int]], own: int, budget: int
) -> None:
    made, now = numbered(times), times[-1]
    sizes = dict.fromkeys(made, own)
    gone = Retention().thinned(made, now, sizes, contents, budget)
    kept = set(made) - gone
    newest = max(made)
    assert newest in kept
    assert total(kept, sizes, contents) <= budget or kept == {newest}
    if gone:
        # The one that went last was needed to go: with it, the budget is passed.
        more = gone - Retention().thinned(made, now, sizes, contents, budget + own + 1)
        assert not more or total(kept | more, sizes, contents) > budget
    assert Retention().thinned({one: made[one] for one in kept}, now, sizes, contents, budget) == set()


@given(histories.filter(bool), spans_of_contents, st.integers(0, 300), st.integers(0, 300))
def test_a_larger_budget_keeps_what_a_smaller_one_keeps(
    times: list[datetime], contents: list[tuple[tuple[int, int], int]], budget: int, more: int
) -> None:
    made, now = numbered(times), times[-1]
    small = Retention().thinned(made, now, {}, contents, budget)
    large = Retention().thinned(made, now, {}, contents, budget + more)
    assert large <= small


def test_in_betweens_of_the_last_hour_go_before_yesterdays_last_one() -> None:
    """Whoever writes noise and saves again and again does not lose what was there yesterday."""
    made = {1: NOW - DAY, 2: NOW - 2 * HOUR} | {
        number: NOW - (20 - number) * MINUTE for number in range(3, 20)
    }
    contents = [((number, number), 100) for number in made]
    gone = Retention().thinned(made, NOW, {}, contents, 400)
    kept = sorted(set(made) - gone)
    assert {1, 2, 19} <= set(kept)
    assert len(kept) == 4


def test_a_content_that_all_have_counts_once() -> None:
    made = {number: NOW - (20 - number) * MINUTE for number in range(1, 20)}
    assert Retention().thinned(made, NOW, {}, [((1, 19), 1000)], 1000) == set()


def test_a_history_of_many_files_is_thinned_in_a_moment() -> None:
    made = {number: NOW - (2000 - number) * MINUTE for number in range(1, 2000)}
    contents = [((number % 1999 + 1, min(1999, number % 1999 + 40)), 10) for number in range(200_000)]
    assert Retention().thinned(made, NOW, {}, contents, 100_000)
