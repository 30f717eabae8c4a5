"""Everything in one process on one port: both services and the UI, as `ocmt up` runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.platform.database import Database
from ocmt.platform.http import RequestLimits, RequestLog, SecurityHeaders
from ocmt.platform.http.addresses import Network
from ocmt.services.agent_host import AgentHost, is_gateway
from ocmt.services.full_disk import RefusedWhenFull
from ocmt.services.management import MAX_API_BODY, PATHS, Management
from ocmt.services.orchestrator import Orchestrator
from ocmt.services.probes import Probes
from ocmt.services.static_ui import CONTENT_SECURITY_POLICY, StaticUi, find_ui

MAX_BODY = 2 * 1024 * 1024
"""Bytes of a request's body: a message that is too long still gets in, to be refused in words."""
MAX_FILE = 17 * 1024 * 1024
"""Of a file that is sent with a message, likewise: their room takes 16 MB."""
MAX_ARCHIVE = 128 * 1024**3
"""Of an agent's files that are sent in; their own room looks at what the plan allows."""


def all_in_one_app(
    management: Management,
    orchestrator: Orchestrator,
    database: Database,
    *,
    url: str,
    agent_url: str | None = None,
    ui_dir: Path | None,
    proxies: Sequence[Network] = (),
) -> ASGIApp:
    """The whole application behind one port.

    `url` is its public address, `agent_url` that of the agents' own host name, where there is one. Raises:
    SetupProblem.
    """
    agents = orchestrator.app()
    ui = StaticUi(find_ui(ui_dir))
    accounts = management.accounts
    space = orchestrator.space
    probes = Probes(database, hosts=accounts.identity.address.hosts, space=space)

    def authenticated(app: ASGIApp) -> ASGIApp:
        return accounts.authentication(app, proxies)

    signed_in = RequestLimits(authenticated(agents), max_body=MAX_BODY)
    files = RequestLimits(authenticated(agents), max_body=MAX_FILE)
    archives = RequestLimits(authenticated(agents), max_body=MAX_ARCHIVE)
    api = RequestLimits(authenticated(management.app()), max_body=MAX_API_BODY)
    host = None
    if agent_url is not None:
        host = AgentHost(agents, accounts, database, url=agent_url, proxies=proxies, max_body=MAX_BODY)
    departure = None if host is None else authenticated(host.departure)

    async def public(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in probes.paths:
            await probes(scope, receive, send)
        elif path.startswith(PATHS):
            await api(scope, receive, send)
        elif path == "/agent/snapshots":
            await archives(scope, receive, send)
        elif path == "/agent/attachments":
            await files(scope, receive, send)
        elif departure is not None and is_gateway(path):
            await departure(scope, receive, send)
        elif path == "/agent" or path.startswith("/agent/"):
            await signed_in(scope, receive, send)
        else:
            await ui(scope, receive, send)

    pages = SecurityHeaders(
        public, content_security_policy=CONTENT_SECURITY_POLICY, https=url.startswith("https://")
    )

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/broker" or path.startswith("/broker/"):
            # The broker answers each agent at a listener of that agent's own and nowhere else.
            await PlainTextResponse("Not found\n", 404)(scope, receive, send)
        elif host is not None and host.owns(scope):
            await host(scope, receive, send)
        elif scope["type"] == "websocket" and path != "/agent/gateway":
            await send({"type": "websocket.close", "code": 1008})
        elif path.startswith("/webhooks/"):  # from other services, which have neither cookies nor pages
            await orchestrator.channels.intake(scope, receive, send)
        else:
            await pages(scope, receive, send)

    return RequestLog(front if space is None else RefusedWhenFull(front, space))
