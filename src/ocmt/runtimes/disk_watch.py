"""How much of the disk an agent takes, and its end where that is more than it may.

File systems with quotas are rare, so the platform looks for itself. A glance at the disk's free space costs
microseconds and tells when a look at the agent's files is due: only then can it have passed its bound.
Between two glances it writes as fast as the disk takes it; that much it can be over before it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from ocmt.platform.clock import Clock
from ocmt.runtimes.processes import descendants

GLANCE = 1.0
"""Seconds between two glances."""
PAUSED_GLANCE = 5.0
LOOK_AT_LEAST = 15.0
"""Seconds after which it is looked at in any case: others may free what it takes."""
REST = 20
"""A look is followed by so many times its own length without one: at most 5 % of a processor."""
TO_TIDY_UP = 64 * 1024**2
"""Bytes on top for an agent that starts with more than it may have: to be told to remove some."""
LEAST = 4096
"""Bytes that count for a file or folder however small: the disk's inodes come to an end, too."""
DEPTH = 100
"""Folders in folders, each of which takes a file descriptor of ours; nothing deeper can be kept either."""
_ENDLESS = 2**62
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Watched(Protocol):
    """What has to be known of the agent."""

    @property
    def process(self) -> int:
        """The outermost process; 0 where nobody can tell."""

    @property
    def paused(self) -> bool:
        """Whether it stands still."""

    def condemn(self, words: str) -> None:
        """End it at once, and say why to its user."""


async def watch(
    agent: Watched, folders: Sequence[Path], allowed: int, clock: Clock, log: structlog.stdlib.BoundLogger
) -> None:
    """See to it that those folders, all on one disk, hold no more than `allowed` bytes. Until cancelled."""
    used, bound = 0, allowed
    free, gone = _Free(0, 0), _Free(0, 0)
    looked, due = -inf, -inf
    while True:
        now = clock.monotonic()
        left = await asyncio.to_thread(_free, folders[0])
        gone, free = gone.and_more(free, left), left
        if not agent.paused and now >= due and _may_be_over(gone, bound - used, now - looked):
            try:
                used = await asyncio.to_thread(measure, folders, agent.process)
            except OSError as error:  # nothing that an agent does; ourselves without descriptors, for one
                log.warning("agent_files_not_measured", error=repr(error))
            if looked == -inf and used > allowed:
                bound = used + TO_TIDY_UP
                log.warning("agent_starts_with_too_many_files", used_bytes=used, allowed_bytes=allowed)
            gone, looked, due = _Free(0, 0), now, now + REST * (clock.monotonic() - now)
        if used > bound:
            log.warning("agent_fills_the_disk", used_bytes=used, allowed_bytes=allowed)
            agent.condemn(_words(used, allowed))
            return
        await clock.sleep(PAUSED_GLANCE if agent.paused else GLANCE)


def _words(used: int, allowed: int) -> str:
    if used >= _ENDLESS:
        return f"Your agent was stopped: its folders are nested more than {DEPTH} deep."
    return (
        f"Your agent was stopped: its files take more than the {_gigabytes(allowed)} of disk that it may "
        "use. When it starts again, have it remove some before it writes more."
    )


class _Free(NamedTuple):
    """Bytes that a disk has left, and files; or that are gone from it."""

    size: int
    files: int

    def and_more(self, before: _Free, after: _Free) -> _Free:
        """What is gone, with what went between those two; what came does not make up for it."""
        return _Free(
            self.size + max(0, before.size - after.size), self.files + max(0, before.files - after.files)
        )


def _free(folder: Path) -> _Free:
    disk = os.statvfs(folder)
    return _Free(disk.f_bfree * disk.f_frsize, disk.f_ffree)


def _may_be_over(gone: _Free, room: int, seconds: float) -> bool:
    """Whether what is gone from the disk since the last look may be more than the agent had left."""
    return 2 * (gone.size + LEAST * gone.files) >= room or seconds >= LOOK_AT_LEAST


def measure(folders: Sequence[Path], process: int) -> int:
    """Bytes on the disk of all that is in those folders, and of deleted files that processes still hold.

    `process`: the one below which those are; 0 for none. Each file counts once, and at least `LEAST`; what is
    nested too deep to be looked at counts as more than any disk has. Blocks. Raises: OSError.
    """
    seen: set[int] = set()
    total = sum(size for folder in folders for size in _sizes(folder, seen))
    return total + (sum(_hidden(_tree(process), folders[0].stat().st_dev).values()) if process else 0)


def _sizes(folder: Path, seen: set[int]) -> Iterator[int]:
    """Of everything in there, never through a link. What goes meanwhile is gone."""
    levels: list[tuple[int, list[str]]] = []
    try:
        with contextlib.suppress(FileNotFoundError):
            _enter(levels, os.open(folder, _FOLDER))
        while levels:
            number, names = levels[-1]
            if not names:
                os.close(levels.pop()[0])
                continue
            name = names.pop()
            try:
                status = os.stat(name, dir_fd=number, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if len(levels) >= DEPTH:
                        yield _ENDLESS
                        return
                    _enter(levels, _open(name, number))
                elif status.st_nlink > 1:
                    if status.st_ino in seen:
                        continue
                    seen.add(status.st_ino)
                yield max(LEAST, status.st_blocks * 512)
            except OSError as error:
                if error.errno not in _GONE:
                    raise
    finally:
        for number, _ in levels:
            os.close(number)


def _enter(levels: list[tuple[int, list[str]]], number: int) -> None:
    levels.append((number, []))
    levels[-1] = (number, os.listdir(number))


def _open(name: str, parent: int) -> int:
    """That folder, also where its owner, who is us in another sandbox, has shut it."""
    try:
        return os.open(name, _FOLDER, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
            return os.open(name, _FOLDER, dir_fd=parent)
        finally:
            os.close(handle)


def _tree(process: int) -> set[int]:
    """All of the agent's processes. In a container the outermost that we know of is its init's child."""
    with contextlib.suppress(OSError):
        parent = int(Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[1])
        if parent and _namespace(parent) == _namespace(process) != _namespace(os.getpid()):
            process = parent
    return {process} | descendants(process)


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - not a file's path


def _hidden(pids: Iterable[int], device: int) -> dict[int, int]:
    """Inode → bytes of files that have no name any more, but are open or mapped."""
    found: dict[int, int] = {}
    mapped: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208 - thousands a look
                with contextlib.suppress(OSError):
                    status = os.stat(f"/proc/{pid}/fd/{number}")  # noqa: PTH116
                    if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                        found[status.st_ino] = status.st_blocks * 512
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
                if line.endswith(b"(deleted)"):
                    span, _, _, where, inode = line.split()[:5]
                    start, end = (int(part, 16) for part in span.split(b"-"))
                    if where == b"%02x:%02x" % (os.major(device), os.minor(device)):
                        mapped[int(inode)] = max(end - start, mapped.get(int(inode), 0))
    return mapped | found


def _gigabytes(size: int) -> str:
    return f"{size / 1024**3:.3g} GiB" if size >= 1024**3 else f"{size / 1024**2:.0f} MiB"
