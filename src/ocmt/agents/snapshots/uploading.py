"""Brings the contents of found files into the object store, each read back before anybody relies on it.

Small files are read and hashed in batches by threads, so that neither a thread's hand-over nor the memory of
many files at once is paid for; large ones go through a few megabytes at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ocmt.agents.snapshots.store import UserObjects, reaching
from ocmt.errors import Unavailable
from ocmt.platform.work import FILES, OBJECTS, Effort
from ocmt.runtimes.base import AgentFiles, FoundFile

LARGE = 8 * 1024 * 1024
"""Bytes from which on a file is not held in memory."""
BATCH_BYTES = 4 * 1024 * 1024
BATCH_FILES = 64
BATCHES_AT_ONCE = 3
TASKS_AT_ONCE = 64


class Upload:
    """The contents of one generation on their way. `written`: those that were not there before."""

    def __init__(self, store: UserObjects, files: AgentFiles, *, sizes: Mapping[str, int]) -> None:
        """`sizes`: hash → size of the contents that the store has, good or not."""
        self._store = store
        self._files = files
        self._sizes = sizes
        self._good: set[str] = set()
        self.written: set[str] = set()

    def trust(self, blobs: Mapping[str, int]) -> None:
        """Contents (hash → size) that were read back once and, by their sizes, are still there."""
        self._good.update(name for name, size in blobs.items() if self._sizes.get(name) == size)

    def has(self, sha256: str) -> bool:
        """Whether that content is known to be good."""
        return sha256 in self._good

    async def bring(self, found: Sequence[FoundFile]) -> dict[str, str]:
        """Read, hash and store these files; returns path → hash.

        Raises: FilesChanged, Unavailable.
        """
        hashes: dict[str, str] = {}
        free = asyncio.Semaphore(BATCHES_AT_ONCE)

        async def bring_batch(batch: Sequence[FoundFile]) -> None:
            async with free:
                if batch[0].size > LARGE:
                    hashes[batch[0].path] = await self._bring_large(batch[0])
                    return
                with reaching():
                    contents = await FILES.run(self._read, batch, of=self._store.user_id)
                hashes.update((item.path, name) for item, (name, _) in zip(batch, contents, strict=True))
                await self._keep({name: data for name, data in contents if name not in self._good})

        await all_or_first_error(bring_batch(batch) for batch in _batches(found))
        return hashes

    def _read(self, batch: Sequence[FoundFile]) -> list[tuple[str, bytes]]:
        contents = [b"".join(self._files.read(found)) for found in batch]
        return [(hashlib.sha256(data).hexdigest(), data) for data in contents]

    async def _keep(self, contents: Mapping[str, bytes]) -> None:
        """Two batches may keep the same content at once: both write the same."""
        absent = [name for name in contents if name not in self._sizes]
        await all_or_first_error([self._store.add_blob(name, contents[name]) for name in absent])
        for _ in range(3):
            # What was there before belongs to a snapshot that was never finished, or to an old one: nobody
            # knows how good it is. What is bad was torn by whoever wrote it, or by the store.
            bad = await self._bad(contents)
            if not bad:
                self._good |= contents.keys()
                self.written |= contents.keys()
                return
            await all_or_first_error([self._store.put_blob(name, contents[name]) for name in bad])
        raise _not_kept(bad[0])

    async def _bad(self, contents: Mapping[str, bytes]) -> list[str]:
        """Reads them back."""
        names = list(contents)
        stored = await self._store.get_blobs(names) if names else []
        same = await OBJECTS.run(
            lambda: [contents[n] == data for n, data in zip(names, stored, strict=True)],
            of=self._store.user_id,
        )
        return [name for name, good in zip(names, same, strict=True) if not good]

    async def _bring_large(self, found: FoundFile) -> str:
        effort = Effort(message="")  # ends with its caller
        with reaching():
            name = await FILES.run(self._hash, found, effort, of=self._store.user_id, effort=effort)
        if name in self._good:
            return name
        if self._sizes.get(name) != found.size or not await self._store.is_good(name):
            await self._store.put_blob_pieces(name, self._pieces(found))
            if not await self._store.is_good(name):
                await self._store.delete_blob(name)
                raise _not_kept(name)
        self._good.add(name)
        self.written.add(name)
        return name

    def _hash(self, found: FoundFile, effort: Effort) -> str:
        digest = hashlib.sha256()
        for piece in self._files.read(found):
            effort.spend()
            digest.update(piece)
        return digest.hexdigest()

    async def _pieces(self, found: FoundFile) -> AsyncIterator[bytes]:
        pieces = self._files.read(found)
        while (piece := await FILES.run(next, pieces, None, of=self._store.user_id)) is not None:
            yield piece


async def all_or_first_error(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines, up to 64 at once; when one fails the others are cancelled, and its error is raised as
    it is. Pass a generator where there may be many: each is made when its turn comes."""
    source = iter(work)

    async def run(one: Coroutine[Any, Any, None]) -> None:
        await one
        for following in source:
            await following

    tasks = [asyncio.create_task(run(one)) for one in islice(source, TASKS_AT_ONCE)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _batches(found: Iterable[FoundFile]) -> Iterator[list[FoundFile]]:
    """Each large file by itself, the others in batches that fit into memory."""
    batch: list[FoundFile] = []
    size = 0
    for item in found:
        if item.size > LARGE:
            yield [item]
            continue
        if batch and (size + item.size > BATCH_BYTES or len(batch) >= BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.size
    if batch:
        yield batch


def _not_kept(name: str) -> Unavailable:
    return Unavailable(
        "What was saved of your agent's files could not be read back. It will be tried again.",
        detail=f"blob {name}",
        retry_after=5.0,
    )
