"""The stage of the escape tests: one runtime at one level, a neighbour to attack, and who attacks.

A process of its own, because the level follows from the user that the platform runs as: `python -m … JSON`,
started as root, or as somebody without rights. Asked by lines of JSON on its input, answers by such on its
output. Everything that an agent must not reach is there, and greets whoever comes: the tests see to it that
the attempts do get there from outside of a sandbox.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import structlog

from ocmt.platform.clock import SystemClock
from ocmt.runtimes import spares
from ocmt.runtimes.base import AgentRuntime, AgentSpec, RuntimeState
from ocmt.runtimes.docker import DockerRuntime
from ocmt.runtimes.egress import EgressProxy
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.tools import Tools, own_python
from ocmt.testing.egress import FakeGate

from ..conftest import REACHABLE, Counter, a_spec, connect, inside
from ..warm import a_recipe, ready

ATTEMPTS = Path(__file__).with_name("attempts")
TRIES = "tests.runtimes.escapes.attempts.tries"
SECRET = "the-neighbour's-secret"
GREETING = b"a secret of the platform's"
HOME = "/home/agent"
MEGABYTE = 1024 * 1024
BOUNDS = {"pids": 64, "memory_bytes": 256 * MEGABYTE, "disk_bytes": 32 * MEGABYTE}
"""Of those that try to have more."""
END_LIMIT = 30.0
BETWEEN_PINGS = 0.05

FILLERS = ("many_files", "a_shut_folder", "deleted_files", "mapped_files", "empty_files", "nested_folders")


class Dialled(Protocol):
    """What programs can be sent to."""

    async def dial(self, user_id: UUID, state: dict[str, Any]) -> socket.socket: ...


def program(name: str, given: dict[str, Any]) -> str:
    """The text of that attempt, as the stand-in runs it."""
    tries = (ATTEMPTS / "tries.py").read_text()
    text = (ATTEMPTS / f"{name}.py").read_text()
    return "\n".join(
        (
            "import sys, types",
            f"tries = types.ModuleType({TRIES!r})",
            f"exec({tries!r}, tries.__dict__)",
            f"sys.modules[{TRIES!r}] = tries",
            "names = {'__name__': 'attempt'}",
            f"exec(compile({text!r}, {name!r}, 'exec'), names)",
            f"answer = names['attempt']({given!r})",
        )
    )


class Stage:
    """Made by `opened`."""

    def __init__(self, runtime: AgentRuntime, folder: Path, log: structlog.stdlib.BoundLogger) -> None:
        self._runtime = runtime
        self._folder = folder
        self._log = log
        self._slot = 10
        self.neighbour = a_spec(slot=2, egress=True)
        self.given: dict[str, Any] = {}
        self.knocks = 0
        self._attacking: AgentSpec | None = None
        self._servers: list[asyncio.Server] = []

    async def set(self) -> None:
        """Put everything in its place that is to be attacked."""
        await self._runtime.start(self.neighbour, {})
        theirs = await inside(
            self._runtime,
            self.neighbour.user_id,
            f"""
            import os, socket, threading
            open("{HOME}/workspace/diary", "w").write({SECRET!r})
            def greet(listener):
                while True:
                    connection, _ = listener.accept()
                    connection.sendall({SECRET.encode()!r})
                    connection.close()
            def serve(family, address):
                listener = socket.socket(family)
                listener.bind(address)
                listener.listen()
                threading.Thread(target=greet, args=(listener,), daemon=True).start()
                return listener
            serve(socket.AF_UNIX, "{HOME}/workspace/s")
            serve(socket.AF_UNIX, "\\0escape-neighbour")
            answer = serve(socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
            """,
        )
        data = self._folder / "data"
        diary = data / "agents" / str(self.neighbour.user_id) / "workspace" / "diary"
        secret = data / "secrets" / "master-key"
        secret.parent.mkdir(mode=0o700)
        secret.write_bytes(GREETING)
        secret.chmod(0o600)
        port = await self._serve_port()
        database = data / "postgres" / ".s.PGSQL.5432"
        database.parent.mkdir(mode=0o700)
        platforms = self._folder / "s"
        for path in (platforms, database):
            self._servers.append(await asyncio.start_unix_server(self._greet, path))
        platforms.chmod(0o666)
        abstract = f"\0escape-{os.getpid()}"
        self._servers.append(await asyncio.start_unix_server(self._greet, abstract))
        self.given = {
            "files": {"their diary": str(diary), "the master key": str(secret)},
            "unix": {"the platform's": str(platforms), "theirs": str(diary.with_name("s"))},
            "abstract": {"the platform's": abstract[1:], "theirs": "escape-neighbour"},
            "pids": {"the platform": os.getpid(), **self._processes()},
            "secret": SECRET,
            "ports": {"the platform's": port, "theirs": theirs},
            "addresses": _addresses(),
            "proxy": 18991,
            "database": {"socket": str(database), "port": port, "password": str(secret)},
        }

    def _processes(self) -> dict[str, int]:
        agent = self._runtime._agents[self.neighbour.user_id]  # type: ignore[attr-defined]
        return {"the neighbour": agent.process} if agent.process else {}

    async def _serve_port(self) -> int:
        server = await asyncio.start_server(self._greet, "127.0.0.1", 0)
        self._servers.append(server)
        port = int(server.sockets[0].getsockname()[1])
        with contextlib.suppress(OSError):  # a machine without IPv6
            self._servers.append(await asyncio.start_server(self._greet, "::1", port))
        return port

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.knocks += 1
        writer.write(GREETING)
        writer.close()

    async def strike(self) -> None:
        """Take it all down."""
        for server in self._servers:
            server.close()
        await self._runtime.close()

    # The attempts

    async def attempt(self, name: str) -> dict[str, Any]:
        """What came of that attempt: see the tests for the keys."""
        special: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
            "fork_bomb": lambda: self._bomb("fork_bomb", {"pids": BOUNDS["pids"]}),
            "memory_bomb": lambda: self._bomb("memory_bomb", {"memory_bytes": BOUNDS["memory_bytes"]}),
            "disk_filler": self._fill_the_disk,
            "symlinked_socket": self._lay_links,
        }
        return await special[name]() if name in special else await self._plain(name)

    @asynccontextmanager
    async def _attacker(self, **bounds: Any) -> AsyncIterator[AgentSpec]:
        self._slot += 1
        spec = a_spec(slot=self._slot, egress=True, **bounds)
        await self._runtime.start(spec, {})
        try:
            yield spec
        finally:
            await self._runtime.stop(spec.user_id, {}, grace=0)

    async def _plain(self, name: str) -> dict[str, Any]:
        """By one agent for all of them: a start takes longer than most of them do."""
        before = self.knocks
        if self._attacking is None:
            self._attacking = a_spec(slot=3, egress=True)
            await self._runtime.start(self._attacking, {})
        outcomes = await self._run(self._attacking, name)
        return {"outcomes": outcomes, "knocks": self.knocks - before}

    async def _run(self, spec: AgentSpec, name: str, **more: Any) -> dict[str, str]:
        given = self.given | {"own": f"{HOME}/workspace"} | more
        # One more than that of the answer, for who looks for connections.
        with await connect(self._runtime, spec.user_id):
            found = await inside(self._runtime, spec.user_id, program(name, given))
        assert isinstance(found, dict), found
        return found

    async def _lay_links(self) -> dict[str, Any]:
        before = self.knocks
        async with self._attacker() as spec:
            folders = [HOME, f"{HOME}/workspace", f"{HOME}/state", "/tmp"]
            outcomes = await self._run(spec, "symlinked_socket", own_folders=folders)
            sign = f"{HOME}/workspace/sign"
            mark = f"answer = open({sign!r}, 'w').write({str(spec.user_id)!r})"
            await inside(self._runtime, spec.user_id, mark)
            for moment in ("now", "after its next start"):
                found = await inside(self._runtime, spec.user_id, f"answer = open({sign!r}).read()")
                itself = found == str(spec.user_id)
                outcomes[f"whom the platform reaches {moment}"] = "ITSELF" if itself else f"REACHED {found}"
                await self._runtime.stop(spec.user_id, {}, grace=1)
                await self._runtime.start(spec, {})
        return {"outcomes": outcomes, "knocks": self.knocks - before}

    async def _bomb(self, name: str, bounds: dict[str, int]) -> dict[str, Any]:
        async with self._attacker(cpus=1.0, **bounds) as spec, self._pinging() as pings:
            outcomes = await self._run(spec, name)
        return {"outcomes": outcomes, **_slowness(pings)}

    async def _fill_the_disk(self) -> dict[str, Any]:
        outcomes: dict[str, str] = {}

        few = asyncio.Semaphore(3 if self._runtime.name == "docker" else 7)

        async def fill(way: str) -> None:
            async with few, self._attacker(disk_bytes=BOUNDS["disk_bytes"]) as spec:
                began = time.monotonic()
                try:
                    found = await self._run(spec, "disk_filler", way=way)
                except (OSError, ValueError, TimeoutError):  # ended in the midst of it
                    found = {}
                outcomes[way] = found.get(way, "")
                while way != "one_file" and time.monotonic() - began < END_LIMIT:
                    seen = await self._runtime.observe(spec.user_id, {})
                    if seen.phase == "exited":
                        outcomes[way] = f"ENDED: {seen.reason}"
                        return
                    await asyncio.sleep(0.05)

        async with self._pinging() as pings:
            await asyncio.gather(*map(fill, ("one_file", *FILLERS)))
        return {"outcomes": outcomes, **_slowness(pings)}

    @asynccontextmanager
    async def _pinging(self) -> AsyncIterator[list[float]]:
        """Ask the neighbour again and again, and note the seconds that each answer takes; the first is the
        usual one of a while before."""
        pings = [statistics.median([await self._ping() for _ in range(5)])]

        async def ping() -> None:
            while True:
                pings.append(await self._ping())
                await asyncio.sleep(BETWEEN_PINGS)

        pinging = asyncio.create_task(ping())
        try:
            yield pings
        finally:
            pinging.cancel()
            await asyncio.wait([pinging])
            if not pinging.cancelled():
                await pinging

    async def _ping(self) -> float:
        began = time.monotonic()
        assert await inside(self._runtime, self.neighbour.user_id, "answer = 1") == 1
        return time.monotonic() - began

    # Without a sandbox

    async def attempt_outside(self, name: str) -> dict[str, Any]:
        """The same program, in a process that nothing is in the way of."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = int(free.getsockname()[1])
        stand_in = Path(__file__).parent.with_name("stand_in.py")
        command = [str(own_python()), "-IS", str(stand_in), "gateway", "run", "--port", str(port)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                outside = _Outside(port)
                own = self._folder / "own"
                own.mkdir(exist_ok=True)
                given = self.given | {"own": str(own), "proxy": 9}
                with await outside.dial(self.neighbour.user_id, {}):
                    outcomes = await inside(outside, self.neighbour.user_id, program(name, given))  # type: ignore[arg-type]
            finally:
                process.kill()
        return {"outcomes": outcomes}


class _Outside:
    """A stand-in that runs as it is."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def dial(self, user_id: UUID, state: dict[str, Any]) -> socket.socket:
        async with asyncio.timeout(10):
            while True:
                connection = socket.socket()
                connection.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self._port))
                except ConnectionRefusedError:
                    connection.close()
                    await asyncio.sleep(0.02)
                else:
                    return connection


def _slowness(pings: list[float]) -> dict[str, Any]:
    before, *during = pings
    return {
        "pings": len(during),
        "ping_before": before,
        "usual_ping": statistics.median(during),
        "slowest_ping": max(during),
    }


def _addresses() -> list[str]:
    """This machine's addresses beyond loopback, as far as its routes tell."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return []
        return [probe.getsockname()[0]]


def make_runtime(asked: dict[str, Any], doors: dict[str, Any]) -> AgentRuntime:
    """The one that the tests ask for."""
    folder, log = Path(asked["folder"]), structlog.get_logger("stage")
    common: dict[str, Any] = {"data_dir": folder / "data", "doors": doors, "clock": SystemClock(), "log": log}
    if asked["runtime"] == "docker":
        return DockerRuntime(url=asked["docker"], image=asked["image"], **common)
    tools = Tools(folder / "node" / "bin" / "node", folder / "openclaw", Path(asked["bwrap"]), own_python())
    if asked["spares"]:
        spares.CALM = 0.0
        return FromSpares(tools=tools, view=REACHABLE.view, recipe=a_recipe(folder, tools), **common)
    return SandboxRuntime(tools=tools, view=REACHABLE.view, **common)


class FromSpares(SandboxRuntime):
    """Starts every agent in a warm spare, one after the other."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._turn = asyncio.Lock()

    async def start(self, spec: AgentSpec, state: RuntimeState) -> RuntimeState:
        """See AgentRuntime."""
        async with self._turn:
            await ready(self)
            started = await super().start(spec, state)
            assert spec.user_id in self._served, "it did not come out of a spare"
            return started


async def main(asked: dict[str, Any]) -> None:
    """Serve until the input ends."""
    log = structlog.get_logger("stage")
    doors = {"broker": Counter().door, "egress": EgressProxy(log, gate=FakeGate(), ports=(80, 443)).door}
    runtime = make_runtime(asked, doors)
    stage = Stage(runtime, Path(asked["folder"]), log)
    loop = asyncio.get_running_loop()
    try:
        isolation = await runtime.probe()
        await stage.set()
        _say({"level": isolation.level, "missing": isolation.missing})
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            order = json.loads(line)
            run = stage.attempt_outside if order["outside"] else stage.attempt
            _say(await run(order["attempt"]))
    finally:
        await stage.strike()


def _say(answer: dict[str, Any]) -> None:
    sys.__stdout__.write(json.dumps(answer) + "\n")  # type: ignore[union-attr]
    sys.__stdout__.flush()  # type: ignore[union-attr]


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(json.loads(sys.argv[1])))
