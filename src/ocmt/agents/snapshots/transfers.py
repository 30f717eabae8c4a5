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
from ocmt.agents.snapshots.keeping import Limits, megabytes
from ocmt.agents.snapshots.rows import SnapshotRows
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.store import UserObjects, reaching
from ocmt.agents.snapshots.wishes import dropped_where_hopeless
from ocmt.errors import InvalidInput, TooLarge
from ocmt.platform.database import Database
from ocmt.platform.free_space import FreeSpace, guarded
from ocmt.platform.http.download import Ready
from ocmt.platform.leases import Lease
from ocmt.platform.objects import Objects
from ocmt.platform.places import Pace, Places
from ocmt.platform.work import FILES
from ocmt.runtimes.base import AgentFiles

AT_ONCE = 8
"""In this process: each takes room on the disk for all of an agent's files. One user has one at most."""
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
        places: Places | None = None,
        space: FreeSpace | None = None,
    ) -> None:
        """`folder`: on a disk, for files that are gone when they are closed; `space` is that disk's."""
        self._snapshots = snapshots
        self._rows = SnapshotRows(database)
        self._objects = objects
        self._agents = agents
        self._holds = holds
        self._folder = folder
        self._places = places or Places(AT_ONCE)
        self._space = space

    @asynccontextmanager
    async def archive(self, user_id: UUID, generation: int) -> AsyncIterator[Ready]:
        """A generation as a zip, complete and checked, to be sent to its user.

        Raises: NotFound, SnapshotDamaged, LimitReached, Unavailable.
        """
        async with self._room(user_id, f"download {generation}") as (file, pace):
            await self._snapshots.export(user_id, generation, file)
            size = file.tell()
            file.seek(0)
            yield Ready(file, size, pace, user_id)

    async def receive(self, user_id: UUID, pieces: AsyncIterator[bytes]) -> int:
        """Keep an archive to be put in place at the agent's next start; how many files it has.

        Raises: InvalidInput where it is none of ours or is damaged, TooLarge, LimitReached, Unavailable.
        """
        limits = self._snapshots.limits.of((await self._agents.find(user_id)).plan)
        async with self._room(user_id, "upload") as (file, pace):
            most = limits.total_bytes + MOST_BESIDE_FILES
            sha256 = await _spool(_paced(pieces, pace), file, user_id, most=most)
            files = await self._snapshots.checker.count(file, limits)
            store = UserObjects(self._objects, user_id)
            await store.put_pieces(store.import_key, _pieces(file, user_id))
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

        Raises: LeaseLost, Unavailable; for everything that would fail again the next time WishFailed or its
        own error, and then the archive is forgotten.
        """
        sha256 = await self._rows.import_asked(lease.key)
        if sha256 is None:
            return
        async with dropped_where_hopeless(lambda: self._rows.drop_import(lease, sha256)):
            await self._snapshots.save(lease, files, image=image, limits=limits)
            store = UserObjects(self._objects, lease.key)
            with contextlib.closing(self._new_file()) as file:
                kept = store.get_pieces(store.import_key)
                found = await _spool(kept, file, lease.key, most=limits.total_bytes + MOST_BESIDE_FILES)
                if found != sha256:
                    raise InvalidInput("The archive that you have sent was damaged meanwhile. Send it again.")
                archive = await self._snapshots.checker.open(file, limits, lease.key)
                await self._snapshots.replace_by(lease, files, archive.manifest, archive)
            await self._snapshots.save(lease, files, image=image, limits=limits)
        await self._rows.drop_import(lease, sha256)
        await store.delete(store.import_key)

    @asynccontextmanager
    async def _room(self, user_id: UUID, what: str) -> AsyncIterator[tuple[IO[bytes], Pace]]:
        """An empty file; the agent is kept awake, if it is."""
        async with (
            self._places.place(user_id) as pace,
            self._holds.held(user_id, "transfer", f"{what} {uuid7().hex}"),
        ):
            with contextlib.closing(self._new_file()) as file:
                yield file, pace

    def _new_file(self) -> IO[bytes]:
        with reaching():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return guarded(tempfile.TemporaryFile(dir=self._folder), self._space)


async def _paced(pieces: AsyncIterator[bytes], pace: Pace) -> AsyncIterator[bytes]:
    """The same pieces, which must come fast enough."""
    while True:
        try:
            async with pace.waiting_for_user(), asyncio.timeout(PIECE_SECONDS):
                piece = await anext(pieces, None)
        except TimeoutError as error:
            raise InvalidInput("Nothing more came of the file. Send it again.") from error
        if piece is None:
            return
        pace.moved(len(piece))
        yield piece


async def _spool(pieces: AsyncIterator[bytes], file: IO[bytes], user_id: UUID, *, most: int) -> str:
    """Write all of it to the file, and go back to its beginning; its SHA-256."""
    digest = hashlib.sha256()
    size = 0
    gathered = bytearray()

    def write() -> None:
        digest.update(gathered)
        file.write(gathered)
        gathered.clear()

    async for piece in pieces:
        size += len(piece)
        if size > most:
            raise TooLarge(f"This archive is larger than the {megabytes(most)} that your plan allows.")
        gathered += piece
        if len(gathered) >= PIECE:
            with reaching():
                await FILES.run(write, of=user_id)
    with reaching():
        await FILES.run(write, of=user_id)
    file.seek(0)
    return digest.hexdigest()


async def _pieces(file: IO[bytes], user_id: UUID) -> AsyncIterator[bytes]:
    while piece := await FILES.run(file.read, PIECE, of=user_id):
        yield piece
