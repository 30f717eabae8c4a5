"""Puts an older state of an agent's files in the place of the present one: whole and checked, or not."""

from __future__ import annotations

import hashlib
from typing import ClassVar
from uuid import UUID

from ocmt.agents.snapshots.manifest import Manifest, Mark, Span, parse
from ocmt.agents.snapshots.rows import Snapshot, SnapshotRows
from ocmt.agents.snapshots.store import UserObjects, reaching, to_the_end
from ocmt.agents.snapshots.unpacking import Contents, unpack
from ocmt.agents.snapshots.uploading import all_or_first_error
from ocmt.errors import OcmtError
from ocmt.platform.leases import Lease
from ocmt.platform.work import FILES
from ocmt.runtimes.base import AgentFiles

NAMED = 5


class SnapshotDamaged(OcmtError):
    """A snapshot cannot be restored: something of it is missing from the store, or is not what it was."""

    code = "snapshot_damaged"
    status: ClassVar[int] = 409

    def __init__(self, generation: int, damaged: list[str], good: int | None) -> None:
        """`damaged`: paths, or `manifest`; `good`: the newest older generation that can be restored."""
        offer = f"Generation {good} can be restored." if good else "No older one can be restored either."
        super().__init__(
            f"Snapshot {generation} of your agent's files is not complete in the file store "
            f"({named(damaged)}). Nothing was changed. {offer} Tell your administrator."
        )
        self.generation = generation
        self.damaged = damaged
        self.good = good


def named(paths: list[str]) -> str:
    """The first few of them, for a person."""
    few = ", ".join(ascii(path)[1:-1] for path in paths[:NAMED])
    return f"{few} and {len(paths) - NAMED} more" if len(paths) > NAMED else few


async def has_manifest(store: UserObjects, snapshot: Snapshot) -> bool:
    """Whether its manifest is there and the one that the row means. Raises: Unavailable."""
    data = await store.get_manifest(snapshot.generation)
    if data is None:
        return False
    return await FILES.run(lambda: hashlib.sha256(data).hexdigest(), of=store.user_id) == snapshot.manifest


async def read_manifest(store: UserObjects, snapshot: Snapshot) -> Manifest | None:
    """None where it is missing or is not the one that the row means. Raises: Unavailable."""
    data = await store.get_manifest(snapshot.generation)
    if data is None:
        return None

    def read() -> Manifest | None:
        return parse(data) if hashlib.sha256(data).hexdigest() == snapshot.manifest else None

    return await FILES.run(read, of=store.user_id)


async def previous_manifest(
    store: UserObjects, rows: SnapshotRows, user_id: UUID, newest: Snapshot | None
) -> Manifest | None:
    """The newest manifest, or where it is damaged one made of all that can be read: it must name every
    content that some generation still needs."""
    if newest is None:
        return None
    manifest = await read_manifest(store, newest)
    if manifest is not None:
        return manifest
    older: dict[str, Span] = {}
    before: int | None = None
    while page := await rows.page(user_id, before=before):
        for snapshot in page:
            readable = await read_manifest(store, snapshot)
            for name in readable.blobs if readable else ():
                _, last = older.get(name, (0, snapshot.generation))
                older[name] = (snapshot.generation, last)
        before = page[-1].generation
    return Manifest(newest.generation, newest.created_at, newest.image, (), older=older)


async def put_in_place(
    lease: Lease, rows: SnapshotRows, files: AgentFiles, manifest: Manifest, contents: Contents
) -> list[str]:
    """Replace the agent's files by those of a manifest; returns what is damaged: then nothing was replaced.

    Afterwards the folder counts as being at the newest generation. Raises: LeaseLost, Unavailable.
    """
    with reaching():
        fresh = await to_the_end(lease.key, files.fresh)
    try:
        damaged = await unpack(manifest, contents, fresh, lease.key)
        if not damaged:
            newest = await rows.newest(lease)
            with reaching():
                # In between the folder is a mixture; without a mark it is not believed.
                await to_the_end(lease.key, files.write_mark, None)
                await to_the_end(lease.key, fresh.put_in_place)
                mark = Mark(newest.generation if newest else 0)
                await to_the_end(lease.key, files.write_mark, mark.render())
        return damaged
    finally:
        with reaching():
            await to_the_end(lease.key, fresh.discard)


async def good_before(store: UserObjects, rows: SnapshotRows, user_id: UUID, generation: int) -> int | None:
    """The newest older generation of which everything is there and good. Reads all of it."""
    verdicts: dict[str, bool] = {}

    async def judge(name: str) -> None:
        verdicts[name] = await store.is_good(name)

    while page := await rows.page(user_id, before=generation, limit=1):
        generation = page[0].generation
        manifest = await read_manifest(store, page[0])
        if manifest is not None:
            await all_or_first_error(judge(name) for name in manifest.blobs.keys() - verdicts.keys())
            if all(verdicts[name] for name in manifest.blobs):
                return generation
    return None
