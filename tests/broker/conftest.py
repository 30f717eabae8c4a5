"""A broker served over a real socket, between an agent's HTTP client and a double of Anthropic."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from uuid_utils.compat import uuid7

from ocmt.broker.model import RunningTurn, Timeouts
from ocmt.broker.service import Broker
from ocmt.identity.audit.service import Audit
from ocmt.platform.database import Database
from ocmt.platform.http import serve_on
from ocmt.testing.anthropic import FakeAnthropic
from ocmt.testing.clock import VirtualClock
from ocmt.testing.secrets import MemorySecrets
from ocmt.usage.model import Limits
from ocmt.usage.service import Ledger
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.service import ModelKeys, Vault
from tests.accounts import make_user

KEY = "sk-ant-own-key-of-the-user-1234"
PLATFORM_KEY = "sk-ant-key-of-the-organisation-5678"
QUICK = Timeouts(connect=2, body=2, first_byte=1.5, idle=1.5, total=10, booking=2)


@dataclass
class World:
    """What the tests hold in hand: who runs which turns, what the user was told, and the way in."""

    database: Database
    vault: Vault
    ledger: Ledger
    anthropic: FakeAnthropic
    http: aiohttp.ClientSession
    clock: VirtualClock
    url: str = ""
    """Of the listener of whom the broker was served for first."""
    urls: dict[UUID, str] = field(default_factory=dict)
    """Of each user's listener."""
    open: Callable[[UUID], Awaitable[None]] | None = None
    """Serves the broker at a listener of that user's."""
    internet: set[UUID] = field(default_factory=set)
    """Whose agents reach the internet."""
    tokens: dict[str, UUID] = field(default_factory=dict)
    turns: list[RunningTurn] = field(default_factory=list)
    notices: list[tuple[UUID, str]] = field(default_factory=list)

    async def add_user(self, *, key: str | None = KEY) -> tuple[UUID, str]:
        """A user with that key in the vault, and the token of their agent."""
        token = f"agent-{uuid4().hex}"
        user_id = await make_user(self.database, f"{token}@example.org")
        if key:
            await self.vault.put(user_id, "anthropic_api_key", key)
        self.tokens[token] = user_id
        if self.open:
            await self.open(user_id)
        return user_id, token

    @property
    def group_keys(self) -> GroupKeys:
        return GroupKeys(self.database, self.vault.master, Audit(self.database, self.clock), self.clock)

    def broker(self, **settings: Any) -> Broker:
        async def authenticate(token: str) -> UUID | None:
            return self.tokens.get(token)

        async def running_turns(user_id: UUID) -> list[RunningTurn]:
            return self.turns

        async def notice(turn_id: UUID, text: str) -> None:
            self.notices.append((turn_id, text))

        async def reaches_internet(user_id: UUID) -> bool:
            return user_id in self.internet

        limits = Limits(
            turn_calls=settings.pop("turn_call_limit", 50),
            daily_tokens=settings.pop("daily_token_limit", 5_000_000),
        )
        defaults: dict[str, Any] = {
            "session": self.http,
            "platform_key": None,
            "models": ("claude-sonnet-4-6",),
            "anthropic_url": self.anthropic.url,
            "demo_model": False,
            "timeouts": QUICK,
        }
        return Broker(
            keys=ModelKeys(self.vault, self.group_keys, self.database, self.clock),
            ledger=self.ledger,
            clock=self.clock,
            authenticate=authenticate,
            running_turns=running_turns,
            notice=notice,
            reaches_internet=reaches_internet,
            limits=limits,
            **{**defaults, **settings},
        )

    def ask(
        self,
        token: str,
        words: str = "hello",
        *,
        path: str = "/v1/messages",
        more: Mapping[str, object] | None = None,
        **body: Any,
    ) -> Any:
        """An agent's request, to be used with `async with`; shaped like OpenClaw's."""
        tree = {
            "model": "claude-sonnet-4-6",
            "max_tokens": 1000,
            "stream": True,
            "messages": [{"role": "user", "content": words}],
            **body,
            **(more or {}),
        }
        return self.send(token, io.BytesIO(json.dumps(tree).encode()), path=path)

    def send(self, token: str, body: Any, *, path: str = "/v1/messages", **headers: str) -> Any:
        """That body at the listener of whoever has the token, to be used with `async with`."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        url = self.urls.get(self.tokens[token], self.url) if token in self.tokens else self.url
        return self.http.post(
            url + path,
            data=body,
            headers={
                "x-api-key": token,
                "anthropic-version": "2023-06-01",
                "accept-encoding": "gzip",
                **given,
            },
        )

    async def rows(self, user_id: UUID) -> list[dict[str, Any]]:
        """The user's ledger, oldest first."""
        async with self.database.connection() as connection:
            found = await connection.fetch(
                "select * from model_calls where user_id = $1 order by started_at, id", user_id
            )
        return [dict(row) for row in found]


Serve = Callable[..., Awaitable[Broker]]


@pytest.fixture
async def world(database: Database, clock: VirtualClock) -> AsyncIterator[World]:
    async with (
        FakeAnthropic(keys={KEY, PLATFORM_KEY}) as anthropic,
        aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=30),
            connector=aiohttp.TCPConnector(limit=0),
        ) as http,
    ):
        vault = Vault(database, MemorySecrets(), Audit(database, clock), clock)
        yield World(database, vault, Ledger(database, clock), anthropic, http, clock)


@pytest.fixture
async def serve(world: World) -> AsyncIterator[Serve]:
    """Serves a broker with these settings, for each user at a listener of their own, as runtimes do.

    With `user_id` for that user only, so that `world.url` is the way in for everybody else's token too.
    """
    closers = []

    async def start(user_id: UUID | None = None, **settings: Any) -> Broker:
        broker = world.broker(**settings)

        async def open(owner: UUID) -> None:
            listener = socket.create_server(("127.0.0.1", 0))
            # A socket made without a protocol number gets no TCP_NODELAY from asyncio.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            world.url = world.url or url
            world.urls[owner] = url
            closers.append(await serve_on(listener, broker.app(user_id=owner)))

        for owner in [user_id] if user_id else list(world.tokens.values()):
            await open(owner)
        world.open = None if user_id else open
        return broker

    yield start
    for closer in closers:
        await closer.close()


@pytest.fixture
def turn(world: World) -> RunningTurn:
    """The one turn that runs."""
    one = RunningTurn(uuid7(), "hello")
    world.turns.append(one)
    return one
