"""The whole room on a real database, with a channel whose vendor is in memory. Tests end the turns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from starlette.types import Message

from ocmt.bootstrap.channels import ChannelSeal
from ocmt.channels.room import ChannelRoom
from ocmt.channels.signed import Signed
from ocmt.chat.service import Chat
from ocmt.platform.database import Database, Hints
from ocmt.platform.http import HttpClient
from ocmt.testing.channels import FakeChannel
from ocmt.testing.clock import VirtualClock
from ocmt.testing.objects import MemoryObjects
from ocmt.testing.secrets import MemorySecrets
from tests.accounts import make_user
from tests.agents.conftest import hints
from tests.agents.replica import time_flies, until

__all__ = ["hints"]


@dataclass
class Answer:
    """What the intake said."""

    status: int
    headers: dict[str, str]
    body: bytes


async def call(
    app: Any,
    path: str,
    body: bytes | list[Message] = b"",
    headers: dict[str, str] | None = None,
    method: str = "POST",
) -> Answer:
    """One request to an ASGI application. `body` as messages: as the server would give them."""
    messages = [{"type": "http.request", "body": body}] if isinstance(body, bytes) else list(body)
    said: list[Message] = []

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop(0)

    async def send(message: Message) -> None:
        said.append(message)

    raw = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
    await app(scope, receive, send)
    if not said:
        return Answer(0, {}, b"")
    given = {bytes(k).decode(): bytes(v).decode() for k, v in said[0]["headers"]}
    return Answer(said[0]["status"], given, b"".join(one.get("body", b"") for one in said[1:]))


@dataclass
class House:
    """The room, its people, and its vendor."""

    database: Database
    clock: VirtualClock
    hints: Hints
    chat: Chat
    fake: FakeChannel
    secrets: MemorySecrets
    http: HttpClient
    anna: UUID
    room: ChannelRoom = field(init=False)
    endpoint: UUID = field(init=False)

    def build(self) -> ChannelRoom:
        """Another process over the same database."""
        return ChannelRoom.over(
            self.database,
            self.clock,
            self.hints,
            self.chat,
            kinds={"fake": self.fake, "signed": Signed(self.http.session, self.clock.now, local=True)},
            seal=ChannelSeal(self.secrets),
            url="https://ocmt.example.org",
        )

    async def open_shop(self) -> None:
        self.room = self.build()
        opened = await self.room.channels.connect(self.anna, "fake", {"token": "token"})
        self.endpoint = opened.connection.id

    @asynccontextmanager
    async def at_work(self, *, outbox: bool = True, deliveries: bool = True) -> AsyncIterator[None]:
        """The workers run, and time flies; at the end they die as they stand."""
        async with time_flies(self.clock):
            runs = [self.room.run_deliveries] * deliveries + [self.room.run_outbox] * outbox
            tasks = [asyncio.create_task(run()) for run in runs]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                for task in tasks:
                    if not task.cancelled() and task.exception():
                        raise task.exception()  # type: ignore[misc]

    async def post(
        self, *, room: ChannelRoom | None = None, signature: str | None = None, **data: Any
    ) -> Answer:
        """A webhook of the fake vendor."""
        body = json.dumps(data).encode()
        headers = {"x-signature": self.fake.sign(body) if signature is None else signature}
        return await call((room or self.room).intake, f"/webhooks/fake/{self.endpoint}", body, headers)

    async def rows(self, statement: str, *arguments: Any) -> list[Any]:
        async with self.database.connection() as connection:
            return await connection.fetch(statement, *arguments)

    async def states(self) -> dict[str, str]:
        """By external id."""
        found = await self.rows("select external_id, state from deliveries order by id")
        return {row["external_id"]: row["state"] for row in found}

    async def becomes(self, external_id: str, state: str, *, leaps: float = 0) -> None:
        """Wait until a delivery is in that state; `leaps`: seconds that pass between two looks."""

        async def so() -> bool:
            await self.clock.advance(leaps)
            return (await self.states()).get(external_id) == state

        await until(so)

    async def all_sent(self) -> None:
        """Wait until nothing is owed, and that is written down."""

        async def so() -> bool:
            return not await self.rows("select from outbox where state = 'pending'")

        await until(so)

    async def turns(self) -> list[Any]:
        return await self.rows("select * from turns order by created_at, id")

    async def answer(
        self, text: str | None = "Hello!", *, status: str = "completed", error: Any = None
    ) -> int:
        """End all open turns, as the agents' room would; how many."""
        async with self.database.transaction() as connection:
            rows = await connection.fetch(
                "update turns set status = $1, answer = coalesce($2, 're: ' || text), error = $3, "
                "finished_at = $4 where status in ('accepted', 'running') returning conversation_id",
                status,
                text,
                error,
                self.clock.now(),
            )
            for row in rows:
                await connection.execute("select pg_notify('conversations', $1)", str(row[0]))
        return len(rows)

    @asynccontextmanager
    async def agent_answers(self, text: str | None = None) -> AsyncIterator[None]:
        """Every turn is answered soon; without `text` with what was asked."""

        async def go_on() -> None:
            while True:
                await self.answer(text)
                await asyncio.sleep(0.01)

        task = asyncio.create_task(go_on())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
async def house(database: Database, clock: VirtualClock, hints: Hints) -> AsyncIterator[House]:
    anna = await make_user(database, "anna@example.org")
    chat = Chat(database, clock, MemoryObjects())
    async with HttpClient() as http:
        house = House(database, clock, hints, chat, FakeChannel(), MemorySecrets(), http, anna)
        await house.open_shop()
        yield house
