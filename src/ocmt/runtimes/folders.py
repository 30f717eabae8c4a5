"""An agent's folder on this machine: `<data>/agents/<user id>/`.

The folder itself, `config/` and `logs/` belong to the platform; the agent writes `home/`, `workspace/`,
`state/` and `tmp/`, each of which is bound into its sandbox by itself. So nothing that the platform opens
here by name can have been replaced by a link of the agent's making; inside the four, the platform opens
nothing by name.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ocmt.errors import SetupProblem
from ocmt.runtimes.spare_mounts import IN_HOME

if TYPE_CHECKING:
    from collections.abc import Iterator

OF_THE_AGENT = ("home", "workspace", "state", "tmp")
INSIDE_ID = 1000
"""The uid and gid that an agent sees as its own."""
FIRST_UID = 0x70000000
"""As root, the agent with slot N runs as host uid FIRST_UID + N: far above what distributions hand out."""
_ROOM_FOR_CACHE = 256 * 1024**2
CACHE_FOLDER = "node-compile-cache"
"""Node's own name, below its temporary folder. What is in there is bound to the paths and the uid inside."""


@dataclass(frozen=True)
class AgentFolder:
    """Where one agent's files are, and as whom it runs."""

    root: Path
    uid: int | None
    """The host uid (and gid) of the agent; None: that of this process."""
    of_the_agent: tuple[str, ...] = OF_THE_AGENT
    """The names of those folders that the agent writes."""
    logs_at: Path | None = None
    """Where the gateway's output goes; None: into the folder itself."""

    @property
    def logs(self) -> Path:
        """The gateway's output; not visible from inside."""
        return self.logs_at or self.root / "logs"

    @property
    def written(self) -> list[Path]:
        """The folders that the agent writes."""
        return [self.root / name for name in self.of_the_agent]

    def prepare(self, config: str, *, compile_cache: Path | None) -> None:
        """Make what is missing, hand it to the agent's uid, write the configuration. Blocks; meant for a
        thread.

        Raises: SetupProblem where the folder cannot be written.
        """
        try:
            self.make_root()
            self._make(self.root / "config", 0o750, group=True)
            self._make(self.logs, 0o700)
            for name in self.of_the_agent:
                self._hand_over(self.root / name, name, compile_cache)
            if "home" in self.of_the_agent:
                self._make_places()
            self._write_config(config)
        except OSError as error:
            raise SetupProblem(
                f"The agents' folder {self.root.parent} cannot be written ({error.strerror}): "
                "check its owner and the space on its disk.",
                detail=repr(error),
            ) from error

    def make_root(self) -> None:
        """The folder itself, which the agent's uid may only pass through. Blocks. Raises: OSError."""
        self._make(self.root, 0o710, group=True)

    def _make(self, folder: Path, mode: int, *, group: bool = False) -> None:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
        if self.uid is not None:
            os.chown(folder, os.getuid(), self.uid if group else os.getgid())
        folder.chmod(mode)

    def _hand_over(self, folder: Path, name: str, compile_cache: Path | None) -> None:
        """A folder of the agent's: a new one arrives complete or not at all, an old one may change hands."""
        if not folder.exists():
            unfinished = folder.with_name(f".{name}.{secrets.token_hex(4)}")
            unfinished.mkdir(0o700)
            if name == "tmp" and compile_cache is not None:
                _copy_cache(compile_cache, unfinished / CACHE_FOLDER)
            self._change_hands(unfinished)
            unfinished.rename(folder)
        elif folder.lstat().st_uid != (os.getuid() if self.uid is None else self.uid):
            self._change_hands(folder)

    def _make_places(self) -> None:
        """Move aside what is no folder where folders are mounted inside; the mount makes what is missing.

        An agent that runs cannot change them, for they are mounted over, but an archive or a snapshot brings
        a `home/` with whatever its user likes. bubblewrap follows a link there, to anything of the machine's.
        """
        with _opened_by_its_owner(self.root / "home") as home:
            for name in IN_HOME:
                try:
                    found = os.stat(name, dir_fd=home, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(found.st_mode):
                    continue
                aside = f"{name}.moved-{secrets.token_hex(4)}"
                os.rename(name, aside, src_dir_fd=home, dst_dir_fd=home)
                os.mkdir(name, 0o755, dir_fd=home)
                if self.uid is not None:
                    os.chown(name, self.uid, self.uid, dir_fd=home, follow_symlinks=False)

    def _change_hands(self, folder: Path) -> None:
        """Give it and all below to the agent's uid; never follows a link."""
        if self.uid is None:
            return
        for _, folders, files, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
            for name in (*folders, *files):
                os.chown(name, self.uid, self.uid, dir_fd=descriptor, follow_symlinks=False)
        os.chown(folder, self.uid, self.uid, follow_symlinks=False)

    def _write_config(self, config: str) -> None:
        """Complete or not at all, for the agent alone; the folder is the platform's, so no link can wait."""
        with _opened(self.root / "config") as folder:
            if self._has_config(folder, config):
                return  # OpenClaw takes a file that was written anew for a change
            temporary = f".openclaw.json.{secrets.token_hex(4)}"
            flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                number = os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                # The agent has used up the number of files of its disk. It must still be able to start.
                temporary = "openclaw.json"
                number = os.open(temporary, flags | os.O_TRUNC, dir_fd=folder)
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(config)
                if self.uid is not None:
                    os.fchown(file.fileno(), self.uid, self.uid)
            os.rename(temporary, "openclaw.json", src_dir_fd=folder, dst_dir_fd=folder)

    def _has_config(self, folder: int, config: str) -> bool:
        """Whether the agent's configuration is just this already."""
        try:
            number = os.open("openclaw.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            return False
        with os.fdopen(number, "rb") as file:
            wanted = config.encode()
            owned = self.uid is None or os.fstat(number).st_uid == self.uid
            return owned and file.read(len(wanted) + 1) == wanted


def _copy_cache(cache: Path, place: Path) -> None:
    """The cache only makes a start faster, so a full disk does without. Raises: OSError."""
    try:
        shutil.copytree(cache, place)
    except (shutil.Error, OSError):
        if os.statvfs(place.parent).f_bavail * os.statvfs(place.parent).f_frsize > _ROOM_FOR_CACHE:
            raise
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)


@contextmanager
def _opened_by_its_owner(folder: Path) -> Iterator[int]:
    """That folder, also where its owner, who may be us in a sandbox, has shut it."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            Path(f"/proc/self/fd/{handle}").chmod(0o700)
        with _opened(folder) as number:
            yield number
    finally:
        os.close(handle)


def last_lines(files: Sequence[Path], lines: int, *, most: int = 256 * 1024) -> str:
    """The last lines of a rotated log, oldest file first; reads at most `most` bytes of each."""
    text = b""
    for path in files:
        try:
            with path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - most))
                text += file.read(most)
        except FileNotFoundError:
            continue
    return "\n".join(text.decode("utf-8", "replace").splitlines()[-lines:])
