"""The generations of agents' files as rows: what makes one exist, and who may say so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ocmt.agents.service import CHANNEL, ours
from ocmt.agents.snapshots.store import manifest_key
from ocmt.errors import NotFound, OcmtError
from ocmt.platform.database import Connection, Database, notify
from ocmt.platform.leases import Lease
from ocmt.platform.queries import every, load_queries
from ocmt.platform.storage import Store, note_bytes

queries = load_queries(__package__)

NO_SUCH = "There is no such snapshot of your agent's files."


@dataclass(frozen=True)
class Snapshot:
    """One generation."""

    generation: int
    created_at: datetime
    image: str | None
    files: int
    size: int
    """Bytes of all files together."""
    manifest: str
    """SHA-256 of the manifest: another under its name is not believed."""
    content: str
    """SHA-256 of what is kept, whatever the generation."""


class SnapshotRows:
    """The table `snapshots`, and the columns about it in `agents`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def newest(self, lease: Lease) -> Snapshot | None:
        """What the agent's pointer shows. Raises: LeaseLost where the lease is somebody else's."""
        async with self._database.connection() as connection:
            row = await queries.find_newest_snapshot(connection, user_id=lease.key, lease_token=lease.token)
        row = ours(row, lease.key)
        return _snapshot(row) if row["generation"] is not None else None

    async def add(self, lease: Lease, snapshot: Snapshot) -> None:
        """From now on the generation exists and is the newest. Raises: LeaseLost."""
        async with self._database.transaction() as connection:
            added = await queries.add_snapshot(
                connection,
                user_id=lease.key,
                lease_token=lease.token,
                generation=snapshot.generation,
                created_at=snapshot.created_at,
                image=snapshot.image,
                files=snapshot.files,
                bytes=snapshot.size,
                manifest=snapshot.manifest,
                content=snapshot.content,
            )
        ours(added, lease.key, what=f"snapshot {snapshot.generation} of agent")

    async def drop(self, lease: Lease, generations: Collection[int]) -> None:
        """They exist no more; never the newest. Without the lease nothing happens."""
        async with self._database.connection() as connection:
            await queries.drop_snapshots(
                connection, user_id=lease.key, lease_token=lease.token, generations=sorted(generations)
            )

    async def note_kept(self, lease: Lease, kept_bytes: int) -> None:
        """So many bytes the store has of all of the user's generations."""
        async with self._database.connection() as connection:
            await note_bytes(connection, lease.key, Store.SNAPSHOTS, kept_bytes)

    async def find(self, user_id: UUID, generation: int) -> Snapshot | None:
        """That one of the user's, if there is one."""
        async with self._database.connection() as connection:
            row = await queries.find_snapshot(connection, user_id=user_id, generation=generation)
        return _snapshot(row) if row is not None else None

    async def page(self, user_id: UUID, *, before: int | None = None, limit: int = 50) -> list[Snapshot]:
        """The user's, newest first, beginning below `before`."""
        async with self._database.connection() as connection:
            rows = await every(
                queries.find_snapshots(connection, user_id=user_id, before=before, limit=limit)
            )
        return [_snapshot(row) for row in rows]

    async def times(self, user_id: UUID) -> dict[int, datetime]:
        """Generation → when it was made, of all."""
        async with self._database.connection() as connection:
            rows = await every(queries.find_snapshot_times(connection, user_id=user_id))
        return {row["generation"]: row["created_at"] for row in rows}

    async def pointer(self, user_id: UUID) -> tuple[int, str | None]:
        """The newest generation's number and the hash of its manifest; 0 and None where there is none."""
        async with self._database.connection() as connection:
            row = await queries.find_snapshot_state(connection, user_id=user_id)
        return (row["snapshot_generation"], row["manifest"]) if row else (0, None)

    # Whether all is saved

    async def note_saved(self, lease: Lease, moment: datetime) -> None:
        """All files of that moment are saved, in the newest generation. Raises: LeaseLost."""
        async with self._database.connection() as connection:
            noted = await queries.note_saved(
                connection, user_id=lease.key, lease_token=lease.token, moment=moment
            )
        ours(noted, lease.key)

    async def note_problem(self, lease: Lease, error: OcmtError) -> None:
        """Why nothing is saved any more, for its user. Without the lease nothing happens."""
        problem = {"code": error.code, "message": error.message}
        async with self._database.connection() as connection:
            await queries.note_save_problem(
                connection, user_id=lease.key, lease_token=lease.token, problem=problem
            )

    # The wish to have an older one back

    async def ask_restore(self, user_id: UUID, generation: int) -> None:
        """Note it and hint. Raises: NotFound."""
        async with self._database.transaction() as connection:
            if await queries.ask_restore(connection, user_id=user_id, generation=generation) is None:
                raise NotFound(NO_SUCH)
            await notify(connection, CHANNEL, str(user_id))

    async def restore_asked(self, user_id: UUID) -> int | None:
        """Which generation is wanted."""
        async with self._database.connection() as connection:
            row = await queries.find_snapshot_state(connection, user_id=user_id)
        return row["restore_asked"] if row else None

    async def drop_wish(self, lease: Lease, generation: int) -> None:
        """It is granted, or cannot be; one for another generation that came meanwhile stays."""
        async with self._database.connection() as connection:
            await queries.restore_done(
                connection, user_id=lease.key, lease_token=lease.token, generation=generation
            )

    # The wish to have in place what was sent in

    async def ask_import(self, user_id: UUID, sha256: str) -> None:
        """Note it and hint; it takes the place of any other wish."""
        async with self._database.transaction() as connection:
            await queries.ask_import(connection, user_id=user_id, sha256=sha256)
            await notify(connection, CHANNEL, str(user_id))

    async def import_asked(self, user_id: UUID) -> str | None:
        """SHA-256 of the archive that is wanted."""
        async with self._database.connection() as connection:
            row = await queries.find_snapshot_state(connection, user_id=user_id)
        return row["import_asked"] if row else None

    async def drop_import(self, lease: Lease, sha256: str) -> None:
        """It is granted, or cannot be; one for another archive that came meanwhile stays."""
        async with self._database.connection() as connection:
            await queries.import_done(connection, user_id=lease.key, lease_token=lease.token, sha256=sha256)


def _snapshot(row: Any) -> Snapshot:
    return Snapshot(
        row["generation"],
        row["created_at"],
        row["image"],
        row["files"],
        row["bytes"],
        row["manifest"],
        row["content"],
    )


async def find_newest_manifest(connection: Connection) -> str | None:
    """Return the key of the manifest that was written last, of any user, or None where nothing was saved."""
    row = await queries.find_newest_of_all(connection)
    return None if row is None else manifest_key(row["user_id"], row["generation"])


async def unsaved_work(connection: Connection) -> str | None:
    """Return a sentence about agents that run, whose latest changes no snapshot holds yet, or None."""
    row = await queries.count_running(connection)
    if not row["agents"]:
        return None
    saves = [f"{row['never']} never saved"] if row["never"] else []
    if row["oldest"] is not None:
        saves.append(f"the oldest save is of {row['oldest']:%Y-%m-%d %H:%M} UTC")
    return (
        f"Agents that run now: {row['agents']}. What they changed since their last save is not in the "
        f"backup ({'; '.join(saves)}). To include it, run `ocmt agents hibernate` for them first."
    )


async def keys_of_all_manifests(connection: Connection) -> set[str]:
    """Of all users, as that connection sees them: what a backup must hold to be of use."""
    rows = await every(queries.find_all_snapshots(connection))
    return {manifest_key(row["user_id"], row["generation"]) for row in rows}
