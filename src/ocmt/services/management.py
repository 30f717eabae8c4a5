"""The Management API: identity, vault and usage, below `/api/v1`. It writes only what is desired."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI

from ocmt import __version__
from ocmt.identity.routes import routes as identity_routes
from ocmt.identity.service import Identity
from ocmt.platform.http import exception_handlers
from ocmt.usage.model import Limits
from ocmt.usage.routes import routes as usage_routes
from ocmt.usage.service import Ledger
from ocmt.vault.routes import routes as vault_routes
from ocmt.vault.service import Vault


@dataclass(frozen=True)
class Management:
    """The rooms that this service opens."""

    identity: Identity
    vault: Vault
    ledger: Ledger
    limits: Limits

    def app(self) -> FastAPI:
        """The ASGI application; authentication is the middleware's that the process puts in front."""
        app = FastAPI(
            title="OCMT Management API",
            version=__version__,
            openapi_url="/api/v1/openapi.json",
            docs_url=None,
            redoc_url=None,
            exception_handlers=exception_handlers(),
        )
        for router in (
            identity_routes(self.identity),
            vault_routes(self.vault),
            usage_routes(self.ledger, self.limits),
        ):
            app.include_router(router, prefix="/api/v1")
        return app
