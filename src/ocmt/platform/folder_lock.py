"""One process per folder: a lock that ends with its holder, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ocmt.errors import SetupProblem


class FolderLock:
    """A lock file that says who holds it. Not inherited by child processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self, refusal: str) -> None:
        """Take the lock; holding it already is fine. Raises: SetupProblem `{refusal} (pid N)`; OSError."""
        if self._file is not None:
            return
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 20).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise SetupProblem(f"{refusal} (pid {holder})") from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        """Give it up. Idempotent."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def processes_in(folder: Path, program: str) -> list[int]:
    """The processes of that program name whose working directory is that folder, under whatever path."""
    try:
        wanted = folder.stat()
    except FileNotFoundError:
        return []
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            there = (entry / "cwd").stat()
            if (there.st_dev, there.st_ino) != (wanted.st_dev, wanted.st_ino):
                continue
            if (entry / "comm").read_text().strip() == program:
                found.append(int(entry.name))
        except OSError:
            continue  # gone meanwhile, or not ours to look at
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process (one that nobody has waited for counts as gone)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
