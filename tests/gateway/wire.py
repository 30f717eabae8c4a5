"""A server that splices, as ours is set up, before any WebSocket server: for tests of the splice alone."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from ocmt.errors import OcmtError
from ocmt.gateway.model import handshake
from ocmt.platform.http import problem
from ocmt.platform.http.splice import Splice
from ocmt.services.server import serve as serve_app

MOST = 1024 * 1024


@dataclass
class Spliced:
    """The server's address, and what it has spliced."""

    url: str
    splices: list[Splice] = field(default_factory=list)
    ended: list[Splice] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)


async def joined(
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    port: int,
    on_end: Callable[[Splice], None] = lambda _: None,
) -> Splice | None:
    """Join a client's WebSocket to that port, as the gateway's room does; None where it was refused."""
    try:
        upgrade = scope["extensions"]["ocmt.splice"]
        head = handshake(scope["headers"])
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setblocking(False)
        splice: Splice = await upgrade.join(connection, head, most=MOST, on_end=on_end)
    except OcmtError as error:
        await problem(error)(scope, receive, send)
        return None
    return splice


@asynccontextmanager
async def splicing(upstream_port: int) -> AsyncIterator[Spliced]:
    """Every WebSocket that comes is joined to that port on this machine."""
    listener = socket.create_server(("127.0.0.1", 0))
    spliced = Spliced(f"ws://127.0.0.1:{listener.getsockname()[1]}/")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await problem(OcmtError("Nothing here."))(scope, receive, send)
            return
        splice = await joined(scope, receive, send, port=upstream_port, on_end=spliced.ended.append)
        if splice is not None:
            spliced.splices.append(splice)

    answers = asyncio.Event()

    async def ready() -> None:
        answers.set()

    serving = asyncio.create_task(serve_app(app, listener, stop=spliced.stop, ready=ready))
    try:
        await answers.wait()
        yield spliced
    finally:
        spliced.stop.set()
        await serving


@asynccontextmanager
async def websocket_server(handle: Callable[[ServerConnection], Awaitable[None]]) -> AsyncIterator[int]:
    """A real one; gives its port."""
    async with serve(handle, "127.0.0.1", 0, max_size=None, ping_interval=None) as server:
        yield server.sockets[0].getsockname()[1]


async def echo(connection: ServerConnection) -> None:
    """Say everything again."""
    with suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)
