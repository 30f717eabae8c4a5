"""Everything in one process on one port: both services and the UI, as `ocmt up` runs them."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.bootstrap import Features, Platform, open_features, open_platform
from ocmt.errors import NotFound, OcmtError
from ocmt.identity.middleware import Authentication
from ocmt.platform import telemetry
from ocmt.platform.http import RequestLimits, RequestLog, SecurityHeaders, problem
from ocmt.platform.reachable import ReachablePaths
from ocmt.services.management import management_app
from ocmt.services.orchestrator import orchestrator_app, running
from ocmt.services.static_ui import CONTENT_SECURITY_POLICY, StaticUi, find_ui
from ocmt.settings import Settings

MAX_BODY = 2 * 1024 * 1024
"""Bytes of a request's body, outside the broker: too long a message still gets in, to be refused in words."""
LAST_REQUESTS = 2
"""Seconds that requests under way are given when the process ends."""


def all_in_one_app(platform: Platform, features: Features) -> ASGIApp:
    """The whole application behind one port."""
    settings = platform.settings
    management = management_app(features)
    orchestrator = orchestrator_app(features)
    ui = StaticUi(find_ui(settings.ui_dir))

    async def services(scope: Scope, receive: Receive, send: Send) -> None:
        service = management if scope["path"].startswith("/api/") else orchestrator
        await service(scope, receive, send)

    signed_in = RequestLimits(Authentication(services, features.identity), max_body=MAX_BODY)

    async def public(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in _PROBES:
            await _PROBES[path](platform, scope, receive, send)
        elif path == "/agent" or path.startswith(("/agent/", "/api/")):
            await signed_in(scope, receive, send)
        else:
            await ui(scope, receive, send)

    https = settings.url.startswith("https://")
    pages = SecurityHeaders(public, content_security_policy=CONTENT_SECURITY_POLICY, https=https)

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        # Agents have neither cookies nor pages, and longer requests than browsers.
        inner = orchestrator if scope["path"].startswith("/broker/") else pages
        await inner(scope, receive, send)

    return RequestLog(front)


async def run(
    settings: Settings,
    listener: socket.socket,
    paths: ReachablePaths,
    *,
    announce: Callable[[str], None],
    ready: Callable[[Features], Awaitable[None]],
) -> None:
    """Serve until SIGINT or SIGTERM; then end everything that was started, within 10 seconds.

    `ready` is awaited once requests are answered. Raises SetupProblem where something is missing.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    async with AsyncExitStack() as stack:
        platform = await stack.enter_async_context(open_platform(settings, paths, announce))
        features = await stack.enter_async_context(open_features(platform))
        if platform.alone:
            await features.agents.expire_leases()
        server = _Server(
            uvicorn.Config(
                all_in_one_app(platform, features),
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=LAST_REQUESTS,
                proxy_headers=False,
            )
        )
        broken = await stack.enter_async_context(running(features))
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        stopping = asyncio.create_task(stop.wait())
        try:
            await server.answers.wait()
            await ready(features)
            ends: list[asyncio.Future[Any]] = [serving, stopping, broken]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                broken.result()
        finally:
            stopping.cancel()
            features.stream.closing.set()
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


async def _alive(_platform: Platform, scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse({"status": "alive"})(scope, receive, send)


async def _ready(platform: Platform, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        async with asyncio.timeout(5), platform.database.connection() as connection:
            await connection.fetchval("select 1")
        response: Response = JSONResponse({"status": "ready"})
    except (OcmtError, OSError, TimeoutError):
        response = JSONResponse({"status": "database does not answer"}, 503)
    await response(scope, receive, send)


async def _metrics(_platform: Platform, scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope)
    local = request.client is not None and request.client.host in ("127.0.0.1", "::1")
    if not local or "x-forwarded-for" in request.headers or "forwarded" in request.headers:
        # Internal: to a proxy's clients it does not exist.
        await problem(NotFound("There is no such page."))(scope, receive, send)
        return
    await Response(telemetry.metrics(), media_type="text/plain; version=0.0.4")(scope, receive, send)


_PROBES = {"/healthz": _alive, "/readyz": _ready, "/metrics": _metrics}
