"""The peer: OpenClaw's gateway by itself, run directly, with nothing of the platform but its client."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import psutil

from ocmt.errors import NotYet
from ocmt.openclaw.client import Delta, Final, GatewayClient
from ocmt.openclaw.config import gateway_environment, render_config
from ocmt.openclaw.exercise import send_until_taken
from ocmt.platform.clock import SystemClock
from ocmt.runtimes.bubblewrap import gateway_surroundings
from ocmt.runtimes.tools import Tools

TIMEOUT = 120.0
STOP_TIMEOUT = 20.0
RETRY_DIAL = 0.02
"""Seconds; the supervisor in a sandbox looks as often."""


@dataclass(frozen=True)
class Answered:
    """How long an answer took, in seconds from the moment that the question was put."""

    first: float
    """To the first piece of the answer."""
    whole: float


class BareGateway:
    """One gateway with a state folder of its own, that can be started again and again."""

    def __init__(self, folder: Path, tools: Tools, *, model: str, model_url: str, model_key: str) -> None:
        self._folder = folder
        self._token = secrets.token_urlsafe(32)
        self._port = _free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._client: GatewayClient | None = None
        for name in ("home", "state", "workspace", "tmp"):
            (folder / name).mkdir(parents=True)
        config = folder / "openclaw.json"
        config.write_text(
            render_config(
                model=model,
                gateway_port=self._port,
                broker_url=model_url,
                workspace=str(folder / "workspace"),
            )
        )
        program = tools.openclaw / "node_modules" / "openclaw" / "openclaw.mjs"
        self._command = [str(tools.node), str(program), "gateway", "run", "--port", str(self._port)]
        self._environment = {
            **gateway_surroundings(),
            **gateway_environment(gateway_token=self._token, broker_token=model_key),
            "PATH": f"{tools.node.parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "OPENCLAW_STATE_DIR": str(folder / "state"),
            "OPENCLAW_CONFIG_PATH": str(config),
        }

    async def __aenter__(self) -> Self:
        """Nothing runs yet."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        await self.stop()

    async def start(self) -> None:
        """Spawn it and wait for its hello."""
        with (self._folder / "gateway.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                cwd=self._folder / "workspace",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._client = await GatewayClient.connect(
            self._dial, token=self._token, clock=SystemClock(), timeout=TIMEOUT
        )

    @property
    def pid(self) -> int:
        """Of the running gateway."""
        assert self._process is not None
        return self._process.pid

    async def ask(self, session: str, text: str) -> Answered:
        """Send a message and follow its answer to the end."""
        assert self._client is not None
        began = time.monotonic()
        session_key = f"agent:main:web:{session}"
        with self._client.run_events(session_key) as events:
            async with asyncio.timeout(TIMEOUT):
                run_id = await send_until_taken(
                    self._client,
                    SystemClock(),
                    session_key=session_key,
                    message=text,
                    idempotency_key=str(uuid4()),
                )
            first = 0.0
            async with asyncio.timeout(TIMEOUT):
                async for event in events:
                    if event.run_id != run_id:
                        continue
                    if isinstance(event, Delta) and not first:
                        first = time.monotonic()
                    if isinstance(event, Final):
                        return Answered(first - began, time.monotonic() - began)
        raise AssertionError("the bare gateway did not answer")

    async def stop(self) -> None:
        """SIGTERM, and after a while SIGKILL, to all of it."""
        if self._client is not None:
            await self._client.close()
            self._client = None
        if self._process is None or self._process.returncode is not None:
            return
        # Its helpers have sessions of their own: killed outright, it would leave them behind.
        family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.terminate()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), STOP_TIMEOUT)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        for helper in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                helper.kill()

    async def _dial(self) -> socket.socket:
        stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        stream.setblocking(False)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(stream, ("127.0.0.1", self._port))
        except OSError as error:
            stream.close()
            raise NotYet("The gateway does not listen yet.", retry_after=RETRY_DIAL) from error
        return stream


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
