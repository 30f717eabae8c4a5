"""Two gateways under one set of handles: the double, and the real OpenClaw with a scripted provider."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, Self

import psutil
import pytest
from aiohttp import web

from ocmt.errors import NotYet, SetupProblem
from ocmt.openclaw.config import gateway_environment, render_config
from ocmt.platform.clock import Clock, SystemClock
from ocmt.runtimes.tools import Tools
from ocmt.testing.anthropic import Failed, FakeAnthropic, Seen, Streamed
from ocmt.testing.gateway import Fail, FakeGateway, Hold, Say, UseTool
from ocmt.testing.gateway_wire import stream_to
from ocmt.testing.installed import installed_tools


class HastyClock(SystemClock):
    """A hundred times as fast as ours."""

    def monotonic(self) -> float:
        return super().monotonic() * 100

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 100)


class Peer(Protocol):
    """A gateway, and what it is to do with the next message."""

    token: str
    clock: Clock
    soon: float
    """Seconds: a job due then can be added, and something be done before it begins."""

    async def dial(self) -> socket.socket: ...
    def will_say(self, text: str, *, hold: asyncio.Event | None = None) -> None:
        """Answer with this text; with `hold`, wait after the first word."""

    def will_write_a_file(self, text: str) -> None:
        """Call the tool `write` once, then answer."""

    def wrote_a_file(self) -> bool: ...
    def saw(self, content: bytes) -> bool:
        """Whether a text, or a file with that content, an image or short text, has come with some message."""

    def will_be_refused_by_the_provider(self) -> None: ...
    def will_run(self, *, until: asyncio.Event) -> None:
        """The next job that is due waits in its run for this."""

    async def crash(self, *, down: float = 0) -> None:
        """Die by SIGKILL and be started again, after so many seconds."""


class FakePeer:
    """The double; what it has planned runs by our clock."""

    soon = 0.4

    def __init__(self) -> None:
        self.clock: Clock = HastyClock()
        self._gateway = FakeGateway(self.clock)
        self._gateway.cron.clock = SystemClock()
        self.token = self._gateway.token
        self.dial = self._gateway.dial

    async def __aenter__(self) -> Self:
        await self._gateway.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._gateway.__aexit__()

    def will_say(self, text: str, *, hold: asyncio.Event | None = None) -> None:
        first, *rest = text.split(" ")
        waits = [Hold(hold)] if hold else []
        self._gateway.script(Say(first), *waits, *(Say(f" {word}") for word in rest))

    def will_write_a_file(self, text: str) -> None:
        self._gateway.script(UseTool("write", "Write to hello.txt (8 chars)"), Say(text))

    def wrote_a_file(self) -> bool:
        return True

    def saw(self, content: bytes) -> bool:
        texts = [text.encode() for text in self._gateway.messages()]
        return content in [*texts, *(found for _, _, found in self._gateway.attached())]

    def will_be_refused_by_the_provider(self) -> None:
        self._gateway.script(Fail(http_status=400))

    def will_run(self, *, until: asyncio.Event) -> None:
        self._gateway.cron.until = until

    async def crash(self, *, down: float = 0) -> None:
        await self._gateway.kill()
        await asyncio.sleep(down)
        await self._gateway.restart()


class Calls:
    """A provider's answer that calls a tool; what it is given is made when it is asked for."""

    def __init__(self, tool: str, given: Callable[[], dict[str, Any]]) -> None:
        self._tool = tool
        self._given = given

    async def play(self, request: web.Request, seen: Seen) -> web.StreamResponse:
        call = {"type": "tool_use", "id": f"toolu_{secrets.token_hex(8)}", "name": self._tool, "input": {}}
        given = json.dumps(self._given())
        message = {"id": "msg_1", "type": "message", "role": "assistant", "model": seen.body["model"]}
        message |= {"content": [], "stop_reason": None, "usage": {"input_tokens": 9, "output_tokens": 1}}
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for event in (
            {"type": "message_start", "message": message},
            {"type": "content_block_start", "index": 0, "content_block": call},
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "input_json_delta", "partial_json": given},
            },
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
            {"type": "message_stop"},
        ):
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        return response


class RealPeer:
    """OpenClaw as `make setup` has installed it, without a sandbox, in a folder of its own."""

    soon = 2.0

    def __init__(self, tools: Tools, folder: Path) -> None:
        self.token = secrets.token_urlsafe()
        self.clock: Clock = SystemClock()
        self._tools = tools
        self._folder = folder
        self._provider = FakeAnthropic(keys={"broker-token"})
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self._provider.__aenter__()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        for name in ("workspace", "state", "tmp"):
            (self._folder / name).mkdir()
        config = render_config(
            model="claude-sonnet-4-6",
            gateway_port=self._port,
            broker_url=self._provider.url,
            workspace=str(self._folder / "workspace"),
        )
        (self._folder / "openclaw.json").write_text(config)
        await self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kill()
        await self._provider.__aexit__()

    async def dial(self) -> socket.socket:
        try:
            return await stream_to(("127.0.0.1", self._port))
        except ConnectionRefusedError as error:
            assert self._process is not None
            assert self._process.returncode is None, self._log_tail()
            raise NotYet("OpenClaw does not listen yet.", retry_after=0.2) from error

    def will_say(self, text: str, *, hold: asyncio.Event | None = None) -> None:
        self._provider.script(Streamed(text, hold=hold))

    def will_write_a_file(self, text: str) -> None:
        writes = Calls("write", lambda: {"path": "hello.txt", "content": "hi there"})
        self._provider.script(writes, Streamed(text))

    def wrote_a_file(self) -> bool:
        return (self._folder / "workspace" / "hello.txt").read_text() == "hi there"

    def saw(self, content: bytes) -> bool:
        told = json.dumps([seen.body["messages"] for seen in self._provider.seen])
        text = json.dumps(content.decode(errors="replace"))[1:-1]
        return base64.b64encode(content).decode() in told or text in told

    def will_be_refused_by_the_provider(self) -> None:
        self._provider.script(Failed(400, "ocmt_refused", "The platform ended this call."))

    def will_run(self, *, until: asyncio.Event) -> None:
        self._provider.script(Streamed("Your report.", hold=until))

    async def crash(self, *, down: float = 0) -> None:
        await self._kill()
        await asyncio.sleep(down)
        await self._start()

    async def _start(self) -> None:
        environment: dict[str, str] = {
            "PATH": f"{self._tools.node.parent}:/usr/bin:/bin",
            "HOME": str(self._folder),
            "TMPDIR": str(self._folder / "tmp"),
            "OPENCLAW_STATE_DIR": str(self._folder / "state"),
            "OPENCLAW_CONFIG_PATH": str(self._folder / "openclaw.json"),
            **gateway_environment(gateway_token=self.token, broker_token="broker-token"),
        }
        entry = self._tools.openclaw / "node_modules" / "openclaw" / "openclaw.mjs"
        with (self._folder / "gateway.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._tools.node,
                *(entry, "gateway", "run", "--port", str(self._port)),
                env=environment,
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def _kill(self) -> None:
        assert self._process is not None
        # Its helpers have process groups of their own, and were seen to outlive it.
        with contextlib.suppress(psutil.NoSuchProcess):
            gateway = psutil.Process(self._process.pid)
            for process in [gateway, *gateway.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        await self._process.wait()

    def _log_tail(self) -> str:
        return (self._folder / "gateway.log").read_text()[-2000:]


def real_peer() -> Any:
    """A context manager for the real one; skips the test where OpenClaw is not installed."""
    try:
        tools = installed_tools()
    except SetupProblem as problem:
        pytest.skip(f"run make setup ({problem.message})")
    return _in_folder(tools)


@contextlib.asynccontextmanager
async def _in_folder(tools: Tools) -> Any:
    with _folder() as folder:
        async with RealPeer(tools, folder) as peer:
            yield peer


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="ocmt-openclaw-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
