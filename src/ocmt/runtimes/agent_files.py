"""Reads and replaces an agent's files on this machine's disk, as a platform that may run as root.

An untrusted agent wrote them. So nothing is opened by a path that leads through its folders: each step is
opened by itself, never through a link, and nothing is read that is no regular file of the agent's own. New
files are made in a folder that only the platform can enter, and put in place by renaming.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ocmt.errors import LimitReached
from ocmt.platform.disk import sync_file_system, sync_one
from ocmt.platform.work import Effort
from ocmt.runtimes.base import FILE_TREES, FilesChanged, FoundFile, Keep, LeftOut
from ocmt.runtimes.folders import AgentFolder
from ocmt.runtimes.removal import remove_tree

DEPTH = 100
"""Folders in folders: each level takes a file descriptor while it is looked at."""
LONGEST_PATH = 4000
PIECE = 1024 * 1024
MARK = "snapshot.json"
_MOST_OF_A_MARK = 256 * 1024 * 1024
_FRESH = ".fresh."
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""What the kernel says where there is no such thing, or a link where none may be."""


class FilesOnDisk:
    """AgentFiles below one agent's folder."""

    def __init__(self, folder: AgentFolder) -> None:
        self._folder = folder
        self._owner = os.geteuid() if folder.uid is None else folder.uid

    # Looking

    def scan(self, keep: Keep, effort: Effort) -> Iterator[FoundFile | LeftOut]:
        """See AgentFiles."""
        try:
            root = os.open(self._folder.root, _FOLDER)
        except FileNotFoundError:
            return
        try:
            for tree in FILE_TREES:
                with contextlib.suppress(FileNotFoundError):
                    yield from self._scan_tree(root, tree, keep, effort)
        finally:
            os.close(root)

    def _scan_tree(self, root: int, tree: str, keep: Keep, effort: Effort) -> Iterator[FoundFile | LeftOut]:
        """Depth first, without recursion: an agent may nest folders as deep as it likes.

        Of what is still to be looked at only names are held, and each is counted by `effort` as it is
        listed: memory is bounded over all levels together.
        """
        levels = [_Level(os.open(tree, _FOLDER, dir_fd=root), tree)]
        try:
            yield _found(tree, "folder", os.fstat(levels[0].number))
            levels[0].left = _names(levels[0].number, effort)
            while levels:
                level = levels[-1]
                if not level.left:
                    os.close(levels.pop().number)
                    continue
                name = level.left.pop()
                path = f"{level.path}/{name}"
                try:
                    status = os.stat(name, dir_fd=level.number, follow_symlinks=False)
                except FileNotFoundError as error:
                    raise _changed(path, error) from error
                if not keep(path, stat.S_ISDIR(status.st_mode)):
                    continue
                thing = self._look_at(level.number, name, path, status)
                if not isinstance(thing, FoundFile) or thing.kind != "folder":
                    yield thing
                    continue
                if len(levels) >= DEPTH:
                    raise LimitReached(
                        f"Your agent's folders are nested more than {DEPTH} deep, which cannot be kept: "
                        f"{_shown(path)}."
                    )
                try:
                    number = os.open(name, _FOLDER, dir_fd=level.number)
                except PermissionError:
                    yield LeftOut(path, "a folder that may not be read")
                    continue
                except OSError as error:
                    raise _changed(path, error) from error
                levels.append(_Level(number, path))
                yield thing
                levels[-1].left = _names(number, effort)
        finally:
            for level in levels:
                os.close(level.number)

    def _look_at(self, parent: int, name: str, path: str, status: os.stat_result) -> FoundFile | LeftOut:
        mode = status.st_mode
        if len(path) > LONGEST_PATH // 4 and len(os.fsencode(path)) > LONGEST_PATH:
            return LeftOut(path, "a path that is too long")
        if stat.S_ISREG(mode):
            if status.st_uid != self._owner:
                return LeftOut(path, "a file that belongs to somebody else")
            if os.geteuid() != 0 and not mode & stat.S_IRUSR:
                return LeftOut(path, "a file that may not be read")
            return _found(path, "file", status)
        if stat.S_ISDIR(mode):
            return _found(path, "folder", status)
        if stat.S_ISLNK(mode):
            try:
                target = os.readlink(name, dir_fd=parent)
            except OSError as error:
                raise _changed(path, error) from error
            return _found(path, "link", status)._replace(target=target)
        return LeftOut(path, _kind(mode))

    # Reading

    def read(self, found: FoundFile) -> Iterator[bytes]:
        """See AgentFiles."""
        try:
            number = self._open(found.path)
        except OSError as error:
            raise _changed(found.path, error) from error
        try:
            left = found.size
            self._check(number, found)
            while left:
                piece = os.read(number, min(left, PIECE))
                if not piece:
                    raise _changed(found.path)
                left -= len(piece)
                yield piece
            self._check(number, found)
        finally:
            os.close(number)

    def _check(self, number: int, found: FoundFile) -> None:
        now = os.fstat(number)
        seen = (found.size, found.mtime_ns, found.ctime_ns, found.inode)
        same = (now.st_size, now.st_mtime_ns, now.st_ctime_ns, now.st_ino) == seen
        if not (same and stat.S_ISREG(now.st_mode) and now.st_uid == self._owner):
            raise _changed(found.path)

    def peek(self, path: str, most: int) -> bytes | None:
        """See AgentFiles."""
        try:
            number = self._open(path)
        except OSError as error:
            if error.errno in (*_GONE, errno.EACCES):
                return None
            raise
        with os.fdopen(number, "rb") as file:
            status = os.fstat(number)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != self._owner:
                return None
            return file.read(most)

    def _open(self, path: str) -> int:
        """A file below the agent's folder, whatever it is, each folder on the way opened by itself."""
        *folders, name = path.split("/")
        number = os.open(self._folder.root, _FOLDER)
        try:
            for folder in folders:
                deeper = os.open(folder, _FOLDER, dir_fd=number)
                os.close(number)
                number = deeper
            return os.open(name, _FILE, dir_fd=number)
        finally:
            os.close(number)

    # Replacing, and the platform's own note

    def fresh(self) -> FreshFolder:
        """See AgentFiles."""
        self._folder.make_root()
        self.clear_away()
        return FreshFolder(self._folder, self._folder.root / f"{_FRESH}{secrets.token_hex(4)}")

    def clear_away(self) -> None:
        """See AgentFiles."""
        for leftover in self._folder.root.glob(f"{_FRESH}*"):
            remove_tree(leftover)

    def read_mark(self) -> bytes | None:
        """See AgentFiles."""
        try:
            with (self._folder.root / MARK).open("rb") as file:
                return file.read(_MOST_OF_A_MARK)
        except FileNotFoundError:
            return None

    def write_mark(self, mark: bytes | None) -> None:
        """See AgentFiles."""
        path = self._folder.root / MARK
        if mark is None:
            path.unlink(missing_ok=True)
        else:
            self._folder.make_root()
            unfinished = path.with_name(f".{MARK}")
            unfinished.unlink(missing_ok=True)
            with os.fdopen(os.open(unfinished, _NEW, 0o600), "wb") as file:
                file.write(mark)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        if self._folder.root.exists():
            sync_one(self._folder.root)


class FreshFolder:
    """FreshFiles in a folder beside the old ones that only the platform can enter."""

    def __init__(self, agent: AgentFolder, folder: Path) -> None:
        self._agent = agent
        self._folder = folder
        self._modes: list[tuple[str, int]] = []
        folder.mkdir(0o700)
        self._new = folder / "new"
        self._old = folder / "old"
        self._new.mkdir(0o700)
        self._old.mkdir(0o700)
        self._number = os.open(self._new, _FOLDER)

    def add_folders(self, folders: Iterable[tuple[str, int]]) -> None:
        """See FreshFiles."""
        for path, mode in folders:
            # They get the mode that they shall have when there is nothing more to write in them.
            os.mkdir(path, 0o700, dir_fd=self._number)
            self._modes.append((path, 0o700 if "/" not in path else mode & 0o777))

    def add_file(self, path: str, mode: int, mtime_ns: int, pieces: Iterable[bytes]) -> None:
        """See FreshFiles."""
        number = os.open(path, _NEW, 0o600, dir_fd=self._number)
        try:
            for piece in pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[os.write(number, rest) :]
            if self._agent.uid is not None:
                os.fchown(number, self._agent.uid, self._agent.uid)
            if mode & 0o777 != 0o600:
                os.fchmod(number, mode & 0o777)
            os.utime(number, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(number)

    def add_link(self, path: str, target: str) -> None:
        """See FreshFiles."""
        os.symlink(target, path, dir_fd=self._number)
        if self._agent.uid is not None:
            os.chown(path, self._agent.uid, self._agent.uid, dir_fd=self._number, follow_symlinks=False)

    def put_in_place(self) -> None:
        """See FreshFiles. `config/` stays: it is the platform's, and written anew at every start."""
        for path, mode in reversed(self._modes):
            number = os.open(path, _FOLDER, dir_fd=self._number)
            try:
                if self._agent.uid is not None:
                    os.fchown(number, self._agent.uid, self._agent.uid)
                os.fchmod(number, mode)
            finally:
                os.close(number)
        sync_file_system(self._new)
        for tree in FILE_TREES:
            if tree == "config":
                continue
            with contextlib.suppress(FileNotFoundError):
                (self._agent.root / tree).rename(self._old / tree)
            with contextlib.suppress(FileNotFoundError):
                (self._new / tree).rename(self._agent.root / tree)
        sync_one(self._agent.root)
        self._close()

    def discard(self) -> None:
        """See FreshFiles."""
        if self._number >= 0:
            self._close()
            remove_tree(self._folder)

    def _close(self) -> None:
        os.close(self._number)
        self._number = -1


class _Level:
    """An open folder on the way down, and what is left to look at in it."""

    __slots__ = ("left", "number", "path")

    def __init__(self, number: int, path: str) -> None:
        self.number = number
        self.path = path
        self.left: list[str] = []


def _names(number: int, effort: Effort) -> list[str]:
    """The names in that folder, the last one first."""
    names: list[str] = []
    with os.scandir(number) as entries:
        for entry in entries:
            effort.spend()
            names.append(entry.name)
    names.sort(reverse=True)
    return names


def _found(path: str, kind: str, status: os.stat_result) -> FoundFile:
    return FoundFile(
        path,
        kind,  # type: ignore[arg-type]
        status.st_mode & 0o777,
        status.st_size if kind == "file" else 0,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_ino,
    )


def _kind(mode: int) -> str:
    if stat.S_ISSOCK(mode):
        return "a socket"
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a device"


def _shown(path: str) -> str:
    """For a person: what cannot be shown is escaped, what is long is cut."""
    shown = ascii(path)[1:-1] if not path.isprintable() else path
    return shown if len(shown) <= 200 else f"{shown[:100]}…{shown[-90:]}"


def _changed(path: str, error: OSError | None = None) -> FilesChanged:
    return FilesChanged(
        f"{_shown(path)} changed while it was being saved. It will be tried again.",
        detail=repr(error) if error else None,
        retry_after=1.0,
    )
