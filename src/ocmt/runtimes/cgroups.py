"""Hard limits for agents, by control groups, where the platform runs as root.

Version 1 and version 2 both occur, also side by side. Version 1 groups lie below the platform's own group (so
that a limit around the platform holds for its agents too), version 2 groups below the root, because a version
2 group with processes of its own cannot hand controllers down. Their freezers are not used: what they let go
on was slower afterwards than what SIGSTOP had held (docs/performance.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

LIMITS = ("memory", "cpu", "pids")
REMOVE_ATTEMPTS = 50
"""The last process of a group may still be on its way out of it."""
_CPU_PERIOD = 100_000


@dataclass(frozen=True)
class Hierarchy:
    """The folders below which this platform makes groups: one a controller, and that of version 2."""

    controllers: dict[str, tuple[int, Path]] = field(default_factory=dict)
    """Controller → (version 1 or 2, the folder for our groups)."""
    unified: Path | None = None
    missing: tuple[str, ...] = ()
    """Limits that this machine does not offer to us, each with the reason."""

    def group(self, name: str) -> Group:
        """The group of one agent; nothing is made yet."""
        return Group(self, name)

    def stale(self) -> list[Group]:
        """Groups that a killed platform has left behind."""
        names = {entry.name for folder in self._homes() for entry in folder.iterdir() if entry.is_dir()}
        return [self.group(name) for name in sorted(names)]

    def remove(self) -> None:
        """Remove the installation's own groups, once the agents' are gone."""
        for folder in self._homes():
            with contextlib.suppress(OSError):  # not empty: the next start cleans up
                folder.rmdir()

    def _homes(self) -> set[Path]:
        homes = {folder for _, folder in self.controllers.values()}
        return homes | {self.unified} if self.unified else homes


def find_hierarchy(installation: str, *, mounts: str | None = None) -> Hierarchy:
    """What this machine offers to root; makes the installation's own (empty) groups.

    `installation` is a name that no other installation on this machine has. `mounts` is for tests.
    """
    table = mounts if mounts is not None else Path("/proc/self/mounts").read_text()
    own = _own_groups()
    controllers: dict[str, tuple[int, Path]] = {}
    unified: Path | None = None
    missing: list[str] = []
    for line in table.splitlines():
        _, point, kind, options, *_ = line.split()
        if kind == "cgroup":
            for name in {*LIMITS} & set(options.split(",")):
                below = Path(point) / own.get(name, "").lstrip("/")
                home = (below if below.is_dir() else Path(point)) / installation
                if _make(home):
                    controllers[name] = (1, home)
        elif kind == "cgroup2":
            home = Path(point) / installation
            if _make(home):
                unified = home
                for name in _hand_down(Path(point), home):
                    controllers.setdefault(name, (2, home))
    for name in LIMITS:
        if name not in controllers:
            missing.append(
                f"no hard {name} limit: the control group controller “{name}” is not available to us"
            )
    return Hierarchy(controllers, unified, tuple(missing))


def _own_groups() -> dict[str, str]:
    """Controller → the path of the version 1 group that this process is in."""
    lines = (line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines())
    return {name: path for _, names, path in lines for name in names.split(",")}


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return False
    return os.access(folder / "cgroup.procs", os.W_OK)


def _hand_down(root: Path, home: Path) -> set[str]:
    """Have the version 2 root and our folder in it pass controllers on; those that do."""
    offered = set((root / "cgroup.controllers").read_text().split())
    done = set()
    for name in LIMITS:
        if name in offered:
            with contextlib.suppress(OSError):  # busy, as in a container's group: then this limit is missing
                (root / "cgroup.subtree_control").write_text(f"+{name}")
                (home / "cgroup.subtree_control").write_text(f"+{name}")
                done.add(name)
    return done


class Group:
    """One agent's control group, in every hierarchy that has one."""

    def __init__(self, hierarchy: Hierarchy, name: str) -> None:
        self._hierarchy = hierarchy
        self.name = name
        self._unified = hierarchy.unified / name if hierarchy.unified else None
        self._folders = {folder / name for _, folder in hierarchy.controllers.values()}
        if self._unified:
            self._folders.add(self._unified)

    def create(self, *, memory_bytes: int, cpus: float, pids: int) -> list[Path]:
        """Make it and set its limits, also anew. Returns the files into which a process joins by its id.

        Raises: OSError, also where it holds more memory already than it may.
        """
        for folder in self._folders:
            folder.mkdir(exist_ok=True)
        quota = str(int(cpus * _CPU_PERIOD))
        settings = {
            ("memory", 1): [("memory.limit_in_bytes", str(memory_bytes))],
            ("memory", 2): [("memory.max", str(memory_bytes))],
            ("cpu", 1): [("cpu.cfs_period_us", str(_CPU_PERIOD)), ("cpu.cfs_quota_us", quota)],
            ("cpu", 2): [("cpu.max", f"{quota} {_CPU_PERIOD}")],
            ("pids", 1): [("pids.max", str(pids))],
            ("pids", 2): [("pids.max", str(pids))],
        }
        self._write_swap("-1", "max")  # version 1 takes no limit of memory that is above that of both
        for controller, (version, folder) in self._hierarchy.controllers.items():
            for file, value in settings.get((controller, version), []):
                (folder / self.name / file).write_text(value)
        # As much swap as memory.
        self._write_swap(str(2 * memory_bytes), str(memory_bytes))
        return sorted(folder / "cgroup.procs" for folder in self._folders)

    def _write_swap(self, both: str, alone: str) -> None:
        """Where the machine has any and the kernel counts it. Version 1 counts it with the memory."""
        version, folder = self._hierarchy.controllers.get("memory", (0, Path()))
        file, value = ("memory.swap.max", alone) if version == 2 else ("memory.memsw.limit_in_bytes", both)
        if version and (folder / self.name / file).exists():
            (folder / self.name / file).write_text(value)

    def kill(self) -> bool:
        """SIGKILL to every process of the group; False where this kernel cannot (before 5.14)."""
        file = self._unified / "cgroup.kill" if self._unified else None
        if file is None or not file.exists():
            return False
        file.write_text("1")
        return True

    def pids(self) -> set[int]:
        """The processes in it."""
        found: set[int] = set()
        for folder in self._folders:
            with contextlib.suppress(FileNotFoundError):
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        return found

    def memory(self) -> int | None:
        """Bytes of anonymous memory in use, without the page cache; None where nobody counts them."""
        version, folder = self._hierarchy.controllers.get("memory", (0, Path()))
        if not version:
            return None
        try:
            counts = (folder / self.name / "memory.stat").read_text()
        except OSError:
            return None
        found = re.search(r"^anon (\d+)$" if version == 2 else r"^total_rss (\d+)$", counts, re.MULTILINE)
        return int(found[1]) if found else None

    def remove(self) -> bool:
        """Remove the empty group; False while there is still something in it."""
        for folder in self._folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
        return True


def end_leftover(group: Group) -> None:
    """Agents of a platform that was killed are ending already. Blocks, up to a second."""
    with contextlib.suppress(OSError):  # gone meanwhile
        group.kill()
    for _ in range(REMOVE_ATTEMPTS):
        if group.remove():
            return
        time.sleep(0.02)
