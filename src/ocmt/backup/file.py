"""How a backup file comes to be: whole and verified under its name, or not at all.

It is written as `NAME.partial` beside the final place, flushed to the disk, and renamed once it has been read
back. A process that dies leaves the partial file, which the next one overwrites.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ocmt.errors import Conflict, NotFound, SetupProblem

_BUFFER = 1024 * 1024


@contextmanager
def new_file(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """A file of mode 0600 to write and to read back, which has the name `path` once the block ended well.

    Raises: Conflict where there is such a file already (unless `replace`), or another process is writing it;
    SetupProblem where it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        _refuse_existing(path, replace=replace)
        with _locked(partial) as file:
            try:
                yield file
                file.flush()
                _refuse_existing(path, replace=replace)
                partial.rename(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)
    except OSError as error:
        raise disk_problem(path, error) from error


def flush_to_disk(file: BinaryIO) -> None:
    """Down to the disk, and out of the system's memory: what is read next comes from the disk itself."""
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def existing_file(path: Path) -> Iterator[BinaryIO]:
    """A backup to read. Raises NotFound, SetupProblem."""
    try:
        with path.open("rb", buffering=_BUFFER) as file:
            yield file
    except FileNotFoundError as error:
        raise NotFound(f"There is no file {path}.") from error
    except (PermissionError, IsADirectoryError) as error:
        raise SetupProblem(f"The file {path} cannot be read: {error.strerror}.") from error


def disk_problem(path: Path, error: OSError) -> SetupProblem:
    """What to do about a disk's error, in one line."""
    return SetupProblem(
        f"The backup {path} cannot be written: {error.strerror or error}. Nothing is left of it; correct "
        "that, or choose another place."
    )


def _refuse_existing(path: Path, *, replace: bool) -> None:
    if path.is_dir():
        raise SetupProblem(f"{path} is a folder: name a file in it.")
    if path.exists() and not replace:
        raise Conflict(f"There is a file {path} already: choose another name, or replace it with --force.")


@contextmanager
def _locked(partial: Path) -> Iterator[BinaryIO]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(os.open(partial, flags, 0o600), "w+b", buffering=_BUFFER) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"Another process is writing {partial} now. Wait for its end.") from None
        # Between our open and our lock its writer may have finished: then this is its backup, under its name.
        if not partial.exists() or not os.path.samestat(os.fstat(file.fileno()), partial.stat()):
            raise Conflict(f"Another process has just written {partial.with_suffix('')}.")
        os.fchmod(file.fileno(), 0o600)
        file.truncate(0)
        yield file


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
