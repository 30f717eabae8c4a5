"""The server as a child process, the vendors of its channels as doubles, people who have connected them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import psutil

from ocmt.testing.github import GitHubApi
from ocmt.testing.installation import Person, surroundings
from ocmt.testing.slack import SlackApi
from ocmt.testing.telegram import TelegramApi
from tests.hostile.genuine import Door, GitHubDoor, HmacDoor, Request, SlackDoor, StandardDoor, TelegramDoor
from tests.hostile.wire import Answer, ask, connection, frame, frames

READY_SECONDS = 60
ANSWER_SECONDS = 30.0
"""What is beyond that hangs; also on a machine that has much else to do."""


@dataclass
class Stage:
    """All of it."""

    port: int
    process: asyncio.subprocess.Process
    log: Path
    doors: Sequence[Door]
    cookies: Sequence[str]
    """Of people who are signed in."""
    database: asyncpg.Connection

    @property
    def host(self) -> str:
        return f"localhost:{self.port}"

    def memory(self) -> int:
        """Bytes that the process has in memory."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def files(self) -> int:
        """How many it has open, connections among them."""
        return int(psutil.Process(self.process.pid).num_fds())

    def complaints(self) -> list[str]:
        """Lines of its log that stand for a fault of ours."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                level = json.loads(line)["level"]
            except (ValueError, KeyError, TypeError):
                level = "no line of ours"
            if (
                level != "warning"
                or "Traceback" in line
                or "never retrieved" in line
                or '"status": 5' in line
            ):
                found.append(line)
        return found

    async def post(self, door: Door, *, seconds: float = ANSWER_SECONDS) -> Answer:
        """A new genuine webhook."""
        return await ask(self.port, door.request(self.host).wire(), seconds=seconds)

    async def times_kept(self, endpoint: UUID, request: Request) -> int:
        """How often it is in the table, by its body or by its id, which a mutation may have taken before."""
        found = await self.database.fetchval(
            "select count(*) from deliveries where endpoint_id = $1 and (body = $2 or external_id = $3)",
            endpoint,
            request.body,
            request.external_id,
        )
        return int(found)

    async def kept(self) -> list[tuple[UUID, str, bytes]]:
        """Endpoint, id and body of all deliveries."""
        rows = await self.database.fetch("select endpoint_id, external_id, body from deliveries")
        return [(row[0], row[1], row[2]) for row in rows]

    async def is_well(self) -> None:
        """It lives, has logged no fault, takes a webhook of each kind once, and a socket echoes."""
        assert self.process.returncode is None, self.log.read_text()[-5_000:]
        for door in self.doors:
            request = door.request(self.host)
            for _ in range(2):
                answer = await ask(self.port, request.wire(), seconds=ANSWER_SECONDS)
                assert answer.status == 200, (door.channel, answer)
            assert await self.times_kept(door.endpoint, request) == 1, door.channel
        await self.echoes()
        assert self.complaints() == []

    async def echoes(self) -> None:
        """A good socket does what it should."""
        async with connection(self.port) as opened:
            await opened.send([self.handshake()])
            answer = await opened.answer(ANSWER_SECONDS)
            assert answer.status == 101, answer
            await opened.send([frame(1, b"hello")])
            while not (found := frames(bytes(opened.received))[0]):
                assert await opened.read(ANSWER_SECONDS)
            assert [one.payload for one in found] == [b"hello"]
            await opened.send([frame(8, b"\x03\xe8")])
            assert await opened.end(ANSWER_SECONDS)

    def handshake(self, person: int = 0) -> bytes:
        """A good one."""
        return (
            f"GET /agent/gateway HTTP/1.1\r\nHost: {self.host}\r\nOrigin: http://{self.host}\r\n"
            f"Cookie: {self.cookies[person]}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()


@contextlib.asynccontextmanager
async def open_stage(dsn: str, folder: Path) -> AsyncIterator[Stage]:
    """On a migrated database of its own."""
    log = folder / "server.log"
    async with contextlib.AsyncExitStack() as stack:
        telegram = await stack.enter_async_context(TelegramApi())
        slack = await stack.enter_async_context(SlackApi())
        github = await stack.enter_async_context(GitHubApi())
        database = await asyncpg.connect(dsn)
        stack.push_async_callback(database.close)
        given = {
            "DATABASE_URL": dsn,
            "OCMT_DATABASE_POOL": "5",
            "OCMT_DATA_DIR": str(folder / "data"),
            "OCMT_PORT": "0",
            "OCMT_RUNTIME": "process",
            "OCMT_TELEGRAM_URL": telegram.url,
            "OCMT_SLACK_URL": slack.url,
            "OCMT_GITHUB_URL": github.url,
            # Where there is no model provider.
            "OCMT_ANTHROPIC_URL": "http://127.0.0.1:1",
            "OCMT_OPENAI_URL": "http://127.0.0.1:1",
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.hostile.server"),
                env=surroundings(**given),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
            )
        stack.push_async_callback(_end, process)
        assert process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            line = await process.stdout.readline()
        assert line, log.read_text()
        told = json.loads(line)
        cookies = [await _sign_in(told["port"], link) for link in told["links"]]
        doors = await _connect(told["port"], cookies[0], telegram, slack, github)
        yield Stage(told["port"], process, log, doors, cookies, database)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


async def _sign_in(port: int, link: str) -> str:
    async with Person(f"http://localhost:{port}") as person:
        await person.sign_in(link)
        return "; ".join(f"{cookie.key}={cookie.value}" for cookie in person.http.cookie_jar)


async def _connect(
    port: int, cookie: str, telegram: TelegramApi, slack: SlackApi, github: GitHubApi
) -> Sequence[Door]:
    async with Person(f"http://localhost:{port}") as person:
        person.http.headers["Cookie"] = cookie

        async def connect(channel: str, **fields: str) -> dict[str, Any]:
            return await person.call("POST", "/agent/channels", {"channel": channel, "fields": fields})

        bot = await connect("telegram", bot_token=telegram.token)
        app = await connect("slack", bot_token=slack.token, signing_secret=slack.signing_secret)
        repository = await connect("github", repository=github.repository, access_token=github.token)
        standard = await connect("signed", mode="standard")
        plain = await connect("signed", mode="hmac")
    assert telegram.webhook is not None
    (hook,) = github.hooks.values()
    return [
        TelegramDoor(UUID(bot["id"]), telegram.webhook["secret_token"], telegram),
        SlackDoor(UUID(app["id"]), slack.signing_secret, slack),
        GitHubDoor(UUID(repository["id"]), hook["config"]["secret"], github),
        StandardDoor(UUID(standard["id"]), standard["secret"]),
        HmacDoor(UUID(plain["id"]), plain["secret"]),
    ]
