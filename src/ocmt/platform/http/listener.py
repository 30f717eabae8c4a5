"""Serves an ASGI application on a listener that somebody hands us: one from inside an agent's own network.

Who connects is not trusted: the number of connections is bounded, so that one agent cannot use up the
process's file descriptors and memory. What is on one of them: `protocol`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Protocol

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from ocmt.platform.http.protocol import HttpProtocol

MAX_CONNECTIONS = 64
_GRACE_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Closer(Protocol):
    """Something that is served until it is closed."""

    async def close(self) -> None:
        """End it. Idempotent."""


def server_config(app: ASGIApp, **more: Any) -> uvicorn.Config:
    """uvicorn's: HTTP/1.1 by `HttpProtocol`, no WebSockets, no lifespan, no log and no banner of its own.

    `ws=Upgrade`: with WebSockets, which the application can refuse or splice.
    """
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws=more.pop("ws", "none"),
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        **more,
    )


async def serve_on(
    listener: socket.socket, app: ASGIApp, *, max_connections: int = MAX_CONNECTIONS
) -> Closer:
    """Serve `app` on that listening TCP or unix socket, which is ours from now on.

    HTTP/1.1 only, no WebSockets, no lifespan. Responses go out as they are sent, never buffered. `close` lets
    requests under way end for a second, then cuts them off.
    """
    config = server_config(app, date_header=False)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()

    def accept() -> asyncio.Protocol:
        if len(state.connections) >= max_connections:
            return _Refusal()
        return HttpProtocol(config=config, server_state=state, app_state={}, _loop=loop)

    listener.setblocking(False)
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        # Inherited by what is accepted; asyncio sets it only on sockets that say their protocol is TCP.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    server = await loop.create_server(accept, sock=listener)
    return _Served(server, state)


class _Refusal(asyncio.Protocol):
    """Hangs up at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.abort()


class _Served:
    def __init__(self, server: asyncio.Server, state: ServerState) -> None:
        self._server = server
        self._state = state

    async def close(self) -> None:
        """See Closer."""
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=_GRACE_SECONDS)
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        if tasks:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), _GRACE_SECONDS)
