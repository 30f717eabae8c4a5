"""A generation as one zip file, to take away and to bring in somewhere else.

Files lie in it under their own paths, beside `manifest.json`; a file whose path a zip on another system could
not have, lies below `contents/` under its hash. Links and modes are in the manifest only. Everything blocks
where files are read and written, and is done by threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import zipfile
import zlib
from collections.abc import AsyncIterator, Sequence
from typing import IO

from ocmt.agents.snapshots.manifest import Entry, Manifest, parse
from ocmt.agents.snapshots.store import UserObjects
from ocmt.agents.snapshots.uploading import LARGE
from ocmt.errors import InvalidInput, TooLarge

MANIFEST = "manifest.json"
FIXED_BYTES = 1024 * 1024
BYTES_OF_A_FILE = 320
"""Of a manifest and of a zip's directory so much is read for each file that is allowed."""
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
)
"""What the library says of a zip that it can not read: each of them has been seen."""
PIECE = 1024 * 1024


async def write_archive(store: UserObjects, manifest: Manifest, target: IO[bytes]) -> list[str]:
    """Write that generation as a zip; returns the paths whose content is missing or damaged, which makes the
    archive useless. Raises: Unavailable, OSError."""
    damaged = []
    written: set[str] = set()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(MANIFEST, manifest.render())
        for entry in manifest.entries:
            name = _member(entry)
            if entry.sha256 is None or name in written:
                continue
            written.add(name)
            if not await _add(store, archive, name, entry.sha256, entry.size):
                damaged.append(entry.path)
    return damaged


async def _add(store: UserObjects, archive: zipfile.ZipFile, name: str, sha256: str, size: int) -> bool:
    if size <= LARGE:
        data = await store.get_blob(sha256)
        if data is not None:
            await asyncio.to_thread(archive.writestr, name, data)
        return data is not None
    digest = hashlib.sha256()
    with archive.open(name, "w", force_zip64=True) as member:
        async for piece in store.get_blob_pieces(sha256):
            digest.update(piece)
            await asyncio.to_thread(member.write, piece)
    return digest.hexdigest() == sha256


class Archive:
    """A zip from anywhere, as the contents of a snapshot (`unpacking.Contents`)."""

    def __init__(self, archive: zipfile.ZipFile, manifest: Manifest) -> None:
        self.manifest = manifest
        self._archive = archive
        self._members = {
            entry.sha256: (_member(entry), entry.size) for entry in manifest.entries if entry.sha256
        }
        self._reading = asyncio.Lock()  # a zip file has one position

    @classmethod
    def open(cls, source: IO[bytes], *, most_files: int) -> Archive:
        """Blocks. Raises: InvalidInput where it is no archive of ours, TooLarge where it names far more than
        `most_files`."""
        most = FIXED_BYTES + BYTES_OF_A_FILE * most_files
        try:
            archive = zipfile.ZipFile(_Bounded(source, most))
            with archive.open(MANIFEST) as member:
                data = member.read(most + 1)
        except UNREADABLE as error:
            raise InvalidInput("This is no archive of an agent's files.", detail=repr(error)) from error
        if len(data) > most:
            raise TooLarge("The manifest of this archive is too large.")
        return cls(archive, parse(data))

    def damaged(self) -> list[str]:
        """Blocks: reads all of it. The paths whose contents are missing or not what the manifest says."""
        verdicts = {name: self._is_good(name, *where) for name, where in self._members.items()}
        return [entry.path for entry in self.manifest.entries if not verdicts.get(entry.sha256 or "", True)]

    def _is_good(self, sha256: str, member: str, size: int) -> bool:
        digest = hashlib.sha256()
        try:
            with self._archive.open(member) as content:
                while size > 0 and (piece := content.read(min(size, PIECE))):
                    size -= len(piece)
                    digest.update(piece)
        except UNREADABLE:
            return False
        return digest.hexdigest() == sha256

    async def get_blobs(self, names: Sequence[str]) -> list[bytes | None]:
        """See Contents. Never more than the manifest says, whatever the zip unpacks to."""
        return [b"".join([piece async for piece in self.get_blob_pieces(name)]) for name in names]

    async def get_blob_pieces(self, sha256: str) -> AsyncIterator[bytes]:
        """See Contents."""
        name, left = self._members.get(sha256, ("", 0))
        async with self._reading:
            try:
                with self._archive.open(name) as member:
                    while left > 0:
                        piece = await asyncio.to_thread(member.read, min(left, PIECE))
                        if not piece:
                            return
                        left -= len(piece)
                        yield piece
            except UNREADABLE:
                return  # what is missing or damaged shows in its hash


class _Bounded:
    """A file of which never much is read in one go: a zip says itself how large its directory is, and all of
    it becomes objects in memory."""

    def __init__(self, file: IO[bytes], most: int) -> None:
        self._file = file
        self._most = most
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._most + 1 if size < 0 or size > self._most else size)
        if len(data) > self._most:
            raise zipfile.BadZipFile("it has too large a directory")
        return data


def _member(entry: Entry) -> str:
    name = entry.path
    plain = name.isprintable() and not any(sign in name for sign in '\\:*?"<>|')
    return name if plain else f"contents/{entry.sha256}"
