"""WebSockets for measuring relays: an upstream and a crowd of clients that cost next to nothing themselves.

Both know the size of every message beforehand, so they count bytes and look into none. Each runs in a process
of its own: `python -m benchmarks.wire echo PORT SIZE | relay PORT UPSTREAM | crowd …`, one line of JSON out.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import Any, cast

import uvloop

from ocmt.gateway.model import handshake
from ocmt.services.server import serve, stop_signal

HANDSHAKE = (
    b"GET /agent/gateway HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def listening(port: int) -> None:
    """Wait until somebody does. Raises: TimeoutError after 15 s."""
    async with asyncio.timeout(15):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


def frame(size: int, *, masked: bool) -> bytes:
    """One binary message of that size; under a mask of zeros where a client sends it."""
    mark = 0x80 if masked else 0
    small = size < 126
    head = bytes((0x82, mark | (size if small else 126))) + (b"" if small else size.to_bytes(2, "big"))
    return head + (b"\0\0\0\0" if masked else b"") + b"x" * size


class _Peer(asyncio.Protocol):
    """Counts what comes behind the head of the handshake."""

    def __init__(self) -> None:
        self.head: bytearray | None = bytearray()
        self.got = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.head is None:
            self.got += len(data)
            self.came()
            return
        self.head += data
        _, end, rest = bytes(self.head).partition(b"\r\n\r\n")
        if end:
            self.head = None
            self.opened()
            if rest:
                self.data_received(rest)

    def opened(self) -> None:
        """The handshake is over."""

    def came(self) -> None:
        """Some bytes more."""


class _Echo(_Peer):
    def __init__(self, size: int) -> None:
        super().__init__()
        self._message, self._question = frame(size, masked=False), len(frame(size, masked=True))

    def opened(self) -> None:
        self.transport.write(_ANSWER)

    def came(self) -> None:
        while self.got >= self._question:
            self.got -= self._question
            self.transport.write(self._message)


class _Client(_Peer):
    """One message at a time, as quickly as the echo comes back."""

    def __init__(self, size: int, ready: asyncio.Queue[None]) -> None:
        super().__init__()
        self._message, self._answer = frame(size, masked=True), len(frame(size, masked=False))
        self._ready = ready
        self.times: list[float] | None = None
        self.count = 0
        self.sending = False

    def opened(self) -> None:
        self._ready.put_nowait(None)

    def say(self) -> None:
        self._at = time.perf_counter()
        self.transport.write(self._message)

    def came(self) -> None:
        if self.got < self._answer:
            return
        self.got -= self._answer
        self.count += 1
        if self.times is not None:
            self.times.append(time.perf_counter() - self._at)
        if self.sending:
            self.say()


async def _echo(port: int, size: int) -> None:
    stop = stop_signal()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Echo(size), "127.0.0.1", port, backlog=4096
    )
    async with server:
        await stop.wait()


async def _relay(port: int, upstream: int) -> None:
    """Our splice behind uvicorn, as the platform sets it up, without the rooms around it."""
    from ocmt.cli.process import allow_many_files

    allow_many_files()
    loop = asyncio.get_running_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", upstream))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await scope["extensions"]["ocmt.splice"].join(
            connection, handshake(scope["headers"]), most=1 << 25, on_end=lambda splice: None
        )

    async def ready() -> None:
        pass

    listener = socket.create_server(("127.0.0.1", port), backlog=4096, reuse_port=True)
    await serve(app, listener, stop=stop_signal(), ready=ready)


async def _crowd(port: int, size: int, count: int, seconds: float, timed: bool) -> dict[str, Any]:
    """So many clients at once; messages a second, and each one's time where `timed`."""
    ready: asyncio.Queue[None] = asyncio.Queue()
    clients = [_Client(size, ready) for _ in range(count)]
    loop = asyncio.get_running_loop()
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]
        client.transport.write(HANDSHAKE)
        async with asyncio.timeout(10):
            await ready.get()
    for client in clients:
        client.sending = True
        client.say()
    await asyncio.sleep(min(1.0, seconds / 4))
    for client in clients:
        client.count, client.times = 0, [] if timed else None
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    total = sum(client.count for client in clients)
    times = sorted(each for client in clients for each in client.times or ())
    for client in clients:
        client.sending = False
        client.transport.abort()
    return {
        "rate": total / took,
        "p50": times[len(times) // 2] if times else None,
        "p99": times[len(times) * 99 // 100] if times else None,
    }


def main() -> None:
    """See the module."""
    what, *numbers = sys.argv[1:]
    values = [float(number) for number in numbers]
    if what == "echo":
        uvloop.run(_echo(int(values[0]), int(values[1])))
    elif what == "relay":
        uvloop.run(_relay(int(values[0]), int(values[1])))
    else:
        port, size, count, seconds, timed = values
        print(json.dumps(uvloop.run(_crowd(int(port), int(size), int(count), seconds, bool(timed)))))


if __name__ == "__main__":
    main()
