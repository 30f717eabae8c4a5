"""What a sandbox is worth on this machine: found by running one and looking at the world from inside.

`look_around` runs it, `judge` puts the findings into the words that `ocmt doctor`, `GET /agent` and the UI
show.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ocmt.platform.work import STARTS
from ocmt.runtimes.base import Isolation
from ocmt.runtimes.bubblewrap import LAUNCH_ENVIRONMENT
from ocmt.runtimes.folders import INSIDE_ID, AgentFolder

TIMEOUT = 20.0
TRACE = "probe"

PROBE_SCRIPT = """
import errno, json, os, socket, sys

def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "done"

asked = json.loads(os.environ.pop("ASKED", None) or sys.stdin.read())
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
with open("/tmp/probe", "w"):
    pass
print(json.dumps({
    "uid": os.getuid(),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "connect_host": attempt(socket.create_connection, ("127.0.0.1", asked["port"]), 2),
    "connect_out": attempt(socket.create_connection, ("192.0.2.1", 80), 2),
    "host_processes": os.readlink("/proc/self/ns/pid") == asked["pid_namespace"],
    "processes": sum(name.isdigit() for name in os.listdir("/proc")),
    "read_host_file": attempt(open, asked["file"]),
    "write_system": attempt(open, "/usr/ocmt-probe", "w"),
    "capabilities": int(status["CapEff"], 16),
    "no_new_privileges": int(status["NoNewPrivs"]),
    "filter": int(status["Seccomp"]),
    "vsock": attempt(socket.socket, 40, socket.SOCK_STREAM),
    "hostname": os.uname().nodename,
    "environment": sorted(os.environ),
    "namespaces": int(open("/proc/sys/user/max_user_namespaces").read()),
}))
"""
NO_QUOTA = "no quota of disk space: an agent over its bound is ended within seconds, and until then it writes"
PROBE_PROGRAM = ("-c", PROBE_SCRIPT)


@dataclass(frozen=True)
class Findings:
    """What the probing sandbox saw, or why there was none."""

    failure: str | None = None
    holes: tuple[str, ...] = ()
    """What it could do and must not."""
    own_uid: bool = False
    """Whether it ran as a host uid of its own."""
    hardened: bool = False
    """Whether Python can keep the supervisor out of the agent's reach."""


async def look_around(command: Sequence[str], agent: AgentFolder, seccomp: int | None) -> Findings:
    """Run the probing program by that command line, in that agent's folder.

    `seccomp` is the file descriptor named in the command. Takes about 0.1 s.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = {
            "port": listener.getsockname()[1],
            # Not our process id: in a container it is small, and somebody inside may have the same one.
            "pid_namespace": os.readlink("/proc/self/ns/pid"),  # noqa: PTH115
            "file": str(agent.root / "config"),
        }
        try:
            popen = _spawn(command, seccomp)
        except OSError as error:
            return Findings(failure=str(error))
        try:
            output, faults = await STARTS.run(popen.communicate, json.dumps(asked).encode(), TIMEOUT)
        except subprocess.TimeoutExpired:
            popen.kill()
            await STARTS.run(popen.communicate)
            return Findings(failure=f"the sandbox did not answer within {TIMEOUT:.0f} s")
    if popen.returncode:
        return Findings(
            failure=faults.decode("utf-8", "replace").strip()[-500:] or f"exit code {popen.returncode}"
        )
    owner = (agent.root / "tmp" / TRACE).lstat().st_uid
    return Findings(
        holes=tuple(find_holes(json.loads(output), filtered=seccomp is not None)),
        own_uid=owner != os.getuid(),
        hardened=_has_ctypes(),
    )


def _spawn(command: Sequence[str], seccomp: int | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own command line
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=LAUNCH_ENVIRONMENT,
        cwd="/",
        pass_fds=[] if seccomp is None else [seccomp],
    )


def find_holes(seen: dict[str, object], *, filtered: bool, uid: int = INSIDE_ID) -> list[str]:
    """What the probing program reports, against what it may have seen; `uid` is its own, seen from inside."""
    expected: dict[str, tuple[object, ...]] = {
        "uid": (uid,),
        "interfaces": (["lo"],),
        "connect_host": ("ECONNREFUSED",),
        "connect_out": ("ENETUNREACH",),
        "host_processes": (False,),
        "read_host_file": ("ENOENT", "EACCES"),
        "write_system": ("EROFS", "EACCES"),
        "capabilities": (0,),
        "no_new_privileges": (1,),
        "filter": (2 if filtered else 0,),
        "hostname": ("agent",),
    }
    if filtered:
        expected["vsock"] = ("EAFNOSUPPORT",)
    return [
        f"{name} is {seen[name]!r}"
        for name, values in expected.items()
        if name in seen and seen[name] not in values
    ]


def _has_ctypes() -> bool:
    try:
        import ctypes  # noqa: F401
    except ImportError:
        return False
    return True


def judge(found: Findings, missing: tuple[str, ...], *, root: bool) -> Isolation:
    """The findings in words, and the level that they amount to."""
    if found.failure is not None:
        advice = advise(found.failure, root=root)
        return Isolation(
            "none", f"No sandbox can be made on this machine. {advice}", missing=(found.failure,)
        )
    if found.holes or (root and not found.own_uid):
        holes = found.holes or ("the sandbox keeps the platform's own uid",)
        return Isolation(
            "none", "The sandbox does not hold on this machine: see what it could do.", missing=holes
        )
    if not found.hardened:
        missing += ("the supervisor is within the agent's reach: this Python has no ctypes",)
    limited = root and not any("hard" in line for line in missing)
    guarantees = [
        "its own files: of the machine's, only programs and libraries, read-only",
        "its own processes, users and host name: no other process is visible",
        "no network: the model through the broker, the internet only through the proxy where it is allowed",
        "no capabilities, no new privileges, no nested namespaces",
    ]
    if not any("filter" in line for line in missing):
        guarantees.append("a filter for system calls that agents have no use for")
    if not any(line.startswith(NO_QUOTA) for line in missing):
        guarantees.append("a disk of its own, whose size the kernel enforces")
    if not root:
        return Isolation(
            "sandbox (user)",
            "Each agent runs in a sandbox of its own, without network; memory and CPU have no hard limit.",
            tuple(guarantees),
            missing,
        )
    guarantees.append("a user id of its own on this machine")
    if limited:
        guarantees.append("hard limits of memory, CPU and processes")
    return Isolation(
        "sandbox (root)",
        "Each agent runs in a sandbox of its own, without network, under a user id of its own"
        + (", with hard limits of memory, CPU and processes." if limited else "."),
        tuple(guarantees),
        missing,
    )


def advise(failure: str, *, root: bool) -> str:
    """What the operator can do about a sandbox that could not be made."""
    if "setpriv: not found" in failure:
        return "The command setpriv is missing: install the package util-linux."
    if _setting("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            "AppArmor forbids user namespaces (Ubuntu 23.10 and newer): install the system's bubblewrap with "
            "its profile (`sudo apt install bubblewrap apparmor-profiles`) or allow them: "
            "`sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`."
        )
    if _setting("kernel/unprivileged_userns_clone") == "0":
        return "User namespaces are switched off: `sudo sysctl -w kernel.unprivileged_userns_clone=1`."
    if _setting("user/max_user_namespaces") == "0":
        return "User namespaces are switched off: `sudo sysctl -w user.max_user_namespaces=15000`."
    if "mount proc" in failure:
        return (
            "This looks like a container that hides parts of /proc: run OCMT on the machine itself, or the "
            "container with `--security-opt systempaths=unconfined --security-opt seccomp=unconfined`."
        )
    if "namespace" in failure or "Operation not permitted" in failure:
        return (
            "Making namespaces is not permitted here; in a container, run it with "
            "`--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or run OCMT on the "
            "machine itself."
        )
    if root and "Permission denied" in failure:
        return "A program or folder of OCMT cannot be reached by the agents' user ids: look at its parents."
    return "bubblewrap says what is wrong: " + failure.splitlines()[-1]


def _setting(name: str) -> str | None:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return None
