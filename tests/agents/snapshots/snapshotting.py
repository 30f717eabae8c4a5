"""One agent whose files can be snapshotted: a real folder, a real database, an object store with faults."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from ocmt.agents.holds import Holds
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.rows import Snapshot
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import Transfers
from ocmt.platform.database import Database
from ocmt.platform.leases import Lease, Leases
from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.runtimes.folders import AgentFolder
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import FaultyObjects


@dataclass
class Bench:
    """An agent on one machine; `elsewhere` gives it another machine."""

    user_id: UUID
    database: Database
    clock: VirtualClock
    objects: FaultyObjects
    snapshots: Snapshots
    lease: Lease
    root: Path
    transfers: Transfers

    @classmethod
    async def make(cls, user_id: UUID, database: Database, clock: VirtualClock, root: Path) -> Bench:
        agents = Agents(database, clock, runtime="sandbox")
        await agents.find(user_id)
        objects = FaultyObjects()
        snapshots = Snapshots(database, objects, clock)
        holds = Holds(agents, clock)
        transfers = Transfers(snapshots, database, objects, agents, holds, root.with_name("transfers"))
        lease = await lease_of(database, user_id)
        bench = cls(user_id, database, clock, objects, snapshots, lease, root, transfers)
        bench.folder.prepare("{}", compile_cache=None)
        return bench

    @property
    def folder(self) -> AgentFolder:
        return AgentFolder(self.root, None)

    @property
    def files(self) -> FilesOnDisk:
        return FilesOnDisk(self.folder)

    @property
    def workspace(self) -> Path:
        return self.root / "workspace"

    def write(self, path: str, data: str | bytes) -> None:
        """One of the agent's files, below its folder."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data.encode() if isinstance(data, str) else data)

    async def take(self, **options: Any) -> Snapshot:
        return await self.snapshots.take(self.lease, self.files, **options)

    async def restore(self, generation: int | None = None) -> Snapshot:
        return await self.snapshots.restore(self.lease, self.files, generation)

    def content(self) -> dict[str, Any]:
        """What the agent would find: path → bytes, link target, or None for a folder; never its modes."""
        return tree(self.root)

    async def content_of(self, generation: int | None = None) -> dict[str, Any]:
        """What that generation holds, by restoring it on another machine."""
        elsewhere = AgentFolder(self.root.with_name("elsewhere"), None)
        shutil.rmtree(elsewhere.root, ignore_errors=True)
        await self.snapshots.restore(self.lease, FilesOnDisk(elsewhere), generation)
        return tree(elsewhere.root)

    def key(self, path: str) -> str:
        return f"users/{self.user_id}/{path}"

    def blobs(self) -> list[str]:
        return sorted(key for key in self.objects.stored if "/.blobs/" in key)

    def manifests(self) -> list[str]:
        return sorted(key for key in self.objects.stored if key.endswith(".json") and "/.snapshots/" in key)

    async def generations(self) -> list[int]:
        return [snapshot.generation for snapshot in await self.snapshots.list(self.user_id)]

    async def row(self) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetchrow("select * from agents where user_id = $1", self.user_id)


def tree(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for top in ("home", "state", "workspace"):
        for folder, folders, files in os.walk(root / top):
            for name in (*folders, *files):
                path = Path(folder) / name
                shown = str(path.relative_to(root))
                if path.is_symlink():
                    found[shown] = str(path.readlink())
                else:
                    found[shown] = None if path.is_dir() else path.read_bytes()
    return found


async def lease_of(database: Database, user_id: UUID, owner: str = "a") -> Lease:
    lease = await Leases(database, table="agents", key="user_id", owner=owner).take(user_id)
    assert lease is not None
    return lease


async def taken_over(database: Database, user_id: UUID) -> Lease:
    """Another replica's lease, after the first one's has run out."""
    async with database.connection() as connection:
        await connection.execute("update agents set lease_expires_at = now() - interval '1 second'")
    return await lease_of(database, user_id, owner="b")
