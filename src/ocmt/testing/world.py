"""The machines on which agents run, as one double outside of the platform's processes: `World`; and the way
from such a process to it: `WorldRuntime`.

For those who measure or kill such processes: what they run must live elsewhere, here in the process of the
test or benchmark, with a gateway for each agent on a real socket. The world sees what must never happen, a
second gateway on one workspace, and does what real machines do: agents end with the process that started
them, and where their lease is not renewed in time. Their files lie on one disk, which all processes see.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from websockets.asyncio.server import ServerConnection

from ocmt.errors import NotYet, Unavailable
from ocmt.platform.clock import SystemClock
from ocmt.runtimes.agent_files import FilesOnDisk
from ocmt.runtimes.base import AgentFiles, AgentSpec, Isolation, Observation, RuntimeState
from ocmt.runtimes.folders import AgentFolder
from ocmt.testing.gateway import FakeGateway
from ocmt.testing.gateway_wire import stream_to

WATCH_INTERVAL = 0.02
CALL_TIMEOUT = 5.0


def folder_of(disk: Path, user_id: UUID) -> AgentFolder:
    """Where that agent's files lie."""
    return AgentFolder(disk / str(user_id), None)


class ReachableGateway(FakeGateway):
    """One that other processes reach by its port, also while it is dead: then it hangs up."""

    def __init__(self, clock: SystemClock) -> None:
        super().__init__(clock)
        self.deaths = 0

    @property
    def port(self) -> int:
        """Where it listens, on the loopback."""
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def kill(self) -> None:
        """See FakeGateway."""
        self.deaths += 1
        await super().kill()

    async def _serve(self, connection: ServerConnection) -> None:
        if self._dead:
            connection.transport.abort()
        else:
            await super()._serve(connection)


@dataclass
class _Running:
    owner: int
    """Number of the connection of the process that started it."""
    lease_until: float = float("inf")
    paused: bool = False
    exit_code: int | None = None

    @property
    def alive(self) -> bool:
        return self.exit_code is None


class World:
    """All agents' machines. `violations` is empty as long as all is well."""

    def __init__(self, path: Path, disk: Path, make_gateway: Callable[[UUID], ReachableGateway]) -> None:
        """`make_gateway`: called at an agent's first start; a later start restarts what it has made."""
        self._path = path
        self.disk = disk
        self._make_gateway = make_gateway
        self._clock = SystemClock()
        self.gateways: dict[UUID, ReachableGateway] = {}
        self._running: dict[UUID, _Running] = {}
        self.violations: list[str] = []
        self.starts = 0
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Serve processes at the socket."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)
        self._watch = asyncio.create_task(self._end_what_lapses(), name="world")

    async def close(self) -> None:
        """End everything."""
        self._watch.cancel()
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for gateway in self.gateways.values():
            await gateway.__aexit__()

    def alive(self) -> list[UUID]:
        """Whose gateways run."""
        return [user_id for user_id, agent in self._running.items() if agent.alive]

    async def crash(self, user_id: UUID) -> None:
        """That agent's gateway dies by itself."""
        await self._end(user_id, 1)

    async def _end(self, user_id: UUID, code: int) -> None:
        agent = self._running.get(user_id)
        if agent is not None and agent.alive:
            agent.exit_code = code
            await self.gateways[user_id].kill()

    async def _end_what_lapses(self) -> None:
        while True:
            await asyncio.sleep(WATCH_INTERVAL)
            now = self._clock.monotonic()
            for user_id, agent in list(self._running.items()):
                # One that is held still does nothing, and looks at its lease when it goes on.
                if agent.alive and not agent.paused and now >= agent.lease_until:
                    await self._end(user_id, 137)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._connections += 1
        owner = self._connections
        try:
            while line := await reader.readline():
                call = json.loads(line)
                answer = await self._answer(owner, call["op"], UUID(call["user"]), call)
                writer.write(json.dumps({"id": call["id"]} | answer).encode() + b"\n")
        except ConnectionError:
            pass  # the process was killed
        finally:
            self._tasks.discard(task)
            writer.close()
            for user_id, agent in list(self._running.items()):
                if agent.owner == owner:
                    await self._end(user_id, 137)

    async def _answer(self, owner: int, op: str, user_id: UUID, call: dict[str, Any]) -> dict[str, Any]:
        agent = self._running.get(user_id)
        mine = agent if agent is not None and agent.owner == owner else None
        match op:
            case "start":
                return await self._start(owner, user_id, agent, call)
            case "stop":
                if mine is not None:
                    await self._end(user_id, 0)
                    self._running.pop(user_id, None)
            case "renew":
                if mine is not None:
                    mine.lease_until = call["until"]
            case "pause" | "resume":
                if mine is None or not mine.alive:
                    return {"error": "The agent is not running."}
                mine.paused = op == "pause"
            case "observe":
                phase = "absent" if mine is None else "exited" if not mine.alive else "running"
                return {"phase": phase, "exit_code": mine.exit_code if mine else None}
        return {}

    async def _start(
        self, owner: int, user_id: UUID, agent: _Running | None, call: dict[str, Any]
    ) -> dict[str, Any]:
        self.starts += 1
        if self._clock.monotonic() >= call["until"]:
            return {"error": "The lease had ended before the start."}
        if agent is not None and agent.alive:
            if self._clock.monotonic() >= agent.lease_until:
                await self._end(user_id, 137)  # its own machine has done so, if it was not held still anyway
            elif agent.owner != owner:
                self.violations.append(f"two gateways on the workspace of {user_id}")
        if user_id not in self.gateways:
            self.gateways[user_id] = await self._make_gateway(user_id).__aenter__()
        else:
            await self.gateways[user_id].kill()
            await self.gateways[user_id].restart()
        self.gateways[user_id].token = call["token"]
        self._running[user_id] = _Running(owner, lease_until=call["until"])
        return {"port": self.gateways[user_id].port}


class WorldRuntime:
    """AgentRuntime, CanPause, EndsWithLease and KeepsFiles of one process: all that it does happens in the
    world."""

    name = "world"

    def __init__(self, disk: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._disk = disk
        self._reader = reader
        self._writer = writer
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._number = 0
        self._ports: dict[UUID, int] = {}
        self._answers = asyncio.create_task(self._read(), name="world")

    @classmethod
    async def connect(cls, path: Path, disk: Path) -> WorldRuntime:
        """A runtime in the world at that socket."""
        return cls(disk, *await asyncio.open_unix_connection(path))

    async def _read(self) -> None:
        while line := await self._reader.readline():
            answer = json.loads(line)
            waiting = self._calls.pop(answer["id"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)

    async def _call(self, op: str, user_id: UUID, **more: Any) -> dict[str, Any]:
        self._number += 1
        waiting = self._calls[self._number] = asyncio.get_running_loop().create_future()
        call = {"id": self._number, "op": op, "user": str(user_id)} | more
        self._writer.write(json.dumps(call).encode() + b"\n")
        try:
            answer: dict[str, Any] = await asyncio.wait_for(waiting, CALL_TIMEOUT)
        except TimeoutError as error:
            raise Unavailable("The machine does not answer.") from error
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer

    async def probe(self) -> Isolation:
        """See AgentRuntime."""
        return Isolation("none", "These agents are doubles for tests.")

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        """See AgentRuntime."""
        token = spec.environment["OPENCLAW_GATEWAY_PASSWORD"]
        folder = folder_of(self._disk, spec.user_id)
        await asyncio.to_thread(folder.prepare, spec.config, compile_cache=None)
        answer = await self._call("start", spec.user_id, token=token, until=spec.lease_until)
        self._ports[spec.user_id] = answer["port"]
        return {}

    def files(self, user_id: UUID, slot: int) -> AgentFiles:
        """See KeepsFiles."""
        return FilesOnDisk(folder_of(self._disk, user_id))

    async def observe(self, user_id: UUID, state: RuntimeState) -> Observation:
        """See AgentRuntime."""
        answer = await self._call("observe", user_id)
        return Observation(answer["phase"], exit_code=answer["exit_code"])

    async def dial(self, user_id: UUID, state: RuntimeState) -> socket.socket:
        """See AgentRuntime."""
        if user_id not in self._ports:
            raise Unavailable("The agent is not running.")
        try:
            return await stream_to(("127.0.0.1", self._ports[user_id]))
        except OSError as error:
            raise NotYet("It does not listen yet.", retry_after=0.05) from error

    async def stop(self, user_id: UUID, state: RuntimeState, *, grace: float) -> RuntimeState:
        """See AgentRuntime."""
        await self._call("stop", user_id)
        self._ports.pop(user_id, None)
        return {}

    async def pause(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """See CanPause."""
        await self._call("pause", user_id)
        return {}

    async def resume(self, user_id: UUID, state: RuntimeState) -> RuntimeState:
        """See CanPause."""
        await self._call("resume", user_id)
        return {}

    async def renew(self, user_id: UUID, *, until: float) -> None:
        """See EndsWithLease."""
        await self._call("renew", user_id, until=until)

    async def logs(self, user_id: UUID, state: RuntimeState, *, lines: int = 200) -> str:
        """See AgentRuntime."""
        return ""

    async def close(self) -> None:
        """See AgentRuntime."""
        self._answers.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._answers
        self._writer.close()
