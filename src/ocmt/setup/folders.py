"""Where the set-up's things go, and how a folder appears there whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ocmt.errors import SetupProblem

_PARTIAL = ".partial-"
_LOCK_WAIT = 3600.0


def home() -> Path:
    """The user's home folder, also where HOME is unset or empty."""
    return Path(os.environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)


def cache_folder() -> Path:
    """Where what can be made again is kept: `OCMT_CACHE_DIR`, else the user's cache folder."""
    if given := os.environ.get("OCMT_CACHE_DIR"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else home() / ".cache") / "ocmt"


def data_folder() -> Path:
    """Where the platform will keep its data unless its own settings say otherwise."""
    if given := os.environ.get("OCMT_DATA_DIR"):
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else home() / ".local" / "share") / "ocmt"


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final` that becomes `final` when the block ends well, and else vanishes."""
    partial = final.with_name(f"{_PARTIAL}{final.name}-{os.getpid()}")
    discard(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        discard(final)
        partial.rename(final)
    finally:
        discard(partial)


def write_whole(path: Path, text: str) -> None:
    """Writes the file by a rename, so that nobody ever reads half of it."""
    partial = path.with_name(f"{_PARTIAL}{path.name}-{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; an empty one where there is no file or it is not such JSON."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def discard(path: Path) -> None:
    """Removes the file or folder if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def discard_leftovers(cache: Path) -> None:
    """Removes what interrupted set-ups left. Only for the holder of the lock."""
    for leftover in [*cache.glob(f"{_PARTIAL}*"), *cache.glob(f"*/{_PARTIAL}*")]:
        discard(leftover)


@contextmanager
def only_one(cache: Path, waiting: Callable[[], None]) -> Iterator[int]:
    """Holds the cache's lock (its descriptor is yielded); calls `waiting` once if another set-up has it.

    The kernel lets go of it with the last process that holds the descriptor, so a killed set-up leaves no
    stale lock. Raises: SetupProblem when the other is not done after an hour.
    """
    with (cache / "setup.lock").open("w") as file:
        until = time.monotonic() + _LOCK_WAIT
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    waiting()
                    told = True
                if time.monotonic() > until:
                    raise SetupProblem(
                        f"Another set-up has held {file.name} for an hour. End it, then try again."
                    ) from None
                time.sleep(0.2)
        yield file.fileno()


def make_cache(cache: Path) -> None:
    """Makes the cache folder. Raises: SetupProblem where that is not possible."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / f"{_PARTIAL}probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SetupProblem(
            f"The cache folder {cache} cannot be written ({error.strerror}). "
            "Make it yours, or name another with OCMT_CACHE_DIR."
        ) from error


def require_space(folder: Path, needed: int, purpose: str) -> None:
    """Raises: SetupProblem where the disk of `folder` has less than `needed` bytes free."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise SetupProblem(
            f"{purpose} needs {needed / 1e9:.1f} GB in {folder}, and only {free / 1e9:.1f} GB are free. "
            "Make room, or name a folder on another disk with OCMT_CACHE_DIR."
        )


def digest(root: Path, files: Iterable[Path]) -> str:
    """A hash over the names (relative to `root`) and contents of the files."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path.relative_to(root)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def files_below(folder: Path, *, without: frozenset[str]) -> Iterator[Path]:
    """All files below the folder, not entering folders with one of the names in `without`."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in without]
        yield from (Path(place, name) for name in names)


def fingerprint(path: Path) -> list[int] | None:
    """Size and time of change of a file, to notice that it is no longer the one we tried; None: not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]
