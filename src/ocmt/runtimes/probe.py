"""What a sandbox is worth on this machine: found by running one and looking at the world from inside.

`look_around` runs it, `judge` puts the findings into the words that `ocmt doctor`, `GET /agent` and the UI
show.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocmt.platform.work import STARTS
from ocmt.runtimes.base import Isolation
from ocmt.runtimes.bubblewrap import LAUNCH_ENVIRONMENT
from ocmt.runtimes.folders import INSIDE_ID, AgentFolder
from ocmt.runtimes.guard import DATA, Private, home_folders, place_inside

TIMEOUT = 20.0
TRACE = "probe"

PROBE_SCRIPT = """
import collections, errno, json, os, re, socket, sys, time

MOST_NAMES, MOST_SECONDS = 30000, 1.5  # of the search for private folders

def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
    return "done"

def plain(text):
    octal = lambda found: bytes([int(found[1], 8)])
    return os.fsdecode(re.sub(rb"\\\\([0-7]{3})", octal, os.fsencode(text)))

def is_that(path, one):
    # A name that may not be looked at is there all the same.
    try:
        found = os.lstat(path)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.ENOTDIR)
    return [found.st_dev, found.st_ino] == one["inode"]

def mounts():
    with open("/proc/self/mountinfo", errors="surrogateescape") as lines:
        for line in lines:
            words = line.split(" ")
            yield words[2], plain(words[3]).rstrip("/"), plain(words[4])

def by_place(sought):
    for device, root, point in mounts():
        for one in sought:
            if one["device"] == device and (one["within"] + "/").startswith(root + "/"):
                path = point.rstrip("/") + one["within"][len(root):]
                if is_that(path, one):
                    yield one["what"] + " at " + path

def by_inode(sought):
    wanted = {tuple(one["inode"]): one["what"] for one in sought}
    devices, numbers = {device for device, _ in wanted}, {number for _, number in wanted}
    folders, names, end = collections.deque(), 0, time.monotonic() + MOST_SECONDS
    for _, _, point in mounts():
        try:
            found = os.lstat(point)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) in wanted:
            yield wanted[found.st_dev, found.st_ino] + " at " + point
        elif found.st_dev in devices:
            folders.append(point)
    while folders and names < MOST_NAMES and time.monotonic() < end:
        try:
            entries = list(os.scandir(folders.popleft()))
        except OSError:
            continue
        names += len(entries)
        for entry in entries:
            if entry.inode() in numbers:
                found = entry.stat(follow_symlinks=False)
                if (found.st_dev, found.st_ino) in wanted:
                    yield wanted[found.st_dev, found.st_ino] + " at " + entry.path
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)

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
    "sees": sorted({*by_place(asked["private"]), *by_inode(asked["private"])})[:10],
    "namespaces": int(open("/proc/sys/user/max_user_namespaces").read()),
}))
"""
NO_QUOTA = "no quota of disk space: an agent over its bound is ended within seconds, and until then it writes"
PROBE_PROGRAM = ("-c", PROBE_SCRIPT)


@dataclass(frozen=True)
class Findings:
    """What the probing sandbox saw, or why there was none."""

    failure: str | None = None
    refused: str | None = None
    """Why the platform would not start one, in words for the operator."""
    holes: tuple[str, ...] = ()
    """What it could do and must not."""
    own_uid: bool = False
    """Whether it ran as a host uid of its own."""
    hardened: bool = False
    """Whether Python can keep the supervisor out of the agent's reach."""


@contextmanager
def questions(agent: AgentFolder, data: Path, private: Sequence[Private]) -> Iterator[dict[str, Any]]:
    """What the probing program is asked (JSON), with everything in place that it must not find.

    A canary lies in the data folder meanwhile: a file that did not exist when the sandbox was described.
    Blocks, briefly. Raises: OSError where the data folder cannot be written.
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        tempfile.NamedTemporaryFile(prefix=".canary-", dir=data) as canary,
    ):
        os.fchmod(canary.fileno(), 0o644)
        hidden = [Private(Path(canary.name), DATA), *private]
        yield {
            "port": listener.getsockname()[1],
            # Not our process id: in a container it is small, and somebody inside may have the same one.
            "pid_namespace": os.readlink("/proc/self/ns/pid"),  # noqa: PTH115
            "file": str(agent.root / "config"),
            "private": [_sought(one) for one in hidden if one.path.exists()],
        }


def _sought(one: Private) -> dict[str, Any]:
    device, within, inode = place_inside(one.path)
    return {"what": one.what, "device": device, "within": within, "inode": inode}


async def look_around(
    command: Sequence[str], agent: AgentFolder, seccomp: int | None, data: Path, private: Sequence[Private]
) -> Findings:
    """Run the probing program by that command line, in that agent's folder.

    `seccomp` is the file descriptor named in the command. Takes about 0.2 s.
    """
    with questions(agent, data, private) as asked:
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
        "sees": ([],),
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
    if found.refused is not None:
        return Isolation("none", found.refused, missing=(found.refused,))
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
        return closed_folder(failure) or (
            "A program or folder of OCMT cannot be reached by the agents' user ids: look at its parents."
        )
    return "bubblewrap says what is wrong: " + failure.splitlines()[-1]


def closed_folder(failure: str) -> str | None:
    """Which folder or file keeps agents' user ids out, from the path that the failure names."""
    found = re.search(r"(/[^:]+): Permission denied", failure)
    if found is None:
        return None
    path = Path(found[1])
    for place in (*reversed(path.parents), path):
        try:
            mode = place.stat().st_mode
        except OSError:
            return None
        needed = stat.S_IXOTH | (stat.S_IROTH if place == path else 0) if stat.S_ISDIR(mode) else stat.S_IROTH
        if mode & needed != needed and not _is_private_home(place):
            right = "rx" if stat.S_ISDIR(mode) else "r"
            return (
                f"{place} has the mode {stat.S_IMODE(mode):04o}, so agents' user ids cannot reach {path}: "
                f"run `chmod o+{right} {place}`."
            )
    return None


def _is_private_home(place: Path) -> bool:
    """Whether the folder is closed for good reason: the platform itself makes a way around it."""
    return place in home_folders()


def _setting(name: str) -> str | None:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return None
