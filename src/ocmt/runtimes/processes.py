"""Processes of this machine: watched for their end, and held still as trees.

A sandbox's process 1 is held by a pidfd: once that is readable, the kernel has ended every process of its
namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from pathlib import Path

from ocmt.platform.clock import Clock


class WatchedProcess:
    """A process, held by a pidfd, and an event for its end. Belongs to the running event loop."""

    def __init__(self, pid: int, *, is_orphan: bool = False) -> None:
        """An orphan is one that has lost its parent by its end. Raises: ProcessLookupError for no process."""
        self.pid = pid
        self._is_orphan = is_orphan
        self.ended = asyncio.Event()
        self._handle = os.pidfd_open(pid)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._handle, self._end)

    def _end(self) -> None:
        self._loop.remove_reader(self._handle)
        os.close(self._handle)
        self._handle = -1
        with contextlib.suppress(ChildProcessError):  # ours only where we are a container's process 1
            if self._is_orphan:
                os.waitpid(self.pid, os.WNOHANG)
        self.ended.set()

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self._handle >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)


class Launched:
    """A launcher and its one child, process 1 of a process namespace: both must be gone for all to be."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self._popen = popen
        self._launcher = WatchedProcess(popen.pid)
        self._inner: WatchedProcess | None = None

    @property
    def pid(self) -> int:
        """The launcher's process id."""
        return self._popen.pid

    def greeted(self) -> None:
        """The launcher has its child now, and no other yet."""
        self._find_inner()

    def _find_inner(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            for pid in children(self._popen.pid):
                self._inner = WatchedProcess(pid, is_orphan=True)

    def kill(self) -> None:
        """SIGKILL to both, and so to everything inside."""
        if self._inner is None:
            self._find_inner()
        if self._inner is not None:
            self._inner.kill()
        self._launcher.kill()

    async def ended(self) -> int:
        """Wait for both; the launcher's exit code, 128 + N where signal N ended it."""
        await self._launcher.ended.wait()
        if self._inner is not None:
            self._inner.kill()
            await self._inner.ended.wait()
        status = self._popen.wait()
        return 128 - status if status < 0 else status


def children(pid: int) -> set[int]:
    """The direct children of all of a process's threads; none where it is gone."""
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, path.read_text().split()))
    return found


def descendants(pid: int) -> set[int]:
    """Everything below a process, itself not included."""
    found: set[int] = set()
    edge = {pid}
    while edge:
        edge = {child for parent in edge for child in children(parent)} - found
        found |= edge
    return found


def detached_programs(supervisor: int) -> list[str]:
    """The names of programs that have left the tree of the supervisor, beside it in its process namespace.

    A process whose parent ends goes to the namespace's process 1, which is the supervisor's parent. Blocks.
    """
    init = _parent(supervisor)
    if init is None:
        return []
    found = [_name(pid) for pid in sorted(children(init) - {supervisor})]
    return [name for name in found if name is not None]


def oldest_child(init: int) -> int | None:
    """The child of a namespace's process 1 that was there first, by its number in there. Blocks."""
    numbers = {pid: _number_inside(pid) for pid in children(init)}
    known = [(number, pid) for pid, number in numbers.items() if number is not None]
    return min(known)[1] if known else None


def _number_inside(pid: int) -> int | None:
    found = re.search(rb"^NSpid:.*?(\d+)$", _read(pid, "status"), re.MULTILINE)
    return int(found[1]) if found else None


def _parent(pid: int) -> int | None:
    found = re.search(rb"^PPid:\s*(\d+)$", _read(pid, "status"), re.MULTILINE)
    return int(found[1]) if found and found[1] != b"0" else None


def _name(pid: int) -> str | None:
    """What the kernel calls a program; None for one that has ended."""
    name, status = _read(pid, "comm"), _read(pid, "status")
    if not name or not status or re.search(rb"^State:\s*[ZX]", status, re.MULTILINE):
        return None
    return re.sub(r"[^A-Za-z0-9._+-]", "", name.decode("ascii", "ignore"))[:15] or "unnamed"


def _read(pid: int, what: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


async def stop_tree(pid: int, clock: Clock) -> None:
    """SIGSTOP everything below a process; repeated until a whole round finds nothing new and nothing running.

    An orphan stays below: inside a process namespace it goes to the namespace's own process 1. Takes for ever
    where processes keep ahead of it by forking: the caller has to limit the time.
    """
    stopped: set[int] = set()
    while True:
        tree = descendants(pid)
        fresh = tree - stopped
        if not fresh and all(_is_held(one) for one in tree):
            return
        for one in fresh:
            _signal(one, signal.SIGSTOP)
        stopped |= fresh
        await clock.sleep(0)


def continue_tree(pid: int) -> None:
    """SIGCONT everything below a process."""
    for one in descendants(pid):
        _signal(one, signal.SIGCONT)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _is_held(pid: int) -> bool:
    """Stopped, or past running anyway.

    Or deep in the kernel, with its stop waiting at the way out: who waits there for a child that is about to
    become another program does so for as long as that one is held.
    """
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in b"TtZXD"
