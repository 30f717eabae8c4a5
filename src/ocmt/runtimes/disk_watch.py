"""Ends an agent that takes more of the disk than it may, where the kernel does not enforce it.

The platform looks for itself. A glance at the disk's free space costs microseconds and tells when a look at
the agent's files is due: only then can it have passed its bound. Between two glances it writes as fast as the
disk takes it; that much it can be over before it ends.

The agent decides how long a look takes, so a look has a budget: whoever has more names, or more open files,
than the platform can watch is ended as well. What an agent may have after it was over its allowance is
noted beside its files (`Excess`): it falls with what the agent removes, and no restart raises it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from ocmt.errors import LimitReached, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.work import DISK, Effort
from ocmt.runtimes.agent_disks import ALMOST, use_of
from ocmt.runtimes.excess import TO_TIDY_UP, Excess, read_excess, write_excess
from ocmt.runtimes.folders import AgentFolder
from ocmt.runtimes.processes import descendants
from ocmt.runtimes.removal import remove_tree
from ocmt.runtimes.walking import DEPTH as DEPTH
from ocmt.runtimes.walking import TooDeep, walk

GLANCE = 1.0
"""Seconds between two glances."""
PAUSED_GLANCE = 5.0
LOOK_AT_LEAST = 15.0
"""Seconds after which it is looked at in any case: others may free what it takes."""
REST = 20
"""A look without a suspicion is followed by so many times its own length without one: at most 5 % of a
processor. While free space falls, only `GLANCE` lies between two looks."""
START_SECONDS = 10.0
"""What a look before a start may take, of an agent that was over its allowance."""
LOOK_SECONDS = 2.0
"""What a look may take. Two in a row that take longer end the agent: one may have met a cold disk."""
MOST_NAMES = 400_000
"""Files, folders and links of one agent that can be watched."""
MOST_OPEN = 100_000
"""Open files and mapped regions of one agent that can be watched."""
LEAST = 4096
"""Bytes that count for a name however small its file, for further names of one file, too: the disk's inodes
and folders take room."""


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


class TooMuchToWatch(Exception):
    """A look came to no end."""

    def __init__(self, words: str, *, hasty: bool = False) -> None:
        """Args: `words` are for the agent's user; `hasty`: only the time ran out, which may be the machine's
        fault."""
        super().__init__(words)
        self.words = words
        self.hasty = hasty


async def watch(
    agent: Watched, folder: AgentFolder, allowed: int, clock: Clock, log: structlog.stdlib.BoundLogger
) -> None:
    """See to it that an agent's folders hold no more than `allowed` bytes. Until cancelled."""
    folders = folder.written
    used, excess = 0, await DISK.run(read_excess, folder.root)
    free, gone = _Free(0, 0), _Free(0, 0)
    looked, due, slow = -inf, -inf, False
    while True:
        now = clock.monotonic()
        left = await DISK.run(_free, folder.root, of=folder.root)
        gone, free = gone.and_more(free, left), left
        bound = allowed if excess is None else excess.bytes
        suspect = _may_be_over(gone, bound - used)
        if not agent.paused and (suspect or (now >= due and now - looked >= LOOK_AT_LEAST)):
            first, words = looked == -inf, None
            try:
                effort = Effort(seconds=LOOK_SECONDS, message=_TOO_SLOW)
                used = await DISK.run(measure, folders, agent.process, effort, of=folder.root, effort=effort)
                slow = False
                before, excess = excess, after_look(excess, used, allowed, first=first)
                if before != excess:
                    await _note(folder.root, excess, log)
                if used > (allowed if before is None and not first else excess.bytes if excess else allowed):
                    words = _words(allowed)
            except TooMuchToWatch as error:
                if slow or not error.hasty:
                    words = error.words
                slow = True
                if words is not None:
                    excess = Excess(unwatched=True) if excess is None else replace(excess, unwatched=True)
                    await _note(folder.root, excess, log)
            except OSError as error:  # nothing that an agent does; ourselves without descriptors, for one
                log.warning("agent_files_not_measured", error=repr(error))
            except Unavailable:
                log.warning("agent_files_not_measured", error="the threads that look are busy")
            if words is not None:
                log.warning("agent_fills_the_disk", used_bytes=used, allowed_bytes=allowed, words=words)
                agent.condemn(words)
                return
            gone, looked, due = _Free(0, 0), now, now + REST * (clock.monotonic() - now)
        await clock.sleep(PAUSED_GLANCE if agent.paused else GLANCE)


async def _note(root: Path, excess: Excess | None, log: structlog.stdlib.BoundLogger) -> None:
    """The agent is ended also where a full disk does not take the note."""
    try:
        await DISK.run(write_excess, root, excess, of=root)
    except OSError as error:
        log.warning("agent_excess_not_noted", error=repr(error))


def after_look(excess: Excess | None, used: int, allowed: int, *, first: bool) -> Excess | None:
    """What is to be noted after a look that found `used` bytes; `first`: the first one since the start."""
    if used <= allowed:
        return None
    if excess is None:
        return Excess(used + TO_TIDY_UP)
    return Excess(min(excess.bytes, used + TO_TIDY_UP))


def check_before_start(folder: AgentFolder, allowed: int) -> None:
    """Refuse to start an agent that has more than it was left with when it was over its allowance. Blocks.

    Its `tmp` folder is emptied first. Raises: LimitReached, OSError.
    """
    excess = read_excess(folder.root)
    if excess is None:
        return
    with contextlib.suppress(LimitReached):  # what is left is removed at the next start
        remove_tree(folder.root / "tmp", Effort(seconds=START_SECONDS, message=_TOO_SLOW))
    try:
        used = measure(folder.written, 0, Effort(seconds=START_SECONDS, message=_TOO_SLOW))
    except TooMuchToWatch as error:
        if not excess.unwatched:
            return  # the first look since the start decides
        raise LimitReached(f"{_CANNOT_START} has more files than can be watched. {_WAY_OUT}") from error
    if used > max(allowed, excess.bytes):
        size = _gigabytes(allowed)
        raise LimitReached(f"{_CANNOT_START} takes more than the {size} of disk that it may use. {_WAY_OUT}")


async def watch_own_disk(agent: Watched, root: Path, clock: Clock, log: structlog.stdlib.BoundLogger) -> None:
    """Say in the log when a disk whose size the kernel enforces is full. Until cancelled."""
    told = False
    while True:
        try:
            use = await DISK.run(use_of, root)
        except OSError as error:
            log.warning("agent_disk_not_measured", error=repr(error))
        else:
            full = use.left < ALMOST or use.files_left == 0
            if full and not told:
                log.warning("agent_disk_is_full", used_bytes=use.used, files_left=use.files_left)
            told = full
        await clock.sleep(LOOK_AT_LEAST)


def _words(allowed: int) -> str:
    return (
        f"Your agent was stopped: its files take more than the {_gigabytes(allowed)} of disk that it may "
        "use. When it starts again, have it remove some before it writes more."
    )


_CANNOT_START = "Your agent cannot start: it"
_WAY_OUT = "Restore an earlier snapshot of its files, or ask an administrator for a larger plan."
_TOO_SLOW = "the look at the files took too long"
_TOO_MANY = (
    "Your agent was stopped: it has too many files to watch "
    f"(more than {MOST_NAMES:,}). Restore an earlier snapshot, or have it remove some."
)
_TOO_DEEP = f"Your agent was stopped: its folders are nested more than {DEPTH} deep."
_TOO_MANY_OPEN = f"Your agent was stopped: it has more than {MOST_OPEN:,} files open."
_SLOW_WORDS = (
    "Your agent was stopped: its files take too long to look at. Have it keep fewer files, or fewer of them "
    "open."
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


def _may_be_over(gone: _Free, room: int) -> bool:
    """Whether what is gone from the disk since the last look may be more than the agent had left."""
    return 2 * (gone.size + LEAST * gone.files) >= room


def measure(folders: Sequence[Path], process: int, effort: Effort) -> int:
    """Bytes on the disk of all that is in those folders, and of deleted files that processes still hold.

    `process`: the one below which those are; 0 for none. Each file counts once and each name at least
    `LEAST`. `effort` bounds the time. Blocks. Raises: TooMuchToWatch, OSError.
    """
    try:
        names = Effort(steps=MOST_NAMES, message=_TOO_MANY)
        total, seen = 0, set[int]()
        for folder in folders:
            for status in walk(folder, names):
                effort.spend()
                if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
                    if status.st_ino in seen:
                        total += LEAST
                        continue
                    seen.add(status.st_ino)
                total += max(LEAST, status.st_blocks * 512)
        if not process:
            return total
        opened = Effort(steps=MOST_OPEN, message=_TOO_MANY_OPEN)
        hidden = _hidden(_tree(process), folders[0].stat().st_dev, opened, effort)
        return total + sum(hidden.values())
    except TooDeep as error:
        raise TooMuchToWatch(_TOO_DEEP) from error
    except LimitReached as error:
        if error.message == _TOO_SLOW:
            raise TooMuchToWatch(_SLOW_WORDS, hasty=True) from error
        raise TooMuchToWatch(error.message) from error


def _tree(process: int) -> set[int]:
    """All of the agent's processes. In a container the outermost that we know of is its init's child."""
    with contextlib.suppress(OSError):
        parent = int(Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[1])
        if parent and _namespace(parent) == _namespace(process) != _namespace(os.getpid()):
            process = parent
    return {process} | descendants(process)


def _namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - not a file's path


def _hidden(pids: Iterable[int], device: int, opened: Effort, effort: Effort) -> dict[int, int]:
    """Inode → bytes of files that have no name any more, but are open or mapped. Raises: LimitReached."""
    found: dict[int, int] = {}
    mapped: dict[int, int] = {}
    where = b"%02x:%02x" % (os.major(device), os.minor(device))
    for pid in pids:
        with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as numbers:
            for number in numbers:
                opened.spend()
                effort.spend()
                with contextlib.suppress(OSError):
                    status = number.stat()
                    if status.st_nlink == 0 and status.st_dev == device and stat.S_ISREG(status.st_mode):
                        found[status.st_ino] = status.st_blocks * 512
        with contextlib.suppress(OSError), open(f"/proc/{pid}/maps", "rb") as lines:  # noqa: PTH123
            for line in lines:
                opened.spend()
                effort.spend()
                if line.endswith(b"(deleted)\n"):
                    span, _, _, device_of_it, inode = line.split()[:5]
                    start, end = (int(part, 16) for part in span.split(b"-"))
                    if device_of_it == where:
                        mapped[int(inode)] = max(end - start, mapped.get(int(inode), 0))
    return mapped | found


def _gigabytes(size: int) -> str:
    return f"{size / 1024**3:.3g} GiB" if size >= 1024**3 else f"{size / 1024**2:.0f} MiB"
