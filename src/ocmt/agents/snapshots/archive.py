"""A generation as one zip file, to take away and to bring in somewhere else.

Files lie in it under their own paths, beside `manifest.json`; a file whose path a zip on another system could
not have, lies below `contents/` under its hash. Links and modes are in the manifest only. Everything blocks
where files are read and written, and is done by threads. An archive that comes from outside is examined by
`checking` in a child process before anything of it is read here.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import AsyncIterator, Sequence
from typing import IO
from uuid import UUID

from ocmt.agents.snapshots.examining import MANIFEST, Found, member_name
from ocmt.agents.snapshots.manifest import Manifest
from ocmt.agents.snapshots.store import UserObjects
from ocmt.agents.snapshots.uploading import LARGE
from ocmt.platform.unzip import BadZip, pieces
from ocmt.platform.work import FILES, OBJECTS


async def write_archive(store: UserObjects, manifest: Manifest, target: IO[bytes]) -> list[str]:
    """Write that generation as a zip; returns the paths whose content is missing or damaged, which makes the
    archive useless. Raises: Unavailable, OSError."""
    damaged = []
    written: set[str] = set()
    of = store.user_id
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        await FILES.run(lambda: archive.writestr(MANIFEST, manifest.render()), of=of)
        for entry in manifest.entries:
            name = member_name(entry)
            if entry.sha256 is None or name in written:
                continue
            written.add(name)
            if not await _add(store, archive, name, entry.sha256, entry.size):
                damaged.append(entry.path)
    return damaged


async def _add(store: UserObjects, archive: zipfile.ZipFile, name: str, sha256: str, size: int) -> bool:
    of = store.user_id
    if size <= LARGE:
        data = await store.get_blob(sha256)
        if data is not None:
            await FILES.run(archive.writestr, name, data, of=of)
        return data is not None
    digest = hashlib.sha256()
    with archive.open(name, "w", force_zip64=True) as member:
        async for piece in store.get_blob_pieces(sha256):
            digest.update(piece)
            await FILES.run(member.write, piece, of=of)
    return digest.hexdigest() == sha256


class Archive:
    """A zip that has been examined, as the contents of a snapshot (`unpacking.Contents`)."""

    def __init__(self, source: IO[bytes], found: Found, user_id: UUID) -> None:
        self.manifest = found.manifest
        self._source = source
        self._members = found.members
        self._user_id = user_id

    async def get_blobs(self, names: Sequence[str]) -> list[bytes | None]:
        """See Contents. Never more than the manifest says, whatever the zip unpacks to."""
        return [b"".join([piece async for piece in self.get_blob_pieces(name)]) for name in names]

    async def get_blob_pieces(self, sha256: str) -> AsyncIterator[bytes]:
        """See Contents."""
        known = self._members.get(sha256)
        if known is None:
            return
        content = pieces(self._source, *known)
        while True:
            try:
                # One thread at a time for each user, so nobody moves the file's position in between.
                piece = await OBJECTS.run(next, content, None, of=self._user_id)
            except (BadZip, OSError):
                return  # what is missing or damaged shows in its hash
            if piece is None:
                return
            yield piece
