"""What the tests of identity share: all of it on a real database, virtual time, letters kept in a list."""

from __future__ import annotations

import re

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp

from ocmt.identity.accounts import Accounts
from ocmt.identity.service import Identity
from ocmt.platform.database import Database
from ocmt.platform.http import exception_handlers
from ocmt.testing.clock import VirtualClock
from ocmt.testing.secrets import MemorySecrets

from .browser import Browser

PUBLIC_URL = "http://localhost:8080"


class Letters:
    """Mail that goes nowhere."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.fault: Exception | None = None

    async def send(self, to: str, subject: str, text: str) -> None:
        if self.fault:
            raise self.fault
        self.sent.append((to, subject, text))

    def last_token(self) -> str:
        """The token in the newest letter."""
        match = re.search(r"/sign-in#token=([\w-]+)", self.sent[-1][2])
        assert match
        return match[1]


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def secrets() -> MemorySecrets:
    return MemorySecrets()


@pytest.fixture
def accounts(database: Database, letters: Letters, secrets: MemorySecrets, clock: VirtualClock) -> Accounts:
    return Accounts.over(database, secrets, letters, clock, public_url=PUBLIC_URL)


@pytest.fixture
def identity(accounts: Accounts) -> Identity:
    return accounts.identity


def behind_the_door(accounts: Accounts) -> ASGIApp:
    """All routes of identity behind the middleware, as a process serves them."""
    api = FastAPI(exception_handlers=exception_handlers())
    api.include_router(accounts.routes(), prefix="/api/v1")
    api.include_router(accounts.well_known())
    return accounts.authentication(api)


@pytest.fixture
def front(accounts: Accounts) -> ASGIApp:
    return behind_the_door(accounts)


async def let_in(front: ASGIApp, accounts: Accounts, email: str) -> Browser:
    """A browser that used a link of that user's, who is added if need be; a second factor may still be
    due."""
    identity = accounts.identity
    if email not in {user.email for user in await identity.users()}:
        await identity.add_user(email)
    browser = Browser(front)
    token = (await identity.make_link(email)).split("#token=")[1]
    answer = await browser.call("POST", "/api/v1/auth/magic-link/verify", {"token": token})
    assert answer.status == 200, answer.body
    return browser
