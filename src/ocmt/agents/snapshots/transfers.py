"""An agent's files as a zip on their way to their user and from there; the agent stays awake meanwhile.

What is sent in is checked at once, kept as one object, and put in place by the lease's holder before the
agent next starts: it replaces all that is there, which is saved before.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO
from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.agents.holds import Holds
from ocmt.agents.service import Agents
from ocmt.agents.snapshots.archive import Archive
from ocmt.agents.snapshots.keeping import Limits, megabytes
from ocmt.agents.snapshots.restoring import named
from ocmt.agents.snapshots.rows import SnapshotRows
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.store import UserObjects, reaching
from ocmt.errors import InvalidInput, TooLarge, Unavailable
from ocmt.platform.database import Database
from ocmt.platform.leases import Lease
from ocmt.platform.objects import Objects
from ocmt.runtimes.base import AgentFiles

AT_ONCE = 4
"""In this process: each takes room on the disk for all of an agent's files."""
PIECE = 1024 * 1024
PIECE_SECONDS = 60.0
"""So long a browser may take to send a piece."""
MOST_BESIDE_FILES = 64 * 1024**2
"""Bytes of an archive that are no file's content: its manifest and directory."""


class Transfers:
    """Of all agents."""

    def __init__(
        self,
        snapshots: Snapshots,
        database: Database,
        objects: Objects,
        agents: Agents,
        holds: Holds,
        folder: Path,
    ) -> None:
        """`folder`: on a disk, for files that are gone when they are closed."""
        self._snapshots = snapshots
        self._rows = SnapshotRows(database)
        self._objects = objects
        self._agents = agents
        self._holds = holds
        self._folder = folder
        self._under_way = 0
        self._checking = asyncio.Lock()  # one at a time: what a directory or a manifest says is in memory

    @asynccontextmanager
    async def archive(self, user_id: UUID, generation: int) -> AsyncIterator[tuple[IO[bytes], int]]:
        """A generation as a zip, complete and checked, and its size in bytes.

        Raises: NotFound, SnapshotDamaged, LimitReached, Unavailable.
        """
        async with self._room(user_id, f"download {generation}") as file:
            await self._snapshots.export(user_id, generation, file)
            size = file.tell()
            file.seek(0)
            yield file, size

    async def receive(self, user_id: UUID, pieces: AsyncIterator[bytes]) -> int:
        """Keep an archive to be put in place at the agent's next start; how many files it has.

        Raises: InvalidInput where it is none of ours or is damaged, TooLarge, LimitReached, Unavailable.
        """
        limits = self._snapshots.limits.of((await self._agents.find(user_id)).plan)
        async with self._room(user_id, "upload") as file:
            sha256 = await _spool(pieces, file, most=limits.total_bytes + MOST_BESIDE_FILES)
            async with self._checking:
                files = await asyncio.to_thread(_check, file, limits)
            store = UserObjects(self._objects, user_id)
            await store.put_pieces(store.import_key, _pieces(file))
            await store.persist_keys([store.import_key])
        await self._rows.ask_import(user_id, sha256)
        return files

    async def import_asked(self, user_id: UUID) -> bool:
        """Whether an archive waits to be put in place."""
        return await self._rows.import_asked(user_id) is not None

    async def carry_out(
        self, lease: Lease, files: AgentFiles, limits: Limits, *, image: str | None = None
    ) -> None:
        """Put in place what was sent in, if anything; what is there now is saved first. No agent may run.

        Raises: LeaseLost, Unavailable; LimitReached for what is to be saved first; InvalidInput where the
        archive has been damaged since: then it is forgotten.
        """
        sha256 = await self._rows.import_asked(lease.key)
        if sha256 is None:
            return
        await self._snapshots.save(lease, files, image=image, limits=limits)
        store = UserObjects(self._objects, lease.key)
        with contextlib.closing(self._new_file()) as file:
            found = await _spool(store.get_pieces(store.import_key), file, most=None)
            if found != sha256:
                await self._rows.drop_import(lease, sha256)
                raise InvalidInput("The archive that you have sent was damaged meanwhile. Send it again.")
            try:
                await self._snapshots.bring_in(lease, files, file, limits=limits)
            except InvalidInput:
                await self._rows.drop_import(lease, sha256)
                raise
        await self._snapshots.save(lease, files, image=image, limits=limits)
        await self._rows.drop_import(lease, sha256)
        await store.delete(store.import_key)

    @asynccontextmanager
    async def _room(self, user_id: UUID, what: str) -> AsyncIterator[IO[bytes]]:
        """An empty file; the agent is kept awake, if it is."""
        if self._under_way >= AT_ONCE:
            raise Unavailable("Too many files are being copied just now.", retry_after=30.0)
        self._under_way += 1
        try:
            async with self._holds.held(user_id, "transfer", f"{what} {uuid7().hex}"):
                with contextlib.closing(self._new_file()) as file:
                    yield file
        finally:
            self._under_way -= 1

    def _new_file(self) -> IO[bytes]:
        with reaching():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return tempfile.TemporaryFile(dir=self._folder)


async def _spool(pieces: AsyncIterator[bytes], file: IO[bytes], *, most: int | None) -> str:
    """Write all of it to the file, and go back to its beginning; its SHA-256."""
    digest = hashlib.sha256()
    size = 0
    while True:
        try:
            async with asyncio.timeout(PIECE_SECONDS):
                piece = await anext(pieces, None)
        except TimeoutError as error:
            raise InvalidInput("Nothing more came of the file. Send it again.") from error
        if piece is None:
            break
        size += len(piece)
        if most is not None and size > most:
            raise TooLarge(f"This archive is larger than the {megabytes(most)} that your plan allows.")
        digest.update(piece)
        with reaching():
            await asyncio.to_thread(file.write, piece)
    file.seek(0)
    return digest.hexdigest()


def _check(file: IO[bytes], limits: Limits) -> int:
    """Blocks. Leaves the file at its beginning."""
    archive = Archive.open(file, most_files=limits.files)
    limits.check(archive.manifest.entries)
    damaged = archive.damaged()
    if damaged:
        raise InvalidInput(f"These files are missing or damaged in it: {named(damaged)}.")
    file.seek(0)
    return archive.manifest.files


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(file.read, PIECE):
        yield piece
