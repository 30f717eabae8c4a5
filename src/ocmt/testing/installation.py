"""A whole installation as a child process, and a person who uses it over HTTP: for journeys and benchmarks.

`Installation` runs `ocmt up` as a user would and ends it for certain; `Person` signs in by the printed link,
writes messages and follows the event stream like a browser.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp

START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
ANSWER_TIMEOUT = 120.0
COMMAND_TIMEOUT = 30.0
_LOGIN_LINK = re.compile(r"users login-link (\S+?)`")

_SETTINGS = ("OCMT_", "DATABASE_URL", "PORT", "ANTHROPIC_API_KEY")


def surroundings(**given: str) -> dict[str, str]:
    """For a process of ours: what is around us, without settings but those that are given."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)} | given


@dataclass
class Installation:
    """`ocmt up` on a free port, with a data folder of its own."""

    data: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    url: str = ""
    link: str = ""
    output: list[str] = field(default_factory=list)
    """All lines that it printed, standard error included."""
    process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None
    _administrator: str = ""

    async def __aenter__(self) -> Self:
        """Start it; returns once it is ready."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        await self.stop()

    async def start(self) -> float:
        """Start it and wait for its `ready` and its sign-in link; returns the seconds up to `ready`."""
        began = time.monotonic()
        command = [
            sys.executable,
            "-m",
            "ocmt",
            "up",
            "--data",
            str(self.data),
            "--port",
            "0",
            *self.arguments,
        ]
        self.process = await asyncio.create_subprocess_exec(
            *command,
            env=surroundings(PYTHONUNBUFFERED="1", **self.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        self.url = self.link = ""
        ready = asyncio.Event()
        took = [0.0]
        self._reading = asyncio.create_task(self._read(ready, began, took))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait(
            [waiting, self._reading], timeout=START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
        )
        waiting.cancel()
        if not ready.is_set():
            await self.kill()
            raise AssertionError("ocmt up did not get ready:\n" + "\n".join(self.output))
        if not self.link:
            # There is an administrator already, so that the start printed no link.
            self.link = (await self.command("users", "login-link", self._administrator)).strip()
        return took[0]

    async def stop(self, how: signal.Signals = signal.SIGINT) -> float:
        """End it in order; returns the seconds that it took. Fails if it takes longer than 15."""
        if self.process is None or self.process.returncode is not None:
            return 0.0
        began = time.monotonic()
        self.process.send_signal(how)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            await self.kill()
            raise AssertionError("ocmt up did not stop:\n" + "\n".join(self.output[-50:])) from None
        await self._read_to_the_end()
        return time.monotonic() - began

    async def kill(self) -> None:
        """SIGKILL: as a power cut would, for this process."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self._read_to_the_end()

    async def command(self, *arguments: str) -> str:
        """`ocmt …` on its data folder; what it printed. Fails if the command does."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ocmt", *arguments, "--data", str(self.data)),
            env=surroundings(PYTHONUNBUFFERED="1", **self.environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        printed, _ = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT)
        assert process.returncode == 0, f"ocmt {' '.join(arguments)}: {printed.decode()}"
        return printed.decode()

    @property
    def pid(self) -> int:
        """Of the platform's process."""
        assert self.process is not None
        return self.process.pid

    async def _read(self, ready: asyncio.Event, began: float, took: list[float]) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            self.output.append(line)
            if line.startswith("ready "):
                took[0] = time.monotonic() - began
                self.url = line.removeprefix("ready ").strip()
            if "#token=" in line:
                self.link = line[line.index("http") :].strip()
            if self.url and line.startswith("sign in"):
                self._administrator = asked[1] if (asked := _LOGIN_LINK.search(line)) else ""
                ready.set()

    async def _read_to_the_end(self) -> None:
        if self._reading is not None:
            # A grandchild that outlived it would hold the pipe open: that is a fault, but not one to hang on.
            done, _ = await asyncio.wait([self._reading], timeout=5)
            if not done:
                self._reading.cancel()


@dataclass(frozen=True)
class StreamEvent:
    """One event as the browser gets it, and when (monotonic seconds)."""

    seq: int
    type: str
    data: Mapping[str, Any]
    at: float


class Person:
    """Somebody with a browser's cookie jar; `async with Person(url) as anna`."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        jar = aiohttp.CookieJar(unsafe=True)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self.http = aiohttp.ClientSession(cookie_jar=jar, timeout=timeout, headers={"Origin": self._origin})

    async def __aenter__(self) -> Self:
        """Open the session."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.http.close()

    async def sign_in(self, link: str) -> dict[str, Any]:
        """Use a sign-in link."""
        token = link.split("#token=", 1)[1]
        return await self.call("POST", "/api/v1/auth/magic-link/verify", {"token": token})

    async def call(
        self, method: str, path: str, body: object = None, *, status: int | None = None, **headers: str
    ) -> dict[str, Any]:
        """One request; the answer's JSON. Fails on an unexpected status (default: any 2xx)."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.request(method, self.url + path, json=body, headers=named) as response:
            text = await response.text()
            fine = response.status == status if status else response.ok
            assert fine, f"{method} {path}: {response.status} {text}"
            answer: dict[str, Any] = json.loads(text) if text else {}
            return answer

    async def conversation(self) -> str:
        """A new conversation's id."""
        made = await self.call("POST", "/agent/conversations", {})
        return str(made["id"])

    async def post(self, conversation: str, text: str, key: str | None = None) -> dict[str, Any]:
        """Send a message."""
        path = f"/agent/conversations/{conversation}/turns"
        return await self.call("POST", path, {"text": text}, Idempotency_Key=key or str(uuid4()))

    async def events(self, conversation: str, after: int = 0) -> AsyncIterator[StreamEvent]:
        """Follow the stream until the server ends it."""
        path = f"/agent/conversations/{conversation}/events?after={after}"
        async with self.http.get(self.url + path) as response:
            assert response.status == 200, await response.text()
            fields: dict[str, str] = {}
            async for raw in response.content:
                line = raw.decode().rstrip("\n")
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    data = json.loads(fields["data"])
                    yield StreamEvent(int(fields["id"]), fields["event"], data, time.monotonic())
                    fields = {}

    async def answer(self, conversation: str, turn_id: str, after: int = 0) -> list[StreamEvent]:
        """All events of a turn to its end."""
        seen: list[StreamEvent] = []
        async with asyncio.timeout(ANSWER_TIMEOUT):
            async for event in self.events(conversation, after):
                if event.data["turn_id"] == turn_id:
                    seen.append(event)
                    if event.type in ("turn.completed", "turn.failed", "turn.stopped"):
                        break
        return seen

    async def ask(self, conversation: str, text: str) -> list[StreamEvent]:
        """Send a message and return all events of its turn."""
        turn = await self.post(conversation, text)
        return await self.answer(conversation, turn["id"])

    async def wait_for_state(self, *states: str, timeout: float = 60) -> dict[str, Any]:
        """Look at the agent until it is in one of these states."""
        async with asyncio.timeout(timeout):
            while True:
                agent = await self.call("GET", "/agent")
                if agent["state"] in states:
                    return agent
                await asyncio.sleep(0.1)
