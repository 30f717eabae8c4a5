"""Namespaces of one's own, in which one is root over much of the kernel; and those of others."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.runtimes.escapes.attempts.tries import X86, Outcomes, called, tried

FLAGS = {
    **{"user": 0x10000000, "mount": 0x00020000, "network": 0x40000000, "process": 0x20000000},
    **{"ipc": 0x08000000, "host name": 0x04000000, "control group": 0x02000000},
}
SIGCHLD = 17
NO_SUCH_KIND = b"no-such-file-system"
"""So that nothing is mounted: whether one may is asked first."""


def attempt(given: dict[str, Any]) -> Outcomes:
    outcomes: Outcomes = {}
    for name, flag in FLAGS.items():
        outcomes[f"{name} by unshare"] = _in_a_child(lambda flag=flag: called(272, 97, flag))
        outcomes[f"user and {name} by unshare"] = _in_a_child(
            lambda flag=flag: called(272, 97, flag | FLAGS["user"])
        )
        outcomes[f"user and {name} by clone"] = _in_a_child(
            lambda flag=flag: _clone(FLAGS["user"] | flag | SIGCHLD)
        )
    outcomes["by clone3"] = _in_a_child(_clone3)
    for name in ("user", "mnt", "net", "pid"):
        outcomes[f"joining process 1's {name}"] = _in_a_child(lambda name=name: _join(name))
    outcomes["mount"] = _allowed(lambda: called(165, 40, b"none", b"/tmp", NO_SUCH_KIND, 0, 0))
    outcomes["the new mount calls"] = _allowed(lambda: called(430, 430, NO_SUCH_KIND, 0))
    outcomes["chroot"] = _in_a_child(lambda: called(161, 51, b"/tmp"))
    program = Path("/usr/bin/unshare")
    if program.exists():
        done = subprocess.run([program, "-U", "true"], capture_output=True, check=False, timeout=10)
        outcomes["the program unshare"] = "REACHED it" if done.returncode == 0 else "EPERM"
    return outcomes


def _clone(flags: int) -> str:
    found = called(56 if X86 else 220, 220, flags, 0, 0, 0, 0)
    if found == "REACHED 0":
        os._exit(0)
    return found


def _clone3() -> str:
    arguments = (ctypes.c_uint64 * 11)(FLAGS["user"], 0, 0, 0, SIGCHLD)
    found = called(435, 435, arguments, ctypes.sizeof(arguments))
    if found == "REACHED 0":
        os._exit(0)
    return found


def _join(name: str) -> str:
    number = -1

    def opened() -> None:
        nonlocal number
        number = os.open(f"/proc/1/ns/{name}", os.O_RDONLY)

    outcome = tried(opened)
    return called(308, 268, number, 0) if number >= 0 else outcome


def _allowed(call: Any) -> str:
    outcome = _in_a_child(call)
    return "REACHED the question what to mount" if outcome == "ENODEV" else outcome


def _in_a_child(call: Any) -> str:
    """It may change what it is: not this process."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, call().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pipe.read().decode()
    os.waitpid(pid, 0)
    return outcome
