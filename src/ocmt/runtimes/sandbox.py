"""The runtime `sandbox`: every agent in a bubblewrap sandbox of its own on this machine.

As root, each agent has a host uid of its own and hard limits by control groups; as an ordinary user it shares
the platform's uid and is kept apart by namespaces alone. Which of the two it is, and what it is worth here,
`probe` finds out by running one.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import structlog

from ocmt.errors import OcmtError, SetupProblem, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.work import FILES, STARTS, Workers
from ocmt.runtimes import paging, spare_plan
from ocmt.runtimes.agent_disks import AgentDisks, logs_beside
from ocmt.runtimes.base import AgentSpec, Isolation, RuntimeState
from ocmt.runtimes.bubblewrap import (
    LAUNCH_ENVIRONMENT,
    EtcFolder,
    View,
    gateway_surroundings,
    launch_command,
    own_folders,
    sandbox_command,
    spare_command,
    supervisor_program,
    write_supervisor,
)
from ocmt.runtimes.cgroups import REMOVE_ATTEMPTS, Group, Hierarchy, end_leftover, find_hierarchy
from ocmt.runtimes.folders import AgentFolder
from ocmt.runtimes.guard import Guard
from ocmt.runtimes.interpreter import programs
from ocmt.runtimes.probe import NO_QUOTA, PROBE_PROGRAM, Findings, judge, look_around
from ocmt.runtimes.processes import (
    Launched,
    children,
    continue_tree,
    descendants,
    oldest_child,
    stop_tree,
)
from ocmt.runtimes.removal import remove_tree
from ocmt.runtimes.seccomp import compiled_filter, filter_descriptor
from ocmt.runtimes.spare_plan import Recipe
from ocmt.runtimes.spares import Spare, Spares, expect_listening, uids, warmed
from ocmt.runtimes.supervised import Door, Spawned, Supervised
from ocmt.runtimes.supervised_runtime import SupervisedRuntime
from ocmt.runtimes.tools import Tools

PAUSE_TIMEOUT = 3.0
"""Seconds in which an agent must be held still; it takes 2 ms, if its processes do not play at tag."""
PAGING = Workers("paging", 4)
"""Agents' memory on its way out and back, which takes seconds: no start waits behind it."""
PUT_OUT_WITHIN = 1.0
"""Seconds that the disk is given to take what was put out; what is still on its way cannot be read again."""


def _as_it_is(path: Path) -> Path:
    return path


class SandboxRuntime(SupervisedRuntime):
    """A SupervisedRuntime with bubblewrap; CanPageOut, RunsImages. One per data folder and process."""

    name = "sandbox"
    close_grace = 5.0

    def __init__(
        self,
        *,
        data_dir: Path,
        tools: Tools,
        doors: Mapping[str, Door],
        clock: Clock,
        log: structlog.stdlib.BoundLogger,
        view: View = _as_it_is,
        recipe: Recipe | None = None,
        private: Sequence[Path] = (),
        own_disks: bool = True,
    ) -> None:
        """See SupervisedRuntime. `view` gives, for a host path, one by which other uids can reach it.

        `recipe`: of warm spares, which are made as root only; None: there are none.
        `own_disks`: whether agents get disks of their own, where that is possible.
        """
        super().__init__(data_dir=data_dir, doors=doors, clock=clock, log=log, private=private)
        self._tools = tools
        self._outside_view = view
        self._named: dict[str, Path] = {}
        """The paths that were handed out under another name, for what is said to people."""
        self._etc = EtcFolder(self._data / "agents" / ".etc")
        self._supervisor = self._data / "agents" / ".supervisor"
        if self._root and own_disks:
            self._disks = AgentDisks(self._data / "agents", view, log)
        self._hierarchy: Hierarchy | None = None
        self._filtered = False
        self._recipe = recipe
        spares = self._data / "agents" / ".spares"
        self.spares = Spares(recipe, spares, self._make_spare, self._forget_spare, clock, log)
        self._served: dict[UUID, Spare] = {}
        """By user: the spare that their agent runs in."""
        self._disappointed: set[UUID] = set()
        """Those whose spare was of no use: the next start is a plain one."""

    def _view(self, path: Path) -> Path:
        seen = self._outside_view(path)
        if seen != path:
            self._named[str(seen)] = path
        return seen

    def _in_real_names(self, text: str) -> str:
        """What bubblewrap says, by the names that exist outside of this process, too."""
        for seen in sorted(self._named, key=len, reverse=True):
            text = text.replace(seen, str(self._named[seen]))
        return text

    # What it is worth

    async def probe(self) -> Isolation:
        """See AgentRuntime. Takes about 0.2 s the first time."""
        async with self._ready:
            if self._isolation is None:
                missing = await STARTS.run(self._prepare)
                self._isolation = judge(await self._look_around(), missing, root=self._root)
                await self.spares.begin()
        return self._isolation

    def _prepare(self) -> tuple[str, ...]:
        """Make what all agents share; returns what cannot be had. Blocks."""
        missing: tuple[str, ...] = ()
        try:
            self._etc.write()
            write_supervisor(self._supervisor)
            self._etc.folder.parent.chmod(0o711)  # each agent's uid passes through, to a folder of its own
            self._view(self._etc.folder.parent)  # one alias for all agents
        except OSError as error:
            raise SetupProblem(
                f"The folder {self._etc.folder} cannot be written: {error.strerror}."
            ) from error
        if self._disks is not None:
            self._disks.probe()
            if self._disks.obstacle is not None:
                missing += (f"{NO_QUOTA} ({self._disks.obstacle})",)
        else:
            missing += (NO_QUOTA,)
        if self._root:
            digest = hashlib.sha256(str(self._data).encode()).hexdigest()[:12]
            self._hierarchy = find_hierarchy(f"ocmt-{digest}")
            missing += self._hierarchy.missing
            for group in self._hierarchy.stale():
                end_leftover(group)
        else:
            missing += ("no hard limits of memory and CPU: they take root, or an own control group",)
        try:
            compiled_filter()
            self._filtered = True
        except (ImportError, RuntimeError, OSError) as error:
            missing += (
                f"no system call filter: libseccomp is missing or refuses ({error}); install libseccomp2",
            )
        return missing

    async def _look_around(self) -> Findings:
        """Run a real sandbox, of the kind that agents get, that reports what it can see."""
        spec = AgentSpec(UUID(int=0), slot=0, config="{}")
        folder = self._folder(spec.user_id, spec.slot)
        await STARTS.run(partial(folder.prepare, spec.config, compile_cache=None))
        await STARTS.run(programs, self._tools.node, self._tools.python)
        try:
            seccomp = filter_descriptor() if self._filtered else None
            try:
                command = self._command(
                    self._tools, folder, PROBE_PROGRAM, self._join(spec), seccomp, largest=spec.disk_bytes
                )
                found = await look_around(command, folder, seccomp, self._data, self._private)
                return replace(found, failure=found.failure and self._in_real_names(found.failure))
            except SetupProblem as refusal:
                return Findings(refused=refusal.message)
            finally:
                if seccomp is not None:
                    os.close(seccomp)
        finally:
            await self._forget(spec.user_id)
            await FILES.run(remove_tree, folder.root)

    # The life of an agent

    async def _launch(self, agent: Supervised, spec: AgentSpec) -> Supervised:
        """See SupervisedRuntime. In a warm spare where there is one."""
        folder = self._folder(spec.user_id, spec.slot)
        tools = await STARTS.run(self._made_ready, spec, folder, of=spec.user_id)
        spare = self._spare_for(spec, tools)
        if spare is not None:
            try:
                await self._hand_over(spare, agent, spec, folder)
                return agent
            except (OcmtError, OSError) as error:
                detail = getattr(error, "detail", None)
                self._log.warning(
                    "warm_spare_of_no_use", user_id=str(spec.user_id), error=str(error), detail=detail
                )
                await self._forget(spec.user_id)
                agent = self._new(spec)
        join = self._join(spec)
        await agent.start(lambda: self._spawn(tools, folder, join, spec.disk_bytes), folder.logs)
        return agent

    def _made_ready(self, spec: AgentSpec, folder: AgentFolder) -> Tools:
        """The tools that it runs with, once its folders are as they must be. Blocks."""
        tools = self._tools_for(spec)
        self._furnish(spec)
        folder.prepare(spec.config, compile_cache=tools.compile_cache)
        return tools

    async def _end(self, agent: Supervised, grace: float) -> None:
        """See SupervisedRuntime."""
        if agent.user_id in self._served and agent.step != "hello":
            self._disappointed.add(agent.user_id)
        await self._go_on(agent)
        await agent.end(grace)
        await self._forget(agent.user_id)

    async def _shut(self) -> None:
        """See SupervisedRuntime."""
        await self.spares.close()
        if self._hierarchy:
            self._hierarchy.remove()
        if self._disks is not None:
            await FILES.run(self._disks.close)

    def _state(self, agent: Supervised) -> RuntimeState:
        """See SupervisedRuntime."""
        return {"pid": agent.process}

    def _folder(self, user_id: UUID, slot: int) -> AgentFolder:
        """See SupervisedRuntime."""
        logs = None if self._disks is None else logs_beside(self._data / "agents", str(user_id))
        return AgentFolder(self._place(user_id), self._uid(slot), logs_at=logs)

    def _processes_of(self, spec: AgentSpec) -> int | None:
        """See SupervisedRuntime."""
        return spec.pids

    def _group(self, user_id: UUID) -> Group | None:
        spare = self._served.get(user_id)
        return self._hierarchy.group(str(spare.id if spare else user_id)) if self._hierarchy else None

    def _join(self, spec: AgentSpec) -> list[Path]:
        group = self._group(spec.user_id)
        return group.create(memory_bytes=spec.memory_bytes, cpus=spec.cpus, pids=spec.pids) if group else []

    async def _forget(self, user_id: UUID) -> None:
        """See SupervisedRuntime. Its last process may still be on its way out of the control group."""
        group = self._group(user_id)
        for _ in range(REMOVE_ATTEMPTS):
            if group is None or group.remove():
                break
            await self._clock.sleep(0.01)
        else:
            self._log.warning("control_group_left_behind", user_id=str(user_id))
        spare = self._served.pop(user_id, None)
        if spare is not None:
            await FILES.run(remove_tree, spare.folder.root)

    def _tools_for(self, spec: AgentSpec) -> Tools:
        tools = self._tools.of(spec.image)
        if tools is None:
            raise SetupProblem(f"OpenClaw {spec.image} is not installed on this machine.")
        return tools

    def _command(
        self,
        tools: Tools,
        folder: AgentFolder,
        program: Sequence[str],
        join: Sequence[Path],
        seccomp: int | None,
        *,
        largest: int,
        plan: Path | None = None,
    ) -> list[str]:
        command = sandbox_command(
            tools,
            folder,
            self._etc,
            self._supervisor,
            program=program,
            seccomp=seccomp,
            view=self._view,
            private=self._private,
            plan=plan,
        )
        return launch_command(command, uid=folder.uid, join=join, largest=largest)

    def _spawn(
        self, tools: Tools, folder: AgentFolder, join: list[Path], largest: int, plan: Path | None = None
    ) -> Spawned:
        """Runs in the event loop's thread, as `Supervised.start` asks."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reading, writing = os.pipe()
        seccomp = filter_descriptor() if self._filtered else None
        try:
            popen = subprocess.Popen(  # noqa: S603 - our own command line
                self._command(
                    tools,
                    folder,
                    supervisor_program(theirs.fileno()),
                    join,
                    seccomp,
                    largest=largest,
                    plan=plan,
                ),
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=writing,
                env=LAUNCH_ENVIRONMENT,
                cwd="/",
                pass_fds=[theirs.fileno(), *([seccomp] if seccomp is not None else [])],
            )
        except BaseException:
            ours.close()
            os.close(reading)
            raise
        finally:
            theirs.close()
            os.close(writing)
            if seccomp is not None:
                os.close(seccomp)
        return Spawned(Launched(popen), ours, reading)

    # Warm spares

    async def _make_spare(self) -> Spare:
        """Raises OcmtError; nothing of it is left then."""
        assert self._recipe is not None
        recipe, tools, number = self._recipe, self._tools, uuid4()
        plan = await self._plan(recipe)
        folder = AgentFolder(self.spares.folder / str(number), next(uids))
        await STARTS.run(partial(folder.prepare, "{}", compile_cache=tools.compile_cache))
        usual = AgentSpec(number, slot=0, config="{}", disk_bytes=recipe.disk_bytes)
        spare = Spare(
            number, tools, folder, self._spawn(tools, folder, self._join(usual), usual.disk_bytes, plan)
        )
        try:
            environment = gateway_surroundings() | dict(recipe.switches)
            await warmed(spare.spawned, spare_command(), environment)
        except BaseException:
            await spare.kill()
            await self._forget_spare(spare)
            raise
        return spare

    async def _forget_spare(self, spare: Spare) -> None:
        self._served[spare.id] = spare
        await self._forget(spare.id)

    async def _plan(self, recipe: Recipe) -> Path:
        path, openclaw = self.spares.folder / "plan.json", self._tools.openclaw.name
        if await STARTS.run(spare_plan.read_plan, path, openclaw) is None:
            with tempfile.TemporaryDirectory(prefix=".recording-", dir=self.spares.folder) as name:
                folder = Path(name)
                runtime = SandboxRuntime(
                    data_dir=folder,
                    tools=self._tools,
                    doors=self._doors,
                    clock=self._clock,
                    log=self._log,
                    view=self._view,
                    private=[self._data],
                    own_disks=False,
                )
                plan = await spare_plan.record(runtime, folder, recipe, openclaw, self._clock)
            await STARTS.run(spare_plan.write_plan, path, plan)
        return path

    def _spare_for(self, spec: AgentSpec, tools: Tools) -> Spare | None:
        too_large = self._recipe is None or spec.disk_bytes > self._recipe.disk_bytes
        if spec.repair or too_large or spec.user_id in self._disappointed:
            self._disappointed.discard(spec.user_id)
            return None
        return self.spares.take(tools)

    async def _hand_over(self, spare: Spare, agent: Supervised, spec: AgentSpec, folder: AgentFolder) -> None:
        """Raises OcmtError, OSError; none of its processes is left then."""
        self._served[spec.user_id] = spare
        try:
            self._join(spec)
            own = own_folders(folder.root)
            Guard(self._private, own).check(own)
            await spare.furnish(folder)
        except BaseException:
            await spare.kill()
            raise
        await agent.start(lambda: spare.spawned, folder.logs)
        agent.accompany(expect_listening(agent, self._clock))

    # CanPause

    async def _hold_still(self, agent: Supervised) -> None:
        """See SupervisedRuntime."""
        try:
            async with asyncio.timeout(PAUSE_TIMEOUT):
                await stop_tree(agent.process, self._clock)
        except TimeoutError as error:
            await self._go_on(agent)
            raise Unavailable("The agent cannot be held still.") from error

    async def _let_run(self, agent: Supervised) -> None:
        """See SupervisedRuntime."""
        continue_tree(agent.process)
        if agent.paged_out:
            agent.paged_out = False
            agent.called_back = asyncio.create_task(
                PAGING.run(paging.call_back, descendants(agent.process)), name="call back"
            )

    # CanPageOut

    async def page_out(self, user_id: UUID, state: RuntimeState) -> bool:
        """See CanPageOut. Takes root, and as much free swap as one agent may have memory.

        Where memory is ample, what is out is read once more, as a copy that the kernel drops for whoever
        needs the room: it keeps none of some of it, and reading that costs a wake 0.3 s.
        """
        agent = self._agents.get(user_id)
        if agent is None or not agent.paused or not self._root:
            return False
        if paging.room_in_swap() < (self._memory_of(agent) or AgentSpec.memory_bytes):
            return False
        pids = descendants(agent.process)
        agent.paged_out = True
        try:
            await PAGING.run(partial(paging.page_out, pids, wanted=lambda: agent.paused))
            await self._clock.sleep(PUT_OUT_WITHIN)
            if agent.paused and paging.is_ample():
                await PAGING.run(paging.call_back, pids)
        except OSError as error:
            self._log.warning("agent_not_paged_out", user_id=str(user_id), error=str(error))
            return False
        return agent.paused

    def _supervisor_of(self, agent: Supervised) -> int | None:
        """See SupervisedRuntime. bubblewrap's process 1 has it as its first child."""
        inner = children(agent.process)
        return oldest_child(inner.pop()) if len(inner) == 1 else None

    def _memory_of(self, agent: Supervised) -> int | None:
        """See SupervisedRuntime."""
        group = self._group(agent.user_id)
        return group.memory() if group else None

    # RunsImages

    @property
    def own_image(self) -> str:
        """See RunsImages."""
        return self._tools.openclaw.name

    async def has_image(self, image: str) -> bool:
        """See RunsImages."""
        return await STARTS.run(self._tools.of, image) is not None
