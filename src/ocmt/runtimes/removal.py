"""Removes a folder that an untrusted agent filled: never through a link, however deep or full it is.

`shutil.rmtree` recurses and keeps a descriptor for each level, so an agent could make its files irremovable.
Here one name at a time is held, whatever the number of names.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ocmt.platform.work import Effort

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(folder: Path, effort: Effort | None = None) -> None:
    """Remove it with all below it; one that is gone is fine. Nobody else may write in the folder above it.

    What is nested is moved up first, so that it is never more than one level deep. `effort` is spent by one
    for each name; a removal that it ends can be begun anew. Blocks. Raises: LimitReached, Abandoned, OSError.
    """
    try:
        top = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return
    try:
        removal = _Removal(top, effort)
        while removal.emptied(top, keep_folders=True):
            pass
    finally:
        os.close(top)
    folder.rmdir()


class _Removal:
    """The folder whose content goes, and what was moved up into it."""

    def __init__(self, top: int, effort: Effort | None) -> None:
        self._top = top
        self._effort = effort
        self._prefix = f"{os.getpid()}.{os.urandom(4).hex()}"
        self._moved = 0

    def emptied(self, number: int, *, keep_folders: bool) -> bool:
        """Remove a folder's files, and empty or move up its folders; returns whether there was anything.

        A listing may miss what comes while it is read, so the top is listed until nothing is found.
        """
        found = False
        with os.scandir(number) as entries:
            for entry in entries:
                found = True
                if self._effort is not None:
                    self._effort.spend()
                if not stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode):
                    os.unlink(entry.name, dir_fd=number)
                    continue
                if os.geteuid() != 0:
                    # An agent under our own uid may have closed it to us. It is a folder: nobody else
                    # writes here.
                    os.chmod(entry.name, 0o700, dir_fd=number)
                if keep_folders:
                    self._remove_inner(entry.name)
                else:
                    self._move_up(entry.name, number)
        return found

    def _remove_inner(self, name: str) -> None:
        """A folder directly below the top: what is nested in it goes up first."""
        inner = os.open(name, _FOLDER, dir_fd=self._top)
        try:
            while self.emptied(inner, keep_folders=False):
                pass
        finally:
            os.close(inner)
        os.rmdir(name, dir_fd=self._top)

    def _move_up(self, name: str, parent: int) -> None:
        self._moved += 1
        new = f"{self._prefix}.{self._moved}"
        os.rename(name, new, src_dir_fd=parent, dst_dir_fd=self._top)
