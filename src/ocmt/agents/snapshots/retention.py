"""Which generations are kept, and which contents those need. Pure.

An active agent is saved every few minutes. So the older they are, the fewer generations are kept; and a
content that only those needed which are gone is given up, in the middle of the history, too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from ocmt.agents.snapshots.manifest import Manifest, Span

NONE = timedelta(0)


@dataclass(frozen=True)
class Retention:
    """The newest `newest` are kept; all that are younger than `every`; the last of each hour (UTC) while
    younger than `hourly`; the last of each day while younger than `daily`."""

    newest: int = 10
    every: timedelta = timedelta(hours=1)
    hourly: timedelta = timedelta(days=1)
    daily: timedelta = timedelta(days=30)

    def dropped(self, generations: Mapping[int, datetime], now: datetime) -> set[int]:
        """Those of (generation → created at) that need not be kept.

        What is kept now was kept at every moment before, so it does not matter how often this is asked.
        """
        last_of: dict[tuple[str, datetime], int] = {}
        for generation in sorted(generations):
            hour = generations[generation].astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            last_of["hour", hour] = last_of["day", hour.replace(hour=0)] = generation
        newest = set(sorted(generations, reverse=True)[: self.newest])
        dropped = set()
        for generation in generations.keys() - newest:
            at = generations[generation]
            hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
            age = now - at
            if not (
                age < self.every
                or (age < self.hourly and last_of["hour", hour] == generation)
                or (age < self.daily and last_of["day", hour.replace(hour=0)] == generation)
            ):
                dropped.add(generation)
        return dropped

    def thinned(
        self,
        generations: Mapping[int, datetime],
        now: datetime,
        sizes: Mapping[int, int],
        contents: Collection[tuple[Span, int]],
        budget: int,
    ) -> set[int]:
        """Return those of `generations` that have to go so that the others together fit into `budget` bytes.

        `sizes`: the bytes that each generation takes by itself (its manifest). `contents`: of each content
        the generations that may need it, and its bytes; it counts once, and is freed with the last of them.
        In-betweens of an hour go first, then those between the last of each day, then the others, each time
        the oldest first. The newest stays, whatever it takes.
        """
        numbers = sorted(generations)
        order = _first_to_go(generations)
        place = {number: at for at, number in enumerate(order)}
        # A content is freed at the place of that one of its generations which goes last.
        last = _RangeMaximum([place.get(number, len(order)) for number in numbers])
        freed = [sizes.get(number, 0) for number in order]
        total = sum(sizes.get(number, 0) for number in numbers)
        for (first, final), size in contents:
            at = last.of(bisect_left(numbers, first), bisect_right(numbers, final))
            if at is None:
                continue  # nothing that is there needs it
            total += size
            if at < len(order):
                freed[at] += size
        gone: set[int] = set()
        for number, size in zip(order, freed, strict=True):
            if total <= budget:
                break
            gone.add(number)
            total -= size
        return gone


def _first_to_go(generations: Mapping[int, datetime]) -> list[int]:
    """All but the newest, in the order in which they are given up where room is needed."""
    numbers = sorted(generations)
    last_of_hour, last_of_day = {}, {}
    for number in numbers:
        hour = generations[number].astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        last_of_hour[hour] = last_of_day[hour.replace(hour=0)] = number
    rank = dict.fromkeys(numbers, 0)
    rank |= dict.fromkeys(last_of_hour.values(), 1)
    rank |= dict.fromkeys(last_of_day.values(), 2)
    return sorted(numbers[:-1], key=lambda number: (rank[number], number))


class _RangeMaximum:
    """The largest of any run of numbers that stand side by side, asked for many times."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._levels = [list(numbers)]
        width = 1
        while 2 * width <= len(numbers):
            below = self._levels[-1]
            self._levels.append(
                [max(below[at], below[at + width]) for at in range(len(numbers) - 2 * width + 1)]
            )
            width *= 2

    def of(self, begin: int, end: int) -> int | None:
        """The largest from `begin` to before `end`; None of no numbers."""
        if begin >= end:
            return None
        level = (end - begin).bit_length() - 1
        row = self._levels[level]
        return max(row[begin], row[end - (1 << level)])


def weighed(manifest: Manifest, sizes: Mapping[str, int]) -> list[tuple[Span, int]]:
    """Every content that the newest generation or one before it may need: which ones do, and its bytes.

    `sizes`: hash → bytes of what the store has.
    """
    return [(span, sizes[name]) for name, span in spans(manifest).items() if name in sizes]


def spans(manifest: Manifest) -> dict[str, Span]:
    """Every content that it or a generation before it needs → which ones may."""
    own = {name: (manifest.since.get(name, 1), manifest.generation) for name in manifest.blobs}
    return dict(manifest.older) | own


def succeed(manifest: Manifest, previous: Manifest | None, kept: Collection[int]) -> Manifest:
    """The manifest with the contents that kept generations before it need, handed on by the one before it."""
    before = spans(previous) if previous is not None else {}
    own = manifest.blobs
    since = {name: before[name][0] if name in before else manifest.generation for name in own}
    handed_on = {name: span for name, span in before.items() if name not in own}
    return replace(manifest, since=since, older=_still_needed(handed_on, kept))


def needed(manifest: Manifest, kept: Collection[int]) -> set[str]:
    """The blobs that the newest generation and the kept ones before it need; perhaps a few more."""
    return manifest.blobs.keys() | _still_needed(manifest.older, kept).keys()


def _still_needed(older: Mapping[str, Span], kept: Collection[int]) -> dict[str, Span]:
    """Those that a kept generation may need."""
    numbers = sorted(kept)

    def any_within(first: int, last: int) -> bool:
        at = bisect_left(numbers, first)
        return at < len(numbers) and numbers[at] <= last

    return {name: span for name, span in older.items() if any_within(*span)}
