"""The runtime `docker`: every agent in a hardened container of its own, by Docker or podman of this machine.

The same supervisor as in the sandbox, on the same control channel, with the same doors; but nothing can be
inherited into a container, so the supervisor calls the platform (`rendezvous.py`) and is handed the rest.
What a killed platform left behind, such as the frozen, is found by its label and removed at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from uuid import UUID

import structlog

from ocmt.errors import Conflict, NotFound, OcmtError, SetupProblem, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.work import FILES, STARTS
from ocmt.runtimes.base import AgentSpec, Isolation, RuntimeState
from ocmt.runtimes.bubblewrap import GATEWAY_PORT, HOME
from ocmt.runtimes.docker_container import (
    LABEL,
    PYTHON,
    Daemon,
    OwnFiles,
    bound_paths,
    describe,
    judge,
    read_about,
)
from ocmt.runtimes.docker_engine import CALL_TIMEOUT, Container, Engine
from ocmt.runtimes.folders import AgentFolder
from ocmt.runtimes.guard import Guard
from ocmt.runtimes.probe import PROBE_SCRIPT, find_holes, questions
from ocmt.runtimes.rendezvous import Rendezvous
from ocmt.runtimes.seccomp import compiled_filter
from ocmt.runtimes.supervised import Door, Order, Spawned, Supervised
from ocmt.runtimes.supervised_runtime import SupervisedRuntime

DEFAULT_URL = "unix:///var/run/docker.sock"
DEFAULT_IMAGE = "ocmt-agent"
CALL_LIMIT = 20.0
"""Seconds from a container's start to its supervisor's call; 0.3 on a quiet machine."""
START_LIMIT = 30.0
"""From there to the gateway's process, and its end where there is none."""
PROBE_LIMIT = 20.0
END_LIMIT = 3.0
"""Seconds that Docker has, beyond the agent's own grace, to say that a container has ended."""


class DockerRuntime(SupervisedRuntime):
    """A SupervisedRuntime with Docker; RunsImages. One per data folder and process."""

    name = "docker"
    close_grace = 3.5

    def __init__(
        self,
        *,
        data_dir: Path,
        doors: Mapping[str, Door],
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        url: str = DEFAULT_URL,
        image: str = DEFAULT_IMAGE,
        private: Sequence[Path] = (),
    ) -> None:
        """See SupervisedRuntime. `data_dir` must have the same path for Docker as for this process."""
        super().__init__(data_dir=data_dir, doors=doors, clock=clock, log=log, private=private)
        self._image = image
        self._engine = Engine(url)
        self._label = hashlib.sha256(str(self._data).encode()).hexdigest()[:12]
        self._daemon = Daemon()
        self._bodies: dict[UUID, Container] = {}

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
            self._filter = await STARTS.run(compiled_filter)

    async def _look_around(self) -> Isolation:
        """Run a real container, of the kind that agents get, that reports what it can see."""
        spec = AgentSpec(UUID(int=0), slot=0, config="{}")
        files = self._files(spec.user_id, spec.slot)
        self._data.mkdir(parents=True, exist_ok=True)
        with questions(files.folder, self._data, self._private) as asked:
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
                await self._launch(agent, spec)
                async with asyncio.timeout(PROBE_LIMIT):
                    await agent.over()
            except TimeoutError as error:
                raise Unavailable("A container for a look around took too long.") from error
            finally:
                await self._forget(spec.user_id)
                await FILES.run(partial(shutil.rmtree, files.root, ignore_errors=True))
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

    def _state(self, agent: Supervised) -> RuntimeState:
        """See SupervisedRuntime."""
        return {"container": self._name(agent.user_id)}

    def _name(self, user_id: UUID) -> str:
        return f"ocmt-{self._label}-{user_id}"

    def _files(self, user_id: UUID, slot: int) -> OwnFiles:
        uid = self._uid(slot)
        return OwnFiles(self._place(user_id), uid, os.getuid() if uid is None else uid)

    def _folder(self, user_id: UUID, slot: int) -> AgentFolder:
        """See SupervisedRuntime."""
        return self._files(user_id, slot).folder

    async def _launch(self, agent: Supervised, spec: AgentSpec) -> Supervised:
        """See SupervisedRuntime: a container with a supervisor that has called, then the gateway in it."""
        files = self._files(spec.user_id, spec.slot)
        await STARTS.run(self._made_ready, spec, files, of=spec.user_id)
        name = self._name(spec.user_id)
        with await STARTS.run(Rendezvous, files.control, files.uid, of=spec.user_id) as rendezvous:
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
        return agent

    def _made_ready(self, spec: AgentSpec, files: OwnFiles) -> None:
        """Have its folders as they must be. Blocks."""
        self._furnish(spec)
        files.prepare(spec.config)

    async def _create(self, name: str, spec: AgentSpec, files: OwnFiles) -> str:
        image = spec.image or self._image
        description = describe(spec, files, image=image, label=self._label, daemon=self._daemon)
        await STARTS.run(Guard(self._private, files.bound).check, bound_paths(description))
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
        """See SupervisedRuntime."""
        self._bodies.pop(user_id, None)
        with contextlib.suppress(OcmtError):  # the next start removes it, by its name
            await self._engine.remove(self._name(user_id))

    async def _end(self, agent: Supervised, grace: float) -> None:
        """See SupervisedRuntime. Raises: Unavailable while Docker does not say that it has ended."""
        try:
            async with asyncio.timeout(grace + END_LIMIT):
                with contextlib.suppress(OcmtError):  # then it is killed, frozen or not
                    await self._go_on(agent)
                await agent.end(grace)
        except TimeoutError as error:
            raise Unavailable(
                "Docker does not say whether the agent has ended.", retry_after=CALL_TIMEOUT
            ) from error
        self._bodies.pop(agent.user_id, None)

    def _supervisor_of(self, agent: Supervised) -> int | None:
        """See SupervisedRuntime. Not visible where the platform runs in a container itself."""
        body = self._bodies.get(agent.user_id)
        return body.pid or None if body else None

    async def _shut(self) -> None:
        """See SupervisedRuntime."""
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

    # CanPause

    async def _hold_still(self, agent: Supervised) -> None:
        """See SupervisedRuntime."""
        try:
            await self._engine.pause(self._bodies[agent.user_id].number)
        except OcmtError as error:
            await self._undo_pause(agent)
            raise Unavailable("The agent cannot be held still.", detail=error.detail) from error

    async def _undo_pause(self, agent: Supervised) -> None:
        """After a pause that may or may not have come to Docker: where Docker cannot be asked, who answers is
        not frozen. Else it counts as paused, until a later `resume` or `stop` gets through.
        """
        with contextlib.suppress(OcmtError):
            await self._go_on(agent)
            return
        agent.paused = False
        try:
            (await agent.dial()).close()
        except Unavailable:
            agent.paused = True

    async def _let_run(self, agent: Supervised) -> None:
        """See SupervisedRuntime. Raises: Unavailable where Docker does not answer."""
        await self._engine.unpause(self._bodies[agent.user_id].number)
