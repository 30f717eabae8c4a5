"""What machines ask of a process: is it alive, can it serve, what does it count."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ocmt.errors import NotFound, OcmtError
from ocmt.platform import telemetry
from ocmt.platform.database import Database
from ocmt.platform.database_faults import fault_of
from ocmt.platform.free_space import FreeSpace
from ocmt.platform.http import problem

DATABASE_PATIENCE = 5.0
"""Seconds that the database is given to answer."""


class Probes:
    """ASGI application of `/healthz`, `/readyz` and `/metrics`."""

    paths = frozenset({"/healthz", "/readyz", "/metrics"})

    def __init__(self, database: Database, *, hosts: frozenset[str], space: FreeSpace | None = None) -> None:
        """`hosts`: the names of our own, as the Host header has them. `space`: of the disk that it needs."""
        self._space = space
        self._database = database
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        match scope["path"]:
            case "/healthz":
                response: Response = JSONResponse({"status": "alive"})
            case "/readyz":
                response = await self._ready()
            case _:
                response = self._metrics(Request(scope))
        await response(scope, receive, send)

    async def _ready(self) -> Response:
        try:
            async with asyncio.timeout(DATABASE_PATIENCE), self._database.connection() as connection:
                await connection.fetchval("select 1")
        except OcmtError as error:
            return JSONResponse({"status": error.message}, 503)
        except (OSError, TimeoutError) as error:
            return JSONResponse({"status": fault_of(error).everybody}, 503)
        if self._space is not None and self._space.low:
            return JSONResponse({"status": "the disk is almost full"}, 503)
        return JSONResponse({"status": "ready"})

    def _metrics(self, request: Request) -> Response:
        """Internal: to a proxy's clients, to other machines, and to pages that another name led here (DNS
        rebinding), it does not exist.
        """
        local = request.client is not None and request.client.host in ("127.0.0.1", "::1")
        own = request.headers.get("host") in self._hosts
        if not local or not own or "x-forwarded-for" in request.headers or "forwarded" in request.headers:
            return problem(NotFound("There is no such page."))
        return Response(telemetry.metrics(), media_type="text/plain; version=0.0.4")
