"""Walks through a folder that an untrusted agent fills: each name once, in little memory, on a budget."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ocmt.platform.work import Effort

DEPTH = 100
"""Folders in folders, each of which takes a file descriptor of ours; nothing deeper can be kept either."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


if TYPE_CHECKING:
    _Level = tuple[int, os._ScandirIterator[str]]


class TooDeep(Exception):
    """There are more than `DEPTH` folders in folders."""


def walk(folder: Path, effort: Effort) -> Iterator[os.stat_result]:
    """Yield the status of every name below `folder`, never through a link. What goes meanwhile is gone.

    One name at a time is held, and one descriptor for each level; `effort` is spent by one for each name.
    A folder that its owner has shut is opened. Raises: LimitReached, Abandoned, TooDeep, OSError.
    """
    levels: list[_Level] = []
    try:
        try:
            _enter(levels, os.open(folder, FOLDER))
        except FileNotFoundError:
            return
        while levels:
            number, names = levels[-1]
            entry = next(names, None)
            if entry is None:
                _leave(levels)
                continue
            effort.spend()
            try:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    if len(levels) >= DEPTH:
                        raise TooDeep
                    _enter(levels, _open(entry.name, number))
            except OSError as error:
                if error.errno not in _GONE:
                    raise
            else:
                yield status
    finally:
        while levels:
            _leave(levels)


def _enter(levels: list[_Level], number: int) -> None:
    try:
        levels.append((number, os.scandir(number)))
    except BaseException:
        os.close(number)
        raise


def _leave(levels: list[_Level]) -> None:
    number, names = levels.pop()
    names.close()
    os.close(number)


def _open(name: str, parent: int) -> int:
    """That folder, also where its owner, who is us in another sandbox, has shut it."""
    try:
        return os.open(name, FOLDER, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
            return os.open(name, FOLDER, dir_fd=parent)
        finally:
            os.close(handle)
