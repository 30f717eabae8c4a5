"""The system call filter of the sandbox: shuts doors of the kernel that no agent needs.

It denies nested namespaces and everything of the mount family, sockets other than Unix, IP and netlink
(AF_VSOCK is not bound to the network namespace and would reach the hypervisor), the kernel's key rings
(shared between users), and the calls with the longest record of kernel holes (bpf, perf, userfaultfd,
io_uring, kexec).
"""

from __future__ import annotations

import errno
import os
from functools import cache

_DENIED = [
    "unshare",
    "setns",
    "mount",
    "umount",
    "umount2",
    "pivot_root",
    "chroot",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "mount_setattr",
    "quotactl",
    "quotactl_fd",
    "keyctl",
    "add_key",
    "request_key",
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "kexec_load",
    "kexec_file_load",
    "open_by_handle_at",
    "init_module",
    "finit_module",
    "delete_module",
    "iopl",
    "ioperm",
    "swapon",
    "swapoff",
    "reboot",
    "settimeofday",
    "clock_settime",
    "clock_settime64",
    "stime",
    "acct",
    "syslog",
    "lookup_dcookie",
    "nfsservctl",
    "fanotify_init",
    "vhangup",
    "sethostname",
    "setdomainname",
    "vm86",
    "vm86old",
]
_ABSENT = ["clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"]
"""Answered as by a kernel that has never heard of them, so that callers fall back: glibc from clone3 to
clone, whose flags a filter can see, libuv from io_uring to threads."""
_NAMESPACE_FLAGS = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)
_SOCKET_FAMILIES = {1, 2, 10, 16}
_TERMINAL_INPUT = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX, which type into the terminal of whoever started the platform."""


@cache
def compiled_filter() -> bytes:
    """The filter as a BPF program for `bwrap --seccomp`.

    The first call takes about 0.1 s (it looks for the library) and may be made in a thread.
    Raises: ImportError or RuntimeError where libseccomp is missing.
    """
    import pyseccomp as seccomp  # type: ignore[import-untyped]

    program = seccomp.SyscallFilter(seccomp.ALLOW)
    refuse, absent = seccomp.ERRNO(errno.EPERM), seccomp.ERRNO(errno.ENOSYS)
    for action, names in ((refuse, _DENIED), (absent, _ABSENT)):
        for name in names:
            _add(program, action, name)
    for flag in _NAMESPACE_FLAGS:
        program.add_rule(refuse, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, flag, flag))
    for request in _TERMINAL_INPUT:
        program.add_rule(refuse, "ioctl", seccomp.Arg(1, seccomp.MASKED_EQ, 0xFFFFFFFF, request))
    no_family = seccomp.ERRNO(errno.EAFNOSUPPORT)
    program.add_rule(no_family, "socket", seccomp.Arg(0, seccomp.GT, max(_SOCKET_FAMILIES)))
    for family in set(range(max(_SOCKET_FAMILIES))) - _SOCKET_FAMILIES:
        program.add_rule(no_family, "socket", seccomp.Arg(0, seccomp.EQ, family))
    with os.fdopen(os.memfd_create("seccomp", os.MFD_CLOEXEC), "w+b") as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


def _add(program: object, action: int, name: str) -> None:
    """Deny one call; an architecture or a library that does not know it needs no rule."""
    import pyseccomp as seccomp

    try:
        number = seccomp.resolve_syscall(seccomp.Arch.NATIVE, name)
    except (ValueError, OSError):
        return
    if number >= 0:
        program.add_rule(action, name)  # type: ignore[attr-defined]


def filter_descriptor() -> int:
    """A new file descriptor from which one bwrap reads the filter; the caller closes it."""
    number = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    os.write(number, compiled_filter())
    os.lseek(number, 0, os.SEEK_SET)
    return number
