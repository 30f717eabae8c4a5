"""Snapshots of an agent's files: taken while nothing of it runs, restored whole or not at all.

The order of a snapshot is what makes it safe: contents, then the manifest, both read back, then the row.
Until the row says so the generation does not exist, and what was written for it is cleared away by a later
one. All of it happens under the agent's lease; a holder that has lost it can write objects that nobody refers
to, and no more. See docs/decisions/0015-snapshots.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import IO
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from ocmt.agents.snapshots.archive import Archive, write_archive
from ocmt.agents.snapshots.keeping import (
    IGNORE_FILE,
    LONGEST_IGNORE_FILE,
    Keeping,
    Limits,
    gather,
    parse_ignore,
)
from ocmt.agents.snapshots.manifest import (
    Manifest,
    Mark,
    Retention,
    entry_of,
    known_hash,
    needed,
    parse_mark,
    remember,
    succeed,
)
from ocmt.agents.snapshots.plain_tree import refresh_plain_tree, shown_generation
from ocmt.agents.snapshots.restoring import (
    SnapshotDamaged,
    good_before,
    has_manifest,
    named,
    previous_manifest,
    put_in_place,
    read_manifest,
)
from ocmt.agents.snapshots.rows import NO_SUCH, Snapshot, SnapshotRows
from ocmt.agents.snapshots.store import UserObjects, reaching, to_the_end
from ocmt.agents.snapshots.unpacking import Contents
from ocmt.agents.snapshots.uploading import Upload, all_or_first_error
from ocmt.errors import InvalidInput, LeaseLost, NotFound, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.leases import Lease
from ocmt.platform.objects import Objects
from ocmt.runtimes.base import AgentFiles, FoundFile, LeftOut

log = structlog.get_logger(__name__)

NUMBERS_TO_TRY = 100
DELETED_AT_ONCE = 100
"""After so many objects it is asked again whether the lease is still ours."""


@dataclass(frozen=True)
class Standing:
    """Where an agent's row and its folder here stand."""

    newest: int
    """The row's generation; 0: there is none."""
    folder: int
    """The folder holds that generation or what the agent made of it since; 0: of none."""

    @property
    def behind(self) -> bool:
        """Whether the folder lacks what the newest snapshot has: restore before the agent starts."""
        return self.newest > self.folder


@dataclass(frozen=True)
class _Looked:
    """What a scan gave."""

    found: list[FoundFile]
    left_out: list[LeftOut]
    mark: Mark
    at_ns: int


class Snapshots:
    """Of all agents. One call at a time for each; the caller holds the lease and keeps the agent still."""

    def __init__(
        self,
        database: Database,
        objects: Objects,
        clock: Clock,
        *,
        limits: Limits | None = None,
        retention: Retention | None = None,
    ) -> None:
        self._rows = SnapshotRows(database)
        self._objects = objects
        self._clock = clock
        self._limits = limits or Limits()
        self._retention = retention or Retention()
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    # Taking

    async def take(
        self, lease: Lease, files: AgentFiles, *, image: str | None = None, reread: bool = False
    ) -> Snapshot:
        """`save`, then `tidy`; for an agent that may rest meanwhile. What only `tidy` failed at is logged and
        done by the next one: the snapshot is complete. Raises as `save`."""
        snapshot = await self.save(lease, files, image=image, reread=reread)
        try:
            await self.tidy(lease, files)
        except (LeaseLost, Unavailable) as error:
            log.warning("snapshots not tidied", user_id=str(lease.key), error=str(error), detail=error.detail)
        return snapshot

    async def save(
        self, lease: Lease, files: AgentFiles, *, image: str | None = None, reread: bool = False
    ) -> Snapshot:
        """A verified snapshot of the files as they are now: a new generation, or the newest one if nothing
        has changed since. The agent must not run until this returns.

        `reread`: hash every file, whatever its times say. They lie about files that are written through
        memory maps; ask for it before an agent's folder is given up.
        Raises: LeaseLost, LimitReached, FilesChanged, Unavailable. In each case the generations stay.
        """
        async with self._lock(lease.key):
            newest = await self._rows.newest(lease)
            store = UserObjects(self._objects, lease.key)
            with reaching():
                looked = await asyncio.to_thread(self._look, files)
            upload = Upload(store, files, sizes=await store.blob_sizes())
            known = {} if reread else self._known(looked)
            upload.trust({known[item.path]: item.size for item in looked.found if item.path in known})
            hashes = {path: name for path, name in known.items() if upload.has(name)}
            unknown = [item for item in looked.found if item.kind == "file" and item.path not in hashes]
            previous = None
            if unknown or newest is None:
                previous = await previous_manifest(store, self._rows, lease.key, newest)
                upload.trust(previous.blobs if previous else {})
                hashes |= await upload.bring(unknown)
            found = sorted(looked.found, key=itemgetter(0))
            entries = tuple(entry_of(item, hashes.get(item.path)) for item in found)
            manifest = Manifest(1, self._clock.now(), image, entries, tuple(looked.left_out))
            content = manifest.content()
            same = newest is not None and (newest.content, newest.image) == (content, image)
            if newest is not None and same and await has_manifest(store, newest):
                await store.persist(sorted(upload.written), [])
                if looked.mark.generation != newest.generation or unknown:
                    await self._write_mark(files, newest.generation, looked, hashes)
                return newest
            previous = previous or await previous_manifest(store, self._rows, lease.key, newest)
            snapshot = await self._commit(store, lease, manifest, content, previous, upload.written)
            await self._write_mark(files, snapshot.generation, looked, hashes)
            return snapshot

    def _look(self, files: AgentFiles) -> _Looked:
        """Blocks."""
        at_ns = time.time_ns()  # of the same clock as the times of files
        ignored = files.peek(IGNORE_FILE, LONGEST_IGNORE_FILE)
        keep = Keeping(parse_ignore(ignored or b""))
        found, left_out = gather(files.scan(keep), self._limits)
        return _Looked(found, left_out, parse_mark(files.read_mark()), at_ns)

    def _known(self, looked: _Looked) -> dict[str, str]:
        """path → hash of the files that have not changed since they were last hashed here."""
        known = ((item.path, known_hash(item, looked.mark)) for item in looked.found if item.kind == "file")
        return {path: name for path, name in known if name is not None}

    async def _commit(
        self,
        store: UserObjects,
        lease: Lease,
        manifest: Manifest,
        content: str,
        previous: Manifest | None,
        written: set[str],
    ) -> Snapshot:
        """The manifest, under a number that nobody has used, and then the row."""
        kept, _ = await self._kept(lease.key)
        first = max(await store.generations() | {previous.generation if previous else 0}) + 1
        for generation in range(first, first + NUMBERS_TO_TRY):
            numbered = succeed(
                replace(manifest, generation=generation), previous, min(kept, default=generation)
            )
            data = numbered.render()
            if await store.add_manifest(generation, data):
                break
        else:
            raise _not_readable(f"manifests {first} to {generation}")
        if await store.get_manifest(generation) != data:
            raise _not_readable(f"manifest {generation}")
        await store.persist(sorted(written), [generation])
        snapshot = Snapshot(
            generation,
            numbered.created_at,
            numbered.image,
            numbered.files,
            numbered.size,
            hashlib.sha256(data).hexdigest(),
            content,
        )
        await self._rows.add(lease, snapshot)
        return snapshot

    async def _write_mark(
        self, files: AgentFiles, generation: int, looked: _Looked, hashes: Mapping[str, str]
    ) -> None:
        mark = Mark(generation, remember(looked.found, hashes, looked_at_ns=looked.at_ns))
        with reaching():
            await to_the_end(lambda: files.write_mark(mark.render()))

    # Tidying

    async def tidy(self, lease: Lease, files: AgentFiles) -> None:
        """Bring the plain tree up to date, forget old generations, delete what nobody refers to any more and
        what a restore has replaced. The agent may run meanwhile.

        Raises: LeaseLost, Unavailable. Whatever is not done is done by the next one.
        """
        async with self._lock(lease.key):
            newest = await self._rows.newest(lease)
            with reaching():
                await to_the_end(files.clear_away)
            if newest is None:
                return
            store = UserObjects(self._objects, lease.key)
            manifest = await read_manifest(store, newest)
            if manifest is None:
                log.error("newest manifest damaged", user_id=str(lease.key), generation=newest.generation)
                return
            shown = shown_generation(await store.get(store.plain_state_key))
            if shown != newest.generation:
                row = await self._rows.find(lease.key, shown) if shown is not None else None
                await refresh_plain_tree(
                    store, manifest, await read_manifest(store, row) if row is not None else None
                )
            await self._prune(lease, store, manifest)

    async def _prune(self, lease: Lease, store: UserObjects, manifest: Manifest) -> None:
        """Rows first: from then on nobody counts on what is deleted after them."""
        kept, dropped = await self._kept(lease.key)
        if dropped:
            await self._rows.drop(lease, dropped)
        unfinished = await store.generations() - kept
        wanted = needed(manifest, min(kept, default=manifest.generation))
        blobs = sorted((await store.blob_sizes()).keys() - wanted)
        deletions = [store.delete_manifest(number) for number in sorted(unfinished)]
        deletions += [store.delete_blob(name) for name in blobs]
        while deletions:
            now, deletions = deletions[:DELETED_AT_ONCE], deletions[DELETED_AT_ONCE:]
            try:
                # A holder that was frozen has lost its lease, and others may need what it would delete.
                await self._rows.newest(lease)
            except BaseException:
                for deletion in (*now, *deletions):
                    deletion.close()
                raise
            await all_or_first_error(now)

    async def _kept(self, user_id: UUID) -> tuple[set[int], set[int]]:
        """Generations: those that are kept, and those that need not be."""
        times = await self._rows.times(user_id)
        dropped = self._retention.dropped(times, self._clock.now())
        return times.keys() - dropped, dropped

    # Restoring

    async def restore(self, lease: Lease, files: AgentFiles, generation: int | None = None) -> Snapshot:
        """Replace the agent's files by those of a generation (None: the newest). The agent must not run.

        Every hash is checked before anything is replaced. What lies there now is gone afterwards: `save` it
        first if it is of use. Afterwards the folder counts as being at the newest generation, whichever was
        restored, so the next `save` makes a new one of it.
        Raises: NotFound, SnapshotDamaged (which names what is damaged and offers another), LeaseLost,
        Unavailable.
        """
        async with self._lock(lease.key):
            newest = await self._rows.newest(lease)
            wanted = newest if generation is None else await self._rows.find(lease.key, generation)
            if newest is None or wanted is None:
                raise NotFound(NO_SUCH)
            store = UserObjects(self._objects, lease.key)
            manifest = await read_manifest(store, wanted)
            damaged = ["manifest"]
            if manifest is not None:
                damaged = await put_in_place(lease, self._rows, files, manifest, store)
            if damaged:
                good = await good_before(store, self._rows, lease.key, wanted.generation)
                raise SnapshotDamaged(wanted.generation, damaged, good)
            return wanted

    async def replace_by(
        self, lease: Lease, files: AgentFiles, manifest: Manifest, contents: Contents
    ) -> None:
        """Replace the agent's files by those of a manifest from elsewhere; otherwise as `restore`.

        Raises: InvalidInput where a content is missing or damaged, LimitReached, LeaseLost, Unavailable.
        """
        self._limits.check(manifest.entries)
        async with self._lock(lease.key):
            damaged = await put_in_place(lease, self._rows, files, manifest, contents)
        if damaged:
            raise InvalidInput(f"These files are missing or damaged: {named(damaged)}. Nothing was changed.")

    # Asking

    async def standing(self, user_id: UUID, files: AgentFiles) -> Standing:
        """Whether the folder here has what the newest snapshot has."""
        pointer = await self._rows.pointer(user_id)
        with reaching():
            mark = parse_mark(await asyncio.to_thread(files.read_mark))
        return Standing(pointer, mark.generation)

    async def list(self, user_id: UUID, *, before: int | None = None, limit: int = 50) -> list[Snapshot]:
        """A page of the user's snapshots, newest first."""
        return await self._rows.page(user_id, before=before, limit=limit)

    async def ask_restore(self, user_id: UUID, generation: int) -> None:
        """The user wants that generation back; whoever holds the lease sees to it. Raises: NotFound."""
        await self._rows.ask_restore(user_id, generation)

    async def restore_asked(self, user_id: UUID) -> int | None:
        """Which generation the user wants back."""
        return await self._rows.restore_asked(user_id)

    async def export(self, user_id: UUID, generation: int, target: IO[bytes]) -> None:
        """Write a generation as one zip file. Raises: NotFound, SnapshotDamaged, Unavailable."""
        snapshot = await self._rows.find(user_id, generation)
        if snapshot is None:
            raise NotFound(NO_SUCH)
        store = UserObjects(self._objects, user_id)
        manifest = await read_manifest(store, snapshot)
        with reaching():
            damaged = ["manifest"] if manifest is None else await write_archive(store, manifest, target)
        if damaged:
            raise SnapshotDamaged(
                generation, damaged, await good_before(store, self._rows, user_id, generation)
            )

    async def bring_in(self, lease: Lease, files: AgentFiles, source: IO[bytes]) -> None:
        """Replace the agent's files by those of an exported zip file; then `save` them. No agent may run.

        Raises: InvalidInput where it is none or is damaged, LimitReached, LeaseLost, Unavailable.
        """
        archive = await asyncio.to_thread(Archive.open, source)
        await self.replace_by(lease, files, archive.manifest, archive)

    async def carry_out_wish(
        self, lease: Lease, files: AgentFiles, *, image: str | None = None
    ) -> Snapshot | None:
        """Restore what the user has asked for, if anything: what is there now is saved first, and what was
        restored becomes the newest generation. The agent must not run.

        Raises as `save` and `restore`; a wish that cannot be granted (NotFound, SnapshotDamaged) is dropped.
        """
        generation = await self.restore_asked(lease.key)
        if generation is None:
            return None
        await self.save(lease, files, image=image)
        try:
            await self.restore(lease, files, generation)
        except (NotFound, SnapshotDamaged):
            await self._rows.drop_wish(lease, generation)
            raise
        snapshot = await self.save(lease, files, image=image)
        await self._rows.drop_wish(lease, generation)
        return snapshot

    def _lock(self, user_id: UUID) -> asyncio.Lock:
        return self._locks.setdefault(user_id, asyncio.Lock())


def _not_readable(what: str) -> Unavailable:
    return Unavailable(
        "The snapshot of your agent's files could not be read back. It will be tried again.",
        detail=what,
        retry_after=5.0,
    )
