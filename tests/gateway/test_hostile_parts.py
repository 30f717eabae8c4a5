"""An agent's answer in as many small parts as it can make must not hold up everybody else."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from typing import Any
from uuid import UUID, uuid4

import pytest

from ocmt.gateway import http_proxy
from ocmt.gateway.http_proxy import BURST_PARTS, PARTS_PER_SECOND, HttpProxy

pytestmark = pytest.mark.anyio

SECONDS = 2.0
FLOODS = {
    "informational answers": (b"", b"HTTP/1.1 100 C\r\n\r\n"),
    "chunks of one byte": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1\r\nx\r\n",
    ),
}


def flood(connection: socket.socket, begin: bytes, again: bytes) -> None:
    with contextlib.suppress(OSError), connection:
        connection.recv(65536)
        connection.sendall(begin)
        while True:
            connection.sendall(again * 3000)


@pytest.mark.parametrize("kind", FLOODS)
async def test_an_answer_in_very_many_parts_waits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Principal:
        user_id = uuid4()

    monkeypatch.setattr(http_proxy, "principal", lambda _: Principal)

    async def dial(_: UUID) -> socket.socket:
        ours, theirs = socket.socketpair()
        threading.Thread(target=flood, args=(theirs, *FLOODS[kind]), daemon=True).start()
        ours.setblocking(False)
        return ours

    async def elsewhere(*_: Any) -> None:
        raise AssertionError("it is the gateway's")

    sent = 0

    async def send(_: Any) -> None:
        nonlocal sent
        sent += 1

    asked = asyncio.Event()

    async def receive() -> dict[str, Any]:
        if asked.is_set():
            await asyncio.sleep(60)
        asked.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    path = "/agent/gateway/v1/models"
    scope = {
        **{"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": []},
        **{"query_string": b"", "http_version": "1.1"},
    }
    serving = asyncio.create_task(HttpProxy(dial, elsewhere)(scope, receive, send))
    loop, worst = asyncio.get_running_loop(), 0.0
    end = loop.time() + SECONDS
    while (before := loop.time()) < end:
        await asyncio.sleep(0.001)
        worst = max(worst, loop.time() - before)
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    assert sent <= BURST_PARTS + PARTS_PER_SECOND * (SECONDS + 1)
    assert worst < 0.25
