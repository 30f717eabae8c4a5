"""What a container of ours is, in the words of Docker's API, and what it is worth. Pure but for `OwnFiles`.

An agent sees the image (read-only), its own folders, a /tmp of its own, and no network. No secret may appear
in a description: `docker inspect` shows it to everybody who may use Docker.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocmt.errors import SetupProblem
from ocmt.runtimes.base import AgentSpec, Isolation
from ocmt.runtimes.bubblewrap import HOME, EtcFolder
from ocmt.runtimes.folders import AgentFolder
from ocmt.runtimes.probe import NO_QUOTA
from ocmt.runtimes.rendezvous import NAME

LABEL = "org.ocmt.installation"
USER_LABEL = "org.ocmt.user"
CONTROL = "/run/ocmt"
CACHE = "compile-cache"
OF_THE_AGENT = ("home", "workspace", "state", CACHE)
PYTHON = "/usr/bin/python3"
"""In the image, as is /supervisor/main.py (see agent/Dockerfile)."""
SUPERVISOR = (PYTHON, "-I", "-S", "/supervisor/main.py", f"{CONTROL}/{NAME}")
SHARED_MEMORY = 256 * 1024 * 1024


@dataclass(frozen=True)
class OwnFiles:
    """An agent's folder, as its container gets it."""

    root: Path
    uid: int | None
    """The host uid of the agent; None: that of this process."""
    inside: int
    """The uid and gid that it sees as its own."""

    @property
    def folder(self) -> AgentFolder:
        """The part that all runtimes share."""
        return AgentFolder(self.root, self.uid, OF_THE_AGENT)

    @property
    def control(self) -> Path:
        """Where the platform waits for the supervisor's call."""
        return self.root / "control"

    @property
    def etc(self) -> EtcFolder:
        """Its own /etc/passwd and the like: nobody in the image has its uid."""
        return EtcFolder(self.root / "etc", self.inside)

    @property
    def bound(self) -> tuple[Path, ...]:
        """The exact paths that its container may have of the data folder."""
        names = ("home", "workspace", "state", "config", CACHE)
        return (*(self.root / name for name in names), self.control, *self.etc.files)

    def prepare(self, config: str) -> None:
        """Make what is missing. Blocks. Raises: SetupProblem where the folder cannot be written."""
        self.folder.prepare(config, compile_cache=None)
        try:
            for path in (self.control, self.etc.folder):
                path.mkdir(mode=0o755, exist_ok=True)
                path.chmod(0o755)  # its parent lets only the agent's own uid through
            self.etc.write()
        except OSError as error:
            raise SetupProblem(f"{self.root} cannot be written: {error.strerror}.") from error


@dataclass(frozen=True)
class Daemon:
    """What matters of the daemon that runs the containers."""

    podman: bool = False
    rootless: bool = False
    remaps: bool = False
    """Whether it gives containers other user ids than the host's (`userns-remap`)."""
    missing: tuple[str, ...] = ()


def read_about(info: dict[str, Any]) -> Daemon:
    """`GET /info` → what we want to know of it."""
    options = " ".join(info.get("SecurityOptions") or ())
    missing = [
        f"no hard {name} limit: this Docker has no control group for it"
        for name, known in (
            ("memory", info.get("MemoryLimit")),
            ("CPU", info.get("CpuCfsQuota", info.get("CPUCfsQuota"))),
            ("process", info.get("PidsLimit")),
        )
        if not known
    ]
    if "seccomp" not in options:
        missing.append("no system call filter of Docker's own")
    missing.append(NO_QUOTA)
    return Daemon(
        podman="podman" in str(info.get("InitBinary", "")) or "BuildahVersion" in info,
        rootless="rootless" in options,
        remaps="name=userns" in options,
        missing=tuple(missing),
    )


def describe(spec: AgentSpec, files: OwnFiles, *, image: str, label: str, daemon: Daemon) -> dict[str, Any]:
    """The container that runs this agent's supervisor: the body of `POST /containers/create`."""
    return {
        "Image": image,
        "Entrypoint": list(SUPERVISOR),
        "User": f"{files.inside}:{files.inside}",
        "WorkingDir": "/",
        "Hostname": "agent",
        "Labels": {LABEL: label, USER_LABEL: str(spec.user_id)},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": "none",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": False,
            "Init": True,
            "IpcMode": "private",
            "Memory": spec.memory_bytes,
            "MemorySwap": 2 * spec.memory_bytes,
            "NanoCpus": int(spec.cpus * 1e9),
            "PidsLimit": spec.pids,
            "OomScoreAdj": 800,
            "Ulimits": [
                {"Name": "core", "Soft": 0, "Hard": 0},
                {"Name": "fsize", "Soft": spec.disk_bytes, "Hard": spec.disk_bytes},
            ],
            "ShmSize": SHARED_MEMORY,
            "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,size=256m,mode=1777"},  # noqa: S108 - the container's
            "Mounts": [_mount(*one) for one in _mounts(files)],
            "RestartPolicy": {"Name": "no"},
            # What the supervisor itself says; the agent's output goes another way, see `Supervised`.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "1"}},
            **_user_namespace(daemon),
        },
    }


def _user_namespace(daemon: Daemon) -> dict[str, str]:
    """Have the agent's uid mean the same inside and outside: its folders are bound to it."""
    if daemon.podman and daemon.rootless:
        return {"UsernsMode": "keep-id"}
    return {"UsernsMode": "host"} if daemon.remaps else {}


def _mounts(files: OwnFiles) -> list[tuple[Path, str, bool]]:
    """(on the host, inside, read-only). Every source's parent is the platform's: no agent can replace one."""
    own = [(files.root / name, f"{HOME}/{name}", False) for name in ("workspace", "state")]
    etc = [(files.etc.folder / name, f"/etc/{name}", True) for name in files.etc.names]
    return [
        (files.root / "home", HOME, False),
        *own,
        (files.root / "config", f"{HOME}/config", True),
        (files.root / CACHE, "/tmp/node-compile-cache", False),  # noqa: S108 - the container's
        (files.control, CONTROL, True),
        *etc,
    ]


def bound_paths(description: dict[str, Any]) -> list[Path]:
    """Every host path that a finished description has Docker bind, however it is written."""
    host = description["HostConfig"]
    sources = [one["Source"] for one in host.get("Mounts") or () if one["Type"] == "bind"]
    sources += [words.partition(":")[0] for words in host.get("Binds") or ()]
    return [Path(source) for source in sources if source.startswith("/")]


def _mount(source: Path, target: str, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": read_only}


def judge(
    daemon: Daemon, *, holes: Sequence[str], own_uid: bool, hardened: bool, filtered: bool
) -> Isolation:
    """What was seen from inside a container of ours, in the words that people read."""
    if holes:
        return Isolation(
            "none", "The container does not hold on this machine: see what it could do.", missing=tuple(holes)
        )
    missing = list(daemon.missing)
    guarantees = [
        "its own files: the agent's image, read-only, and its own folders",
        "its own processes and host name: no other process is visible",
        "no network: the model through the broker, the internet only through the proxy where it is allowed",
        "no capabilities, no new privileges, Docker's own filter for system calls",
    ]
    if filtered:
        guarantees.append("a second filter for system calls that agents have no use for")
    else:
        missing.append("no second system call filter: libseccomp is missing; install libseccomp2")
    if own_uid:
        guarantees.append("a user id of its own on this machine")
    else:
        missing.append("no user id of its own: the platform does not run as root")
    if not hardened:
        missing.append("the supervisor is within the agent's reach: the image's Python has no ctypes")
    if not any("hard" in line for line in missing):
        guarantees.append("hard limits of memory, CPU and processes")
    return Isolation(
        "docker",
        "Each agent runs in a hardened container of its own, without network"
        + (", under a user id of its own." if own_uid else "."),
        tuple(guarantees),
        tuple(missing),
    )
