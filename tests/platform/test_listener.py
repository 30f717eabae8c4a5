"""What we need of uvicorn's protocol class, which is not documented: to serve a listener handed to us."""

from __future__ import annotations

import asyncio
import contextlib
import io
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from ocmt.platform.http import serve_on

pytestmark = pytest.mark.anyio


def listening() -> tuple[socket.socket, str]:
    listener = socket.create_server(("127.0.0.1", 0))
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}/"


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    request = Request(scope, receive)
    await PlainTextResponse(f"{request.method} {request.url.path} {len(await request.body())}")(
        scope, receive, send
    )


async def test_requests_on_one_connection_and_on_many_are_answered() -> None:
    listener, url = listening()
    closer = await serve_on(listener, hello)
    async with aiohttp.ClientSession() as session:

        async def post(size: int) -> str:
            async with session.post(url + "v1", data=bytes(size)) as response:
                return await response.text()

        assert await post(3) == "POST /v1 3"
        answers = await asyncio.gather(*(post(size) for size in range(20)))
        assert answers == [f"POST /v1 {size}" for size in range(20)]
    await closer.close()


async def test_a_unix_listener_is_served_as_well(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    closer = await serve_on(listener, hello)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "s"))) as session,
        session.get("http://inside/x") as response,
    ):
        assert await response.text() == "GET /x 0"
    await closer.close()


async def test_a_client_that_leaves_is_noticed_mid_stream() -> None:
    left = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                left.set()

        with contextlib.suppress(ClientDisconnect):
            await StreamingResponse(pieces())(scope, receive, send)

    listener, url = listening()
    closer = await serve_on(listener, endless)
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert await response.content.readany() == b"first"
        await asyncio.wait_for(left.wait(), 5)
    await closer.close()


async def test_closing_lets_an_answer_end_and_then_nobody_listens() -> None:
    begun = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await go_on.wait()
        await PlainTextResponse("late")(scope, receive, send)

    listener, url = listening()
    closer = await serve_on(listener, slow)
    async with aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.get(url))
        await begun.wait()
        closing = asyncio.ensure_future(closer.close())
        await asyncio.sleep(0)
        go_on.set()
        async with await asking as response:
            assert await response.text() == "late"
        await closing
        await closer.close()
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


async def test_closing_cuts_off_what_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocmt.platform.http.listener._GRACE_SECONDS", 0.05)
    begun, cut = asyncio.Event(), asyncio.Event()

    async def never(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    listener, url = listening()
    closer = await serve_on(listener, never)
    async with aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.get(url))
        await begun.wait()
        await closer.close()
        assert cut.is_set()
        with pytest.raises(aiohttp.ClientError):
            await asking


async def test_one_client_cannot_hold_more_connections_than_it_may() -> None:
    listener, url = listening()
    closer = await serve_on(listener, hello, max_connections=2)
    port = listener.getsockname()[1]
    held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    held[0][1].write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await held[0][0].readline()).startswith(b"HTTP/1.1 200")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    for _, other in held:
        other.close()
        await other.wait_closed()
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
    await closer.close()


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nx: ",
        b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ",
    ],
    ids=["address", "header", "trailer"],
)
@pytest.mark.parametrize("piece", [b"a" * 1000, b"a" * 1000 + b"\r\nx: "], ids=["one", "many"])
async def test_a_head_without_end_is_not_kept(beginning: bytes, piece: bytes) -> None:
    listener, _ = listening()
    closer = await serve_on(listener, hello)
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
    writer.write(beginning)
    sent = 0
    with contextlib.suppress(ConnectionError):
        while not reader.at_eof() and sent < 20_000_000:
            writer.write(piece * 100)
            await writer.drain()
            sent += len(piece) * 100
            await asyncio.sleep(0)
    assert sent < 20_000_000
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await closer.close()


async def test_a_body_may_be_larger_than_a_head_and_come_in_many_pieces() -> None:
    listener, url = listening()
    closer = await serve_on(listener, hello)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(10_000)

    async with aiohttp.ClientSession() as session:
        for data, size in ((pieces(), 1_000_000), (io.BytesIO(bytes(5_000_000)), 5_000_000)):
            async with session.post(url, data=data) as response:
                assert await response.text() == f"POST / {size}"
    await closer.close()
