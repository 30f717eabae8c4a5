"""The splice with real clients and servers: what we need of uvicorn, and what a relay owes both sides."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.gateway.wire import MOST, echo, splicing, websocket_server

pytestmark = pytest.mark.anyio

HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.01)


async def raw_upstream(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def test_messages_of_all_sizes_go_both_ways_in_order() -> None:
    async with (
        websocket_server(echo) as port,
        splicing(port) as spliced,
        connect(spliced.url, max_size=None, proxy=None) as client,
    ):
        sent = [b"x" * size for size in (0, 1, 125, 126, 65_535, 65_536, 700_000)] + ["grüße"]
        for message in sent:
            await client.send(message)
        assert [await client.recv() for _ in sent] == sent
        assert spliced.splices[0].from_client.data_frames == len(sent)
        await client.close()
        await until(lambda: len(spliced.ended) == 1)


async def test_a_close_by_either_side_reaches_the_other_with_its_code() -> None:
    async def leave(connection: ServerConnection) -> None:
        await connection.close(4001, "done")

    async with (
        websocket_server(leave) as port,
        splicing(port) as spliced,
        connect(spliced.url, proxy=None) as client,
    ):
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "done")
    codes = []

    async def stay(connection: ServerConnection) -> None:
        await connection.wait_closed()
        codes.append(connection.close_code)

    async with (
        websocket_server(stay) as port,
        splicing(port) as spliced,
        connect(spliced.url, proxy=None) as client,
    ):
        await client.close(4002)
        await until(lambda: bool(codes))
    assert codes == [4002]


async def test_an_upstream_that_says_no_is_a_502_and_none_of_its_words_get_through() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 403 No\r\nset-cookie: ocmt=evil\r\ncontent-length: 4\r\n\r\nevil")
        writer.close()

    server, port = await raw_upstream(refuse)
    async with server, splicing(port) as spliced:
        with pytest.raises(InvalidStatus) as refused:
            await connect(spliced.url, proxy=None)
    assert refused.value.response.status_code == 502
    assert b"upstream_refused" in refused.value.response.body
    assert b"evil" not in refused.value.response.body
    assert "set-cookie" not in refused.value.response.headers


async def test_headers_of_the_upstreams_own_do_not_reach_the_browser() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
            b"Set-Cookie: ocmt=evil\r\n\r\n\x81\x02hi"
        )
        await reader.read()
        writer.close()

    server, port = await raw_upstream(answer)
    async with server, splicing(port) as spliced:
        port = int(spliced.url.rsplit(":")[-1].strip("/"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HANDSHAKE)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"cookie" not in head.lower()
        assert await reader.readexactly(4) == b"\x81\x02hi"
        writer.close()


async def test_an_upstream_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocmt.platform.http.upgrade.ANSWER_SECONDS", 0.1)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server, port = await raw_upstream(silent)
    async with server, splicing(port) as spliced:
        with pytest.raises(InvalidStatus) as refused:
            await connect(spliced.url, proxy=None)
    assert refused.value.response.status_code == 503


async def test_a_frame_that_is_too_large_is_refused_before_it_has_come() -> None:
    async with (
        websocket_server(echo) as port,
        splicing(port) as spliced,
        connect(spliced.url, max_size=None, proxy=None) as client,
    ):
        await client.send(b"x" * (MOST + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_the_servers_end_is_a_close_1012_between_two_frames() -> None:
    async with (
        websocket_server(echo) as port,
        splicing(port) as spliced,
        connect(spliced.url, proxy=None) as client,
    ):
        await client.send("hello")
        assert await client.recv() == "hello"
        spliced.stop.set()
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_an_agent_that_dies_is_a_close_1012_too() -> None:
    async def die(connection: ServerConnection) -> None:
        await connection.recv()
        connection.transport.abort()

    async with (
        websocket_server(die) as port,
        splicing(port) as spliced,
        connect(spliced.url, proxy=None) as client,
    ):
        await client.send("hello")
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012


async def test_a_client_that_does_not_read_stops_the_agent_and_bounds_memory() -> None:
    sent = 0

    async def pour(connection: ServerConnection) -> None:
        nonlocal sent
        while True:
            await connection.send(b"x" * 65_536)
            sent += 65_536

    async with websocket_server(pour) as port, splicing(port) as spliced:
        client = socket.create_connection(("127.0.0.1", int(spliced.url.rsplit(":")[-1].strip("/"))))
        client.sendall(HANDSHAKE)
        await until(lambda: sent > 0)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        # What the kernel's buffers hold, and a little of ours.
        assert sent < 64 * 1024 * 1024
        assert spliced.splices[0].client.get_write_buffer_size() < 1024 * 1024
        client.close()


async def test_a_client_that_half_closes_still_hears_the_rest() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        assert await reader.read() == b""  # the half-close got here
        writer.write(b"\x81\x04late")
        await writer.drain()
        writer.close()

    server, port = await raw_upstream(answer)
    async with server, splicing(port) as spliced:
        port = int(spliced.url.rsplit(":")[-1].strip("/"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HANDSHAKE)
        await reader.readuntil(b"\r\n\r\n")
        writer.write_eof()
        assert (await reader.read()).startswith(b"\x81\x04late")
        writer.close()


async def test_what_comes_before_our_answer_is_not_passed_on() -> None:
    heard = bytearray()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.extend(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
        heard.extend(await reader.read())
        writer.close()

    server, port = await raw_upstream(answer)
    async with server, splicing(port) as spliced:
        port = int(spliced.url.rsplit(":")[-1].strip("/"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HANDSHAKE + b"GET /smuggled HTTP/1.1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await until(lambda: len(spliced.ended) == 1)
    assert b"smuggled" not in heard


@pytest.mark.parametrize(
    "head",
    [
        HANDSHAKE.replace(b": 13", b": 8"),
        HANDSHAKE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"short"),
        HANDSHAKE.replace(b"Host: x", b"Host: x\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    ],
)
async def test_what_is_no_handshake_is_a_400(head: bytes) -> None:
    async with websocket_server(echo) as port, splicing(port) as spliced:
        port = int(spliced.url.rsplit(":")[-1].strip("/"))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        assert b"invalid_input" in await reader.read()
        writer.close()
