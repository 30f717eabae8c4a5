"""The machines on which agents run, as one double outside of all replicas: `World` and a replica's way to it.

A replica is a process that is killed and held up at random, so what it runs must live elsewhere: here, in the
test's own process, with a FakeGateway for each agent. The world sees what must never happen, a second gateway
on one workspace, and does what real machines do: agents end with the process that started them, and where
their lease is not renewed in time. Their files lie on one disk, which all replicas see.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping
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
REMIND_ME = "remind me in"
"""A message that begins so plans a job in so many seconds."""
NOTES = "workspace/notes.txt"
"""What each agent writes: a line for each answer and for each run of a job."""


def folder_of(disk: Path, user_id: UUID) -> AgentFolder:
    """Where that agent's files lie."""
    return AgentFolder(disk / str(user_id), None)


class Gateway(FakeGateway):
    """One that replicas reach by its port, also while it is dead: then it hangs up. It keeps notes."""

    def __init__(self, clock: SystemClock, notes: Path) -> None:
        super().__init__(clock)
        self._notes = notes
        self.deaths = 0

    async def kill(self) -> None:
        self.deaths += 1
        await super().kill()

    def _chat_send(self, params: dict[str, Any]) -> dict[str, Any]:
        message = params["message"]
        if message.startswith(REMIND_ME) and all(job.name != message for job in self.cron.jobs.values()):
            self.cron.add(message, after=float(message.split()[-1]), seconds=0.2)
        return super()._chat_send(params)

    def _prepare(self, params: dict[str, Any]) -> dict[str, Any]:
        interrupted = any(it.status == "running" and it.run is None for it in self._sessions.values())
        self.busy = ["1 turn to take up again"] if interrupted else []
        return super()._prepare(params)

    def _entry(self, role: str, text: str, *, run_id: str | None = None, **more: Any) -> dict[str, Any]:
        if role == "assistant" and more.get("stopReason") == "stop":
            self._note(text)
        return super()._entry(role, text, run_id=run_id, **more)

    async def _broadcast(self, event: str, payload: Mapping[str, Any]) -> None:
        if event == "cron" and payload["action"] == "finished":
            self._note(payload["job"]["name"])
        await super()._broadcast(event, payload)

    def _note(self, line: str) -> None:
        with self._notes.open("a") as file:
            file.write(line + "\n")

    @property
    def port(self) -> int:
        assert self._server is not None
        port: int = next(iter(self._server.sockets)).getsockname()[1]
        return port

    async def _serve(self, connection: ServerConnection) -> None:
        if self._dead:
            connection.transport.abort()
        else:
            await super()._serve(connection)


@dataclass
class _Running:
    owner: int
    """Number of the connection of the replica that started it."""
    lease_until: float = float("inf")
    paused: bool = False
    exit_code: int | None = None

    @property
    def alive(self) -> bool:
        return self.exit_code is None


class World:
    """All agents' machines. `violations` is empty as long as all is well."""

    def __init__(self, path: Path, disk: Path) -> None:
        self._path = path
        self.disk = disk
        self._clock = SystemClock()
        self.gateways: dict[UUID, Gateway] = {}
        self._running: dict[UUID, _Running] = {}
        self.violations: list[str] = []
        self.starts = 0
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Serve replicas at the socket."""
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
            pass  # the replica was killed
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
            notes = folder_of(self.disk, user_id).root / NOTES
            self.gateways[user_id] = await Gateway(self._clock, notes).__aenter__()
        else:
            await self.gateways[user_id].kill()
            await self.gateways[user_id].restart()
        self.gateways[user_id].token = call["token"]
        self._running[user_id] = _Running(owner, lease_until=call["until"])
        return {"port": self.gateways[user_id].port}


class WorldRuntime:
    """AgentRuntime, CanPause, EndsWithLease and KeepsFiles of one replica: all that it does happens in the
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
        token = spec.environment["OPENCLAW_GATEWAY_TOKEN"]
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
