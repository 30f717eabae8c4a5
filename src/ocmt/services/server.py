"""Serves an application until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from ocmt.platform.http.listener import server_config
from ocmt.platform.http.upgrade import Upgrade
from ocmt.platform.work import process_ends, use_daemon_threads

LAST_REQUESTS = 2
"""Seconds that requests under way are given when the process ends."""


def stop_signal() -> asyncio.Event:
    """Set by SIGINT or SIGTERM, from now on. The first thing that a process calls: it also prepares for the
    end, so that no thread is waited for then."""
    use_daemon_threads()
    stop = asyncio.Event()

    def end() -> None:
        process_ends()
        stop.set()

    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, end)
    return stop


async def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    stop: asyncio.Event,
    ready: Callable[[], Awaitable[None]],
    broken: asyncio.Future[None] | None = None,
    closing: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set; then end the requests. `ready` is awaited once requests are answered.

    `broken`: fails when something in the background has ended by itself; that is raised here. `closing` is
    set when requests shall come to their end, for those that would not by themselves.
    """
    server = _Server(server_config(app, ws=Upgrade, timeout_graceful_shutdown=LAST_REQUESTS))
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    stopping = asyncio.create_task(stop.wait())
    try:
        await server.answers.wait()
        await ready()
        ends: list[asyncio.Future[Any]] = [serving, stopping, *([broken] if broken else [])]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if broken is not None and broken.done():
            broken.result()
    finally:
        stopping.cancel()
        if closing is not None:
            closing.set()
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, that says when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answers = asyncio.Event()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await self._serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answers.set()
