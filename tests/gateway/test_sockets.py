"""What a user's programs may do with their agent's gateway, and what ends it: real sockets, virtual time."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from ocmt.agents.model import State
from ocmt.errors import InvalidInput, Unauthenticated, Unavailable
from ocmt.gateway.model import Limits, handshake, may_ask, sent_back, sent_on
from ocmt.gateway.pages import ControlUi
from ocmt.gateway.routes import routes
from ocmt.gateway.service import Sockets
from ocmt.platform.principal import Principal
from ocmt.services.server import serve
from ocmt.testing.clock import VirtualClock
from tests.agents.conftest import anna, gateways, hints, replica, runtime
from tests.agents.replica import Replica, time_flies, until

__all__ = ["anna", "gateways", "hints", "replica", "runtime"]

pytestmark = pytest.mark.anyio


@dataclass
class Front:
    """A server whose every request is this user's."""

    sockets: Sockets
    user_id: UUID
    url: str = ""
    signed_in: bool = True
    database_away: bool = False
    asked: list[bool] = field(default_factory=list)

    async def still(self) -> Principal | None:
        self.asked.append(self.signed_in)
        if self.database_away:
            raise Unavailable("away")
        if not self.signed_in:
            raise Unauthenticated("not any more")
        return Principal(self.user_id, None, "anna@example.org")

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = Principal(self.user_id, None, "anna@example.org")
        scope.setdefault("state", {}).update(principal=principal, still=self.still)
        await Starlette(routes=routes(self.sockets, ControlUi(None)))(scope, receive, send)

    @asynccontextmanager
    async def open(self, clock: VirtualClock) -> AsyncIterator[Front]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{listener.getsockname()[1]}/agent/gateway"
        ready, stop = asyncio.Event(), asyncio.Event()

        async def answers() -> None:
            ready.set()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self.answer(scope, receive, send)

        serving = asyncio.create_task(serve(app, listener, stop=stop, ready=answers))
        looking = asyncio.create_task(self.sockets.run())
        try:
            async with time_flies(clock):
                await ready.wait()
                yield self
        finally:
            looking.cancel()
            stop.set()
            await serving


@pytest.fixture
async def front(replica: Replica, anna: UUID, clock: VirtualClock) -> AsyncIterator[Front]:
    sockets = Sockets(replica.agents, replica.reconciler.drive, clock, owner="test", limits=Limits(sockets=2))
    async with replica.running(), Front(sockets, anna).open(clock) as front:
        yield front


async def challenged(client: ClientConnection) -> None:
    assert json.loads(await client.recv())["event"] == "connect.challenge"


async def ask(client: ClientConnection, number: str, method: str) -> bool:
    """Whether the gateway answers it at all."""
    await client.send(json.dumps({"type": "req", "id": number, "method": method, "params": {}}))
    while json.loads(await client.recv()).get("id") != number:
        pass
    return True


async def reasons(replica: Replica, user_id: UUID) -> set[str]:
    return {hold.reason for hold in (await replica.agents.find(user_id)).holds}


async def test_a_socket_wakes_the_agent_and_keeps_it_awake(
    front: Front, replica: Replica, anna: UUID
) -> None:
    async with connect(front.url, proxy=None) as client:
        await challenged(client)
        agent = await replica.agents.find(anna)
        assert agent.state is State.AWAKE
        assert await reasons(replica, anna) == {"socket"}

    async def released() -> bool:
        return not await reasons(replica, anna)

    await until(released)


async def test_an_idle_socket_lets_the_agent_sleep_and_its_next_message_wakes_it(
    front: Front, replica: Replica, anna: UUID
) -> None:
    async def asleep() -> bool:
        return (await replica.agents.find(anna)).state is State.PAUSED

    async def awake() -> bool:
        agent = await replica.agents.find(anna)
        return agent.state is State.AWAKE and bool(agent.holds)

    async with connect(front.url, proxy=None) as client:
        await challenged(client)
        assert await ask(client, "1", "connect")
        await until(asleep, timeout=30)
        assert not await reasons(replica, anna)
        assert await ask(client, "2", "cron.status")
        await until(awake)


async def test_who_may_no_longer_is_cut_off_with_1008(front: Front) -> None:
    async with connect(front.url, proxy=None) as client:
        await challenged(client)
        front.signed_in = False
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1008


async def test_a_database_that_is_away_for_a_moment_cuts_nobody_off(front: Front) -> None:
    async with connect(front.url, proxy=None) as client:
        await challenged(client)
        front.database_away = True
        front.asked.clear()
        await until(lambda: len(front.asked) >= 2)
        front.database_away = False
        assert client.close_code is None


async def test_one_user_has_only_so_many_and_is_told_so(front: Front) -> None:
    async with connect(front.url, proxy=None), connect(front.url, proxy=None):
        with pytest.raises(InvalidStatus) as refused:
            await connect(front.url, proxy=None)
        assert refused.value.response.status_code == 429
        assert b"Close some" in (refused.value.response.body or b"")
    async with connect(front.url, proxy=None) as client:
        await challenged(client)


def test_nothing_of_a_request_gets_in_but_what_is_named() -> None:
    key = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
    head = handshake(
        [
            key,
            (b"sec-websocket-version", b"13"),
            (b"cookie", b"ocmt=secret"),
            (b"authorization", b"Bearer secret"),
            (b"x-ocmt-user", b"somebody else"),
            (b"x-forwarded-for", b"127.0.0.1"),
            (b"sec-websocket-extensions", b"permessage-deflate"),
            (b"origin", b"https://page.example"),
        ]
    )
    assert b"secret" not in head
    assert b"somebody" not in head
    assert b"deflate" not in head
    assert b"page.example" not in head
    assert head.lower().count(b"x-ocmt-user") == 1
    names = [name for name, _ in sent_on([(b"cookie", b"x"), (b"x-ocmt-user", b"y"), (b"accept", b"z")])]
    assert names.count(b"x-ocmt-user") == 1
    assert b"cookie" not in names
    back = dict(sent_back([(b"Set-Cookie", b"x"), (b"Content-Type", b"text/html"), (b"Location", b"/")]))
    assert set(back) >= {b"content-type", b"content-security-policy"}
    assert b"set-cookie" not in back
    assert b"location" not in back


def test_only_the_gateways_addresses_for_users_are_passed_on() -> None:
    assert may_ask("POST", "/v1/chat/completions")
    for method, path in (
        ("GET", "/v1/chat/completions"),
        ("POST", "/hooks/agent"),
        ("POST", "/api/v1/admin/rpc"),
        ("POST", "/v1/chat/completions/../../hooks/agent"),
        ("POST", "//v1/chat/completions"),
        ("POST", "/v1/chat%2fcompletions"),
        ("GET", "/"),
    ):
        assert not may_ask(method, path), path


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=200)), max_size=12))
@settings(max_examples=300)
def test_any_headers_are_a_handshake_or_a_refusal(headers: list[tuple[bytes, bytes]]) -> None:
    try:
        head = handshake(headers)
    except InvalidInput:
        return
    assert head.count(b"\r\n\r\n") == 1
    assert head.endswith(b"\r\n\r\n")
