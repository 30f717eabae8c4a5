"""Processes of others: seeing, signalling, tracing them, reading their memory and environment."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

from tests.runtimes.escapes.attempts.tries import Outcomes, called, tried

PTRACE_SEIZE = 0x4206
"""As good as attaching, but nothing has to stand still for it."""
MANY = 12
"""More processes than the agent of a test has itself."""


def attempt(given: dict[str, Any]) -> Outcomes:
    outcomes = {"seeing those of others": "ESRCH", "finding their secret": "ENOENT"}
    seen = [name for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208
    if len(seen) > MANY:
        outcomes["seeing those of others"] = f"REACHED {len(seen)} processes"
    for pid in seen:
        for part in ("environ", "cmdline"):
            try:
                found = Path(f"/proc/{pid}/{part}").read_bytes()
            except OSError:
                continue
            if given["secret"].encode() in found:
                outcomes["finding their secret"] = f"REACHED the {part} of {pid}"
    for name, pid in given["pids"].items():
        outcomes[f"signalling {name}"] = tried(os.kill, pid, 0)
        outcomes[f"tracing {name}"] = _trace(pid)
        outcomes[f"reading the memory of {name}"] = _read_memory(pid)
        outcomes[f"holding {name}"] = called(434, 434, pid, 0)
        outcomes[f"slowing {name}"] = tried(_slow_down, pid)
        outcomes[f"the descriptors of {name}"] = tried(os.listdir, f"/proc/{pid}/fd")
    return outcomes


def _read_memory(pid: int) -> str:
    """That nothing is at that address is a later question than whether one may look."""
    buffer = ctypes.create_string_buffer(8)
    own = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 8)
    theirs = (ctypes.c_uint64 * 2)(0x1000, 8)
    outcome = called(310, 270, pid, own, 1, theirs, 1, 0)
    return "REACHED an address" if outcome == "EFAULT" else outcome


def _trace(pid: int) -> str:
    """From a child, with whose end the tracing ends."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, called(101, 117, PTRACE_SEIZE, pid, 0, 0).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    os.waitpid(child, 0)
    return outcome


def _slow_down(pid: int) -> None:
    """To the priority that it has: whether one may is what counts."""
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))
