"""What the tests of the vault share: the vault itself, and its routes as a signed-in browser meets them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from ocmt.identity.accounts import Accounts
from ocmt.platform.argon import ArgonGate
from ocmt.platform.database import Database
from ocmt.platform.http import HttpClient, exception_handlers
from ocmt.platform.principal import Principal
from ocmt.testing.clock import VirtualClock
from ocmt.testing.mail import MemoryMail
from ocmt.testing.secrets import MemorySecrets
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.imported.routes import routes as imported_routes
from ocmt.vault.imported.service import ImportedVaults
from ocmt.vault.routes import routes
from ocmt.vault.service import Vault
from ocmt.vault.trial import Trial
from tests.accounts import make_user
from tests.identity.browser import Browser


@pytest.fixture
def secrets() -> MemorySecrets:
    return MemorySecrets()


@pytest.fixture
def accounts(database: Database, secrets: MemorySecrets, clock: VirtualClock) -> Accounts:
    return Accounts.over(database, secrets, MemoryMail(), clock, public_url="http://localhost:8080")


@pytest.fixture
def vault(database: Database, secrets: MemorySecrets, accounts: Accounts, clock: VirtualClock) -> Vault:
    return Vault(database, secrets, accounts.identity.audit, clock)


@pytest.fixture
def group_keys(database: Database, vault: Vault, accounts: Accounts, clock: VirtualClock) -> GroupKeys:
    return GroupKeys(database, vault.master, accounts.identity.audit, clock)


@pytest.fixture
def imported(database: Database, vault: Vault, accounts: Accounts, clock: VirtualClock) -> ImportedVaults:
    return ImportedVaults(database, vault, accounts.identity.audit, clock, ArgonGate())


@pytest.fixture
async def alice(database: Database) -> UUID:
    return await make_user(database, "alice@example.org")


@dataclass
class Provider:
    """Answers the question for its models, by the key."""

    url: str = ""
    status: int = 200
    keys: tuple[str, ...] = ()

    async def models(self, request: web.Request) -> web.Response:
        key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix(
            "Bearer "
        )
        if self.status != 200:
            return web.json_response({}, status=self.status)
        return web.json_response({"data": []}, status=200 if key in self.keys else 401)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    app = web.Application()
    app.router.add_get("/v1/models", provider.models)
    async with TestServer(app) as server:
        provider.url = str(server.make_url("")).rstrip("/")
        yield provider


Open = Callable[[UUID], Awaitable[Browser]]


@pytest.fixture
async def open_browser(
    vault: Vault, imported: ImportedVaults, accounts: Accounts, provider: Provider, clock: VirtualClock
) -> AsyncIterator[Open]:
    """A browser of a user who signed in just now."""
    async with HttpClient() as http:
        api = FastAPI(exception_handlers=exception_handlers())
        trial = Trial(http, provider.url, provider.url)
        api.include_router(routes(vault, trial, accounts.rates, clock), prefix="/api/v1")
        api.include_router(imported_routes(imported, accounts.identity), prefix="/api/v1")

        async def opened(user_id: UUID) -> Browser:
            principal = Principal(user_id, uuid4(), "a@example.org", authenticated_at=clock.now())

            async def signed_in(scope: Scope, receive: Receive, send: Send) -> None:
                scope["state"] = {"principal": principal}
                await api(scope, receive, send)

            return Browser(signed_in)

        yield opened
