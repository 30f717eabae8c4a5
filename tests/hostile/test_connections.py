"""What the protocol class owes a server whoever connects; each was found by the fuzz or by an attack."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from ocmt.channels import endpoints
from ocmt.channels.endpoints import Endpoints
from ocmt.errors import Unavailable
from ocmt.platform.http import protocol
from ocmt.services.server import serve
from tests.agents.replica import until
from tests.channels.conftest import House, hints, house
from tests.hostile.wire import answers, connection, open_connection

__all__ = ["hints", "house"]

pytestmark = pytest.mark.anyio

GET = b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /1 HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
HANDSHAKE = (
    b"GET /socket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@dataclass
class App:
    """Answers with what it was asked once it may; WebSockets it refuses."""

    asked: list[str] = field(default_factory=list)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    reads: bool = True
    says: bytes = b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(f"{scope['type']} {scope['path']}")
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        body = await Request(scope, receive).body() if self.reads else b""
        await self.may_answer.wait()
        text = self.says or f"{scope['path']} {len(body)}".encode()
        await PlainTextResponse(text)(scope, receive, send)


@asynccontextmanager
async def serving(app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> AsyncIterator[int]:
    """As the services are served; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    port: int = listener.getsockname()[1]
    answers, stop = asyncio.Event(), asyncio.Event()

    async def ready() -> None:
        answers.set()

    running = asyncio.create_task(serve(app, listener, stop=stop, ready=ready))
    try:
        await answers.wait()
        yield port
    finally:
        stop.set()
        await running


@pytest.mark.parametrize(
    ("behind", "taken"),
    [((GET % 2) * 1_000, 2), (HANDSHAKE, 1), (b"\x00nonsense\r\n\r\n", 1), (b"\r\n\r\nGET", 1)],
    ids=["many", "upgrade", "nonsense", "half"],
)
async def test_behind_an_unanswered_request_one_more_is_taken_and_nothing_else(
    behind: bytes, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    app = App()
    async with serving(app) as port, connection(port) as opened:
        await opened.send([GET % 1 + behind])
        await until(lambda: bool(app.asked))
        await asyncio.sleep(0.5)
        app.may_answer.set()
        assert await opened.end(20)
    found, rest = answers(bytes(opened.received))
    assert [answer.body for answer in found] == [b"/1 0", b"/2 0"][:taken]
    assert rest == b""
    assert app.asked == ["http /1", "http /2"][:taken]


async def test_a_body_behind_an_unanswered_request_that_makes_no_sense_is_not_waited_for() -> None:
    app = App()
    async with serving(app) as port, connection(port) as opened:
        chunked = b"POST /2 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n"
        await opened.send([GET % 1 + chunked])
        await until(lambda: bool(app.asked))
        app.may_answer.set()
        assert await opened.end(20)
    (answer,), _ = answers(bytes(opened.received))
    assert answer.body == b"/1 0"


async def test_an_answer_may_be_whole_before_the_application_says_so() -> None:
    go_on = asyncio.Event()

    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"hi", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b""})

    async with serving(streaming) as port, connection(port) as opened:
        await opened.send([GET % 1])
        assert (await opened.answer(20)).body == b"hi"
        await opened.send([GET % 2])
        await asyncio.sleep(0.05)
        go_on.set()
        assert (await opened.answer(20)).body == b"hi"
        assert not opened.ended


async def test_who_leaves_with_a_request_waiting_is_noticed_by_the_first() -> None:
    left = asyncio.Event()

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()

    async with serving(stream) as port:
        async with connection(port) as opened:
            await opened.send([GET % 1 + GET % 2])
            assert await opened.read(20)
        await asyncio.wait_for(left.wait(), 20)


async def test_one_request_after_the_other_is_answered_on_one_connection() -> None:
    app = App()
    app.may_answer.set()
    async with serving(app) as port, connection(port) as opened:
        for number in range(5):
            # Some old clients send an empty line behind a body.
            await opened.send([GET % number + b"\r\n"])
            assert (await opened.answer(20)).body == b"/%d 0" % number


async def test_a_body_that_makes_no_sense_is_refused_and_its_reader_told() -> None:
    app = App()
    async with serving(app) as port, connection(port) as opened:
        head = b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await opened.send([head + b"1\r\na\r\n"])
        await until(lambda: bool(app.asked))
        await opened.send([b"nonsense\r\n"])
        assert await opened.end(20)
    (answer,), _ = answers(bytes(opened.received))
    assert answer.status == 400


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n", 400),
        (HANDSHAKE.replace(b"Host: x\r\n", b""), 400),
        (b"GET / HTTP/1.0\r\n\r\n", 200),
    ],
)
async def test_whom_it_is_meant_for_a_request_says_once(head: bytes, status: int) -> None:
    app = App()
    app.may_answer.set()
    async with serving(app) as port, connection(port) as opened:
        await opened.send([head])
        assert (await opened.answer(20)).status == status
    assert len(app.asked) == (status == 200)


@pytest.mark.parametrize(
    "head", [HANDSHAKE.replace(b"GET", b"POST", 1), HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0", 1)]
)
async def test_only_a_get_of_http_1_1_begins_a_websocket(head: bytes) -> None:
    app = App()
    app.may_answer.set()
    async with serving(app) as port, connection(port) as opened:
        await opened.send([head])
        assert (await opened.answer(20)).status == 200
    assert app.asked == ["http /socket"]


@pytest.mark.parametrize(
    "begun",
    [b"", b"GET /", POST[:-2] % 5, HANDSHAKE[:-2], HANDSHAKE[:-2] + b"Content-Length: 5\r\n\r\n", POST % 5],
    ids=["nothing", "line", "head", "handshake", "handshake with a body", "body"],
)
async def test_what_does_not_go_on_is_cut_off(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.1)
    async with serving(App()) as port, connection(port) as opened:
        await opened.send([begun])
        assert await opened.end(20)


async def test_a_rest_that_nobody_wants_any_more_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    app = App(reads=False)
    app.may_answer.set()
    async with serving(app) as port, connection(port) as opened:
        await opened.send([POST % 1_000_000])
        assert (await opened.answer(20)).status == 200
        async with asyncio.timeout(20):
            while not opened.ended:
                await opened.send([b"a"])
                await opened.read(0.02)


@pytest.mark.parametrize("rest", [b"a" * 5, b"\r\n"], ids=["the body", "an empty line"])
async def test_what_comes_behind_an_answer_is_no_reason_to_wait_for_ever(
    rest: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    app = App(reads=False)
    app.may_answer.set()
    async with serving(app) as port, connection(port) as opened:
        await opened.send([POST % (5 if rest.startswith(b"a") else 0)])
        assert (await opened.answer(20)).status == 200
        await opened.send([rest])
        assert await opened.end(20)


async def test_an_upgrade_that_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.5)
        await send({"type": "websocket.close", "code": 1008})

    async with serving(late) as port, connection(port) as opened:
        await opened.send([HANDSHAKE])
        assert (await opened.answer(20)).status == 403


async def test_a_body_is_waited_for_as_long_as_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 1.0)
    monkeypatch.setattr(protocol, "LEAST_BODY", 2)
    app = App()
    app.may_answer.set()
    async with serving(app) as port, connection(port) as opened:
        await opened.send([POST % 50])
        for _ in range(50):
            await asyncio.sleep(0.05)
            await opened.send([b"a"])
        assert (await opened.answer(20)).body == b"/1 50"


@pytest.mark.parametrize("expecting", [False, True], ids=["too much at once", "100-continue"])
async def test_a_body_that_we_hold_up_ourselves_is_waited_for(
    expecting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.3)
    begin = asyncio.Event()
    app = App()
    app.may_answer.set()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await begin.wait()
        await app(scope, receive, send)

    head = POST % 5_000_000
    async with serving(late) as port, connection(port) as opened:
        if expecting:
            await opened.send([head.replace(b"Host", b"Expect: 100-continue\r\nHost")])
        else:
            sending = asyncio.create_task(opened.send([head, bytes(5_000_000)]))
        await asyncio.sleep(1)
        begin.set()
        if expecting:
            assert await opened.read(20)
            assert bytes(opened.received) == b"HTTP/1.1 100 Continue\r\n\r\n"
            sending = asyncio.create_task(opened.send([bytes(5_000_000)]))
        assert (await opened.answer(20)).body == b"/1 5000000"
        await sending


async def test_who_takes_nothing_of_an_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.2)
    left = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not left.is_set():
            await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        writing = asyncio.create_task(endless(scope, receive, send))
        while (await receive())["type"] != "http.disconnect":
            pass
        left.set()
        await writing

    async with serving(watched) as port, connection(port) as opened:
        await opened.send([GET % 1])
        await asyncio.wait_for(left.wait(), 20)


async def test_connections_are_bounded_and_the_next_one_finds_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "most_connections", lambda: 3)
    app = App()
    app.may_answer.set()
    async with serving(app) as port:
        held = [await open_connection(port) for _ in range(10)]
        async with asyncio.timeout(20):
            while sum(each.ended for each in held) < 7:
                for each in held:
                    await each.read(0.02)
        assert not all(each.ended for each in held)
        for each in held:
            each.abort()
        await asyncio.sleep(0.1)
        async with connection(port) as opened:
            await opened.send([GET % 1])
            assert (await opened.answer(20)).status == 200


async def test_guesses_do_not_turn_away_who_sends_to_an_endpoint(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "MOST", 5)
    monkeypatch.setattr(endpoints, "MOST_ASKED", 5)
    known: Endpoints = house.room.endpoints
    assert await known.get(house.endpoint) is not None
    await house.clock.advance(endpoints.LIFE + 1)
    guesses = [asyncio.create_task(known.get(uuid4())) for _ in range(20)]
    await asyncio.sleep(0)
    assert await known.get(house.endpoint) is not None
    told = await asyncio.gather(*guesses, return_exceptions=True)
    assert sum(isinstance(each, Unavailable) for each in told) == 15
    assert len(known._absent) <= 5
    assert house.endpoint in known._known
