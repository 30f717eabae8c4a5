"""The Management API: identity, vault and usage, below `/api/v1`. It writes only what is desired."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt import __version__
from ocmt.channels.admin import DeliveriesOfAll
from ocmt.channels.admin import routes as delivery_routes
from ocmt.groups.routes import routes as group_routes
from ocmt.groups.service import Groups
from ocmt.identity.accounts import Accounts
from ocmt.identity.audit.model import Actor
from ocmt.identity.guards import actor_of, administrator, auditor, no_flood, signed_in
from ocmt.identity.letters import Letter
from ocmt.platform.database import Connection, Database
from ocmt.platform.http import (
    RequestLimits,
    RequestLog,
    SecurityHeaders,
    exception_handlers,
    principal,
)
from ocmt.platform.http.addresses import Network
from ocmt.privacy.routes import routes as privacy_routes
from ocmt.privacy.service import Privacy
from ocmt.services.description import complete
from ocmt.services.probes import Probes
from ocmt.usage.model import Limits
from ocmt.usage.routes import StorageOf
from ocmt.usage.routes import routes as usage_routes
from ocmt.usage.service import Ledger
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.imported.routes import routes as imported_vault_routes
from ocmt.vault.imported.service import ImportedVaults
from ocmt.vault.routes import routes as vault_routes
from ocmt.vault.service import Vault
from ocmt.vault.trial import Trial

PROBLEMS: dict[int | str, dict[str, Any]] = {"4XX": {"description": "A problem (RFC 9457)."}}
"""How every route refuses; `description.complete` says more. It also tells FastAPI that invalid input is not
answered with its own 422."""
PATHS = ("/api/", "/.well-known/")
"""Where it is."""
MAX_API_BODY = 64 * 1024
"""Bytes. The entrance is open to everybody: what is read before anybody is known must be cheap."""


@dataclass(frozen=True)
class Management:
    """The rooms that this service opens."""

    accounts: Accounts
    vault: Vault
    groups: Groups
    group_keys: GroupKeys
    privacy: Privacy
    deliveries: DeliveriesOfAll
    imported_vaults: ImportedVaults
    trial: Trial
    ledger: Ledger
    limits: Limits
    storage: StorageOf

    def app(self) -> FastAPI:
        """The ASGI application; authentication is the middleware's that the process puts in front."""
        app = FastAPI(
            title="OCMT Management API",
            version=__version__,
            openapi_url="/api/v1/openapi.json",
            docs_url=None,
            redoc_url=None,
            # Ours is in `platform/telemetry.py`; looking whether there is another takes its time.
            telemetry={"tracing": False, "metrics": False, "logs": False},
            exception_handlers=exception_handlers(),
            # Its redirects are made of what the request says about scheme and host.
            redirect_slashes=False,
            responses=PROBLEMS,
        )
        app.include_router(self.accounts.routes(), prefix="/api/v1")
        app.include_router(self.accounts.well_known())
        # Who is not signed in hears that first, whatever else is wrong with the request.
        inside = [Depends(signed_in), Depends(no_flood(self.accounts.identity))]
        vault = vault_routes(self.vault, self.trial, self.accounts.rates, self.accounts.clock)
        app.include_router(vault, prefix="/api/v1", dependencies=inside)
        app.include_router(self._group_routes(), prefix="/api/v1", dependencies=inside)
        privacy = privacy_routes(self.privacy, self.accounts.identity, self.accounts.clock)
        app.include_router(privacy, prefix="/api/v1", dependencies=inside)
        app.include_router(self._delivery_routes(), prefix="/api/v1", dependencies=inside)
        imported = imported_vault_routes(self.imported_vaults, self.accounts.identity)
        app.include_router(imported, prefix="/api/v1", dependencies=inside)
        usage = usage_routes(self.ledger, self.limits, self.storage)
        app.include_router(usage, prefix="/api/v1", dependencies=inside)
        described = app.openapi
        # FastAPI's own way to extend it: it is asked for once, and kept.
        app.openapi = functools.cache(lambda: complete(described()))  # type: ignore[method-assign]
        return app

    def _group_routes(self) -> APIRouter:
        """The groups' routes, with the keys that the vault keeps for them."""

        async def put_key(actor: Actor, group_id: UUID, name: str, value: str) -> None:
            require = self.groups.require_admin
            await self.group_keys.put(actor, group_id, name, value, require_admin=require)

        async def drop_key(actor: Actor, group_id: UUID, name: str) -> None:
            require = self.groups.require_admin
            await self.group_keys.delete(actor, group_id, name, require_admin=require)

        async def deliver(letter: Letter) -> None:
            await self.accounts.identity.deliver(letter)

        return group_routes(self.groups, deliver, put_key, drop_key)

    def _delivery_routes(self) -> APIRouter:
        """What administrators do with everybody's deliveries, with identity's guards and its audit log."""

        async def record(
            connection: Connection, request: Request, action: str, subject_id: UUID | None, **details: Any
        ) -> None:
            actor = actor_of(principal(request), request)
            audit = self.accounts.identity.audit
            await audit.record(connection, action, actor=actor, subject_id=subject_id, **details)

        return delivery_routes(self.deliveries, looks=auditor, changes=administrator, record=record)


def management_app(
    management: Management, database: Database, *, url: str, proxies: Sequence[Network] = ()
) -> ASGIApp:
    """The service by itself, behind a balancer that sends it its paths; `url` is the public address."""
    accounts = management.accounts
    probes = Probes(database, hosts=accounts.identity.address.hosts)
    api = RequestLimits(accounts.authentication(management.app(), proxies), max_body=MAX_API_BODY)

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        await (probes if scope["path"] in probes.paths else api)(scope, receive, send)

    # There are no pages: the browser is to load nothing on behalf of an answer.
    policy = "default-src 'none'; frame-ancestors 'none'"
    https = url.startswith("https://")
    return RequestLog(SecurityHeaders(front, content_security_policy=policy, https=https))
