"""Everything in one process on one port: both services and the UI, as `ocmt up` runs them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.identity.middleware import Authentication
from ocmt.platform.database import Database
from ocmt.platform.http import HttpProtocol, RequestLimits, RequestLog, SecurityHeaders
from ocmt.platform.http.addresses import Network
from ocmt.services.management import Management
from ocmt.services.orchestrator import Orchestrator
from ocmt.services.probes import Probes
from ocmt.services.static_ui import CONTENT_SECURITY_POLICY, StaticUi, find_ui

MAX_BODY = 2 * 1024 * 1024
"""Bytes of a request's body, outside the broker: too long a message still gets in, to be refused in words."""
MAX_ARCHIVE = 128 * 1024**3
"""Of an agent's files that are sent in; their own room looks at what the plan allows."""
MAX_API_BODY = 64 * 1024
LAST_REQUESTS = 2
"""Seconds that requests under way are given when the process ends."""


def all_in_one_app(
    management: Management,
    orchestrator: Orchestrator,
    database: Database,
    *,
    url: str,
    ui_dir: Path | None,
    proxies: Sequence[Network] = (),
) -> ASGIApp:
    """The whole application behind one port; `url` is its public address."""
    agents = orchestrator.app()
    ui = StaticUi(find_ui(ui_dir))
    accounts = management.accounts
    identity = accounts.identity
    probes = Probes(database, hosts=identity.address.hosts)

    def authenticated(app: ASGIApp) -> ASGIApp:
        return Authentication(
            app, identity.entrance, identity.address, bearers=accounts.bearers, proxies=proxies
        )

    signed_in = RequestLimits(authenticated(agents), max_body=MAX_BODY)
    archives = RequestLimits(authenticated(agents), max_body=MAX_ARCHIVE)
    # The entrance is open to everybody: what is read before anybody is known must be cheap.
    api = RequestLimits(authenticated(management.app()), max_body=MAX_API_BODY)

    async def public(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in probes.paths:
            await probes(scope, receive, send)
        elif path.startswith(("/api/", "/.well-known/")):
            await api(scope, receive, send)
        elif path == "/agent/snapshots":
            await archives(scope, receive, send)
        elif path == "/agent" or path.startswith("/agent/"):
            await signed_in(scope, receive, send)
        else:
            await ui(scope, receive, send)

    pages = SecurityHeaders(
        public, content_security_policy=CONTENT_SECURITY_POLICY, https=url.startswith("https://")
    )

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        # Agents have neither cookies nor pages, and longer requests than browsers.
        inner = agents if scope["path"].startswith("/broker/") else pages
        await inner(scope, receive, send)

    return RequestLog(front)


async def serve(
    app: ASGIApp,
    orchestrator: Orchestrator,
    listener: socket.socket,
    *,
    stop: asyncio.Event,
    ready: Callable[[], Awaitable[None]],
) -> None:
    """Serve until `stop` is set; then end requests and agents. `ready` is awaited once requests are answered.

    Raises what ended a background task, if one ended by itself.
    """
    server = _Server(
        uvicorn.Config(
            app,
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=LAST_REQUESTS,
            proxy_headers=False,
        )
    )
    async with orchestrator.running() as broken:
        serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        stopping = asyncio.create_task(stop.wait())
        try:
            await server.answers.wait()
            await ready()
            ends: list[asyncio.Future[Any]] = [serving, stopping, broken]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if broken.done():
                broken.result()
        finally:
            stopping.cancel()
            orchestrator.stream.closing.set()
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
