"""Turns a manifest into files again, out of sight, and checks every hash: what is good can then take the old
ones' place.

The contents come from the object store or from an archive; neither is believed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol
from uuid import UUID

from ocmt.agents.snapshots.manifest import Entry, Manifest
from ocmt.agents.snapshots.store import reaching, to_the_end
from ocmt.agents.snapshots.uploading import (
    BATCH_BYTES,
    BATCH_FILES,
    BATCHES_AT_ONCE,
    LARGE,
    all_or_first_error,
)
from ocmt.runtimes.base import FreshFiles

PIECE_SECONDS = 120.0


class Contents(Protocol):
    """Where the contents of a snapshot come from."""

    async def get_blobs(self, names: Sequence[str]) -> Sequence[bytes | None]:
        """Small contents (by their hashes) in one go, not checked. None: missing."""

    def get_blob_pieces(self, sha256: str) -> AsyncIterator[bytes]:
        """A large content, not checked. Ends early where it is missing."""


async def unpack(manifest: Manifest, contents: Contents, fresh: FreshFiles, user_id: UUID) -> list[str]:
    """Make all of its files, not yet in place; returns the paths whose content is missing or damaged.

    With one of those it stops making files, but still checks the rest, so that all are named.
    Raises: Unavailable where contents cannot be reached or the disk cannot be written.
    """
    folders = [(entry.path, entry.mode) for entry in manifest.entries if entry.kind == "folder"]
    with reaching():
        await to_the_end(user_id, fresh.add_folders, folders)
    files = [entry for entry in manifest.entries if entry.kind == "file"]
    work = _Unpacking(contents, fresh, user_id)
    await all_or_first_error(work.run(batch) for batch in _batches(files))
    if not work.damaged:
        links = [entry for entry in manifest.entries if entry.kind == "link"]
        with reaching():
            await to_the_end(user_id, _add_links, fresh, links)
    return sorted(work.damaged)


class _Unpacking:
    def __init__(self, contents: Contents, fresh: FreshFiles, user_id: UUID) -> None:
        self._contents = contents
        self._user_id = user_id
        self._fresh = fresh
        self._free = asyncio.Semaphore(BATCHES_AT_ONCE)
        self.damaged: set[str] = set()

    async def run(self, batch: Sequence[Entry]) -> None:
        async with self._free:
            if batch[0].size > LARGE:
                await self._write_large(batch[0])
                return
            got = await self._contents.get_blobs([entry.sha256 or "" for entry in batch])
            with reaching():
                await to_the_end(self._user_id, self._write, batch, got)

    def _write(self, batch: Sequence[Entry], contents: Sequence[bytes | None]) -> None:
        """Blocks."""
        for entry, data in zip(batch, contents, strict=True):
            if data is None or len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
                self.damaged.add(entry.path)
            elif not self.damaged:
                self._fresh.add_file(entry.path, entry.mode, entry.mtime_ns, [data])

    async def _write_large(self, entry: Entry) -> None:
        digest = hashlib.sha256()
        pieces = self._contents.get_blob_pieces(entry.sha256 or "")
        loop = asyncio.get_running_loop()

        def checked() -> Iterator[bytes]:
            left = entry.size
            while True:
                coming = asyncio.run_coroutine_threadsafe(_next(pieces), loop)
                piece = coming.result(PIECE_SECONDS)
                if piece is None:
                    return
                digest.update(piece)
                left -= len(piece)
                if left < 0:
                    return  # what is too long is damaged: its hash says so
                yield piece

        with reaching():
            await to_the_end(
                self._user_id, self._fresh.add_file, entry.path, entry.mode, entry.mtime_ns, checked()
            )
        if digest.hexdigest() != entry.sha256:
            self.damaged.add(entry.path)


async def _next(pieces: AsyncIterator[bytes]) -> bytes | None:
    return await anext(pieces, None)


def _add_links(fresh: FreshFiles, links: Sequence[Entry]) -> None:
    for entry in links:
        fresh.add_link(entry.path, entry.target or ".")


def _batches(files: Sequence[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in files:
        if entry.size > LARGE:
            yield [entry]
            continue
        if batch and (size + entry.size > BATCH_BYTES or len(batch) >= BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch
