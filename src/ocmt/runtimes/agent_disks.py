"""Gives each agent a disk of its own whose size the kernel enforces: one image file per agent. Takes root.

An image is a sparse file with an ext4 file system, `<data>/agents/.disks/<user id>.img`, mounted by a loop
device over the agent's folder `<data>/agents/<user id>`. The image is about twice as large as what the agent
may use: a file of the platform's inside it, the ballast, takes the rest, so that one call changes the limit
and a restore has room for old and new files side by side. The ballast is allocated inside the image but never
written, so it takes nothing from the disk below.

Whoever reads or writes an agent's files calls `attach` first. An agent that has an image is never looked at
without it: an empty folder below the mount would look like an agent without files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from ocmt.errors import Unavailable
from ocmt.platform.disk import sync_file_system, sync_one
from ocmt.runtimes import loop_mounts
from ocmt.runtimes.disk_images import (
    CHECK_SECONDS,
    MEBIBYTE,
    check_image,
    filled,
    had_errors,
    make_image,
    run,
)
from ocmt.runtimes.excess import TO_TIDY_UP
from ocmt.runtimes.folders import OF_THE_AGENT
from ocmt.runtimes.removal import remove_tree

ALMOST = 4 * MEBIBYTE
"""A disk with less left than this counts as full: programs fail before the last byte is used."""
_USUAL = 8 * 1024**3
_EXTRA = 256 * MEBIBYTE
"""For the file system's own tables."""
_BALLAST = ".ballast"
_IMAGES = ".disks"
_FOR_ROOT = 32 * MEBIBYTE
"""Of each image, for the platform's own files in it: an agent cannot keep its configuration from being
written."""
_MOVE_SECONDS = 300


@dataclass(frozen=True)
class Use:
    """What an agent's own disk holds, in bytes."""

    used: int
    left: int
    """What the agent can still write."""
    files_left: int


class AgentDisks:
    """The images of one data folder. Everything blocks: for threads."""

    def __init__(self, agents: Path, view: Callable[[Path], Path], log: structlog.stdlib.BoundLogger) -> None:
        """Args: `agents` is the folder of all agents; `view` gives a path by which agents can reach it."""
        self._agents = agents
        self._view = view
        self._log = log
        self._images = agents / _IMAGES
        self._locks: dict[str, threading.Lock] = {}
        self._mounted: set[str] = set()
        self._not_moved: set[str] = set()
        """Agents whose files could not be moved into an image: they keep their plain folder until the
        platform starts anew."""
        self.obstacle: str | None = "not tried yet"
        """Why no images can be had here; None when they can."""

    def probe(self) -> None:
        """Find out, by filling one, whether images bound anything on this machine. Sets `obstacle`."""
        folder = self._images / ".probe"
        try:
            self._prepare()
            self._discard_probe(folder)
            folder.mkdir(mode=0o700)
            image = folder / "probe.img"
            make_image(image, 8 * MEBIBYTE, reserved=0, journal=False)
            place = folder / "place"
            place.mkdir()
            loop_mounts.mount_image(image, place)
            try:
                self.obstacle = filled(place / "filling", 16 * MEBIBYTE)
            finally:
                loop_mounts.unmount(place)
        except OSError as error:
            self.obstacle = _in_words(error)
        finally:
            with contextlib.suppress(OSError):
                self._discard_probe(folder)
        if self.obstacle is None:
            self._clear_leftovers()

    def attach(self, name: str, *, allowed: int = _USUAL, make: bool = True) -> bool:
        """Have the agent's files in its folder. Returns whether they are on a disk of their own.

        Does nothing where they are there already. Without `make`, an agent without an image gets none.
        Raises: Unavailable where an agent's image cannot be mounted.
        """
        if name in self._mounted:
            return True
        with self._lock(name):
            if name in self._mounted:
                return True
            root, image = self._agents / name, self._image(name)
            try:
                if not image.exists():
                    if not make or self.obstacle is not None or name in self._not_moved:
                        return False
                    if not self._made(name, root, image, allowed):
                        return False
                self._mount(name, root, image)
            except OSError as error:
                self._log.error("agent_disk_not_mounted", user_id=name, error=str(error))
                raise Unavailable(
                    "Your agent's disk cannot be mounted. An administrator finds the reason in the log.",
                    detail=str(error),
                    retry_after=30,
                ) from error
            self._mounted.add(name)
            return True

    def limit(self, name: str, allowed: int) -> bool:
        """Let the agent, which does not run, use that many bytes in all. Returns whether its disk is full.

        A full disk gets `TO_TIDY_UP` on top for as long as it is full, and its `tmp` folder is emptied. That
        is never more than this above the allowance, however often the agent starts.
        Raises: OSError.
        """
        root, image = self._agents / name, self._image(name)
        with self._lock(name):
            if had_errors(root):
                self._unmount(name, at_once=True)
                self._mount(name, root, image)
                self._mounted.add(name)
            if _size_for(allowed) > image.stat().st_size:
                self._grow(name, root, image, _size_for(allowed))
            used = use_of(root).used
            full = used > allowed - ALMOST
            if full:
                remove_tree(root / "tmp")
                used = use_of(root).used
                full = used > allowed - ALMOST
                self._log.warning("agent_disk_is_full", user_id=name, used_bytes=used, allowed_bytes=allowed)
            _set_left(root, max(0, allowed + (TO_TIDY_UP if full else 0) - used))
        return full

    def make_room(self, name: str) -> None:
        """Let the platform use the whole image, as a restore does, until the next `limit`.

        Raises: OSError.
        """
        with self._lock(name):
            (self._agents / name / _BALLAST).unlink(missing_ok=True)

    def on_own_disk(self, name: str) -> bool:
        """Whether the agent's files are on a disk of their own that is mounted now."""
        return name in self._mounted

    def forget(self, name: str) -> None:
        """Remove the agent's image, if it has one. No process of the agent's is left. Raises: OSError."""
        with self._lock(name):
            self._unmount(name, at_once=True)
            self._image(name).unlink(missing_ok=True)
            self._unfinished(name).unlink(missing_ok=True)
            remove_tree(self._old(name))
            self._not_moved.discard(name)
        self._locks.pop(name, None)

    def close(self) -> None:
        """Unmount all of them. What is still in use goes with its last user."""
        for name in list(self._mounted):
            with self._lock(name), contextlib.suppress(OSError):
                self._unmount(name, at_once=True)

    # How an image comes to be

    def _made(self, name: str, root: Path, image: Path, allowed: int) -> bool:
        """A new image, complete or not at all, with what the plain folder holds."""
        unfinished = self._unfinished(name)
        unfinished.unlink(missing_ok=True)
        self._prepare()
        make_image(unfinished, _size_for(allowed), reserved=_FOR_ROOT, journal=True)
        if any((root / tree).exists() for tree in OF_THE_AGENT) or (root / "config").exists():
            try:
                self._move_in(name, root, unfinished)
            except (OSError, subprocess.SubprocessError) as error:
                unfinished.unlink(missing_ok=True)
                self._not_moved.add(name)
                self._log.warning("agent_files_not_moved_to_a_disk", user_id=name, error=str(error))
                return False
        sync_one(unfinished)
        unfinished.rename(image)
        sync_one(self._images)
        return True

    def _move_in(self, name: str, root: Path, image: Path) -> None:
        """Copy all of a plain folder. It stays complete until the image is: a crash leaves one or the other.

        `cp` never follows a link here, keeps owners and hard links, and takes any depth.
        """
        place = self._images / f"{name}.moving"
        place.mkdir(mode=0o700, exist_ok=True)
        loop_mounts.mount_image(image, place)
        try:
            command = ["cp", "--archive", "--one-file-system", "--sparse=auto", f"{root}/.", str(place)]
            run(command, seconds=_MOVE_SECONDS)
            sync_file_system(place)
        finally:
            loop_mounts.unmount(place)
            place.rmdir()
        self._log.info("agent_files_moved_to_a_disk", user_id=name)

    def _mount(self, name: str, root: Path, image: Path) -> None:
        found = loop_mounts.mounted_image(root)
        if found is not None and had_errors(root):
            self._unmount(name, at_once=True)
            found = None
        if found is None:
            if root.is_dir() and any(root.iterdir()):
                # What was copied into the image, or what a platform without images has left.
                remove_tree(self._old(name))
                root.rename(self._old(name))
            root.mkdir(mode=0o710, parents=True, exist_ok=True)
            try:
                loop_mounts.mount_image(image, root)
            except OSError:
                self._check(image)
                loop_mounts.mount_image(image, root)
            else:
                if had_errors(root):
                    loop_mounts.unmount(root)
                    self._check(image)
                    loop_mounts.mount_image(image, root)
        elif not found.exists() or not found.samefile(image):
            raise OSError(errno.EBUSY, f"{found} is mounted there", str(root))
        seen = self._seen(name)
        if seen != root and not seen.samefile(root):
            loop_mounts.bind(root, seen)
        remove_tree(self._old(name))

    def _unmount(self, name: str, *, at_once: bool) -> None:
        root = self._agents / name
        self._mounted.discard(name)
        seen = self._seen(name)
        for place in {seen, root}:
            while place.exists() and place.stat().st_dev != place.parent.stat().st_dev:
                loop_mounts.unmount(place, at_once=at_once)

    def _check(self, image: Path) -> None:
        loop_mounts.wait_until_free(image)
        check_image(image)

    def _grow(self, name: str, root: Path, image: Path, size: int) -> None:
        """While it is not mounted: to grow a mounted one takes a capability that containers do not have."""
        self._unmount(name, at_once=False)
        loop_mounts.wait_until_free(image)
        os.truncate(image, size)
        self._check(image)
        run(["resize2fs", str(image)], seconds=CHECK_SECONDS)
        self._mount(name, root, image)
        self._mounted.add(name)

    def _seen(self, name: str) -> Path:
        """Where agents' uids come to the folder."""
        return self._view(self._agents) / name

    # Names

    def _image(self, name: str) -> Path:
        return image_of(self._agents, name)

    def _unfinished(self, name: str) -> Path:
        return self._images / f"{name}.new"

    def _old(self, name: str) -> Path:
        return self._images / f"{name}.old"

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        with self._locks.setdefault(name, threading.Lock()):
            yield

    def _prepare(self) -> None:
        self._images.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._images.chmod(0o700)
        logs_beside(self._agents, "").mkdir(mode=0o700, exist_ok=True)

    def _clear_leftovers(self) -> None:
        """What a crash left unfinished. A plain folder is removed only where its image is complete."""
        for leftover in (*self._images.glob("*.new"), *self._images.glob("*.moving")):
            with contextlib.suppress(OSError):
                leftover.rmdir() if leftover.is_dir() else leftover.unlink()
        for old in self._images.glob("*.old"):
            if self._image(old.stem).exists():
                remove_tree(old)

    def _discard_probe(self, folder: Path) -> None:
        with contextlib.suppress(OSError):
            loop_mounts.unmount(folder / "place")
        if folder.is_dir():
            shutil.rmtree(folder)


def image_of(agents: Path, name: str) -> Path:
    """Where that agent's image is, if it has one. Needs no disk to be mounted."""
    return agents / _IMAGES / f"{name}.img"


def logs_beside(agents: Path, name: str) -> Path:
    """Where that agent's logs are: not on its own disk, which may be full or not mounted."""
    return agents / ".logs" / name


def images_in(agents: Path) -> list[str]:
    """The names of all agents that have an image."""
    return [path.stem for path in (agents / _IMAGES).glob("*.img")]


def use_of(root: Path) -> Use:
    """What is on an agent's own disk. Takes microseconds, however many files there are. Raises: OSError."""
    disk = os.statvfs(root)
    try:
        ballast = (root / _BALLAST).stat().st_blocks * 512
    except FileNotFoundError:
        ballast = 0
    used = (disk.f_blocks - disk.f_bfree) * disk.f_frsize - ballast
    return Use(used, disk.f_bavail * disk.f_frsize, disk.f_favail)


def _set_left(root: Path, left: int) -> None:
    """Make the ballast as large as it takes to leave an agent that many bytes. Raises: OSError."""
    number = os.open(root / _BALLAST, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        now = os.fstat(number).st_blocks * 512
        wanted = now + use_of(root).left - left
        wanted = max(0, wanted) // 4096 * 4096
        if wanted < now:
            os.ftruncate(number, wanted)
        elif wanted > now:
            os.posix_fallocate(number, 0, wanted)
    finally:
        os.close(number)


def _size_for(allowed: int) -> int:
    return (2 * max(allowed, _USUAL) + _EXTRA) // 4096 * 4096


def _in_words(error: OSError) -> str:
    if error.errno == errno.ENOENT and "missing" in str(error):
        return str(error.strerror)
    where = f": {error.filename}" if error.filename else ""
    return f"no image can be mounted by a loop device ({error.strerror}{where})"
