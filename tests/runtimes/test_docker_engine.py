"""Docker's faults become our errors, each with what to do; no daemon is needed for these."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from ocmt.errors import Conflict, NotFound, SetupProblem, Unavailable
from ocmt.runtimes import docker_engine
from ocmt.runtimes.docker_engine import Engine

pytestmark = pytest.mark.anyio

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Daemon:
    """Speaks Docker's API as far as a test says."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: Answer = self.version
        self.asked: list[str] = []

    async def version(self, request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({"ApiVersion": "1.41"})

    def says(self, status: int, message: str) -> None:
        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            return web.json_response({"message": message}, status=status)

        self.answer = answer

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/version":
            return await self.version(request)
        self.asked.append(f"{request.method} {request.path}")
        return await self.answer(request)


@pytest.fixture
async def daemon(folder: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(folder / "docker.sock")
    runner = web.ServerRunner(web.Server(daemon.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(daemon.path)).start()
    yield daemon
    await runner.cleanup()


@pytest.fixture
async def engine(daemon: Daemon) -> AsyncIterator[Engine]:
    engine = Engine(f"unix://{daemon.path}")
    yield engine
    await engine.close()


async def test_a_daemon_that_is_away_is_temporary_and_says_what_to_do(folder: Path) -> None:
    engine = Engine(f"unix://{folder}/nobody")
    with pytest.raises(Unavailable, match="systemctl start docker"):
        await engine.about()
    await engine.close()


async def test_an_address_that_is_none(folder: Path) -> None:
    with pytest.raises(SetupProblem, match="looks like unix:///"):
        await Engine("docker").about()


async def test_a_daemon_that_never_answers_has_a_time_limit(
    engine: Engine, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    daemon.answer = never
    monkeypatch.setattr(docker_engine, "CALL_TIMEOUT", 0.05)
    with pytest.raises(Unavailable, match="took too long"):
        await engine.start("x")


@pytest.mark.parametrize(
    ("status", "kind"), [(404, NotFound), (409, Conflict), (500, Unavailable), (503, Unavailable)]
)
async def test_what_it_refuses(engine: Engine, daemon: Daemon, status: int, kind: type[Exception]) -> None:
    daemon.says(status, "its own words")
    with pytest.raises(kind) as caught:
        await engine.create("name", {})
    assert "its own words" in str(getattr(caught.value, "detail", ""))


class TestWhatIsSoAlready:
    async def test_a_container_that_is_gone_has_been_removed_unpaused_and_ended(
        self, engine: Engine, daemon: Daemon
    ) -> None:
        daemon.says(404, "No such container: x")
        await engine.remove("x")
        await engine.unpause("x")
        assert await engine.end("x") == 137

    @pytest.mark.parametrize("status", [409, 500])  # Docker, podman
    async def test_paused_twice(self, engine: Engine, daemon: Daemon, status: int) -> None:
        daemon.says(status, "Container x is already paused")
        await engine.pause("x")
        daemon.says(409, "Container x is not running")
        with pytest.raises(Conflict):
            await engine.pause("x")

    @pytest.mark.parametrize("status", [409, 500])
    async def test_unpaused_twice(self, engine: Engine, daemon: Daemon, status: int) -> None:
        daemon.says(status, "Container x is not paused")
        await engine.unpause("x")

    async def test_one_that_has_exited_by_itself_keeps_its_code(self, engine: Engine, daemon: Daemon) -> None:
        async def exited(request: web.BaseRequest) -> web.StreamResponse:
            if request.path.endswith("/kill"):
                return web.json_response({"message": "Container x is not running"}, status=409)
            return web.json_response({"StatusCode": 78})

        daemon.answer = exited
        assert await engine.end("x") == 78
        assert [line.rpartition("/v1.41")[2] for line in daemon.asked] == [
            "/containers/x/kill",
            "/containers/x/wait",
            "/containers/x",
        ]


async def test_only_our_own_containers_are_looked_for(engine: Engine, daemon: Daemon) -> None:
    async def listing(request: web.BaseRequest) -> web.StreamResponse:
        assert json.loads(request.query["filters"]) == {"label": ["org.ocmt.installation=abc"]}
        assert request.query["all"] == "true"
        return web.json_response([{"Id": "one"}, {"Id": "two"}])

    daemon.answer = listing
    assert await engine.labelled("org.ocmt.installation=abc") == ["one", "two"]
