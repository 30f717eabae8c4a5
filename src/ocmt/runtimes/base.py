"""The port behind which agents run. A runtime is an adapter of it; runtimes know nothing of each other.

Contract of every call: it takes the whole user id, it is idempotent, and it returns soon (seconds, not
minutes). Stopping what is gone succeeds. Where something takes longer, the call raises `NotYet`, which says
when to ask again. What a runtime must remember it returns as its own opaque state, a JSON object that the
platform keeps in the agent's row and hands back with the next call.

What only some runtimes can do is a protocol to ask for by `isinstance` (`CanPause`), not a name to compare.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable
from uuid import UUID

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
    memory_bytes: int = 2 * 1024**3
    cpus: float = 2.0
    pids: int = 512


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
class EndsWithLease(Protocol):
    """Runtimes whose agents end by themselves where the lease of their driver is not renewed in time.

    So that there is never a second gateway on one workspace: also where the driver's process is held up, its
    agent has ended before another replica may start it.
    """

    async def renew(self, user_id: UUID, *, seconds: float) -> None:
        """It may run for `seconds` from now; a paused one begins to count when it goes on, none is fine.

        Raises: Unavailable where it does not listen.
        """


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
