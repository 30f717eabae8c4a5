"""The object store as a port, and its local adapter: a folder.

Keys are relative paths of plain segments (`users/{id}/sessions/x.jsonl`); what is read was written whole.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore

from ocmt.errors import InvalidInput, NotFound, Unavailable
from ocmt.platform.disk import sync_files
from ocmt.platform.work import OBJECTS

_SEGMENT = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")
_UNFINISHED = re.compile(r"#\d+$")
"""The local store keeps names like x#1 for its own unfinished files."""
_LONGEST_KEY = 1024
PIECE = 4 * 1024 * 1024
"""Bytes of a large object that are in memory at a time, about."""


class Objects(Protocol):
    """Whole objects by key. Raises InvalidInput for a key that is none, OSError where the store is broken."""

    async def put(self, key: str, data: bytes) -> None:
        """Write the object, over an older one. A reader sees the one or the other, never a part."""

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write it unless there is one already; whether it was written. Of two at once exactly one writes."""

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """As `put`, for an object too large to be in memory at once. Nothing is written if they fail."""

    async def get(self, key: str) -> bytes:
        """Raises NotFound."""

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Small objects in one go, for a caller who bounds how much that is; None for one that is missing."""

    def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        """As `get`, for an object too large to be in memory at once. Raises NotFound at the first piece."""

    async def delete(self, key: str) -> None:
        """Deleting what is gone succeeds."""

    async def list(self, prefix: str) -> list[str]:
        """The keys in that folder and below (`users/{id}/`; the empty string: all), sorted."""

    async def sizes(self, prefix: str) -> dict[str, int]:
        """As `list`, with the size of each in bytes; in no order."""

    async def persist(self, keys: Sequence[str]) -> None:
        """What was put under these keys survives a power cut once this returns. Raises OSError for one that
        is gone."""


@contextmanager
def reaching(words: str) -> Iterator[None]:
    """Whatever goes wrong on the way to a disk or a store is temporary, as far as anybody here can tell.

    Raises: Unavailable with those words, for the user.
    """
    try:
        yield
    except OSError as error:  # TimeoutError is one
        raise Unavailable(words, detail=repr(error), retry_after=5.0) from error


def checked_key(key: str) -> str:
    """The key itself. Raises InvalidInput for what could lead out of the store or is no plain path."""
    segments = key.split("/")
    plain = all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in segments)
    # What is no UTF-8 is no name here.
    if (
        not plain
        or len(key.encode(errors="replace")) > _LONGEST_KEY
        or _is_no_text(key)
        or _UNFINISHED.search(key)
    ):
        raise InvalidInput("This is not a name that a file can have here.", detail=f"object key {key!r}")
    return key


def _is_no_text(key: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in key)


class LocalObjects:
    """Objects in a folder, which is made private and must not be written by anybody else."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder = folder
        # Or a folder that is left empty would be in the way of an object with its name.
        self._store = LocalStore(folder, automatic_cleanup=True)

    async def put(self, key: str, data: bytes) -> None:
        """See Objects."""
        with _as_os_errors(key):
            await self._store.put_async(checked_key(key), data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """See Objects."""
        with _as_os_errors(key):
            try:
                await self._store.put_async(checked_key(key), data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """See Objects."""
        with _as_os_errors(key):
            await self._store.put_async(checked_key(key), pieces, chunk_size=PIECE, max_concurrency=2)

    async def get(self, key: str) -> bytes:
        """See Objects."""
        try:
            with _as_os_errors(key):
                found = await self._store.get_async(checked_key(key))
                return bytes(await found.bytes_async())
        except FileNotFoundError:
            raise NotFound("There is no such file.", detail=f"object {key!r}") from None

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See Objects. By plain reads in a thread: the store's own way costs ten times as much for each."""
        paths = [self._path(key) for key in keys]
        return await OBJECTS.run(
            lambda: [_read(path) for path in paths], of=_owner(keys[0]) if keys else None
        )

    async def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        """See Objects."""
        try:
            with _as_os_errors(key):
                found = await self._store.get_async(checked_key(key))
                async for piece in found.stream(min_chunk_size=PIECE):
                    yield bytes(piece)
        except FileNotFoundError:
            raise NotFound("There is no such file.", detail=f"object {key!r}") from None

    async def delete(self, key: str) -> None:
        """See Objects."""
        try:
            with _as_os_errors(key):
                await self._store.delete_async(checked_key(key))
        except FileNotFoundError:
            return

    async def list(self, prefix: str) -> list[str]:
        """See Objects."""
        return sorted(await self.sizes(prefix))

    async def sizes(self, prefix: str) -> dict[str, int]:
        """See Objects. By plain looks in a thread, as `get_many`."""
        folder = f"{checked_key(prefix.removesuffix('/'))}/" if prefix else ""
        return await OBJECTS.run(self._look, folder, of=_owner(folder))

    def _look(self, folder: str) -> dict[str, int]:
        found: dict[str, int] = {}
        folders = [folder]
        while folders:
            below = folders.pop()
            try:
                entries = os.scandir(f"{self._folder}/{below}")
            except FileNotFoundError:
                continue  # there is none, or it was emptied meanwhile
            with entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{below}{name}/")
                    elif "#" not in name or not _UNFINISHED.search(name):
                        try:
                            found[below + name] = entry.stat(follow_symlinks=False).st_size
                        except FileNotFoundError:
                            continue
        return found

    async def persist(self, keys: Sequence[str]) -> None:
        """See Objects."""
        files = [Path(self._path(key)) for key in keys]
        if files:
            await OBJECTS.run(sync_files, files, self._folder, of=_owner(keys[0]))

    def _path(self, key: str) -> str:
        return f"{self._folder}/{checked_key(key)}"


def _owner(key: str) -> str | None:
    """Whose objects these are: `users/ID`, or nobody's."""
    top, _, rest = key.partition("/")
    return f"{top}/{rest.partition('/')[0]}" if rest else None


def _read(path: str) -> bytes | None:
    try:
        with Path(path).open("rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError:
        return None


@contextmanager
def _as_os_errors(key: str) -> Iterator[None]:
    """The store's own errors are no OSErrors, except a missing file; they name the system's number."""
    try:
        yield
    except BaseError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is not None:
            raise OSError(int(number[1]), os.strerror(int(number[1])), key) from error
        raise OSError(f"object {key!r}: {error}") from error
