"""What the commands that run for long share: the listening socket, the files that they may open, words."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sys

from ocmt.errors import SetupProblem
from ocmt.settings import Settings

BACKLOG = 1024
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


def allow_many_files() -> None:
    """An agent may hold some hundred connections: the usual 1024 files would be used up by a few agents."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
