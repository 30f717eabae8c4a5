"""A gateway that floods its connection below the level of messages does not hold the event loop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import socket
import threading
import time

import pytest
from websockets.asyncio.client import connect

from ocmt.openclaw.bounded import AT_ONCE, PART, BoundedConnection

pytestmark = pytest.mark.anyio

SECONDS = 2.0
PING, PONG = b"\x89\x00", b"\x8a\x00"


def serve(connection: socket.socket, messages: list[bytes], again: bytes) -> None:
    with contextlib.suppress(OSError), connection:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        (key,) = (
            line.partition(b": ")[2]
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
        connection.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + base64.b64encode(accept) + b"\r\n\r\n"
        )
        for message in messages:
            connection.sendall(b"\x82\x7f" + len(message).to_bytes(8, "big") + message)
        while again:
            connection.sendall(again * 50_000)


async def opened(messages: list[bytes], again: bytes) -> BoundedConnection:
    ours, theirs = socket.socketpair()
    threading.Thread(target=serve, args=(theirs, messages, again), daemon=True).start()
    connection = await connect(
        "ws://127.0.0.1/",
        sock=ours,
        proxy=None,
        compression=None,
        ping_interval=None,
        max_size=2**24,
        max_queue=4,
        create_connection=BoundedConnection,
    )
    assert isinstance(connection, BoundedConnection)
    return connection


@pytest.mark.parametrize("frame", [PING, PONG], ids=["pings", "pongs"])
async def test_a_flood_of_control_frames_takes_a_part_of_the_time(frame: bytes) -> None:
    connection = await opened([], frame)
    loop = asyncio.get_running_loop()
    taking = asyncio.create_task(connection.recv())
    ticks, end = 0, loop.time() + SECONDS
    used = time.thread_time()
    while loop.time() < end:
        await asyncio.sleep(0.001)
        ticks += 1
    used = time.thread_time() - used
    taking.cancel()
    connection.transport.abort()
    assert used < AT_ONCE + 2 * PART * SECONDS
    assert ticks > 100 * SECONDS


async def test_large_messages_arrive_whole_and_in_order() -> None:
    messages = [os.urandom(8 * 2**20), b"small", os.urandom(300_000), b"", os.urandom(2**24)]
    connection = await opened(messages, b"")
    async with asyncio.timeout(20):
        for message in messages:
            assert await connection.recv(decode=False) == message
            await asyncio.sleep(0.01)
    connection.transport.abort()
