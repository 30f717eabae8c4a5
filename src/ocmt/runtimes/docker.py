"""The runtime `docker`: every agent in a hardened container of its own, by Docker or podman of this machine.

The same supervisor as in the sandbox, on the same control channel, with the same doors; but nothing can be
inherited into a container, so the supervisor calls the platform (`rendezvous.py`) and is handed the rest.
Agents end with the platform, as their supervisors do; what a killed platform left behind, such as the frozen,
is found by its label and removed at the next start. No state to find again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import structlog

from ocmt.errors import Conflict, NotFound, OcmtError, SetupProblem, Unavailable
from ocmt.platform.clock import Clock
from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.runtimes.base import AgentSpec, Isolation, Observation, RuntimeState
from ocmt.runtimes.bubblewrap import DOOR_PORTS, GATEWAY_PORT, HOME, gateway_command, gateway_surroundings
from ocmt.runtimes.disk_watch import watch
from ocmt.runtimes.docker_container import LABEL, PYTHON, Daemon, OwnFiles, describe, judge, read_about
from ocmt.runtimes.docker_engine import CALL_TIMEOUT, Container, Engine
from ocmt.runtimes.folders import FIRST_UID, last_lines
from ocmt.runtimes.output import log_files
from ocmt.runtimes.probe import PROBE_SCRIPT, find_holes
from ocmt.runtimes.rendezvous import Rendezvous
from ocmt.runtimes.seccomp import compiled_filter
from ocmt.runtimes.supervised import Door, Order, Spawned, Supervised

DEFAULT_URL = "unix:///var/run/docker.sock"
DEFAULT_IMAGE = "ocmt-agent"
CALL_LIMIT = 20.0
"""Seconds from a container's start to its supervisor's call; 0.3 on a quiet machine."""
START_LIMIT = 30.0
"""From there to the gateway's process, and its end where there is none."""
PROBE_LIMIT = 20.0
CLOSE_GRACE = 3.5
END_LIMIT = 3.0
"""Seconds that Docker has, beyond the agent's own grace, to say that a container has ended."""


class DockerRuntime:
    """AgentRuntime, EndsWithLease and CanPause with Docker. One per data folder and process."""

    name = "docker"

    def __init__(
        self,
        *,
        data_dir: Path,
        doors: Mapping[str, Door],
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        url: str = DEFAULT_URL,
        image: str = DEFAULT_IMAGE,
    ) -> None:
        """`doors` serve, by name, what an agent finds at 127.0.0.1: `broker` always, `egress` where it may.

        `data_dir` must have the same path for Docker as for this process.
        """
        self._data = data_dir.resolve()
        self._doors = doors
        self._clock = clock
        self._log = log
        self._image = image
        self._engine = Engine(url)
        self._label = hashlib.sha256(str(self._data).encode()).hexdigest()[:12]
        self._root = os.geteuid() == 0
        self._daemon = Daemon()
        self._filter: bytes | None = None
        self._agents: dict[UUID, Supervised] = {}
        self._bodies: dict[UUID, Container] = {}
        self._locks: dict[UUID, asyncio.Lock] = {}
        self._ready = asyncio.Lock()
        self._isolation: Isolation | None = None
        self._closed = False

    # What it is worth

    async def probe(self) -> Isolation:
        """See AgentRuntime. Takes about a second the first time, and ends what an earlier run left behind.

        Raises: Unavailable while Docker does not answer, SetupProblem where the agents' image is missing.
        """
        async with self._ready:
            if self._isolation is None:
                await self._prepare()
                self._isolation = await self._look_around()
        return self._isolation

    async def _prepare(self) -> None:
        self._daemon = read_about(await self._engine.about())
        if self._daemon.rootless and not self._daemon.podman:
            raise SetupProblem(
                "Rootless Docker gives agents user ids that cannot come to their own files: use podman "
                "(OCMT_DOCKER_URL=unix:///run/user/UID/podman/podman.sock), or Docker as root."
            )
        if not await self._engine.has_image(self._image):
            raise SetupProblem(
                f"Docker has no image {self._image}: build it with `docker build -t {self._image} "
                "-f agent/Dockerfile .`, or name another with OCMT_AGENT_IMAGE."
            )
        for leftover in await self._engine.labelled(f"{LABEL}={self._label}"):
            self._log.info("container_of_an_earlier_run_ended", container=leftover)
            await self._engine.remove(leftover)
        with contextlib.suppress(ImportError, RuntimeError, OSError):  # `judge` tells that it is missing
            self._filter = await asyncio.to_thread(compiled_filter)

    async def _look_around(self) -> Isolation:
        """Run a real container, of the kind that agents get, that reports what it can see."""
        spec = AgentSpec(UUID(int=0), slot=0, config="{}")
        files = self._files(spec.user_id, spec.slot)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            asked = {
                "port": listener.getsockname()[1],
                "pid_namespace": os.readlink("/proc/self/ns/pid"),  # noqa: PTH115 - not a file's path
                "file": str(files.root / "config"),
            }
            order = Order(
                command=[PYTHON, "-I", "-S", "-c", PROBE_SCRIPT],
                environment={"ASKED": json.dumps(asked)},
                directory=HOME,
                gateway_port=GATEWAY_PORT,
                doors={},
                processes=None,
                filter=self._filter,
            )
            agent = Supervised(spec.user_id, order, {}, self._clock, self._log)
            try:
                await self._launch(agent, files, spec)
                async with asyncio.timeout(PROBE_LIMIT):
                    await agent.over()
            except TimeoutError as error:
                raise Unavailable("A container for a look around took too long.") from error
            finally:
                await self._forget(spec.user_id)
                await asyncio.to_thread(shutil.rmtree, files.root, ignore_errors=True)
        return self._judged(agent, files)

    def _judged(self, agent: Supervised, files: OwnFiles) -> Isolation:
        try:
            seen = json.loads(agent.log_tail.strip().rpartition("\n")[2])
        except ValueError:
            words = agent.failure()[-500:]
            return Isolation("none", "The image for agents does not run here.", missing=(words,))
        if self._filter is None:
            del seen["vsock"]  # Docker's own filter lets it pass up to version 24: `judge` tells
        return judge(
            self._daemon,
            holes=find_holes(seen, filtered=True, uid=files.inside),
            own_uid=files.uid is not None,
            hardened=agent.hardened,
            filtered=self._filter is not None,
        )

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
                return self._state(spec.user_id)
            names = [name for name in DOOR_PORTS if name == "broker" or (spec.egress and name in self._doors)]
            order = Order(
                command=gateway_command(repair=spec.repair),
                environment=gateway_surroundings() | dict(spec.environment),
                directory=f"{HOME}/workspace",
                gateway_port=GATEWAY_PORT,
                doors={name: DOOR_PORTS[name] for name in names},
                processes=None,  # the container's own limit counts no other's
                filter=self._filter,
                lease_until=spec.lease_until,
            )
            agent = Supervised(spec.user_id, order, self._doors, self._clock, self._log)
            self._agents[spec.user_id] = agent
            try:
                files = self._files(spec.user_id, spec.slot)
                await self._launch(agent, files, spec)
                agent.accompany(watch(agent, files.folder.written, spec.disk_bytes, self._clock, self._log))
            except BaseException:
                await self._forget(spec.user_id)
                raise
            return self._state(spec.user_id)

    def _state(self, user_id: UUID) -> RuntimeState:
        return {"container": self._name(user_id)}

    def _name(self, user_id: UUID) -> str:
        return f"ocmt-{self._label}-{user_id}"

    def _lock(self, user_id: UUID) -> asyncio.Lock:
        return self._locks.setdefault(user_id, asyncio.Lock())

    def _files(self, user_id: UUID, slot: int) -> OwnFiles:
        uid = FIRST_UID + slot if self._root else None
        return OwnFiles(self._folder(user_id), uid, os.getuid() if uid is None else uid)

    def _folder(self, user_id: UUID) -> Path:
        return self._data / "agents" / str(user_id)

    async def _launch(self, agent: Supervised, files: OwnFiles, spec: AgentSpec) -> None:
        """A container with a supervisor that has called, and then the gateway in it; or nothing at all."""
        await asyncio.to_thread(files.prepare, spec.config)
        name = self._name(spec.user_id)
        with await asyncio.to_thread(Rendezvous, files.control, files.uid) as rendezvous:
            try:
                number = await self._create(name, spec, files)
                await self._engine.start(number)
                control, pid = await self._called(number, rendezvous)
            except BaseException:
                with contextlib.suppress(OcmtError):  # the next start removes it, by its name
                    await self._engine.remove(name)
                raise
        body = self._bodies[spec.user_id] = Container(self._engine, number, pid)
        reading, writing = os.pipe()
        try:
            async with asyncio.timeout(START_LIMIT):
                await agent.start(lambda: Spawned(body, control, reading, writing), files.folder.logs)
        except TimeoutError as error:
            body.give_up()
            raise Unavailable("Docker does not say whether the agent has started or ended.") from error

    async def _create(self, name: str, spec: AgentSpec, files: OwnFiles) -> str:
        image = spec.image or self._image
        description = describe(spec, files, image=image, label=self._label, daemon=self._daemon)
        try:
            return await self._engine.create(name, description)
        except Conflict:  # of an agent whose end Docker did not confirm in time
            await self._engine.remove(name)
            return await self._engine.create(name, description)
        except NotFound as error:
            raise SetupProblem(
                f"Docker has no image {image} any more: build it with "
                f"`docker build -t {image} -f agent/Dockerfile .`.",
                detail=error.detail,
            ) from error

    async def _called(self, number: str, rendezvous: Rendezvous) -> tuple[socket.socket, int]:
        """The supervisor's call, unless the container ends before it. Raises: Unavailable."""
        call = asyncio.create_task(rendezvous.taken())
        end = asyncio.create_task(self._engine.wait(number, limit=CALL_LIMIT))
        try:
            await asyncio.wait([call, end], timeout=CALL_LIMIT, return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                return call.result()
        finally:
            for task in (call, end):
                task.cancel()
            await asyncio.wait([call, end])
        words = "nobody called"
        with contextlib.suppress(OcmtError):
            words = await self._engine.last_words(number)
        raise Unavailable("The agent's container did not start.", detail=words)

    async def _forget(self, user_id: UUID) -> None:
        """Leave nothing of an agent that did not start."""
        self._agents.pop(user_id, None)
        self._bodies.pop(user_id, None)
        with contextlib.suppress(OcmtError):  # the next start removes it, by its name
            await self._engine.remove(self._name(user_id))

    async def observe(self, user_id: UUID, state: RuntimeState) -> Observation:
        """See AgentRuntime."""
        agent = self._agents.get(user_id)
        if agent is None:
            return Observation("absent")
        if agent.phase == "exited":
            return Observation(
                "exited", exit_code=agent.exit_code, log_tail=agent.failure(), reason=agent.condemned
            )
        if agent.paused:
            return Observation("paused")
        return Observation(agent.phase, step=agent.step if agent.phase == "starting" else None)

    async def dial(self, user_id: UUID, state: RuntimeState) -> socket.socket:
        """See AgentRuntime. Waits up to half a second for the gateway to listen."""
        agent = self._agents.get(user_id)
        if agent is None:
            raise Unavailable("The agent is not running.")
        return await agent.dial()

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        """See AgentRuntime. Raises: Unavailable while Docker does not say that the container has ended."""
        async with self._lock(user_id):
            agent = self._agents.get(user_id)
            if agent is not None:
                try:
                    async with asyncio.timeout(grace + END_LIMIT):
                        with contextlib.suppress(OcmtError):  # then it is killed, frozen or not
                            await self._go_on(user_id, agent)
                        await agent.end(grace)
                except TimeoutError as error:
                    raise Unavailable(
                        "Docker does not say whether the agent has ended.", retry_after=CALL_TIMEOUT
                    ) from error
                self._agents.pop(user_id, None)
                self._bodies.pop(user_id, None)
        return {}

    async def logs(self, user_id: UUID, state: RuntimeState, *, lines: int = 200) -> str:
        """See AgentRuntime."""
        return await asyncio.to_thread(last_lines, log_files(self._folder(user_id) / "logs"), lines)

    async def close(self) -> None:
        """See AgentRuntime."""
        self._closed = True
        agents = list(self._agents)
        ended = await asyncio.gather(
            *(self.stop(user_id, {}, grace=CLOSE_GRACE) for user_id in agents), return_exceptions=True
        )
        for user_id, outcome in zip(agents, ended, strict=True):
            if isinstance(outcome, BaseException):
                self._log.error("agent_did_not_stop", user_id=str(user_id), exc_info=outcome)
        for user_id, body in list(self._bodies.items()):
            body.give_up()
            await self._agents[user_id].over()
        await self._engine.close()

    # RunsImages

    @property
    def own_image(self) -> str:
        """See RunsImages."""
        return self._image

    async def has_image(self, image: str) -> bool:
        """See RunsImages."""
        return await self._engine.has_image(image)

    # KeepsFiles

    def files(self, user_id: UUID, slot: int) -> FilesOnDisk:
        """See KeepsFiles."""
        return FilesOnDisk(self._files(user_id, slot).folder)

    # EndsWithLease

    async def renew(self, user_id: UUID, *, until: float) -> None:
        """See EndsWithLease."""
        agent = self._agents.get(user_id)
        if agent is not None:
            agent.renew(until)

    # CanPause

    async def pause(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """See CanPause. Raises: Unavailable where there is no agent to pause, or Docker does not do it."""
        async with self._lock(user_id):
            agent = self._agents.get(user_id)
            if agent is None or agent.phase == "exited":
                raise Unavailable("The agent is not running.")
            agent.paused = True
            try:
                await self._engine.pause(self._bodies[user_id].number)
            except OcmtError as error:
                await self._undo_pause(user_id, agent)
                raise Unavailable("The agent cannot be held still.", detail=error.detail) from error
            return self._state(user_id)

    async def _undo_pause(self, user_id: UUID, agent: Supervised) -> None:
        """After a pause that may or may not have come to Docker: where Docker cannot be asked, who answers is
        not frozen. Else it counts as paused, until a later `resume` or `stop` gets through.
        """
        with contextlib.suppress(OcmtError):
            await self._go_on(user_id, agent)
            return
        agent.paused = False
        try:
            (await agent.dial()).close()
        except Unavailable:
            agent.paused = True

    async def resume(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """See CanPause. Raises: Unavailable where there is no agent, or Docker does not answer."""
        async with self._lock(user_id):
            agent = self._agents.get(user_id)
            if agent is None or agent.phase == "exited":
                raise Unavailable("The agent is not running.")
            await self._go_on(user_id, agent)
            return self._state(user_id)

    async def _go_on(self, user_id: UUID, agent: Supervised) -> None:
        if agent.paused:
            with contextlib.suppress(Unavailable):  # then it has ended, and nobody needs a lease
                agent.tell_lease()
            await self._engine.unpause(self._bodies[user_id].number)
            agent.paused = False
