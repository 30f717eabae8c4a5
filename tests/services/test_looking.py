"""Looking is not intent: pages, polls and event streams wake no agent and hold none awake."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Message

from ocmt.platform.database import Database
from tests.agents.replica import until
from tests.identity.browser import Browser
from tests.services.conftest import House

pytestmark = pytest.mark.anyio

LOOKS = (
    "/",
    "/chat/0193",
    "/api/v1/me",
    "/api/v1/usage",
    "/api/v1/vault/items",
    "/agent",
    "/agent/schedule",
    "/agent/conversations",
)


@dataclass
class StreamingBrowser(Browser):
    """Opens a stream and stays; `open` is set once it is answered."""

    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def _exchange(self, scope: dict[str, Any], payload: bytes) -> list[Message]:
        asked = False

        async def receive() -> Message:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": payload, "more_body": False}

        async def send(message: Message) -> None:
            assert message.get("status", 200) == 200
            self.open.set()

        await self.app(scope, receive, send)
        return []


async def agent_row(database: Database) -> dict[str, object]:
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "select state, desired, last_active_at, (select count(*) from holds) as holds from agents"
        )
    assert row is not None
    return dict(row)


async def test_pages_polls_and_streams_wake_nothing_and_hold_nothing(
    house: House, database: Database
) -> None:
    anna = await house.sign_in("anna@example.org")
    conversation = (await anna.call("POST", "/agent/conversations", {})).json()["id"]
    await anna.call("GET", "/agent")
    before = await agent_row(database)
    assert (before["state"], before["desired"], before["holds"]) == ("stopped", "stopped", 0)
    for path in (*LOOKS, f"/agent/conversations/{conversation}/turns"):
        assert (await anna.call("GET", path)).status == 200, path
    tab = StreamingBrowser(house.app, cookies=anna.cookies)
    streaming = asyncio.create_task(tab.call("GET", f"/agent/conversations/{conversation}/events?after=0"))
    await until(tab.open.is_set)
    for _ in range(3):
        looked = await anna.call("GET", "/agent")
        assert (looked.json()["kept_awake_by"], looked.json()["state"]) == ([], "stopped")
    assert await house.orchestrator.agents.due() == []
    streaming.cancel()
    with suppress(asyncio.CancelledError):
        await streaming
    assert await agent_row(database) == before
