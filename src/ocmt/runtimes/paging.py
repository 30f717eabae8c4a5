"""Puts the memory of processes that are held still out to swap, and calls it back when they go on.

An OpenClaw that sleeps keeps 1 GB; paged out it keeps about 50 MB. While nobody else needs the memory, the
kernel keeps a copy of what is in swap (swap cache), and a first answer comes hardly later than from memory.
When somebody does, the copy is dropped, and a wake reads from the disk. Takes root (`process_madvise` on
processes of another user) and a machine with swap.
Source: process_madvise(2), madvise(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

_PROCESS_MADVISE = 440  # the same on all 64-bit architectures
_WILLNEED, _PAGEOUT = 3, 21
_REGIONS_AT_ONCE = 64
"""One call holds the other process's memory map: short ones let a wake come in between."""
_RESERVE = 256 * 1024 * 1024
"""Bytes of swap that are left free for what else the machine must put out."""


class _Region(ctypes.Structure):
    _fields_ = (("start", ctypes.c_void_p), ("length", ctypes.c_size_t))


def room_in_swap() -> int:
    """Bytes of swap that agents may take now; 0 on a machine without."""
    found = re.search(r"^SwapFree:\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return max(0, int(found[1]) * 1024 - _RESERVE) if found else 0


def is_ample() -> bool:
    """Whether this machine has memory for copies of what is in swap: more than a quarter is available.

    Such copies do not count as available themselves, so they can never take that quarter.
    """
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, available = (int(lines[name].split()[0]) for name in ("MemTotal", "MemAvailable"))
    return available > total / 4


def swapped(pids: Iterable[int]) -> int:
    """Bytes of these processes that are in swap."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found = re.search(r"^VmSwap:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            total += int(found[1]) * 1024 if found else 0
    return total


def page_out(pids: Iterable[int], *, wanted: Callable[[], bool]) -> None:
    """Put out all of their memory, as long as it is `wanted`. Blocks for 0.3 to 3 s; meant for a thread.

    Raises: PermissionError without the right to, OSError where this kernel does not know how.
    """
    for pid in pids:
        for regions in _batches(pid, lambda line: True):
            if not wanted():
                return
            _advise(pid, regions, _PAGEOUT)


def call_back(pids: Iterable[int]) -> None:
    """Have what is in swap read back before it is missed: a hint, that never fails. Blocks; for a thread."""
    for pid in pids:
        with contextlib.suppress(OSError):
            for regions in _batches(pid, _is_private):
                _advise(pid, regions, _WILLNEED)


def _batches(pid: int, chosen: Callable[[str], bool]) -> Iterator[list[tuple[int, int]]]:
    """The process's memory as (start, length); nothing for one that is gone."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return
    regions = []
    for line in lines:
        if "[v" not in line and chosen(line):  # not the kernel's own pages: [vdso], [vvar], [vsyscall]
            start, end = (int(number, 16) for number in line.split(maxsplit=1)[0].split("-"))
            regions.append((start, end - start))
    for first in range(0, len(regions), _REGIONS_AT_ONCE):
        yield regions[first : first + _REGIONS_AT_ONCE]


def _is_private(line: str) -> bool:
    """Writable and private: what can be in swap."""
    return line.split(maxsplit=2)[1].startswith("rw-p")


def _advise(pid: int, regions: list[tuple[int, int]], advice: int) -> None:
    """One by one where a whole batch is refused: a region may have gone, or be of a kind that cannot."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not _call(handle, regions, advice):
            for region in regions:
                _call(handle, [region], advice)
    finally:
        os.close(handle)


def _call(handle: int, regions: list[tuple[int, int]], advice: int) -> bool:
    """Whether all was advised. Raises OSError where none ever can be."""
    vector = (_Region * len(regions))(*(_Region(start, length) for start, length in regions))
    done = _libc.syscall(_PROCESS_MADVISE, handle, vector, len(regions), advice, 0)
    if done < 0:
        number = ctypes.get_errno()
        if number in (1, 13, 38):  # EPERM, EACCES, ENOSYS
            raise OSError(number, os.strerror(number))
        return False
    return bool(done == sum(length for _, length in regions))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_uint,
]
