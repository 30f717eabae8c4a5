"""What is done after a snapshot, while the agent may run: the plain tree, and what nobody needs any more."""

from __future__ import annotations

import structlog

from ocmt.agents.snapshots.manifest import Manifest
from ocmt.agents.snapshots.plain_tree import refresh_plain_tree, shown_generation
from ocmt.agents.snapshots.restoring import read_manifest
from ocmt.agents.snapshots.retention import Retention, needed
from ocmt.agents.snapshots.rows import Snapshot, SnapshotRows
from ocmt.agents.snapshots.store import AT_ONCE, UserObjects
from ocmt.agents.snapshots.uploading import all_or_first_error
from ocmt.platform.clock import Clock
from ocmt.platform.leases import Lease

log = structlog.get_logger(__name__)

SURE_SECONDS = 2.0
"""For so long after the database said that the lease is ours deletions are begun; leases last much longer."""


class Tidier:
    """Of all agents; the caller holds the lease. Whatever is not done is done by the next one."""

    def __init__(self, rows: SnapshotRows, clock: Clock) -> None:
        self._rows = rows
        self._clock = clock

    async def tidy(self, lease: Lease, store: UserObjects, newest: Snapshot, retention: Retention) -> None:
        """Raises: LeaseLost, Unavailable."""
        manifest = await read_manifest(store, newest)
        if manifest is None:
            log.error("newest manifest damaged", user_id=str(lease.key), generation=newest.generation)
            return
        shown = shown_generation(await store.get(store.plain_state_key))
        if shown != newest.generation:
            row = await self._rows.find(lease.key, shown) if shown is not None else None
            known = await read_manifest(store, row) if row is not None else None
            await refresh_plain_tree(store, manifest, known)
        await self._prune(lease, store, manifest, retention)

    async def _prune(
        self, lease: Lease, store: UserObjects, manifest: Manifest, retention: Retention
    ) -> None:
        """Rows first: from then on nobody counts on what is deleted after them."""
        times = await self._rows.times(lease.key)
        dropped = retention.dropped(times, self._clock.now())
        kept = times.keys() - dropped
        if dropped:
            await self._rows.drop(lease, dropped)
        unfinished = sorted(await store.generations() - kept)
        blobs = sorted((await store.blob_sizes()).keys() - needed(manifest, kept))
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
