"""The agents' own host name (OCMT_AGENT_URL): what is served there, and in its place at the public one."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.errors import NotFound
from ocmt.identity.accounts import Accounts
from ocmt.identity.middleware import Authentication
from ocmt.identity.visits.model import GATEWAY, AgentAddress
from ocmt.identity.visits.routes import Arrival, Departure
from ocmt.identity.visits.service import Visits
from ocmt.platform.database import Database
from ocmt.platform.http import RequestLimits, SecurityHeaders, problem, redirect
from ocmt.platform.http.addresses import Network

MAX_TICKET_BODY = 4 * 1024


class AgentHost:
    """ASGI for the requests that `owns`. It serves OpenClaw's pages and the gateway, and nothing else."""

    def __init__(
        self,
        agents: ASGIApp,
        accounts: Accounts,
        database: Database,
        *,
        url: str,
        proxies: Sequence[Network],
        max_body: int,
    ) -> None:
        """`agents`: the orchestrator's application. `url`: OCMT_AGENT_URL. Raises: SetupProblem."""
        identity = accounts.identity
        self.address = AgentAddress.beside(url, identity.address)
        visits = Visits(database, identity.entrance, accounts.clock)
        gateway = Authentication(agents, visits, self.address, bearers=accounts.bearers, proxies=proxies)
        self._gateway = RequestLimits(gateway, max_body=max_body)
        arrival = Arrival(visits, self.address, public_url=identity.address.url)
        self._arrival = RequestLimits(arrival, max_body=MAX_TICKET_BODY)
        self.departure = Departure(visits, self.address)
        """In place of `/agent/gateway` and all below it at the public address."""
        self._served = SecurityHeaders(
            self._dispatch, content_security_policy="default-src 'none'", https=self.address.secure
        )

    def owns(self, scope: Scope) -> bool:
        """Return whether a request is for this host name."""
        return self.address.serves(HTTPConnection(scope).headers.get("host", ""))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._served(scope, receive, send)

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["type"] == "websocket" and path != GATEWAY:
            await send({"type": "websocket.close", "code": 1008})
        elif path in Arrival.paths:
            await self._arrival(scope, receive, send)
        elif is_gateway(path):
            await self._gateway(scope, receive, send)
        elif path == "/":
            await redirect(f"{GATEWAY}/")(scope, receive, send)
        else:
            await problem(NotFound("There is no such page at this address."))(scope, receive, send)


def is_gateway(path: str) -> bool:
    """Return whether a path is that of the gateway or of what is below it."""
    return path == GATEWAY or path.startswith(f"{GATEWAY}/")
