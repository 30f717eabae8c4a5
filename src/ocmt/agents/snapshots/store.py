"""One user's snapshots in the object store: where they lie, and how they are written and checked.

    users/{id}/.blobs/{sha256}                  contents, written once
    users/{id}/.snapshots/{generation}.json     manifests, written once, after all contents that they name
    users/{id}/.imports/archive.zip             what its user has sent in, until it is put in place
    users/{id}/.snapshots/plain                 how far the plain tree is
    users/{id}/workspace|config/…               the plain tree: a copy for people and tools

A content is believed to be good only where somebody has read it back since it was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar
from uuid import UUID

from ocmt.errors import NotFound
from ocmt.platform import objects, work
from ocmt.platform.objects import Objects
from ocmt.platform.work import FILES

T = TypeVar("T")

CALL_SECONDS = 60.0
LARGE_CALL_SECONDS = 1800.0
AT_ONCE = 16
"""Calls under way to the store, for one agent."""


def manifest_key(user_id: UUID, generation: int) -> str:
    """Where the manifest of a generation lies."""
    return f"users/{user_id}/.snapshots/{generation:08d}.json"


class UserObjects:
    """What of the object store is one user's snapshots. Every call raises Unavailable if the store fails."""

    def __init__(self, objects: Objects, user_id: UUID) -> None:
        self._objects = objects
        self.user_id = user_id
        self._top = f"users/{user_id}"
        self._calls = asyncio.Semaphore(AT_ONCE)

    def plain_key(self, path: str) -> str:
        """Where a path of the agent's lies in the plain tree: its state and home below `config/`."""
        tree = path.partition("/")[0]
        return f"{self._top}/{path}" if tree in ("workspace", "config") else f"{self._top}/config/{path}"

    def blob_key(self, sha256: str) -> str:
        """Where a content lies."""
        return f"{self._top}/.blobs/{sha256}"

    def manifest_key(self, generation: int) -> str:
        """Where the manifest of a generation lies."""
        return manifest_key(self.user_id, generation)

    @property
    def import_key(self) -> str:
        """Where the archive lies that its user has sent in, until it is put in place."""
        return f"{self._top}/.imports/archive.zip"

    # Contents

    async def blob_sizes(self) -> dict[str, int]:
        """Hash → size of every content that is there, good or not."""
        return await self._sizes(f"{self._top}/.blobs/")

    async def put_blob(self, sha256: str, data: bytes) -> None:
        """Write a content, over what is there."""
        await self.put(self.blob_key(sha256), data)

    async def add_blob(self, sha256: str, data: bytes) -> None:
        """Write a content unless there is one."""
        async with self._call():
            await self._objects.put_if_absent(self.blob_key(sha256), data)

    async def put_blob_pieces(self, sha256: str, pieces: AsyncIterator[bytes]) -> None:
        """Write a large content, over what is there."""
        async with self._call(LARGE_CALL_SECONDS):
            await self._objects.put_pieces(self.blob_key(sha256), pieces)

    async def get_blobs(self, names: Sequence[str]) -> Sequence[bytes | None]:
        """Small contents in one go, not checked: whoever reads them hashes them. None: missing."""
        async with self._call():
            return await self._objects.get_many([self.blob_key(name) for name in names])

    async def get_blob(self, sha256: str) -> bytes | None:
        """A content, checked; None where it is missing or not what its name says."""
        (data,) = await self.get_blobs([sha256])
        return data if data is not None and hashlib.sha256(data).hexdigest() == sha256 else None

    async def get_blob_pieces(self, sha256: str) -> AsyncIterator[bytes]:
        """A large content, not checked: whoever reads it hashes it. Ends early where it is missing."""
        async for piece in self.get_pieces(self.blob_key(sha256)):
            yield piece

    async def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        """Any large object. Ends early where it is missing."""
        pieces = self._objects.get_pieces(key)
        while True:
            try:
                # A limit for each: different tasks may ask for them.
                with reaching():
                    async with asyncio.timeout(CALL_SECONDS):
                        piece = await anext(pieces, None)
            except NotFound:
                return
            if piece is None:
                return
            yield piece

    async def is_good(self, sha256: str) -> bool:
        """Read a content back, a few megabytes at a time: whether it is what its name says."""
        digest = hashlib.sha256()
        async with self._calls:
            async for piece in self.get_blob_pieces(sha256):
                digest.update(piece)
        return digest.hexdigest() == sha256

    async def delete_blob(self, sha256: str) -> None:
        """Deleting what is gone succeeds."""
        await self.delete(self.blob_key(sha256))

    async def persist(self, blobs: Sequence[str], generations: Sequence[int]) -> None:
        """These contents and manifests survive a power cut from now on."""
        await self.persist_keys([*map(self.blob_key, blobs), *map(self.manifest_key, generations)])

    async def persist_keys(self, keys: Sequence[str]) -> None:
        """These objects do."""
        with reaching():
            async with asyncio.timeout(LARGE_CALL_SECONDS):
                await self._objects.persist(keys)

    # Manifests

    async def generations(self) -> set[int]:
        """Of which generations there is a manifest, good or not."""
        return set(await self.manifest_sizes())

    async def manifest_sizes(self) -> dict[int, int]:
        """Generation → bytes of its manifest, of all that there are, good or not."""
        sizes = await self._sizes(f"{self._top}/.snapshots/")
        return {
            int(name[:-5]): size
            for name, size in sizes.items()
            if name[:-5].isdecimal() and name.endswith(".json")
        }

    async def add_manifest(self, generation: int, data: bytes) -> bool:
        """Write it unless there is one of that number; whether it was written."""
        async with self._call():
            return await self._objects.put_if_absent(self.manifest_key(generation), data)

    async def get_manifest(self, generation: int) -> bytes | None:
        """None where it is missing."""
        return await self.get(self.manifest_key(generation))

    # Whatever else

    @property
    def plain_state_key(self) -> str:
        """Where it is noted how far the plain tree is."""
        return f"{self._top}/.snapshots/plain"

    async def plain_keys(self) -> set[str]:
        """All keys of the plain tree."""
        trees = [await self._sizes(f"{self._top}/{tree}/") for tree in ("workspace", "config")]
        return {
            f"{self._top}/{tree}/{name}"
            for tree, names in zip(("workspace", "config"), trees, strict=True)
            for name in names
        }

    async def put(self, key: str, data: bytes) -> None:
        """Write an object, over what is there."""
        async with self._call():
            await self._objects.put(key, data)

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """Write a large object, over what is there."""
        async with self._call(LARGE_CALL_SECONDS):
            await self._objects.put_pieces(key, pieces)

    async def get(self, key: str) -> bytes | None:
        """An object; None where it is missing."""
        try:
            async with self._call():
                return await self._objects.get(key)
        except NotFound:
            return None

    async def delete(self, key: str) -> None:
        """Deleting what is gone succeeds."""
        async with self._call():
            await self._objects.delete(key)

    async def _sizes(self, folder: str) -> dict[str, int]:
        async with self._call():
            sizes = await self._objects.sizes(folder)
        return {key.removeprefix(folder): size for key, size in sizes.items()}

    @contextlib.asynccontextmanager
    async def _call(self, seconds: float = CALL_SECONDS) -> AsyncIterator[None]:
        with reaching():
            async with self._calls, asyncio.timeout(seconds):
                yield


def reaching() -> AbstractContextManager[None]:
    """While an agent's files, or what is saved of them, are on their way. Raises: Unavailable."""
    return objects.reaching("Your agent's saved files cannot be reached just now.")


async def to_the_end(user_id: UUID, call: Callable[..., T], *given: Any) -> T:
    """Run what writes that user's files in a thread, and wait for its end even if cancelled: a thread cannot
    be stopped, and nobody may start an agent or anything else on files that it still writes."""
    return await work.to_the_end(FILES, call, *given, of=user_id)
