"""The object store as a port, and its local adapter: a folder.

Keys are relative paths of plain segments (`users/{id}/sessions/x.jsonl`); what is read was written whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore

from ocmt.errors import InvalidInput, NotFound

_SEGMENT = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")
_LONGEST_KEY = 1024
_PIECE = 1024 * 1024


class Objects(Protocol):
    """Whole objects by key. Raises InvalidInput for a key that is none, OSError where the store is broken."""

    async def put(self, key: str, data: bytes) -> None:
        """Write the object, over an older one. A reader sees the one or the other, never a part."""

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write it unless there is one already; whether it was written. Of two at once exactly one writes."""

    async def get(self, key: str) -> bytes:
        """Raises NotFound."""

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """As `put`, of what need not fit into memory; nothing is written where the pieces end in an error."""

    def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        """As `get`, in pieces of about 1 MiB, all of the same version. Raises NotFound before the first."""

    async def delete(self, key: str) -> None:
        """Deleting what is gone succeeds."""

    async def list(self, prefix: str) -> list[str]:
        """The keys in that folder and below (`users/{id}/`; the empty string: all), sorted."""


def checked_key(key: str) -> str:
    """The key itself. Raises InvalidInput for what could lead out of the store or is no plain path."""
    segments = key.split("/")
    plain = all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in segments)
    # The local store keeps names like x#1 for its own unfinished files.
    if not plain or len(key.encode()) > _LONGEST_KEY or re.search(r"#\d+$", key):
        raise InvalidInput("This is not a name that a file can have here.", detail=f"object key {key!r}")
    return key


class LocalObjects:
    """Objects in a folder, which is made private and must not be written by anybody else."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._store = LocalStore(folder)

    async def put(self, key: str, data: bytes) -> None:
        """See Objects."""
        await self._store.put_async(checked_key(key), data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """See Objects."""
        try:
            await self._store.put_async(checked_key(key), data, mode="create")
        except AlreadyExistsError:
            return False
        return True

    async def get(self, key: str) -> bytes:
        """See Objects."""
        try:
            found = await self._store.get_async(checked_key(key))
            return bytes(await found.bytes_async())
        except FileNotFoundError:
            raise NotFound("There is no such file.", detail=f"object {key!r}") from None

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """See Objects."""
        try:
            await self._store.put_async(checked_key(key), pieces, chunk_size=_PIECE, max_concurrency=1)
        except BaseError as error:
            raise _os_error(error) from error

    async def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        """See Objects."""
        try:
            found = await self._store.get_async(checked_key(key))
            async for piece in found.stream(min_chunk_size=_PIECE):
                yield bytes(piece)
        except FileNotFoundError:
            raise NotFound("There is no such file.", detail=f"object {key!r}") from None
        except BaseError as error:
            raise _os_error(error) from error

    async def delete(self, key: str) -> None:
        """See Objects."""
        try:
            await self._store.delete_async(checked_key(key))
        except FileNotFoundError:
            return

    async def list(self, prefix: str) -> list[str]:
        """See Objects."""
        folder = checked_key(prefix.removesuffix("/")) if prefix else None
        return sorted([item["path"] async for batch in self._store.list(folder) for item in batch])


def _os_error(error: BaseError) -> OSError:
    """The store's own error, by the number that the system gave (`… (os error 28)`)."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else OSError(str(error))
