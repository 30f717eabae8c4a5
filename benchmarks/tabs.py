"""A thousand windows on one replica, a hundred of them on a conversation in which an agent talks.

The replica, who talks and who reads are processes of their own (`python -m benchmarks.tabs …`).
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import uvloop
from tests.accounts import make_user

from benchmarks.results import Result
from benchmarks.wire import listening
from ocmt.chat import log
from ocmt.chat.model import Event, EventType
from ocmt.chat.service import Chat
from ocmt.chat.stream import EventStream
from ocmt.cli.process import allow_many_files
from ocmt.platform.clock import SystemClock
from ocmt.platform.database import Database, Hints
from ocmt.platform.embedded_postgres import EmbeddedPostgres
from ocmt.platform.migrations import migrate
from ocmt.platform.postgres_binaries import find_binaries
from ocmt.platform.principal import Principal
from ocmt.platform.reachable import ReachablePaths
from ocmt.services.server import serve, stop_signal
from ocmt.settings import load_settings
from ocmt.testing.objects import MemoryObjects

TABS, TALKING, A_SECOND = 1_000, 100, 20
SECONDS = 10.0
_SAID = re.compile(rb'"text":"(\d+\.\d+)"')


async def measure(folder: Path) -> list[Result]:
    """The lag between an agent's piece of text and its window, in one round."""
    allow_many_files()
    binaries = find_binaries(load_settings().cache_dir)
    assert binaries is not None, "run `make setup`"
    folder.mkdir(mode=0o711, exist_ok=True)
    server = EmbeddedPostgres(folder / "pg", binaries=binaries, view=ReachablePaths().view)
    dsn = await server.start()
    try:
        await migrate(dsn)
        whose = folder / "conversations.json"
        whose.write_text(json.dumps(await _conversations(dsn)))
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = str(found.getsockname()[1])
        replica = await _start("serve", port, dsn)
        try:
            await listening(int(port))
            reading = await _start("read", port, str(whose))
            assert reading.stdout is not None
            await reading.stdout.readline()  # all windows are open
            talking = await _start("talk", dsn, str(whose))
            told, _ = await talking.communicate()
            lags, _ = await reading.communicate()
        finally:
            replica.terminate()
            await replica.wait()
    finally:
        await server.stop()
    measured, said = json.loads(lags), json.loads(told)
    return [
        Result(
            f"event stream, {TABS} tabs, {A_SECOND} events/s to {TALKING} of them, lag p99",
            "ms",
            [measured["p99"]],
            "≤ 250, every event once",
            measured["p99"] <= 250 and measured["events"] == said["events"],
            more={**measured, "said": said},
        )
    ]


async def _conversations(dsn: str) -> list[tuple[str, str, str]]:
    database = await Database.open(dsn, pool_size=5)
    chat = Chat(database, SystemClock(), MemoryObjects())
    made = []
    for number in range(TABS):
        user_id = await make_user(database, f"user-{number}@example.org")
        conversation = await chat.create_conversation(user_id)
        turn = await chat.post(user_id, conversation.id, "hello", key="k")
        made.append((str(user_id), str(conversation.id), str(turn.id)))
    await database.close()
    return made


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.tabs", *arguments, stdout=asyncio.subprocess.PIPE
    )


async def _serve(port: int, dsn: str) -> None:
    allow_many_files()
    clock = SystemClock()
    database, hints = await Database.open(dsn, pool_size=5), Hints(dsn, clock)
    await hints.start()
    stream = EventStream(Chat(database, clock, MemoryObjects()), database, hints, clock)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        _, user_id, conversation_id = scope["path"].split("/")
        scope["state"] = {"principal": Principal(UUID(user_id), None, "")}
        scope["path_params"] = {"conversation_id": conversation_id}
        await stream(scope, receive, send)

    async def ready() -> None:
        pass

    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    await serve(app, listener, stop=stop_signal(), ready=ready, closing=stream.closing)
    await hints.close()
    await database.close()


async def _talk(dsn: str, whose: Path) -> dict[str, float]:
    """As the writers of a hundred turns do: each appends by itself, every 50 ms."""
    clock = SystemClock()
    database = await Database.open(dsn, pool_size=5)
    rounds = int(SECONDS * A_SECOND)
    late = 0.0

    async def one(number: int, user: str, conversation: str, turn: str) -> None:
        nonlocal late
        begin = time.monotonic() + 0.5 + number / TALKING / A_SECOND
        for each in range(rounds):
            due = begin + each / A_SECOND
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            late = max(late, time.monotonic() - due)
            async with database.connection() as connection:
                await log.append(
                    connection,
                    clock,
                    user_id=UUID(user),
                    conversation_id=UUID(conversation),
                    events=[Event(EventType.DELTA, UUID(turn), {"text": f"{time.time():.6f}"})],
                    lease_token=None,
                )

    talking = json.loads(whose.read_text())[:TALKING]
    await asyncio.gather(*(one(number, *each) for number, each in enumerate(talking)))
    await database.close()
    return {"events": rounds * TALKING, "latest_start_ms": round(late * 1000, 1)}


class _Window(asyncio.Protocol):
    def __init__(self, lags: list[float], opened: asyncio.Queue[None]) -> None:
        self._lags, self._opened, self._rest = lags, opened, b""
        self._new = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        now = time.time()
        if self._new:
            self._new = False
            self._opened.put_nowait(None)
        *whole, self._rest = (self._rest + data).split(b"\n\n")
        for block in whole:
            said = _SAID.search(block)
            if said:
                self._lags.append(now - float(said[1]))


async def _read(port: int, whose: Path) -> dict[str, float]:
    allow_many_files()
    lags: list[float] = []
    opened: asyncio.Queue[None] = asyncio.Queue()
    for user, conversation, _ in json.loads(whose.read_text()):
        _, window = await asyncio.get_running_loop().create_connection(
            lambda: _Window(lags, opened), "127.0.0.1", port
        )
        request = f"GET /{user}/{conversation}?after=1 HTTP/1.1\r\nHost: x\r\n\r\n"
        window.transport.write(request.encode())
        await opened.get()
    print("open", flush=True)
    expected, quiet = int(SECONDS * A_SECOND) * TALKING, 0
    while len(lags) < expected and quiet < 100:
        before = len(lags)
        await asyncio.sleep(0.2)
        quiet = quiet + 1 if len(lags) == before else 0
    lags.sort()
    return {
        "events": len(lags),
        "p50": round(lags[len(lags) // 2] * 1000, 1),
        "p99": round(lags[len(lags) * 99 // 100] * 1000, 1),
        "max": round(lags[-1] * 1000, 1),
    }


def main() -> None:
    """See the module."""
    what, first, *more = sys.argv[1:]
    if what == "serve":
        uvloop.run(_serve(int(first), more[0]))
    elif what == "talk":
        print(json.dumps(uvloop.run(_talk(first, Path(more[0])))))
    else:
        print(json.dumps(uvloop.run(_read(int(first), Path(more[0])))))


if __name__ == "__main__":
    main()
