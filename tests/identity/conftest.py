"""What the tests of identity share: the service on a real database, virtual time, letters kept in a list."""

from __future__ import annotations

import re

import pytest

from ocmt.identity.service import Identity
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock

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
def identity(database: Database, letters: Letters, clock: VirtualClock) -> Identity:
    return Identity.over(database, letters, clock, public_url=PUBLIC_URL)
