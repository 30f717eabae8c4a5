"""The ways in: `WS /agent/gateway`; below it the gateway's own HTTP addresses, and OpenClaw's pages."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match, Mount, WebSocketRoute
from starlette.types import Receive, Scope, Send

from ocmt.errors import NotFound, OcmtError
from ocmt.gateway.http_proxy import HttpProxy
from ocmt.gateway.model import handshake
from ocmt.gateway.pages import BELOW, ControlUi
from ocmt.gateway.service import Sockets
from ocmt.platform.http import principal, problem, redirect


def routes(sockets: Sockets, pages: ControlUi) -> list[BaseRoute]:
    """To be mounted at the root of the orchestrator."""
    return [
        WebSocketRoute(BELOW, GatewaySocket(sockets)),
        WithoutSlash(),
        Mount(BELOW, app=HttpProxy(sockets.dial, pages)),
    ]


class GatewaySocket:
    """OpenClaw's own protocol for its own clients."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Splice, or refuse with a problem."""
        try:
            who = principal(HTTPConnection(scope))
            head = handshake(scope["headers"])
            upgrade, still = scope["extensions"]["ocmt.splice"], scope["state"]["still"]
            await self._sockets.open(who.user_id, still, upgrade, head)
        except OcmtError as error:
            await problem(error)(scope, receive, send)


class WithoutSlash(BaseRoute):
    """`/agent/gateway` in a browser: leads to the pages, by a path and never by a whole address."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See BaseRoute."""
        return (Match.FULL if scope["type"] == "http" and scope["path"] == BELOW else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] in ("GET", "HEAD"):
            await redirect(f"{BELOW}/")(scope, receive, send)
        else:
            await problem(NotFound("There is no such address of your agent's gateway."))(scope, receive, send)
