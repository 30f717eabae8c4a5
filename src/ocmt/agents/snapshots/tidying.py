"""What is done after a snapshot, while the agent may run: the plain tree, and what nobody needs any more."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from ocmt.agents.snapshots.manifest import Manifest
from ocmt.agents.snapshots.plain_tree import refresh_plain_tree, shown_generation
from ocmt.agents.snapshots.restoring import read_manifest
from ocmt.agents.snapshots.retention import Retention, needed, weighed
from ocmt.agents.snapshots.rows import Snapshot, SnapshotRows
from ocmt.agents.snapshots.store import AT_ONCE, UserObjects
from ocmt.agents.snapshots.uploading import all_or_first_error
from ocmt.platform.clock import Clock
from ocmt.platform.leases import Lease
from ocmt.platform.storage import Store, full

log = structlog.get_logger(__name__)

SURE_SECONDS = 2.0
"""For so long after the database said that the lease is ours deletions are begun; leases last much longer."""


class Tidier:
    """Of all agents; the caller holds the lease. Whatever is not done is done by the next one."""

    def __init__(self, rows: SnapshotRows, clock: Clock) -> None:
        self._rows = rows
        self._clock = clock

    async def tidy(
        self, lease: Lease, store: UserObjects, newest: Snapshot, retention: Retention, *, budget: int
    ) -> None:
        """Refresh the plain tree, then `prune`. Raises: LeaseLost, Unavailable."""
        manifest = await read_manifest(store, newest)
        if manifest is None:
            log.error("newest manifest damaged", user_id=str(lease.key), generation=newest.generation)
            return
        shown = shown_generation(await store.get(store.plain_state_key))
        if shown != newest.generation:
            row = await self._rows.find(lease.key, shown) if shown is not None else None
            known = await read_manifest(store, row) if row is not None else None
            await refresh_plain_tree(store, manifest, known)
        await self.prune(lease, store, manifest, retention, budget=budget)

    async def make_room(
        self,
        lease: Lease,
        store: UserObjects,
        newest: Snapshot,
        retention: Retention,
        coming: int,
        *,
        budget: int,
    ) -> None:
        """Give up older generations before a save of `coming` bytes would pass the budget, never the newest.

        Raises: LimitReached where the newest generation and what is to come do not fit together; LeaseLost,
        Unavailable.
        """
        manifest = await read_manifest(store, newest)
        if manifest is None:
            return  # it is damaged: what is needed is not known, so nothing is given up
        room = max(0, budget - coming)
        if await self.prune(lease, store, manifest, retention, budget=room) > room:
            raise full(Store.SNAPSHOTS, size=budget)

    async def prune(
        self, lease: Lease, store: UserObjects, manifest: Manifest, retention: Retention, *, budget: int
    ) -> int:
        """Delete what nobody needs, and generations until what is left fits into `budget` bytes.

        The newest one, which `manifest` is, stays. Returns the bytes that are kept. Raises: LeaseLost,
        Unavailable.
        """
        now = self._clock.now()
        times = await self._rows.times(lease.key)
        sizes, blob_sizes = await store.manifest_sizes(), await store.blob_sizes()
        dropped = retention.dropped(times, now)
        young = {number: at for number, at in times.items() if number not in dropped}
        dropped |= retention.thinned(young, now, sizes, weighed(manifest, blob_sizes), budget)
        kept = times.keys() - dropped
        # Rows first: from then on nobody counts on what is deleted after them.
        if dropped:
            await self._rows.drop(lease, dropped)
        unfinished = sorted(sizes.keys() - kept)
        wanted = needed(manifest, kept)
        blobs = sorted(blob_sizes.keys() - wanted)
        await self._delete(lease, store, unfinished, blobs)
        kept_bytes = sum(blob_sizes.get(name, 0) for name in wanted) + sum(sizes.get(one, 0) for one in kept)
        await self._rows.note_kept(lease, kept_bytes)
        return kept_bytes

    async def _delete(
        self, lease: Lease, store: UserObjects, unfinished: Sequence[int], blobs: Sequence[str]
    ) -> None:
        doomed = [*map(store.manifest_key, unfinished), *map(store.blob_key, blobs)]
        sure_until = self._clock.monotonic()
        while doomed:
            # A holder that was frozen has lost its lease, and others may need what it would delete. So it
            # asks when it has thawed, also where it was frozen between the answer and the deletion.
            while (now := self._clock.monotonic()) >= sure_until:
                await self._rows.newest(lease)
                sure_until = now + SURE_SECONDS
            batch, doomed = doomed[:AT_ONCE], doomed[AT_ONCE:]
            await all_or_first_error([store.delete(key) for key in batch])
