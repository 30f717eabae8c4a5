"""What the commands that run for long share: the listening socket, the files that they may open, words."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path

from ocmt.errors import SetupProblem
from ocmt.platform.folder_lock import FolderLock
from ocmt.settings import Settings

BACKLOG = 1024
IN_USE = ".in-use"
"""The lock of a data folder (see `bootstrap/platform.py`)."""
_ADDRESS = ".address"
MOST_FILES = 65536


def say(line: str) -> None:
    """Show a line to the person at the terminal, at once, also through a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def listen(settings: Settings) -> socket.socket:
    """The listening socket, taken before anything else is started. Raises SetupProblem."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        if error.errno == errno.EADDRINUSE:
            raise SetupProblem(
                f"Port {settings.port} is in use. Stop what listens there, or choose another with --port."
            ) from error
        raise SetupProblem(f"Can not listen on {where}: {os.strerror(error.errno or 0)}.") from error
    listener.setblocking(False)
    return listener


def require_safe_address(settings: Settings) -> None:
    """Refuse a listener that strangers reach under an address of this machine. Raises: SetupProblem."""
    from ocmt.identity.origin import PublicAddress

    PublicAddress.parse(settings.url, listener=settings.host, behind_proxy=settings.behind_proxy)


def keep_address(settings: Settings) -> None:
    """Write down where this process answers, for the commands that print links while it runs."""
    path = settings.data_dir / _ADDRESS
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{settings.url}\n")


def forget_address(settings: Settings) -> None:
    """Remove what `keep_address` wrote. Idempotent."""
    with suppress(OSError):
        (settings.data_dir / _ADDRESS).unlink()


def address_of_running(data_dir: Path) -> str | None:
    """Return where the process answers that uses this data folder now; None where none does."""
    if not (data_dir / IN_USE).exists():
        return None
    lock = FolderLock(data_dir / IN_USE)
    try:
        lock.acquire("in use")
    except SetupProblem:
        with suppress(OSError):
            return (data_dir / _ADDRESS).read_text().strip() or None
    except OSError:
        return None
    lock.release()
    return None


def allow_many_files() -> None:
    """An agent may hold some hundred connections: the usual 1024 files would be used up by a few agents."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
