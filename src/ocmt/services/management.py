"""The Management API: identity, vault and usage, below `/api/v1`. It writes only what is desired."""

from __future__ import annotations

from fastapi import FastAPI

from ocmt import __version__
from ocmt.bootstrap import Features
from ocmt.identity.routes import routes as identity_routes
from ocmt.platform.http import exception_handlers
from ocmt.usage.routes import routes as usage_routes
from ocmt.vault.routes import routes as vault_routes


def management_app(features: Features) -> FastAPI:
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
        identity_routes(features.identity),
        vault_routes(features.vault),
        usage_routes(features.ledger, features.broker.limits),
    ):
        app.include_router(router, prefix="/api/v1")
    return app
