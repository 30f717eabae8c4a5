"""Removes a folder that an untrusted agent filled: never through a link, however deep it is nested.

`shutil.rmtree` recurses and keeps a descriptor for each level, so an agent could make its files irremovable.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(folder: Path) -> None:
    """Remove it with all below it; one that is gone is fine. Nobody else may write in the folder above it.

    What is nested is moved up first, so that it is never more than one level deep. Blocks. Raises: OSError.
    """
    try:
        top = os.open(folder, _FOLDER)
    except FileNotFoundError:
        return
    try:
        left = _empty(top, top, 0)
        count = len(left)
        while left:
            name = left.pop()
            number = os.open(name, _FOLDER, dir_fd=top)
            try:
                inner = _empty(number, top, count)
            finally:
                os.close(number)
            count += len(inner)
            left += inner
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    folder.rmdir()


def _empty(number: int, top: int, count: int) -> list[str]:
    """Remove the files of a folder, move its folders to the top under new names; returns those names."""
    with os.scandir(number) as entries:
        found = [(entry.name, stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)) for entry in entries]
    moved: list[str] = []
    prefix = f"{os.getpid()}.{os.urandom(4).hex()}"
    for name, is_folder in found:
        if not is_folder:
            os.unlink(name, dir_fd=number)
            continue
        if os.geteuid() != 0:
            # An agent under our own uid may have closed it to us. It is a folder: nobody else writes here.
            os.chmod(name, 0o700, dir_fd=number)
        new = f"{prefix}.{count + len(moved)}"
        os.rename(name, new, src_dir_fd=number, dst_dir_fd=top)
        moved.append(new)
    return moved
