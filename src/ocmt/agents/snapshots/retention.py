"""Which generations are kept, and which contents those need. Pure.

An active agent is saved every few minutes. So the older they are, the fewer generations are kept; and a
content that only those needed which are gone is given up, in the middle of the history, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping
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
