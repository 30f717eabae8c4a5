"""Snapshots of an agent's files: taken while nothing of it runs, restored whole or not at all.

The order of a snapshot is what makes it safe: contents, then the manifest, both read back, then the row.
Until the row says so the generation does not exist, and what was written for it is cleared away by a later
one. All of it happens under the agent's lease; a holder that has lost it can write objects that nobody refers
to, and no more. See docs/decisions/0015-snapshots.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO
from uuid import UUID
from weakref import WeakValueDictionary

import structlog

from ocmt.agents.snapshots.archive import write_archive
from ocmt.agents.snapshots.checking import Checker
from ocmt.agents.snapshots.keeping import Limits
from ocmt.agents.snapshots.looking import Described, Looked, describe, look, number, scan_effort
from ocmt.agents.snapshots.manifest import (
    Manifest,
    Mark,
    parse_mark,
)
from ocmt.agents.snapshots.restoring import (
    SnapshotDamaged,
    good_before,
    has_manifest,
    named,
    previous_manifest,
    put_in_place,
    read_manifest,
)
from ocmt.agents.snapshots.retention import Retention
from ocmt.agents.snapshots.rows import NO_SUCH, Snapshot, SnapshotRows
from ocmt.agents.snapshots.store import UserObjects, reaching, to_the_end
from ocmt.agents.snapshots.tidying import Tidier
from ocmt.agents.snapshots.unpacking import Contents
from ocmt.agents.snapshots.uploading import Upload
from ocmt.agents.snapshots.wishes import dropped_where_hopeless
from ocmt.errors import InvalidInput, LeaseLost, LimitReached, NotFound, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.leases import Lease
from ocmt.platform.objects import Objects
from ocmt.platform.work import FILES
from ocmt.runtimes.base import AgentFiles, FilesChanged

log = structlog.get_logger(__name__)

NUMBERS_TO_TRY = 100
Read = Callable[[], None]
"""Called once all of the agent's files have been read: from then on it may go on."""


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
        self.limits = limits or Limits()
        """Where a plan does not say."""
        self._retention = retention or Retention()
        self._tidier = Tidier(self._rows, clock)
        self._locks: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()
        self.checker = Checker()

    # Taking

    async def take(
        self,
        lease: Lease,
        files: AgentFiles,
        *,
        image: str | None = None,
        reread: bool = False,
        limits: Limits | None = None,
    ) -> Snapshot:
        """`save`, then `tidy`; for an agent that may rest meanwhile. What only `tidy` failed at is logged and
        done by the next one: the snapshot is complete. Raises as `save`."""
        snapshot = await self.save(lease, files, image=image, reread=reread, limits=limits)
        try:
            await self.tidy(lease, files, limits=limits)
        except (LeaseLost, Unavailable) as error:
            log.warning("snapshots not tidied", user_id=str(lease.key), error=str(error), detail=error.detail)
        return snapshot

    async def save(
        self,
        lease: Lease,
        files: AgentFiles,
        *,
        image: str | None = None,
        reread: bool = False,
        limits: Limits | None = None,
        read: Read = lambda: None,
    ) -> Snapshot:
        """A verified snapshot of the files as they are now: a new generation, or the newest one if nothing
        has changed since. The agent must not run until `read` is called, or this has ended.

        `reread`: hash every file, whatever its times say. They lie about files that are written through
        memory maps; ask for it before an agent's folder is given up. `limits`: of its plan.
        May be cancelled: before `read` nothing has been saved, afterwards all of it or nothing.
        Raises: LeaseLost, LimitReached, FilesChanged, Unavailable. In each case the generations stay; why it
        was not saved is noted for its user, but for files that changed, which are tried again.
        """
        async with self._lock(lease.key):
            try:
                return await self._save(lease, files, image, reread, limits or self.limits, read)
            except FilesChanged:
                raise
            except (LimitReached, Unavailable) as error:
                with contextlib.suppress(Unavailable):  # where that is the database, nothing can be noted
                    await self._rows.note_problem(lease, error)
                raise

    async def _save(
        self, lease: Lease, files: AgentFiles, image: str | None, reread: bool, limits: Limits, read: Read
    ) -> Snapshot:
        began = self._clock.now()
        newest = await self._rows.newest(lease)
        store = UserObjects(self._objects, lease.key)
        effort = scan_effort(limits)
        with reaching():
            looked = await FILES.run(look, files, limits, effort, of=lease.key, effort=effort)
        upload = Upload(store, files, sizes=await self._make_room(lease, store, newest, looked, limits))
        known = {} if reread else looked.known
        upload.trust({known[item.path]: item.size for item in looked.found if item.path in known})
        hashes = {path: name for path, name in known.items() if upload.has(name)}
        unknown = [item for item in looked.found if item.kind == "file" and item.path not in hashes]
        previous = None
        if unknown or newest is None:
            previous = await previous_manifest(store, self._rows, lease.key, newest)
            upload.trust(previous.blobs if previous else {})
            hashes |= await upload.bring(unknown)
        read()
        # In a thread, as everything that an agent makes larger by having more files.
        described = await FILES.run(describe, looked, hashes, began, image, of=lease.key)
        same = newest is not None and (newest.content, newest.image) == (described.content, image)
        if newest is not None and same and await has_manifest(store, newest):
            await store.persist(sorted(upload.written), [])
            if looked.mark.generation != newest.generation or unknown:
                await self._write_mark(lease.key, files, Mark(newest.generation, described.known))
            await self._rows.note_saved(lease, began)
            return newest
        previous = previous or await previous_manifest(store, self._rows, lease.key, newest)
        snapshot = await self._write(store, lease, described, previous, upload.written)
        stood = looked.mark.stands_at(newest.generation, newest.manifest) if newest else 0
        # Before the row: the agent may run on already, and a crash in between must not make a folder that is
        # ahead of this generation count as behind it.
        await self._write_mark(
            lease.key, files, Mark(snapshot.generation, described.known, snapshot.manifest, stood)
        )
        await self._rows.note_kept(lease, sum((await store.blob_sizes()).values()))
        await self._rows.add(lease, snapshot)
        return snapshot

    async def _make_room(
        self, lease: Lease, store: UserObjects, newest: Snapshot | None, looked: Looked, limits: Limits
    ) -> dict[str, int]:
        """The contents that the store has (hash → bytes), once there is room for what is to come."""
        sizes, known = await store.blob_sizes(), looked.known
        coming = sum(item.size for item in looked.found if known.get(item.path) not in sizes)
        if newest is None or sum(sizes.values()) + coming <= limits.budget:
            return sizes
        await self._tidier.make_room(lease, store, newest, self._retention, coming, budget=limits.budget)
        return await store.blob_sizes()

    async def _write(
        self,
        store: UserObjects,
        lease: Lease,
        described: Described,
        previous: Manifest | None,
        written: set[str],
    ) -> Snapshot:
        """The manifest, under a number that nobody has used; its row, which is still to be added."""
        times = await self._rows.times(lease.key)
        kept = times.keys() - self._retention.dropped(times, self._clock.now())
        first = max(await store.generations() | {previous.generation if previous else 0}) + 1
        for generation in range(first, first + NUMBERS_TO_TRY):
            numbered, data = await FILES.run(
                number, described.manifest, generation, previous, kept, of=lease.key
            )
            if await store.add_manifest(generation, data):
                break
        else:
            raise _not_readable(f"manifests {first} to {generation}")
        if await store.get_manifest(generation) != data:
            raise _not_readable(f"manifest {generation}")
        await store.persist(sorted(written), [generation])
        return Snapshot(
            generation,
            numbered.created_at,
            numbered.image,
            numbered.files,
            numbered.size,
            await FILES.run(lambda: hashlib.sha256(data).hexdigest(), of=lease.key),
            described.content,
        )

    async def _write_mark(self, user_id: UUID, files: AgentFiles, mark: Mark) -> None:
        with reaching():
            await to_the_end(user_id, lambda: files.write_mark(mark.render()))

    # Tidying

    async def tidy(self, lease: Lease, files: AgentFiles, *, limits: Limits | None = None) -> None:
        """Bring the plain tree up to date, forget old generations, delete what nobody refers to any more and
        what a restore has replaced. The agent may run meanwhile.

        Raises: LeaseLost, Unavailable. Whatever is not done is done by the next one.
        """
        async with self._lock(lease.key):
            newest = await self._rows.newest(lease)
            with reaching():
                await to_the_end(lease.key, files.clear_away)
            if newest is None:
                return
            store = UserObjects(self._objects, lease.key)
            budget = (limits or self.limits).budget
            await self._tidier.tidy(lease, store, newest, self._retention, budget=budget)

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

        Raises: InvalidInput where a content is missing or damaged, LeaseLost, Unavailable.
        """
        async with self._lock(lease.key):
            damaged = await put_in_place(lease, self._rows, files, manifest, contents)
        if damaged:
            raise InvalidInput(f"These files are missing or damaged: {named(damaged)}. Nothing was changed.")

    # Asking

    async def standing(self, user_id: UUID, files: AgentFiles) -> Standing:
        """Whether the folder here has what the newest snapshot has."""
        generation, manifest = await self._rows.pointer(user_id)
        with reaching():
            mark = await FILES.run(lambda: parse_mark(files.read_mark()), of=user_id)
        return Standing(generation, mark.stands_at(generation, manifest))

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

    async def bring_in(
        self, lease: Lease, files: AgentFiles, source: IO[bytes], *, limits: Limits | None = None
    ) -> None:
        """Replace the agent's files by those of an exported zip file; then `save` them. No agent may run.

        Raises: InvalidInput where it is none or is damaged, LimitReached, LeaseLost, Unavailable.
        """
        limits = limits or self.limits
        archive = await self.checker.open(source, limits, lease.key)
        await self.replace_by(lease, files, archive.manifest, archive)

    async def carry_out_wish(
        self, lease: Lease, files: AgentFiles, *, image: str | None = None
    ) -> Snapshot | None:
        """Restore what the user has asked for, if anything: what is there now is saved first, and what was
        restored becomes the newest generation. The agent must not run.

        Raises as `save` and `restore`; a wish that cannot be granted is dropped.
        """
        generation = await self.restore_asked(lease.key)
        if generation is None:
            return None
        async with dropped_where_hopeless(lambda: self._rows.drop_wish(lease, generation)):
            await self.save(lease, files, image=image)
            await self.restore(lease, files, generation)
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
