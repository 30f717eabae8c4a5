"""A floor of free space on the disk that everything shares, above which the database can still write.

An almost full disk harms everybody at once: PostgreSQL cannot commit, and saved files are incomplete. So
below the floor whoever adds to the disk is refused in plain words or held still, until there is room again.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import structlog

from ocmt.errors import DiskFull
from ocmt.platform.clock import Clock
from ocmt.platform.objects import Objects

GIBIBYTE = 1024**3
MOST_FLOOR = 2 * GIBIBYTE
PART = 0.05
"""The floor where no setting says: this part of the disk, at most `MOST_FLOOR`."""
UP_AGAIN = 1.1
"""It counts as freed once there is a tenth more than the floor: nothing goes on and off all the time."""
FRESH = 0.25
"""Seconds for which a reading serves."""
WATCH = 1.0
WORDS = "The server's disk is almost full. Nothing new can be saved until an administrator makes room."

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Space:
    """What a disk has, in bytes; `free` is what programs without root's rights can use."""

    free: int
    size: int


Read = Callable[[], Sequence[Space]]
"""The disks that matter, as they are now."""


def read_folders(*folders: Path) -> Read:
    """Return a reading of the disks of those folders; one that is not there is left out."""

    def read() -> list[Space]:
        found = []
        for folder in folders:
            try:
                disk = os.statvfs(folder)
            except OSError:
                continue
            found.append(Space(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize))
        return found

    return read


class FreeSpace:
    """Knows whether the disk is almost full. A reading is one system call for each disk."""

    def __init__(
        self,
        read: Read,
        *,
        floor: int | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args: `floor` in bytes; None: 5 % of each disk, at most 2 GiB; 0: no floor."""
        self._read = read
        self._floor = floor
        self._monotonic = monotonic
        self._low = False
        self._until = float("-inf")

    @property
    def low(self) -> bool:
        """Whether a disk is below its floor, or was and is not yet well above it."""
        now = self._monotonic()
        if now >= self._until:
            self._until = now + FRESH
            self._look()
        return self._low

    def check(self) -> None:
        """Raises: DiskFull while the disk is almost full."""
        if self.low:
            raise DiskFull(WORDS, retry_after=30)

    def _look(self) -> None:
        disks = self._read()
        low = self.below(disks)
        if low != self._low:
            self._low = low
            free = min((disk.free for disk in disks), default=0)
            if low:
                log.error("the disk is almost full: nothing new is taken, agents are held", free_bytes=free)
            else:
                log.warning("the disk has room again: everything goes on", free_bytes=free)

    def below(self, disks: Sequence[Space]) -> bool:
        """Whether one of these disks has too little left, seen from how it was at the last look."""
        factor = UP_AGAIN if self._low else 1.0
        return any(disk.free < factor * self._floor_of(disk) for disk in disks)

    def _floor_of(self, disk: Space) -> int:
        return int(min(MOST_FLOOR, PART * disk.size)) if self._floor is None else self._floor

    async def keep_watch(
        self, hold: Callable[[], Awaitable[None]], go_on: Callable[[], Awaitable[None]], clock: Clock
    ) -> None:
        """Await `hold` at each look while the disk is almost full, then `go_on` once. Until cancelled."""
        held = False
        while True:
            try:
                if self.low:
                    held = True
                    await hold()
                elif held:
                    await go_on()
                    held = False
            except Exception:
                # The watch must not end: one agent's trouble would leave all others held, or the disk full.
                log.exception("agents could not be held, or could not go on")
            await clock.sleep(WATCH)


class GuardedFile:
    """A file on that disk that takes nothing new while the disk is almost full; all else is as the file's."""

    def __init__(self, file: IO[bytes], space: FreeSpace) -> None:
        self._file = file
        self._space = space

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """As the file's. Raises: DiskFull."""
        self._space.check()
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def guarded(file: IO[bytes], space: FreeSpace | None) -> IO[bytes]:
    """The file as a GuardedFile; None: as it is."""
    return file if space is None else cast("IO[bytes]", GuardedFile(file, space))


class GuardedObjects:
    """Objects that takes nothing new while the disk is almost full; reading and deleting go on."""

    def __init__(self, objects: Objects, space: FreeSpace) -> None:
        self._objects = objects
        self._space = space

    async def put(self, key: str, data: bytes) -> None:
        """See Objects. Raises: DiskFull."""
        self._space.check()
        await self._objects.put(key, data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """See Objects. Raises: DiskFull."""
        self._space.check()
        return await self._objects.put_if_absent(key, data)

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """See Objects. Raises: DiskFull, also in the middle."""

        async def checked() -> AsyncIterator[bytes]:
            async for piece in pieces:
                self._space.check()
                yield piece

        self._space.check()
        await self._objects.put_pieces(key, checked())

    async def get(self, key: str) -> bytes:
        """See Objects."""
        return await self._objects.get(key)

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See Objects."""
        return await self._objects.get_many(keys)

    def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        """See Objects."""
        return self._objects.get_pieces(key)

    async def delete(self, key: str) -> None:
        """See Objects."""
        await self._objects.delete(key)

    async def list(self, prefix: str) -> list[str]:
        """See Objects."""
        return await self._objects.list(prefix)

    async def sizes(self, prefix: str) -> dict[str, int]:
        """See Objects."""
        return await self._objects.sizes(prefix)

    async def persist(self, keys: Sequence[str]) -> None:
        """See Objects."""
        await self._objects.persist(keys)
