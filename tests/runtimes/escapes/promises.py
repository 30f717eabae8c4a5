"""What is promised about each attempt at each level. The table in docs/security.md is this one."""

from __future__ import annotations

from dataclasses import dataclass

SANDBOX_ROOT, SANDBOX_USER, DOCKER = LEVELS = ("sandbox (root)", "sandbox (user)", "docker")
NOT_THERE, REFUSED = "not there", "refused"


@dataclass(frozen=True)
class Attempt:
    """One attempt, and what is promised about it.

    Either `not there`, `refused`, `bounded: …` or `not promised: …`, each with by what or why.
    """

    name: str
    """The file in `attempts/`."""
    words: str
    promises: tuple[str, str, str]
    """In the order of `LEVELS`."""
    succeeds_outside: bool = True
    """Whether it gets somewhere in a process that nothing is in the way of, so that it proves something."""

    def promise(self, level: str) -> str:
        """What is promised there."""
        return self.promises[LEVELS.index(level)]


def everywhere(promise: str) -> tuple[str, str, str]:
    """The same at all levels."""
    return (promise, promise, promise)


ATTEMPTS = (
    Attempt("files", "other users' files, the platform's secrets", everywhere(NOT_THERE)),
    Attempt("unix_sockets", "sockets in the file system, others' and the platform's", everywhere(NOT_THERE)),
    Attempt(
        "processes",
        "seeing, signalling, tracing others' processes",
        (NOT_THERE, NOT_THERE, REFUSED),  # some by Docker's filter, before it comes to that
    ),
    Attempt("abstract_sockets", "abstract sockets", everywhere(NOT_THERE)),
    Attempt("host_loopback", "the machine's loopback, directly and by the proxy", everywhere(REFUSED)),
    Attempt(
        "metadata_address",
        "a cloud's metadata address, directly and by the proxy",
        everywhere(REFUSED),
        succeeds_outside=False,  # only in a cloud
    ),
    Attempt("database", "the database, its address and password known", everywhere(REFUSED)),
    Attempt(
        "symlinked_socket",
        "links to others' sockets where the platform might look for the agent's",
        everywhere(REFUSED),
        succeeds_outside=False,  # there is no platform to be misled
    ),
    Attempt("af_unspec", "sockets of the platform's, cut loose by connect(AF_UNSPEC)", everywhere(REFUSED)),
    Attempt("nested_namespaces", "namespaces of its own, mounts, chroot", everywhere(REFUSED)),
    Attempt("keyctl", "the kernel's key rings", everywhere(REFUSED)),
    Attempt("other_sockets", "AF_VSOCK, AF_ALG, raw and packet sockets", everywhere(REFUSED)),
    Attempt("fork_bomb", "a fork bomb", everywhere("bounded: the plan's processes")),
    Attempt(
        "memory_bomb",
        "a memory bomb",
        (
            "bounded: the plan's memory, and as much of the machine's swap",
            "not promised: only root can bound it; the kernel ends an agent before anything else",
            "bounded: the plan's memory, and as much of the machine's swap",
        ),
    ),
    Attempt(
        "disk_filler",
        "filling the disk: large, many, empty, hidden, deleted, mapped files",
        (
            "bounded: refused by the kernel, where agents have disks of their own",
            "bounded: ended within seconds of passing its bound",
            "bounded: ended within seconds of passing its bound",
        ),
    ),
)
