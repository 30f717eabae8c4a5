"""What the attempts share: trying something, and saying in a word what came of it."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable
from typing import Any

Outcomes = dict[str, str]
X86 = os.uname().machine == "x86_64"


def tried(call: Callable[..., Any], *arguments: Any) -> str:
    """REACHED and what it returned, or the name of its error."""
    try:
        found = call(*arguments)
    except OSError as error:
        if isinstance(error, TimeoutError):
            return "TIMEOUT"
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return f"REACHED {found!r:.80}"


def called(x86: int, arm: int, *arguments: Any) -> str:
    """A system call, by its number on either machine, past everything that Python knows of it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    # As whole words: of an int only half is written, and the kernel reads what lay in the other half.
    words = [ctypes.c_long(given) if isinstance(given, int) else given for given in arguments]
    found = libc.syscall(ctypes.c_long(x86 if X86 else arm), *words)
    return f"REACHED {found}" if found >= 0 else errno.errorcode.get(ctypes.get_errno(), "?")


def greeted_by(family: int, address: Any) -> str:
    """Connect, and say what is heard there."""

    def greeting() -> str:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.settimeout(2)
            connection.connect(address)
            return connection.recv(40).decode("latin-1")

    return tried(greeting)


def through_the_proxy(target: str, *, method: str = "CONNECT", port: int = 18991) -> str:
    """Ask the egress proxy for it: REACHED where it agrees, else its status."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(5)
            connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
            status = connection.recv(200).decode("latin-1").split(" ")[1]
    except (OSError, IndexError) as error:
        return errno.errorcode.get(getattr(error, "errno", 0) or 0, type(error).__name__)
    return f"HTTP {status}" if status[0] in "45" else f"REACHED HTTP {status}"
