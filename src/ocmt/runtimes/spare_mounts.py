"""Puts an agent's folders into the sandbox of a warm spare that runs already. A program of its own, as root.

`python -I -S spare_mounts.py < ORDER`, where ORDER is JSON: `{"pid", "root", "owner", "spare"}`: a process of
the spare, the agent's folder, the uid (and gid) that its files belong to, and that of the spare; or
`{"probe": folder}`, to try what a kernel or a file system may refuse. Nothing of the agent's or the spare's
runs in here: mounts are copied from the host's names, whose parents only the platform writes, turned to the
spare's uid (mount_setattr(2), MOUNT_ATTR_IDMAP: on the disk they keep their owner), and attached in the
spare's mount namespace, into folders that are opened one by one and never through a link. A process that
enters a mount namespace may have no other thread: hence the program of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys

OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442  # the same on all architectures
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x1000
OPEN_TREE_CLONE = 1
MOVE_BY_DESCRIPTORS = 0x4 | 0x40  # MOVE_MOUNT_F_EMPTY_PATH, MOVE_MOUNT_T_EMPTY_PATH
RDONLY, NOSUID, NODEV, IDMAP = 0x1, 0x2, 0x4, 0x100000
PRIVATE = 1 << 18
IN_HOME = ("workspace", "state", "config")

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class Attributes(ctypes.Structure):
    """struct mount_attr."""

    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("user_namespace", ctypes.c_uint64),
    )


def main() -> None:
    """Raises OSError; what was mounted by then is in a sandbox that is of no use any more."""
    order = json.load(sys.stdin)
    if "probe" in order:
        copied_mount(order["probe"], user_namespace(1, 2), read_only=False)
        return
    root, owner, spare = order["root"], int(order["owner"]), int(order["spare"])
    make_places(os.path.join(root, "home"), owner)  # noqa: PTH118 - pathlib would cost 10 ms
    ids = user_namespace(owner, spare)
    trees = {
        name: copied_mount(f"{root}/{name}", ids, read_only=name == "config")
        for name in ("tmp", "home", *IN_HOME)
    }
    enter(int(order["pid"]))
    attach(trees["tmp"], opened("/tmp"))  # noqa: S108 - the sandbox's
    attach(trees["home"], opened("/home/agent"))
    home = opened("/home/agent")
    for name in IN_HOME:
        attach(trees[name], opened(name, home))


def check(outcome: int, what: str) -> int:
    """The outcome of a system call. Raises OSError."""
    if outcome < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return outcome


def make_places(home: str, owner: int) -> None:
    """In the agent's own folder, where it could have put links: made if missing, otherwise left alone."""
    number = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    for name in IN_HOME:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=number)
            os.chown(name, owner, owner, dir_fd=number, follow_symlinks=False)
    os.close(number)


def user_namespace(owner: int, spare: int) -> int:
    """One that knows a single user: who owns the files is the spare in there."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            check(libc.unshare(CLONE_NEWUSER), "unshare")
            os.write(writing, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        if os.read(reading, 1) != b"1":
            raise OSError("no user namespace can be made")
        for kind in ("uid_map", "gid_map"):
            with open(f"/proc/{child}/{kind}", "w") as file:  # noqa: PTH123
                file.write(f"{owner} {spare} 1\n")
        return os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def copied_mount(path: str, ids: int, *, read_only: bool) -> int:
    """That folder as a mount that is attached nowhere yet."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | AT_SYMLINK_NOFOLLOW
    tree = check(libc.syscall(OPEN_TREE, AT_FDCWD, path.encode(), flags), f"open_tree {path}")
    wanted = NOSUID | NODEV | IDMAP | (RDONLY if read_only else 0)
    attributes = Attributes(wanted, 0, PRIVATE, ids)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    check(
        libc.syscall(MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, ctypes.byref(attributes), size),
        f"mount_setattr {path}",
    )
    return tree


def enter(pid: int) -> None:
    """The mount namespace of that process."""
    number = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    check(libc.setns(number, CLONE_NEWNS), "setns")
    os.close(number)


def opened(name: str, parent: int | None = None) -> int:
    """The place for a mount; the last step of the way is no link."""
    return os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)


def attach(tree: int, place: int) -> None:
    """Nothing of what lay there is seen any more."""
    check(libc.syscall(MOVE_MOUNT, tree, b"", place, b"", MOVE_BY_DESCRIPTORS), "move_mount")
    os.close(place)


if __name__ == "__main__":
    main()
