"""What an agent answers on its own gateway's port, byte by byte: nothing of its head gets out."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from uuid import uuid4

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from ocmt.gateway.http_proxy import HttpProxy
from ocmt.gateway.model import sent_back, status_back
from ocmt.platform.http import RequestLog
from ocmt.platform.http.handshake import ClientHandshake, HandshakeFailed
from ocmt.platform.principal import Principal
from tests.gateway.test_splice import HANDSHAKE, raw_upstream
from tests.gateway.wire import splicing
from tests.platform.test_headers import HOSTILE, on_the_wire

pytestmark = pytest.mark.anyio

ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
EVIL = b"Set-Cookie: ocmt=evil"
OFFERS = HANDSHAKE.replace(b"Host: x", b"Host: x\r\nSec-WebSocket-Protocol: chat, superchat")
OURS = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)


def answer(*lines: bytes, first: bytes = b"HTTP/1.1 101 Switching Protocols") -> bytes:
    head = [first, b"Upgrade: websocket", b"Connection: Upgrade", *lines]
    return b"\r\n".join([*head, b"", b""])


def accepted(rest: bytes = b"") -> bytes:
    return b"Sec-WebSocket-Accept: " + ACCEPT + rest


REFUSED = {
    **{
        f"in the accept, {name}": answer(accepted(value[1:].encode("utf-8", "surrogatepass")))
        for name, value in HOSTILE.items()
        # Each of these ends the line, for h11 as for a browser: what follows is a header that is dropped.
        if name not in ("LF", "CRLF", "the end of the head")
    },
    **{
        f"in the subprotocol, {name}": answer(
            accepted(), b"Sec-WebSocket-Protocol: " + value.encode("utf-8", "surrogatepass")
        )
        for name, value in HOSTILE.items()
    },
    "another's accept": answer(b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "no accept": answer(),
    "two accepts": answer(accepted(), accepted()),
    "an accept in two": answer(accepted(b", x")),
    "a subprotocol that nobody offered": answer(accepted(), b"Sec-WebSocket-Protocol: mqtt"),
    "another spelling of what was offered": answer(accepted(), b"Sec-WebSocket-Protocol: CHAT"),
    "two subprotocols": answer(accepted(), b"Sec-WebSocket-Protocol: chat, superchat"),
    "two headers of subprotocols": answer(accepted(), *[b"Sec-WebSocket-Protocol: chat"] * 2),
    "an empty subprotocol": answer(accepted(), b"Sec-WebSocket-Protocol: "),
    "an extension": answer(accepted(), b"Sec-WebSocket-Extensions: permessage-deflate"),
    "an empty extension": answer(accepted(), b"Sec-WebSocket-Extensions:"),
    "an upgrade to something else": answer(accepted()).replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "a body": answer(accepted(), b"Content-Length: 4") + b"evil",
    "a body in chunks": answer(accepted(), b"Transfer-Encoding: chunked") + b"4\r\nevil\r\n0\r\n\r\n",
    "HTTP/1.0": answer(accepted(), first=b"HTTP/1.0 101 Switching Protocols"),
    "HTTP/2": b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "a space before a colon": answer(b"Sec-WebSocket-Accept : " + ACCEPT),
    "a name with a control character": answer(accepted(), b"X\x01: " + EVIL),
    "an endless head": b"HTTP/1.1 101 X\r\nx: " + b"a" * 20_000 + b"\r\n\r\n",
    "an endless row of answers": b"HTTP/1.1 103 X\r\nlink: </x>\r\n\r\n" * 2000,
    **{
        f"the status {status}": b"HTTP/1.1 %d X\r\n%s\r\nLocation: //evil.example\r\n" % (status, EVIL)
        + b"Content-Length: 4\r\n\r\nevil"
        for status in (200, 204, 206, 301, 302, 307, 400, 401, 403, 407, 426, 500, 503, 999)
    },
    "a refusal in chunks with trailers": b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n"
    b"Trailer: Set-Cookie\r\n\r\n4\r\nevil\r\n0\r\n" + EVIL + b"\r\n\r\n",
    "a refusal, and an answer behind it": b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"
    + answer(accepted()),
}


@dataclass
class Agent:
    """Something that answers with these bytes, whatever it is asked."""

    says: bytes = b""
    in_pieces: bool = False
    leaves: bool = False
    port: int = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in [bytes([each]) for each in self.says] if self.in_pieces else [self.says]:
            writer.write(piece)
            if self.in_pieces:
                await asyncio.sleep(0)
        if not self.leaves:
            with suppress(OSError):
                await reader.read()
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        server, self.port = await raw_upstream(self.answer)
        async with server:
            yield self


async def heard(url: str, request: bytes, *, until: bytes | None = None) -> bytes:
    """All that comes back for a request on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":")[-1].strip("/")))
    writer.write(request)
    try:
        async with asyncio.timeout(10):
            return await (reader.readuntil(until) if until else reader.read())
    finally:
        writer.close()


async def test_what_is_no_clean_answer_is_a_502_without_a_word_of_it() -> None:
    behind = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    async with Agent().running() as agent, splicing(agent.port) as spliced:
        for name, agent.says in REFUSED.items():
            sent = await heard(spliced.url, OFFERS + behind)
            assert sent.startswith(b"HTTP/1.1 502 Bad Gateway\r\n"), name
            assert sent.count(b"HTTP/1.1") == 1, f"{name}: nothing may be smuggled behind the one answer"
            assert b"connection: close" in sent.partition(b"\r\n\r\n")[0].lower(), name
            for word in (b"evil", b"cookie", b"location", b"link:", b"trailer"):
                assert word not in sent.lower(), name


DROPPED = {
    "a line feed in the accept": answer(accepted(b"\n" + EVIL)),
    "a line's end in the accept": answer(accepted(b"\r\n" + EVIL)),
    "headers of its own": answer(
        EVIL,
        accepted(),
        b"Set-Cookie: ocmt-asker=evil",
        b"Strict-Transport-Security: max-age=1",
        b"Clear-Site-Data: *",
        b"Location: //evil.example",
        b"Link: </evil>; rel=preload",
        b"Alt-Svc: h3=evil.example:443",
        b"Connection: close, Set-Cookie",
        b"Keep-Alive: timeout=1",
    ),
    "a reason of its own": answer(accepted(), first=b"HTTP/1.1 101 " + EVIL),
    "others before it": b"HTTP/1.1 100 Continue\r\n"
    + EVIL
    + b"\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </evil>; rel=preload\r\n\r\n"
    + answer(accepted()),
    "lines that end in line feeds alone": answer(accepted(), EVIL).replace(b"\r\n", b"\n"),
}


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_good_answer_is_written_anew(in_pieces: bool) -> None:
    frame = b"\x81\x02hi"
    async with Agent(in_pieces=in_pieces).running() as agent, splicing(agent.port) as spliced:
        for name, says in DROPPED.items():
            agent.says = says + frame
            assert await heard(spliced.url, HANDSHAKE, until=frame) == OURS + b"\r\n" + frame, name


async def test_a_subprotocol_that_the_client_offered_may_be_chosen() -> None:
    says = answer(accepted(), b"Sec-WebSocket-Protocol: superchat")
    async with Agent(says).running() as agent, splicing(agent.port) as spliced:
        sent = await heard(spliced.url, OFFERS, until=b"\r\n\r\n")
    assert sent == OURS + b"Sec-WebSocket-Protocol: superchat\r\n\r\n"


async def test_an_offer_that_is_no_list_of_names_does_not_reach_the_agent() -> None:
    async with Agent(answer(accepted())).running() as agent, splicing(agent.port) as spliced:
        for offer in (b"a b", b"a,,b", b"a;b", b"a\tb,c", b"\xc3\xa9", b", ".join([b"x"] * 11)):
            sent = await heard(spliced.url, OFFERS.replace(b"chat, superchat", offer))
            assert sent.startswith(b"HTTP/1.1 400 "), offer


@given(st.binary(max_size=300), st.lists(st.integers(1, 300), max_size=5))
@settings(max_examples=300)
def test_any_bytes_are_our_answer_or_none(noise: bytes, cuts: list[int]) -> None:
    """Noise behind the first line and in front of a good answer's end, cut anywhere."""
    handshake = ClientHandshake(OFFERS)
    says = b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: " + ACCEPT + noise + b"\r\n\r\n"
    pieces, at = [], 0
    for cut in sorted(cuts):
        pieces.append(says[at:cut])
        at = max(at, cut)
    try:
        found = [done for piece in [*pieces, says[at:]] if (done := handshake.feed(piece)) is not None]
    except HandshakeFailed:
        return
    for out, _ in found[:1]:
        assert out in (
            OURS + b"\r\n",
            *(OURS + b"Sec-WebSocket-Protocol: %s\r\n\r\n" % p for p in (b"chat", b"superchat")),
        )


# The gateway's own HTTP addresses


@asynccontextmanager
async def proxied() -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """Gives a function: what a client gets when its agent answers with these bytes."""
    async with Agent(leaves=True).running() as agent:

        async def dial(_user_id: object) -> socket.socket:
            connection = socket.create_connection(("127.0.0.1", agent.port))
            connection.setblocking(False)
            return connection

        async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
            raise AssertionError("elsewhere")

        proxy = HttpProxy(dial, nothing)

        async def signed_in(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("state", {})["principal"] = Principal(uuid4(), uuid4(), "eve@example.org")
            await proxy(scope, receive, send)

        async with on_the_wire(RequestLog(signed_in)) as ask:

            async def answered(says: bytes) -> bytes:
                agent.says = says
                return await ask(
                    b"GET /agent/gateway/v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                )

            yield answered


ALLOWED = {
    b"content-type",
    b"retry-after",
    b"cache-control",
    b"content-security-policy",
    b"x-content-type-options",
    b"x-accel-buffering",
    b"x-request-id",
    b"date",
    b"connection",
    b"transfer-encoding",
    b"content-length",
    b"www-authenticate",
}


def headers_of(sent: bytes) -> dict[bytes, bytes]:
    _, *lines = sent.partition(b"\r\n\r\n")[0].split(b"\r\n")
    assert b"\n" not in b"".join(lines)
    assert b"\r" not in b"".join(lines)
    return {line.partition(b":")[0].lower(): line.partition(b": ")[2] for line in lines}


PLACES: dict[str, Callable[[bytes], bytes]] = {
    "the reason": lambda value: b"HTTP/1.1 200 " + value + b"\r\n",
    "Content-Type": lambda value: b"HTTP/1.1 200 OK\r\nContent-Type: text/plain" + value + b"\r\n",
    "its charset": lambda value: b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=" + value + b"\r\n",
    "Retry-After": lambda value: b"HTTP/1.1 429 X\r\nRetry-After: 1" + value + b"\r\n",
    "a header's name": lambda value: b"HTTP/1.1 200 OK\r\n" + value + b": 1\r\n",
    "another header": lambda value: b"HTTP/1.1 200 OK\r\nX-A: " + value + b"\r\n",
    "Location": lambda value: b"HTTP/1.1 200 OK\r\nLocation: //evil.example/" + value + b"\r\n",
}


async def test_no_byte_of_an_answers_head_becomes_a_header_of_its_own() -> None:
    async with proxied() as answered:
        for where, place in PLACES.items():
            for name, value in HOSTILE.items():
                says = place(value.encode("utf-8", "surrogatepass")) + b"Content-Length: 2\r\n\r\nhi"
                sent = await answered(says)
                assert headers_of(sent).keys() <= ALLOWED, (where, name)
                assert b"evil" not in sent.partition(b"\r\n\r\n")[0], (where, name)
                ours = (b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 429 Too Many Requests\r\n", b"HTTP/1.1 503 ")
                assert sent.startswith(ours), (where, name)


async def test_trailers_and_answers_before_the_answer_are_not_passed_on() -> None:
    async with proxied() as answered:
        sent = await answered(
            b"HTTP/1.1 103 Early Hints\r\nLink: </evil>; rel=preload\r\n" + EVIL + b"\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nTrailer: Set-Cookie\r\nTransfer-Encoding: chunked\r\nConnection: upgrade\r\n"
            b"Upgrade: evil\r\n\r\n2\r\nhi\r\n0\r\n"
            + EVIL
            + b"\r\n\r\nHTTP/1.1 200 OK\r\n"
            + EVIL
            + b"\r\n\r\n"
        )
    assert headers_of(sent).keys() <= ALLOWED
    assert b"evil" not in sent
    assert sent.count(b"HTTP/1.1") == 1
    assert sent.endswith(b"2\r\nhi\r\n0\r\n\r\n")


STATUSES = {
    **{200: 200, 206: 200, 299: 200, 401: 400, 407: 400, 421: 400, 426: 400, 429: 429, 500: 500, 599: 502},
    **dict.fromkeys((300, 301, 302, 303, 304, 307, 308, 600, 999)),
}


async def test_the_status_is_one_of_ours() -> None:
    async with proxied() as answered:
        for status, ours in STATUSES.items():
            assert status_back(status) == ours
            says = b"HTTP/1.1 %d evil\r\nLocation: //evil.example\r\nWWW-Authenticate: Basic\r\n" % status
            sent = await answered(says + EVIL + b"\r\nContent-Length: 0\r\n\r\n")
            assert int(sent.split(b" ", 2)[1]) == (ours or 503), status
            assert b"evil" not in sent, status
            assert b"basic" not in sent.lower(), status


@given(st.lists(st.tuples(st.binary(max_size=30), st.binary(max_size=100)), max_size=10))
@settings(max_examples=300)
def test_any_headers_give_our_own(headers: list[tuple[bytes, bytes]]) -> None:
    back = sent_back(headers)
    assert {name for name, _ in back} <= ALLOWED
    # h11 checks them as it would write them.
    h11.Response(status_code=200, headers=back)
    assert dict(back)[b"content-security-policy"] == b"sandbox; default-src 'none'"
