"""Everything in one process on one port: both services and the UI, as `ocmt up` runs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.platform.database import Database
from ocmt.platform.http import RequestLimits, RequestLog, SecurityHeaders
from ocmt.platform.http.addresses import Network
from ocmt.services.full_disk import RefusedWhenFull
from ocmt.services.management import MAX_API_BODY, PATHS, Management
from ocmt.services.orchestrator import Orchestrator
from ocmt.services.probes import Probes
from ocmt.services.static_ui import CONTENT_SECURITY_POLICY, StaticUi, find_ui

MAX_BODY = 2 * 1024 * 1024
"""Bytes of a request's body, outside the broker: too long a message still gets in, to be refused in words."""
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
    ui_dir: Path | None,
    proxies: Sequence[Network] = (),
) -> ASGIApp:
    """The whole application behind one port; `url` is its public address."""
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
        elif path == "/agent" or path.startswith("/agent/"):
            await signed_in(scope, receive, send)
        else:
            await ui(scope, receive, send)

    pages = SecurityHeaders(
        public, content_security_policy=CONTENT_SECURITY_POLICY, https=url.startswith("https://")
    )

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        # Agents and other services have neither cookies nor pages, and agents longer requests than browsers.
        path = scope["path"]
        if scope["type"] == "websocket" and path != "/agent/gateway":
            await send({"type": "websocket.close", "code": 1008})
        elif path.startswith("/webhooks/"):
            await orchestrator.channels.intake(scope, receive, send)
        elif path.startswith("/broker/"):
            await agents(scope, receive, send)
        else:
            await pages(scope, receive, send)

    return RequestLog(front if space is None else RefusedWhenFull(front, space))
