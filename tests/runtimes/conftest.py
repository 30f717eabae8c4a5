"""Real sandboxes with a stand-in for OpenClaw: a test takes a second, not a quarter of a minute."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog

from ocmt.errors import NotYet
from ocmt.platform.clock import SystemClock
from ocmt.platform.reachable import ReachablePaths
from ocmt.runtimes.base import AgentRuntime, AgentSpec
from ocmt.runtimes.bubblewrap import View
from ocmt.runtimes.docker import DockerRuntime
from ocmt.runtimes.sandbox import SandboxRuntime
from ocmt.runtimes.spare_plan import Recipe
from ocmt.runtimes.supervised import Closer
from ocmt.runtimes.tools import Tools, own_python
from ocmt.testing.installed import installed_tools

from .docker_image import answers, make_image, remove_image

DOCKER_URL = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


@pytest.fixture(scope="session")
def installed() -> Tools:
    """What `make setup` has installed on this machine."""
    return installed_tools()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with the rights that a data folder has."""
    path = Path(tempfile.mkdtemp(prefix="ocmt-sandbox-"))
    yield path
    shutil.rmtree(path)


# As root, agents have other uids, which may not get through to this checkout and Python. The process
# can only be given mounts of its own before it has threads, so not in a fixture.
REACHABLE = ReachablePaths()
REACHABLE.enter()


@pytest.fixture(scope="session")
def view() -> View:
    return REACHABLE.view


@pytest.fixture
def tools(folder: Path, installed: Tools) -> Tools:
    """The real bubblewrap, with the stand-in where Node would be."""
    node = folder / "node" / "bin" / "node"
    node.parent.mkdir(parents=True)
    program = (Path(__file__).parent / "stand_in.py").read_text()
    node.write_text(f"#!{own_python()} -IS\n{program}")
    node.chmod(0o755)
    openclaw = folder / "openclaw" / "node_modules" / "openclaw"
    openclaw.mkdir(parents=True)
    (openclaw / "openclaw.mjs").touch()
    return Tools(node=node, openclaw=folder / "openclaw", bwrap=installed.bwrap, python=own_python())


@dataclass
class Counter:
    """A door that counts who knocks, and greets them."""

    knocks: int = 0
    listeners: list[tuple[UUID, socket.socket]] = field(default_factory=list)
    open: int = 0

    async def door(self, user_id: UUID, listener: socket.socket) -> Closer:
        self.listeners.append((user_id, listener))
        self.open += 1

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.knocks += 1
            writer.write(b"hello")
            writer.close()

        return _Serving(self, await asyncio.start_server(greet, sock=listener))


@dataclass
class _Serving:
    counter: Counter
    server: asyncio.Server

    async def close(self) -> None:
        self.counter.open -= 1
        self.server.close()
        await self.server.wait_closed()


@pytest.fixture
def broker() -> Counter:
    return Counter()


@pytest.fixture
async def runtime(folder: Path, tools: Tools, broker: Counter, view: View) -> AsyncIterator[SandboxRuntime]:
    runtime = make_runtime(folder, tools, broker, view)
    yield runtime
    await runtime.close()


def make_runtime(
    folder: Path, tools: Tools, broker: Counter, view: View, recipe: Recipe | None = None
) -> SandboxRuntime:
    return SandboxRuntime(
        data_dir=folder / "data",
        tools=tools,
        doors={"broker": broker.door, "egress": broker.door},
        clock=SystemClock(),
        log=structlog.get_logger("tests"),
        view=view,
        recipe=recipe,
    )


def need_docker() -> None:
    """Skip the test where no daemon runs."""
    if not asyncio.run(answers(DOCKER_URL)):
        pytest.skip(
            f"no Docker answers at {DOCKER_URL}: start dockerd, or name another socket with DOCKER_HOST"
        )


@pytest.fixture(scope="session")
def docker_image() -> Iterator[str]:
    """An image with the stand-in, on the daemon of this machine."""
    need_docker()
    image = asyncio.run(make_image(DOCKER_URL, (Path(__file__).parent / "stand_in.py").read_text()))
    yield image
    asyncio.run(remove_image(DOCKER_URL, image))


@pytest.fixture
async def docker(folder: Path, docker_image: str, broker: Counter) -> AsyncIterator[DockerRuntime]:
    runtime = make_docker_runtime(folder, docker_image, broker)
    yield runtime
    await runtime.close()


def make_docker_runtime(folder: Path, image: str, broker: Counter, *, url: str = DOCKER_URL) -> DockerRuntime:
    return DockerRuntime(
        data_dir=folder / "data",
        doors={"broker": broker.door, "egress": broker.door},
        clock=SystemClock(),
        log=structlog.get_logger("tests"),
        url=url,
        image=image,
    )


def a_spec(behaviour: str = "", *, slot: int = 1, **changes: Any) -> AgentSpec:
    environment = {"STAND_IN": behaviour, "SECRET": "a-very-secret-token"}
    return AgentSpec(uuid4(), slot, '{"gateway": {}}', environment, **changes)


async def connect(runtime: AgentRuntime, user_id: UUID) -> socket.socket:
    async with asyncio.timeout(20):
        while True:
            try:
                return await runtime.dial(user_id, {})
            except NotYet as error:
                await asyncio.sleep(error.retry_after or 0)


async def inside(runtime: AgentRuntime, user_id: UUID, code: str) -> Any:
    """Run Python inside that agent's sandbox; returns what it has assigned to `answer`."""
    reader, writer = await asyncio.open_connection(sock=await connect(runtime, user_id))
    try:
        writer.write(json.dumps(textwrap.dedent(code)).encode() + b"\n")
        async with asyncio.timeout(20):
            return json.loads(await reader.readline())
    finally:
        writer.close()
        await writer.wait_closed()
