"""Replicas that can die, be frozen or meet a fault between any two steps, over one database and one disk.

A step is a call to the outside: a statement, an object, the runtime, the clock. What a dead replica calls
never comes back (`Halt`), so nothing of its clean-up happens outside; its agents end with it. Two virtual
clocks are one: PostgreSQL's `now()` and `clock_timestamp()`, by which leases run out, show the test's time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from ocmt.errors import Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.runtimes.base import AgentFiles, AgentSpec, Observation, RuntimeState
from ocmt.runtimes.folders import AgentFolder
from ocmt.testing.clock import VirtualClock
from ocmt.testing.gateway import FakeGateway
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.runtimes import FakeRuntime

T = TypeVar("T")

NOTES = "workspace/notes.txt"
CALM = 20
"""Turns of the event loop without any statement under way, after which nothing moves any more."""


class Halt(BaseException):
    """The process is dead, so nothing comes back."""


class Process:
    """The life of one replica's process. `None` in a fault: none is ordered."""

    current: ContextVar[Process | None] = ContextVar("process", default=None)

    def __init__(self) -> None:
        self.dead = False
        self.awake = asyncio.Event()
        self.awake.set()
        self.dies_in: int | None = None
        self.faults: dict[str, int] = {}
        """Kind of call → how many more of its steps go well before one fails."""
        self.tasks: set[asyncio.Task[Any]] = set()

    async def step(self, kind: str, fault: Callable[[], Exception] | None = None) -> None:
        """Before a call, and after it. Raises Halt, or the fault that was ordered."""
        if self.dies_in is not None:
            self.dies_in -= 1
            self.dead = self.dead or self.dies_in < 0
        if self.dead:
            raise Halt
        await self.awake.wait()
        if self.dead:
            raise Halt
        if fault is not None and kind in self.faults:
            self.faults[kind] -= 1
            if self.faults[kind] < 0:
                del self.faults[kind]
                raise fault()

    async def end(self) -> None:
        """SIGKILL."""
        self.dead = True
        self.awake.set()
        while tasks := [task for task in self.tasks if not task.done()]:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=1)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run it as a part of this process, with all the tasks that it makes."""
        context = Context()
        context.run(self.current.set, self)
        return asyncio.create_task(work, context=context)


def owned_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], *, context: Context | None = None
) -> asyncio.Task[Any]:
    """A task factory: tasks belong to the process whose task makes them."""
    owner = context.get(Process.current) if context is not None else Process.current.get()
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    if owner is not None:
        owner.tasks.add(task)
        task.add_done_callback(owner.tasks.discard)
    return task


class AtOnce(ThreadPoolExecutor):
    """For short work on files: the loop waits for it, so the order of things is the same every time."""

    def submit(self, call: Callable[..., T], /, *given: Any, **named: Any) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(call(*given, **named))
        except Exception as error:
            done.set_exception(error)
        return done


class ProcessClock(VirtualClock):
    """The time of all, as one process sees it: frozen, it does not notice that it passes."""

    def __init__(self, clock: VirtualClock, process: Process) -> None:
        self._clock = clock
        self._process = process

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        await self._process.step("clock")


class ProcessDatabase(Database):
    """One process's way to the database that all share."""

    under_way = 0
    """Statements of all processes."""

    def __init__(self, shared: Database, process: Process) -> None:
        super().__init__(shared._pool)
        self._process = process

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        await self._process.step("database", _no_database)
        ProcessDatabase.under_way += 1
        try:
            async with super().connection() as connection:
                yield connection
        finally:
            ProcessDatabase.under_way -= 1
        # By now it is committed, and whoever did that may never know.
        await self._process.step("database", _no_database)


class ProcessObjects(MemoryObjects):
    """One process's way to the objects that all share."""

    def __init__(self, shared: MemoryObjects, process: Process) -> None:
        self.stored = shared.stored
        self._process = process

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("put", "put_if_absent", "get", "get_many", "delete", "sizes", "persist"):
            return found

        async def call(*given: Any) -> Any:
            await self._process.step("objects", _no_objects)
            result = await found(*given)
            await self._process.step("objects", _no_objects)
            return result

        return call


class DiskGateway(FakeGateway):
    """Keeps its conversations through its deaths, as OpenClaw does, and a note of each answer in a file."""

    def __init__(self, clock: Clock, root: Path) -> None:
        super().__init__(clock)
        self.notes = root / NOTES

    def written(self) -> bytes:
        """All notes."""
        return self.notes.read_bytes() if self.notes.exists() else b""

    def _prepare(self, params: dict[str, Any]) -> dict[str, Any]:
        if any(it.status == "running" and it.run is None for it in self._sessions.values()):
            return {"payload": {"status": "busy", "blockers": [{"message": "1 turn to take up again"}]}}
        return super()._prepare(params)

    def _entry(self, role: str, text: str, *, run_id: str | None = None, **more: Any) -> dict[str, Any]:
        if role == "assistant" and more.get("stopReason") == "stop":
            with self.notes.open("a") as file:
                file.write(text + "\n")
        return super()._entry(role, text, run_id=run_id, **more)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Not a task of the process that happens to call."""
        task = asyncio.create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


class Machine:
    """What all replicas share: the disk, and the gateways on it. `violations` stays empty."""

    def __init__(self, clock: VirtualClock, disk: Path) -> None:
        self.clock = clock
        self.disk = disk
        self.gateways: dict[UUID, DiskGateway] = {}
        self.runtimes: list[ProcessRuntime] = []
        self.violations: list[str] = []

    async def add(self, user_id: UUID) -> None:
        """That user's gateway, which does not run yet."""
        gateway = DiskGateway(self.clock, self.folder(user_id).root)
        await gateway.__aenter__()
        await gateway.kill()
        self.gateways[user_id] = gateway

    def folder(self, user_id: UUID) -> AgentFolder:
        return AgentFolder(self.disk / str(user_id), None)

    async def start(self, spec: AgentSpec) -> FakeGateway:
        """See MakeGateway."""
        gateway = self.gateways[spec.user_id]
        if not gateway.dead:
            self.violations.append(f"two gateways on the workspace of {spec.user_id}")
        await gateway.restart()
        return gateway

    async def time_has_passed(self) -> None:
        """Agents end whose lease was not renewed in time."""
        for runtime in self.runtimes:
            await runtime.lapse()

    async def crash(self, user_id: UUID) -> None:
        """The agent dies by itself, wherever it runs."""
        for runtime in self.runtimes:
            if runtime.runs(user_id):
                await runtime.crash(user_id, 137)

    async def close(self) -> None:
        for gateway in self.gateways.values():
            await gateway.__aexit__()


class ProcessRuntime(FakeRuntime):
    """One replica's runtime on the machine."""

    def __init__(self, machine: Machine, process: Process) -> None:
        super().__init__(machine.clock, make_gateway=machine.start)
        self._machine = machine
        self._process = process
        machine.runtimes.append(self)

    def runs(self, user_id: UUID) -> bool:
        agent = self._agents.get(user_id)
        return agent is not None and agent.exit_code is None

    def moves(self, user_id: UUID) -> bool:
        """Whether it runs and is not held still."""
        return self.runs(user_id) and not self._agents[user_id].paused

    async def end(self) -> None:
        """Its process has died: so do its agents."""
        for user_id in list(self._agents):
            if self.runs(user_id):
                await self.crash(user_id, 137)
        self._machine.runtimes.remove(self)

    def files(self, user_id: UUID, slot: int) -> AgentFiles:
        """See KeepsFiles."""
        return FilesOnDisk(self._machine.folder(user_id))

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        await self._process.step("runtime", _no_runtime)
        self._machine.folder(spec.user_id).prepare(spec.config, compile_cache=None)
        # A gateway that another process has started is none of ours.
        if spec.lease_until is not None and self._clock.monotonic() >= spec.lease_until:
            raise Unavailable("The lease had ended before the start.")
        if not self.runs(spec.user_id):
            self._gateways.pop(spec.user_id, None)
            await self._machine.time_has_passed()
        started = await super().start(spec, state)
        await self._process.step("runtime", _no_runtime)
        return started

    async def observe(self, user_id: UUID, state: RuntimeState) -> Observation:
        await self._process.step("observe")
        return await super().observe(user_id, state)

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        await self._process.step("runtime", _no_runtime)
        stopped = await super().stop(user_id, state, grace=grace)
        await self._process.step("runtime", _no_runtime)
        return stopped

    async def pause(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        await self._process.step("runtime", _no_runtime)
        return await super().pause(user_id, state)

    async def resume(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        await self._process.step("runtime", _no_runtime)
        return await super().resume(user_id, state)


class DatabaseTime:
    """The database's clock shows the test's time."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record], clock: VirtualClock) -> None:
        self._connection = connection
        self._clock = clock

    @classmethod
    async def install(cls, dsn: str) -> None:
        """For all connections that are opened from now on."""
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute("""
                create schema virtual;
                create table virtual.time (at timestamptz not null);
                insert into virtual.time values ('2030-01-01 12:00:00+00');
                create function virtual.now() returns timestamptz language sql volatile
                  as 'select at from virtual.time';
                create function virtual.clock_timestamp() returns timestamptz language sql volatile
                  as 'select at from virtual.time';
            """)
            name = await connection.fetchval("select current_database()")
            await connection.execute(f"alter database {name} set search_path = virtual, pg_catalog, public")
        finally:
            await connection.close()

    async def follow(self) -> None:
        """It has passed."""
        await self._connection.execute("update virtual.time set at = $1", self._clock.now())


async def calm() -> None:
    """Return once nothing moves any more but by time."""
    still = 0
    while still < CALM:
        await asyncio.sleep(0)
        still = 0 if ProcessDatabase.under_way else still + 1


def _no_database() -> Exception:
    return Unavailable("The database does not answer just now.", detail="a fault made for a test")


def _no_objects() -> Exception:
    return OSError("a fault made for a test")


def _no_runtime() -> Exception:
    return Unavailable("The machine does not answer.", detail="a fault made for a test")
