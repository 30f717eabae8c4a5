"""Lets a process that root starts as somebody else reach folders below private ones, such as /root.

Root's data folder and virtual environment often lie where an unprivileged user may not pass. Instead of
opening those folders to everybody, this process moves into a mount namespace of its own and mounts what is
needed at a place that can be reached; nobody outside sees it, and it ends with the process.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import stat
import threading
from pathlib import Path

from ocmt.errors import SetupProblem

VIEW_FOLDER = Path("/run/ocmt-view")

_CLONE_NEWNS = 0x00020000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 0x2, 0x4, 0x1000, 0x4000, 0x40000


class ReachablePaths:
    """`enter` once at the start, before any thread; then `view` as often as you like."""

    def __init__(self, folder: Path = VIEW_FOLDER) -> None:
        self._folder = folder
        self._entered = False
        self._obstacle: str | None = None
        self._views: dict[Path, Path] = {}
        self._numbers = itertools.count(1)

    def enter(self) -> None:
        """As root: give this process mounts of its own. Never fails: `view` tells what is missing."""
        if os.geteuid() != 0 or self._entered:
            return
        if threading.active_count() > 1:
            self._obstacle = "other threads run already"
            return
        try:
            _call("unshare", _CLONE_NEWNS)
            # Nothing that we mount may show outside, even where / is shared as systemd has it.
            _mount(None, Path("/"), None, _MS_REC | _MS_PRIVATE)
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            if not self._folder.parent.stat().st_mode & stat.S_IXOTH:
                self._folder.parent.chmod(0o755)  # made just now, under a strict umask
            _mount("tmpfs", self._folder, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=0755,size=64k")
        except OSError as error:
            self._obstacle = f"{error.strerror} (CAP_SYS_ADMIN)"
            return
        self._entered = True

    def view(self, path: Path) -> Path:
        """A path to the same file or folder by which any user can come to it; its own mode still decides.

        The path itself where others reach it already, or where we are not root. What is mounted below it
        afterwards is not seen. Raises: SetupProblem where it cannot be made reachable, OSError where there is
        no such path.
        """
        path = path.absolute()
        if os.geteuid() != 0:
            return path
        path = path.resolve(strict=True)
        for known, alias in self._views.items():
            mounted = path.is_relative_to(known) and known.exists() and alias.samefile(known)
            if mounted and _passable(known, path):
                return alias / path.relative_to(known)
        if _passable(Path("/"), path):
            return path
        if not self._entered:
            why = self._obstacle or "`enter` was not called"
            raise SetupProblem(
                "As root, ocmt runs its database and agents as users without rights; they cannot come to "
                f"{path}: use a folder that others can pass through, like /var/lib/ocmt.",
                detail=why,
            )
        alias = self._folder / str(next(self._numbers))
        if path.is_dir():
            alias.mkdir(mode=0o755)
        else:
            alias.touch(mode=0o644)  # what is mounted there has modes of its own
        try:
            _mount(str(path), alias, None, _MS_BIND | _MS_REC)
        except OSError as error:
            raise SetupProblem(f"{path} could not be made reachable: {error.strerror}.") from error
        self._views[path] = alias
        return alias


def _passable(top: Path, path: Path) -> bool:
    """Whether everybody may pass every folder strictly between `top` and `path`, `/` included."""
    parents = [parent for parent in path.parents if parent == Path("/") or parent not in (top, *top.parents)]
    if top != Path("/"):
        parents = [parent for parent in parents if parent != Path("/")]
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in parents)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def _mount(
    source: str | None, target: Path, kind: str | None, flags: int, options: str | None = None
) -> None:
    def encoded(text: str | None) -> bytes | None:
        return None if text is None else os.fsencode(text)

    _call(
        "mount",
        encoded(source),
        encoded(str(target)),
        encoded(kind),
        ctypes.c_ulong(flags),
        encoded(options),
    )
