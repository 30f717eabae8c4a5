"""What the runtimes of this machine share: one agent a user, each with a supervisor, and its life.

What surrounds the supervisor, and how that is held still, is the runtime's own (`sandbox.py`, `docker.py`).
Agents end with the platform: nothing here survives it, so there is no state to find again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import UUID

import structlog

from ocmt.errors import DiskFull, SetupProblem, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.free_space import WORDS
from ocmt.platform.work import FILES, STARTS
from ocmt.runtimes.agent_disks import AgentDisks, image_of, images_in
from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.runtimes.attached_files import AttachedFiles
from ocmt.runtimes.base import AgentFiles, AgentSpec, Isolation, Observation, RuntimeState
from ocmt.runtimes.bubblewrap import DOOR_PORTS, GATEWAY_PORT, HOME, gateway_command, gateway_surroundings
from ocmt.runtimes.disk_watch import check_before_start, watch, watch_own_disk
from ocmt.runtimes.folders import FIRST_UID, AgentFolder, last_lines
from ocmt.runtimes.guard import private_folders
from ocmt.runtimes.output import log_files
from ocmt.runtimes.processes import detached_programs
from ocmt.runtimes.removal import remove_tree
from ocmt.runtimes.supervised import Door, Order, Supervised


class SupervisedRuntime(ABC):
    """AgentRuntime, EndsWithLease, CanPause, KnowsJobs and KeepsFiles, but for the methods without a body."""

    name: str
    close_grace: float
    """Seconds that agents have to shut down in order when the platform ends."""

    def __init__(
        self,
        *,
        data_dir: Path,
        doors: Mapping[str, Door],
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        private: Sequence[Path] = (),
    ) -> None:
        """`doors` serve by name what an agent finds at 127.0.0.1: `broker` always, `egress` where it may.

        `private`: folders besides `data_dir` and the home folder that no agent may see, such as the
        platform's data folder where `data_dir` is a temporary one.
        """
        self._data = data_dir.resolve()
        self._private = private_folders(self._data, *private)
        self._doors = doors
        self._clock = clock
        self._log = log
        self._root = os.geteuid() == 0
        self._filter: bytes | None = None
        """The system call filter that supervisors put on, where nothing else does."""
        self._agents: dict[UUID, Supervised] = {}
        self._locks: dict[UUID, asyncio.Lock] = {}
        self._ready = asyncio.Lock()
        self._isolation: Isolation | None = None
        self._closed = False
        self._disk_full = False
        self._disks: AgentDisks | None = None
        """The agents' own disks, where the kernel is to enforce how much an agent may write."""

    # What a runtime does in its own way

    @abstractmethod
    async def probe(self) -> Isolation:
        """See AgentRuntime."""

    @abstractmethod
    async def _launch(self, agent: Supervised, spec: AgentSpec) -> Supervised:
        """Make its surroundings and start it in there; returns it, or the one that had to take its place.

        Where it raises, `_forget` follows.
        """

    @abstractmethod
    async def _forget(self, user_id: UUID) -> None:
        """Leave nothing of the surroundings of an agent that did not start."""

    @abstractmethod
    async def _end(self, agent: Supervised, grace: float) -> None:
        """It and its surroundings, frozen or not. Raises: Unavailable where nobody knows if they have."""

    @abstractmethod
    async def _hold_still(self, agent: Supervised) -> None:
        """All of its processes. Raises: Unavailable, and it goes on."""

    @abstractmethod
    async def _let_run(self, agent: Supervised) -> None:
        """Its processes, after `_hold_still`."""

    @abstractmethod
    async def _shut(self) -> None:
        """What all agents shared, once they have ended."""

    @abstractmethod
    def _folder(self, user_id: UUID, slot: int) -> AgentFolder:
        """Where its files are."""

    @abstractmethod
    def _state(self, agent: Supervised) -> RuntimeState:
        """What the row is to say."""

    def _processes_of(self, spec: AgentSpec) -> int | None:
        """The most that its supervisor lets it have; None where something else sees to that."""
        return None

    def _supervisor_of(self, agent: Supervised) -> int | None:
        """The process id of its supervisor on this machine; None where it cannot be seen. Blocks."""
        return None

    def _memory_of(self, agent: Supervised) -> int | None:
        """Bytes that it holds, where that is known."""
        return None

    # The life of an agent

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        """See AgentRuntime. Starting an agent that runs, paused or not, changes nothing."""
        isolation = await self.probe()
        if isolation.level == "none":
            raise SetupProblem(isolation.summary, detail="; ".join(isolation.missing))
        async with self._lock(spec.user_id):
            if self._closed:
                raise Unavailable("The platform is shutting down.")
            running = self._agents.get(spec.user_id)
            if running is not None and running.phase != "exited":
                return self._state(running)
            if self._disk_full:
                raise DiskFull(WORDS, retry_after=30)
            agent = self._new(spec)
            try:
                agent = await self._launch(agent, spec)
                agent.accompany(self._watch(agent, spec))
            except BaseException:
                del self._agents[spec.user_id]
                await self._forget(spec.user_id)
                raise
            return self._state(agent)

    def _new(self, spec: AgentSpec) -> Supervised:
        """An agent of which nothing runs yet, in the place of any before it."""
        agent = Supervised(spec.user_id, self._order(spec), self._doors, self._clock, self._log)
        self._agents[spec.user_id] = agent
        return agent

    def _order(self, spec: AgentSpec) -> Order:
        doors = [name for name in DOOR_PORTS if name == "broker" or (spec.egress and name in self._doors)]
        return Order(
            command=gateway_command(repair=spec.repair),
            environment=gateway_surroundings() | dict(spec.environment),
            directory=f"{HOME}/workspace",
            gateway_port=GATEWAY_PORT,
            doors={name: DOOR_PORTS[name] for name in doors},
            processes=self._processes_of(spec),
            largest=spec.disk_bytes,
            filter=self._filter,
            lease_until=spec.lease_until,
        )

    def _furnish(self, spec: AgentSpec) -> None:
        """Have the agent's files in its folder, within its bound. Blocks; the agent does not run.

        Raises: SetupProblem, Unavailable; LimitReached where it may not start as it is.
        """
        name = str(spec.user_id)
        if self._disks is not None and self._disks.attach(name, allowed=spec.disk_bytes):
            try:
                self._disks.limit(name, spec.disk_bytes)
            except OSError as error:
                raise Unavailable(
                    "Your agent's disk cannot be given its size. An administrator finds the reason in "
                    "the log.",
                    detail=repr(error),
                ) from error
            return
        self._need_no_disk(name)
        check_before_start(self._folder(spec.user_id, spec.slot), spec.disk_bytes)

    def _need_no_disk(self, name: str) -> None:
        """Raises: SetupProblem where the agent's files are in an image that is not mounted."""
        image = image_of(self._data / "agents", name)
        if (self._disks is None or not self._disks.on_own_disk(name)) and image.exists():
            raise SetupProblem(
                f"The files of this agent are in the disk image {image}, which only the runtime `sandbox` "
                "can mount, as root. Run OCMT that way, or move the image away: the agent then starts from "
                "its last snapshot."
            )

    async def _watch(self, agent: Supervised, spec: AgentSpec) -> None:
        """See to it that the agent keeps within its bound on the disk, until cancelled."""
        name, folder = str(spec.user_id), self._folder(spec.user_id, spec.slot)
        if self._disks is not None and self._disks.on_own_disk(name):
            await watch_own_disk(agent, folder.root, self._clock, self._log)
            return
        try:
            await watch(agent, folder, spec.disk_bytes, self._clock, self._log)
        except Exception:
            self._log.exception("agent_not_watched", user_id=name)
            agent.condemn("Your agent was stopped: how much of the disk it takes cannot be watched just now.")

    def _lock(self, user_id: UUID) -> asyncio.Lock:
        return self._locks.setdefault(user_id, asyncio.Lock())

    def _place(self, user_id: UUID) -> Path:
        return self._data / "agents" / str(user_id)

    def _uid(self, slot: int) -> int | None:
        """The host uid of an agent; None: that of this process."""
        return FIRST_UID + slot if self._root else None

    async def observe(self, user_id: UUID, state: RuntimeState) -> Observation:
        """See AgentRuntime."""
        agent = self._agents.get(user_id)
        if agent is None:
            return Observation("absent")
        if agent.phase == "exited":
            return Observation(
                "exited", exit_code=agent.exit_code, log_tail=agent.failure(), reason=agent.condemned
            )
        memory = self._memory_of(agent)
        if agent.paused:
            return Observation("paused", memory_bytes=memory)
        return Observation(
            agent.phase, step=agent.step if agent.phase == "starting" else None, memory_bytes=memory
        )

    async def dial(self, user_id: UUID, state: RuntimeState) -> socket.socket:
        """See AgentRuntime. Waits up to half a second for the gateway to listen."""
        agent = self._agents.get(user_id)
        if agent is None:
            raise Unavailable("The agent is not running.")
        return await agent.dial()

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        """See AgentRuntime. Raises: Unavailable where nobody can say yet whether it has ended."""
        async with self._lock(user_id):
            agent = self._agents.get(user_id)
            if agent is not None:
                await self._end(agent, grace)
                self._agents.pop(user_id, None)
        return {}

    async def logs(self, user_id: UUID, state: RuntimeState, *, lines: int = 200) -> str:
        """See AgentRuntime."""
        return await FILES.run(last_lines, log_files(self._folder(user_id, 0).logs), lines, of=user_id)

    async def close(self) -> None:
        """See AgentRuntime."""
        self._closed = True
        agents = list(self._agents)
        ended = await asyncio.gather(
            *(self.stop(user_id, {}, grace=self.close_grace) for user_id in agents), return_exceptions=True
        )
        for user_id, outcome in zip(agents, ended, strict=True):
            if isinstance(outcome, BaseException):
                self._log.error("agent_did_not_stop", user_id=str(user_id), exc_info=outcome)
        await self._shut()

    # EndsWithLease

    async def renew(self, user_id: UUID, *, until: float) -> None:
        """See EndsWithLease."""
        agent = self._agents.get(user_id)
        if agent is not None:
            agent.renew(until)

    # ForgetsFiles

    async def forget(self, user_id: UUID) -> None:
        """See ForgetsFiles."""
        async with self._lock(user_id):
            agent = self._agents.get(user_id)
            if agent is not None:
                await self._end(agent, 0)
                self._agents.pop(user_id, None)
            await FILES.run(self._remove, user_id, of=user_id)
        self._locks.pop(user_id, None)

    def _remove(self, user_id: UUID) -> None:
        """Remove all files of an agent. Blocks."""
        if self._disks is not None:
            self._disks.forget(str(user_id))
        image_of(self._data / "agents", str(user_id)).unlink(missing_ok=True)
        remove_tree(self._place(user_id))
        remove_tree(self._folder(user_id, 0).logs)

    async def remembered(self) -> list[UUID]:
        """See ForgetsFiles."""
        return await FILES.run(_users_in, self._data / "agents")

    # CanPause

    async def pause(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """See CanPause. Raises: Unavailable where there is no agent to pause, or it does not hold still."""
        async with self._lock(user_id):
            agent = self._present(user_id)
            agent.paused = True
            await self._hold_still(agent)
            return self._state(agent)

    async def resume(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """See CanPause. Raises: Unavailable where there is no agent, or it cannot be let run."""
        async with self._lock(user_id):
            agent = self._present(user_id)
            await self._go_on(agent)
            return self._state(agent)

    def _present(self, user_id: UUID) -> Supervised:
        agent = self._agents.get(user_id)
        if agent is None or agent.phase == "exited":
            raise Unavailable("The agent is not running.")
        return agent

    async def _go_on(self, agent: Supervised) -> None:
        """Whether it was held still or not."""
        if agent.paused or agent.held:
            with contextlib.suppress(Unavailable):  # then it has ended, and nobody needs a lease
                agent.tell_lease()
            await self._let_run(agent)
            agent.paused = agent.held = False

    # HoldsAll

    async def hold_all(self) -> None:
        """See HoldsAll. Who was paused, or has gone on meanwhile, is held at the next call."""
        self._disk_full = True
        await asyncio.gather(*(self._hold(agent) for agent in list(self._agents.values())))

    async def _hold(self, agent: Supervised) -> None:
        """One that does not hold still is ended: it would go on to fill the disk."""
        async with self._lock(agent.user_id):
            if agent.phase == "exited" or agent.paused or agent.held:
                return
            agent.held = True
            try:
                await self._hold_still(agent)
            except Unavailable:
                agent.held = False
                agent.condemn(WORDS)

    async def let_all_go_on(self) -> None:
        """See HoldsAll."""
        self._disk_full = False
        for user_id, agent in list(self._agents.items()):
            async with self._lock(user_id):
                if agent.held and not agent.paused:
                    await self._go_on(agent)

    # KnowsJobs

    async def jobs(self, user_id: UUID) -> list[str]:
        """See KnowsJobs."""
        agent = self._agents.get(user_id)
        if agent is None or agent.phase == "exited":
            return []
        return await STARTS.run(self._jobs_of, agent)

    def _jobs_of(self, agent: Supervised) -> list[str]:
        supervisor = self._supervisor_of(agent)
        return detached_programs(supervisor) if supervisor else []

    # KeepsFiles

    def files(self, user_id: UUID, slot: int) -> AgentFiles:
        """See KeepsFiles."""
        disks, name = self._disks, str(user_id)

        def attach(make: bool) -> None:
            if disks is not None:
                disks.attach(name, make=make)
            self._need_no_disk(name)

        def make_room() -> None:
            if self._disk_full:
                raise DiskFull(WORDS, retry_after=30)
            if disks is not None and disks.on_own_disk(name):
                disks.make_room(name)

        return AttachedFiles(FilesOnDisk(self._folder(user_id, slot)), attach, make_room)


def _users_in(folder: Path) -> list[UUID]:
    users = set()
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    for name in (*names, *images_in(folder)):
        with contextlib.suppress(ValueError):  # not an agent's
            users.add(UUID(name))
    return sorted(users)
