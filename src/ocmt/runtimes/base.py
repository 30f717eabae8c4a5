"""The port behind which agents run. A runtime is an adapter of it; runtimes know nothing of each other.

Contract of every call: it takes the whole user id, it is idempotent, and it returns soon (seconds, not
minutes). Stopping what is gone succeeds. Where something takes longer, the call raises `NotYet`, which says
when to ask again. What a runtime must remember it returns as its own opaque state, a JSON object that the
platform keeps in the agent's row and hands back with the next call.

What only some runtimes can do is a protocol to ask for by `isinstance` (`CanPause`), not a name to compare.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable
from uuid import UUID

from ocmt.errors import Unavailable

if TYPE_CHECKING:
    from ocmt.platform.work import Effort

RuntimeState = dict[str, Any]
"""A runtime's own notes on one agent: JSON, opaque to everybody else."""


@dataclass(frozen=True)
class Isolation:
    """What stands between an agent and everything else, as probed by running a sandbox, not as hoped for."""

    level: Literal["sandbox (root)", "sandbox (user)", "process", "docker", "cloudrun", "none"]
    summary: str
    """One sentence for the user."""
    guarantees: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """What the level would have to offer and does not offer here, each with the reason."""

    @property
    def is_boundary(self) -> bool:
        """Whether this is a security boundary at all."""
        return self.level not in ("process", "none")


@dataclass(frozen=True)
class AgentSpec:
    """All that a runtime must know to run one agent. Secrets travel in here, never in argv or an image."""

    user_id: UUID
    slot: int
    """A small number that no other agent of this installation has; runtimes derive host uids from it."""
    config: str
    """OpenClaw's configuration file (JSON), as rendered by `ocmt.openclaw.config`."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Secrets and switches for the gateway's environment."""
    egress: bool = False
    """Whether this agent may reach the internet through the egress proxy."""
    repair: bool = False
    """Whether to run OpenClaw's own doctor first, because the gateway refused its configuration."""
    lease_until: float | None = None
    """As in EndsWithLease, from the first moment on: this process may be held up before it could say so."""
    memory_bytes: int = 2 * 1024**3
    cpus: float = 2.0
    pids: int = 512
    disk_bytes: int = 8 * 1024**3
    """Of all its files together, and of one. Who starts with more is let run, to remove some."""
    image: str | None = None
    """Which of the images that `RunsImages.has_image` knows; None: `own_image`, or the only one."""


@dataclass(frozen=True)
class Observation:
    """What is true of one agent right now, according to its runtime."""

    phase: Literal["absent", "starting", "running", "paused", "exited"]
    step: str | None = None
    """While starting: which step of the start; people see those that are keys of `START_STEPS`."""
    exit_code: int | None = None
    """Once exited: the gateway's own exit code (78: its configuration is refused)."""
    log_tail: str = ""
    """Once exited: its last words, for the operator."""
    memory_bytes: int | None = None
    reason: str | None = None
    """Once exited: why the runtime itself has ended it, in words for its user."""


START_STEPS: Mapping[str, str] = {
    "sandbox": "Setting up the sandbox",
    "gateway": "Starting OpenClaw",
    "ready": "Ready",
}
"""The steps that people see while an agent wakes, in their order."""


class AgentRuntime(Protocol):
    """What every runtime can do."""

    @property
    def name(self) -> str:
        """`sandbox`, `docker`, …: the word of the settings."""

    async def probe(self) -> Isolation:
        """Find out, by running one, what a sandbox of this runtime really isolates here. Cached."""

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        """Have the agent start. Returns once it is on its way; `observe` and `dial` tell the rest.

        Raises: SetupProblem where this machine cannot run agents, Unavailable where it cannot just now.
        """

    async def observe(self, user_id: UUID, state: RuntimeState) -> Observation:
        """What has become of it. Never raises for an agent that is gone: that is `absent`."""

    async def dial(self, user_id: UUID, state: RuntimeState) -> socket.socket:
        """A connected, non-blocking stream to the agent's gateway. Its end closes with the agent.

        Raises: NotYet while the gateway does not listen yet, Unavailable where there is no agent.
        """

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        """End it: ask, wait at most `grace` seconds, then kill. When this returns, no process is left."""

    async def logs(self, user_id: UUID, state: RuntimeState, *, lines: int = 200) -> str:
        """The agent's last words, newest at the end."""

    async def close(self) -> None:
        """End everything that this runtime started, within 8 seconds."""


@runtime_checkable
class RunsImages(Protocol):
    """Runtimes that can run more than one image of an agent: versions of OpenClaw, containers' images."""

    @property
    def own_image(self) -> str:
        """What it runs where nobody names another: what this installation brings along."""

    async def has_image(self, image: str) -> bool:
        """Whether that one is installed on this machine. Raises: Unavailable, SetupProblem."""


@runtime_checkable
class EndsWithLease(Protocol):
    """Runtimes whose agents end by themselves where the lease of their driver is not renewed in time.

    So that there is never a second gateway on one workspace: also where the driver's process is held up, its
    agent has ended before another replica may start it.
    """

    async def renew(self, user_id: UUID, *, until: float) -> None:
        """It may run until then; no agent at all is fine.

        `until`: seconds of this machine's monotonic clock. No span of time: that would begin to count when it
        is read, and this process may be held up between the thought and the word.

        Raises: Unavailable where it does not listen.
        """


@runtime_checkable
class ForgetsFiles(Protocol):
    """Runtimes that keep agents' files on this machine, and can remove one's for good."""

    async def forget(self, user_id: UUID) -> None:
        """End that agent, if it runs here, and remove all of its files. Forgetting what is gone succeeds."""

    async def remembered(self) -> list[UUID]:
        """Whose files are on this machine."""


@runtime_checkable
class HoldsAll(Protocol):
    """Runtimes that can keep all of their agents from writing, while the server's disk is almost full."""

    async def hold_all(self) -> None:
        """Hold still every agent that runs, and start none, until `let_all_go_on`. May be called again."""

    async def let_all_go_on(self) -> None:
        """Let those that were held go on, and start agents again."""


@runtime_checkable
class CanPageOut(Protocol):
    """Runtimes that can free the memory of a paused agent and have it back within a second."""

    async def page_out(self, user_id: UUID, state: RuntimeState) -> bool:
        """Free what a paused agent holds; returns whether that was done, as it is not on every machine.

        Takes up to 3 s, in which it can be resumed all the same.
        """


@runtime_checkable
class CanPause(Protocol):
    """Runtimes that can hold an agent still, memory kept, and let it go on within milliseconds."""

    async def pause(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """Freeze all of its processes. Pausing a paused agent succeeds."""

    async def resume(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """Let them go on. Resuming a running agent succeeds."""


@runtime_checkable
class KnowsJobs(Protocol):
    """Runtimes that can tell which programs an agent has left running outside of its gateway's own tree."""

    async def jobs(self, user_id: UUID) -> list[str]:
        """The names of those programs; none where the agent does not run here, or where it cannot be told.

        A name is the agent's own word: it has been reduced to harmless characters.
        """


FILE_TREES = ("config", "home", "state", "workspace")
"""What an agent's files are: `config/openclaw.json`, which the platform writes at every start, and the
folders that the agent itself writes."""


class FoundFile(NamedTuple):
    """A file, folder or link as it lies on the disk. Who wrote it is not trusted."""

    path: str
    """Below the agent's folder: `workspace/notes/a.txt`. What is no UTF-8 is in it as lone surrogates."""
    kind: Literal["file", "folder", "link"]
    mode: int
    """The permission bits, 0 to 0o777."""
    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    target: str | None = None
    """Of a link: where it points, which the platform never follows."""


class LeftOut(NamedTuple):
    """Something in an agent's folder that cannot be kept."""

    path: str
    reason: str
    """Plain words for the user: `a socket`."""


Keep = Callable[[str, bool], bool]
"""(path, whether it is a folder) → whether to look at it at all."""


class FilesChanged(Unavailable):
    """A file is not what it was when it was found: somebody is writing."""

    code = "files_changed"


class FreshFiles(Protocol):
    """A new set of an agent's files, made out of sight beside the old ones. Everything blocks: for threads.

    Folders first, a parent before its children; then files; links last. Each raises OSError.
    """

    def add_folders(self, folders: Iterable[tuple[str, int]]) -> None:
        """(path, mode) of each."""

    def add_file(self, path: str, mode: int, mtime_ns: int, pieces: Iterable[bytes]) -> None:
        """With that content. Different files may be added by different threads at once."""

    def add_link(self, path: str, target: str) -> None:
        """Pointing wherever the agent had it point."""

    def put_in_place(self) -> None:
        """Once all of it is on the disk, put it where the old files are. Those are still to be cleared away.

        A crash in the middle leaves a mixture: the mark has to say so before.
        """

    def discard(self) -> None:
        """Remove what was made, if it was not put in place. Discarding twice does nothing."""


class AgentFiles(Protocol):
    """One agent's files on this machine, to be read while none of its processes runs: held still, or gone.

    Then a SQLite database and its `-wal` are what a crash would leave, which SQLite recovers from. Everything
    blocks: for threads.
    """

    def scan(self, keep: Keep, effort: Effort) -> Iterator[FoundFile | LeftOut]:
        """Everything that `keep` wants, a folder before what is in it; never through a link.

        `effort` is spent by one for each name that is seen, kept or not.
        Raises: LimitReached for folders nested too deep or an effort that is used up, Abandoned, OSError.
        """

    def read(self, found: FoundFile) -> Iterator[bytes]:
        """Its content in pieces of at most a few megabytes, as many bytes as were found.

        Raises: FilesChanged where it is not the file that was found, before, during or after.
        """

    def peek(self, path: str, most: int) -> bytes | None:
        """The first `most` bytes of a small file; None where there is no regular file of the agent's."""

    def fresh(self) -> FreshFiles:
        """Begin a new set of files. What an earlier one left behind unfinished is removed."""

    def clear_away(self) -> None:
        """Remove files that were replaced, or made and never put in place. Takes seconds for many files; the
        agent may run."""

    def read_mark(self) -> bytes | None:
        """What the platform noted beside the files, where the agent can not write. None: nothing."""

    def write_mark(self, mark: bytes | None) -> None:
        """Note it, complete or not at all, and safe from a power cut. None: remove the note."""


@runtime_checkable
class KeepsFiles(Protocol):
    """Runtimes whose agents' files lie on a disk that the platform itself can read and write."""

    def files(self, user_id: UUID, slot: int) -> AgentFiles:
        """That agent's. Touches nothing yet."""
