"""What a power cut must not take: files are only on the disk once the kernel was made to put them there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ONE_BY_ONE = 32
"""Up to so many files are synced by themselves, more by syncing the whole file system: it waits for other
people's writes, too, but only once."""

_libc = ctypes.CDLL(None, use_errno=True)


def sync_file_system(folder: Path) -> None:
    """All that was written to the file system of `folder` is on its disk when this returns. Blocks.

    Raises: OSError.
    """
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(number) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(folder))
    finally:
        os.close(number)


def sync_files(files: Sequence[Path], top: Path) -> None:
    """These files below `top` and their names are on the disk when this returns. Blocks. Raises: OSError."""
    if len(files) > ONE_BY_ONE:
        sync_file_system(top)
        return
    # At the same time: the kernel commits what comes together at once.
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(sync_one, files))
        list(pool.map(sync_one, _folders(files, top)))


def sync_one(path: Path) -> None:
    """That file or folder by itself. Blocks. Raises: OSError."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _folders(files: Iterable[Path], top: Path) -> set[Path]:
    """Where their names are written: each one's folder and those above it, up to `top`."""
    return {folder for file in files for folder in file.parents if folder.is_relative_to(top)}
