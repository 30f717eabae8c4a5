"""Sockets that came from the platform, cut loose by connect(AF_UNSPEC) and pointed at the machine's loopback.

A socket keeps the network namespace that it was made in: one of the machine's own would reach all of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, called

LIBC = ctypes.CDLL(None, use_errno=True)


def attempt(given: dict[str, Any]) -> Outcomes:
    """The newest connection is left alone: it takes the answer out."""
    outcomes: Outcomes = {}
    for number in _sockets()[:-1]:
        for name, port in given["ports"].items():
            _connect(number, struct.pack("H14x", socket.AF_UNSPEC))
            outcomes[f"{name} by descriptor {number}"] = _connect(
                number,
                struct.pack("H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton("127.0.0.1")),
            )
    watched = os.pidfd_open(os.getppid())
    for number in range(12):
        outcomes[f"the supervisor's descriptor {number}"] = called(438, 438, watched, number, 0)
    return outcomes


def _sockets() -> list[int]:
    """The connections of this process, oldest first. Who listens is left alone: everybody needs it."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):  # noqa: PTH115
                with socket.socket(fileno=os.dup(int(name))) as copy:
                    if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        found.append(int(name))
        except FileNotFoundError:
            continue
    return sorted(found)


def _connect(number: int, address: bytes) -> str:
    if LIBC.connect(number, address, len(address)) == 0:
        return "REACHED it"
    return errno.errorcode.get(ctypes.get_errno(), "?")
