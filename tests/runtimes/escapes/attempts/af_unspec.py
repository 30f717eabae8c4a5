"""Sockets that came from the platform, cut loose by connect(AF_UNSPEC) and pointed at the machine's loopback.

A socket keeps the network namespace that it was made in: one of the machine's own would reach all of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, called

LIBC = ctypes.CDLL(None, use_errno=True)


def attempt(given: dict[str, Any]) -> Outcomes:
    """The connection that takes the answer out is left alone."""
    outcomes: Outcomes = {}
    # Copies: whoever else has one closes it once it is cut loose.
    for number in [os.dup(number) for number in _connections()]:
        for name, port in given["ports"].items():
            _connect(number, struct.pack("H14x", socket.AF_UNSPEC))
            outcomes[f"{name} by descriptor {number}"] = _connect(
                number,
                struct.pack("H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton("127.0.0.1")),
            )
    if not outcomes:
        outcomes["having a connection to try with"] = "none"
    watched = os.pidfd_open(os.getppid())
    for number in range(12):
        outcomes[f"the supervisor's descriptor {number}"] = called(438, 438, watched, number, 0)
    return outcomes


def _connections() -> list[int]:
    """This process's, but for the one that asked. Who listens is left alone: everybody needs it."""
    frame: Any = sys._getframe()
    while frame is not None and "connection" not in frame.f_locals:
        frame = frame.f_back
    asking = frame.f_locals["connection"].fileno()
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):  # noqa: PTH115
                with socket.socket(fileno=os.dup(int(name))) as copy:
                    listens = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                    if not listens and int(name) != asking:
                        found.append(int(name))
        except FileNotFoundError:
            continue
    return found


def _connect(number: int, address: bytes) -> str:
    if LIBC.connect(number, address, len(address)) == 0:
        return "REACHED it"
    return errno.errorcode.get(ctypes.get_errno(), "?")
