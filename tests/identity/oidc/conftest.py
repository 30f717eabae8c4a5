"""What these tests share: all of identity with three providers that are real servers on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from starlette.types import ASGIApp

from ocmt.identity.accounts import Accounts
from ocmt.identity.oidc.clients import clients_of
from ocmt.identity.oidc.model import Provider, configure
from ocmt.platform.database import Database
from ocmt.platform.http import HttpClient, client_session
from ocmt.testing.clock import VirtualClock
from ocmt.testing.oidc import CLIENT_ID, CLIENT_SECRET, FakeGitHub, FakeIssuer
from ocmt.testing.secrets import MemorySecrets

from ..browser import Answer, Browser
from ..conftest import PUBLIC_URL, Letters, behind_the_door

ADA = "ada@example.org"
BOSS = "boss@example.org"
FAILED = "/sign-in#error="


@dataclass
class World:
    """An installation and the providers that it knows: `plain`, `corp` (trusted for corp.example),
    `github`."""

    accounts: Accounts
    front: ASGIApp
    issuer: FakeIssuer
    github: FakeGitHub
    session: aiohttp.ClientSession
    database: Database
    clock: VirtualClock

    def browser(self) -> Browser:
        return Browser(self.front)

    async def start(self, browser: Browser, provider: str = "plain", *, link: bool = False) -> str:
        """Press the button: where that leads."""
        answer = await browser.call(
            "GET",
            f"/api/v1/auth/oidc/{provider}/start{'?link=1' if link else ''}",
            headers={"sec-fetch-site": "same-origin"},
        )
        assert answer.status == 302, answer.body
        return answer.headers["location"]

    async def set_out(self, browser: Browser, provider: str = "plain", *, link: bool = False) -> str:
        """Begin, and go to the provider: the address (of ours) that it sends the browser back to."""
        url = await self.start(browser, provider, link=link)
        async with self.session.get(url, allow_redirects=False) as there:
            assert there.status == 302, await there.text()
            back = urlsplit(there.headers["location"])
        assert f"{back.scheme}://{back.netloc}" == PUBLIC_URL
        return f"{back.path}?{back.query}"

    async def sign_in(self, browser: Browser, provider: str = "plain", *, link: bool = False) -> str:
        """All the way; where the browser ends up."""
        return where(await browser.call("GET", await self.set_out(browser, provider, link=link)))

    async def who(self, browser: Browser) -> Any:
        """Who is signed in there; None: nobody."""
        answer = await browser.call("GET", "/api/v1/me")
        return answer.json()["email"] if answer.status == 200 else None

    async def by_link(self, email: str) -> Browser:
        """A browser that signed in by a link; its user is added if need be."""
        identity = self.accounts.identity
        if email not in {user.email for user in await identity.users()}:
            await identity.add_user(email)
        browser = self.browser()
        token = (await identity.make_link(email)).split("#token=")[1]
        answer = await browser.call("POST", "/api/v1/auth/magic-link/verify", {"token": token})
        assert answer.status == 200, answer.body
        return browser

    async def linked(self, browser: Browser) -> list[dict[str, Any]]:
        """The accounts at providers of who is signed in there."""
        answer = await browser.call("GET", "/api/v1/oidc-accounts")
        items: list[dict[str, Any]] = answer.json()["items"]
        return items

    async def count(self, table: str) -> int:
        async with self.database.connection() as connection:
            return int(await connection.fetchval(f"select count(*) from {table}"))

    async def actions(self) -> list[str]:
        """What the audit log says, newest first."""
        return [row.action for row in await self.accounts.identity.audit.page(user_id=None)]


def where(answer: Answer) -> str:
    """Where a callback sends the browser: never further than to our own pages."""
    assert answer.status == 303, answer.body
    location = answer.headers["location"]
    assert urlsplit(location).netloc == ""
    return location


@pytest.fixture
async def session(anyio_backend: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with client_session() as session:
        yield session


@pytest.fixture
async def http(anyio_backend: str) -> AsyncIterator[HttpClient]:
    async with HttpClient() as http:
        yield http


@pytest.fixture
async def issuer(anyio_backend: str, clock: VirtualClock) -> AsyncIterator[FakeIssuer]:
    async with FakeIssuer(clock) as issuer:
        yield issuer


@pytest.fixture
async def github(anyio_backend: str) -> AsyncIterator[FakeGitHub]:
    async with FakeGitHub() as github:
        yield github


def provider(id: str, url: str, **more: Any) -> Provider:
    return configure(id, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, issuer=url, **more)


Build = Callable[..., World]


@pytest.fixture
def build(
    database: Database,
    secrets: MemorySecrets,
    letters: Letters,
    clock: VirtualClock,
    session: aiohttp.ClientSession,
    http: HttpClient,
    issuer: FakeIssuer,
    github: FakeGitHub,
) -> Build:
    """Makes the world by a sign-up policy."""

    def make(*more: Provider, timeout: float = 30, plain: FakeIssuer = issuer, **policy: Any) -> World:
        providers = [
            provider("plain", plain.url),
            provider("corp", issuer.url, trusted_domains=("corp.example",), label="Corp login"),
            provider("github", github.url),
            *more,
        ]
        accounts = Accounts.over(
            database,
            secrets,
            letters,
            clock,
            public_url=PUBLIC_URL,
            oidc=clients_of(providers, http, clock, timeout=timeout),
            **policy,
        )
        return World(accounts, behind_the_door(accounts), plain, github, session, database, clock)

    return make


@pytest.fixture
def world(build: Build) -> World:
    return build()


@pytest.fixture
async def ada(world: World) -> World:
    """Ada was added by an administrator, and has never signed in."""
    await world.accounts.identity.add_user(BOSS, "admin")
    await world.accounts.identity.add_user(ADA)
    return world
