"""The egress proxy: public addresses only, whatever they are called, and everything bounded."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Collection, Sequence
from ipaddress import ip_address
from uuid import uuid4

import pytest
import structlog
from structlog.testing import capture_logs

from ocmt.platform.internet import is_public
from ocmt.runtimes import egress
from ocmt.runtimes.egress import CONNECTIONS, EgressProxy, Refusal, parse_request
from ocmt.testing.egress import FakeGate

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "100.100.100.200", "168.63.129.16",
        "192.0.0.192", "192.0.2.1", "198.18.0.1", "224.0.0.1",
        "239.1.1.1", "240.0.0.1", "255.255.255.255", "192.88.99.1",
        "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::", "2002:a00:1::1", "2001:0:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe",
    ],
)  # fmt: skip
def test_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "140.82.121.4", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))


class TestRequests:
    def test_a_tunnel(self) -> None:
        request = parse_request(b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\n\r\n")
        assert (request.host, request.port, request.is_tunnel) == ("example.org", 443, True)

    def test_a_tunnel_to_an_ipv6_address(self) -> None:
        assert parse_request(b"CONNECT [2606:4700::1]:443 HTTP/1.1\r\n\r\n").host == "2606:4700::1"

    def test_a_plain_request_goes_on_without_what_is_for_the_proxy(self) -> None:
        request = parse_request(
            b"POST http://u:p@example.org:8000/a?b=c HTTP/1.1\r\nHost: elsewhere\r\n"
            b"Proxy-Authorization: x\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n"
        )
        assert (request.host, request.port, request.is_tunnel) == ("example.org", 8000, False)
        assert request.head == (
            b"POST /a?b=c HTTP/1.1\r\nHost: example.org:8000\r\nContent-Length: 2\r\n"
            b"Connection: close\r\n\r\n"
        )

    @pytest.mark.parametrize(
        "line",
        [
            b"GET / HTTP/1.1",
            b"GET https://example.org/ HTTP/1.1",
            b"CONNECT example.org HTTP/1.1",
            b"CONNECT example.org:99999 HTTP/1.1",
            b"GET http:///x HTTP/1.1",
            b"\x00\xff",
            b"GET http://example.org/ SPDY",
        ],
    )
    def test_nonsense(self, line: bytes) -> None:
        with pytest.raises(Refusal):
            parse_request(line + b"\r\n\r\n")


@pytest.fixture
async def server() -> AsyncIterator[int]:
    """A server that answers with what it was sent, in capitals."""

    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


class Asking:
    """A proxy for one agent, and what it was asked to resolve."""

    def __init__(
        self, *, anything_goes: bool, gate: FakeGate | None = None, ports: Collection[int] = range(65536)
    ) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Sequence[str]] = {}
        self.proxy = EgressProxy(
            structlog.get_logger("tests"),
            gate=gate or FakeGate(),
            ports=ports,
            resolve=self._resolve,
            allowed=(lambda _: True) if anything_goes else is_public,
        )

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.get(host) or [host]

    async def __aenter__(self) -> Asking:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.serving = await self.proxy.door(uuid4(), listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.serving.close()

    async def ask(self, text: str, *, then: bytes = b"") -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(text.encode() + then)
            writer.write_eof()
            async with asyncio.timeout(10):
                return await reader.read()
        finally:
            writer.close()


async def test_a_tunnel_carries_both_ways(server: int) -> None:
    async with Asking(anything_goes=True) as proxy:
        proxy.answers["example.org"] = ["127.0.0.1"]
        answer = await proxy.ask(f"CONNECT example.org:{server} HTTP/1.1\r\n\r\n", then=b"hello")
    assert answer == b"HTTP/1.1 200 Connection established\r\n\r\nHELLO"
    assert proxy.asked == ["example.org"]


async def test_a_plain_request_is_carried_out(server: int) -> None:
    async with Asking(anything_goes=True) as proxy:
        answer = await proxy.ask(f"GET http://127.0.0.1:{server}/x HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"GET /X HTTP/1.1\r\nHOST: 127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "internal.example"])
async def test_what_is_not_public_is_refused_in_plain_words(host: str, server: int) -> None:
    async with Asking(anything_goes=False) as proxy:
        proxy.answers["internal.example"] = ["10.0.0.1", "::ffff:127.0.0.1"]
        answer = await proxy.ask(f"CONNECT {host}:{server} HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 Forbidden\r\n")
    assert b"is not on the public internet" in answer


async def test_other_refusals() -> None:
    async with Asking(anything_goes=False) as proxy:
        assert b" 403 " in await proxy.ask("CONNECT 1.1.1.1:25 HTTP/1.1\r\n\r\n")
        assert b" 502 " in await proxy.ask("CONNECT no-such-name:443 HTTP/1.1\r\n\r\n")
        assert b" 431 " in await proxy.ask("CONNECT a:1 HTTP/1.1\r\n" + "X: y\r\n" * 5000)
        assert b" 400 " in await proxy.ask("CONNECT a:1 HTTP/1.1\r\n")


async def test_connections_are_bounded_and_end_with_the_agent(server: int) -> None:
    async with Asking(anything_goes=True) as proxy:
        open_ones = [await asyncio.open_connection("127.0.0.1", proxy.port) for _ in range(CONNECTIONS)]
        for _, writer in open_ones:
            writer.write(f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\n\r\n".encode())
        for reader, _ in open_ones:
            assert b"200" in await reader.readuntil(b"\r\n\r\n")
        one_more, its_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await one_more.readexactly(1)
        its_writer.close()
    for reader, writer in open_ones:
        assert await reader.read() == b""
        writer.close()


async def test_names_that_nobody_answers_for_keep_only_so_many_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(egress, "RESOLVE_TIMEOUT", 0.1)
    answer = asyncio.Event()
    asked = 0

    async def resolve(host: str, port: int) -> Sequence[str]:
        nonlocal asked
        asked += 1
        await answer.wait()
        return ["127.0.0.1"]

    async with Asking(anything_goes=False) as proxy:
        proxy.proxy = EgressProxy(
            structlog.get_logger("tests"), gate=FakeGate(), ports=(443,), resolve=resolve
        )
        names = asyncio.Semaphore(egress.NAMES_AT_ONCE)
        attempts = [proxy.proxy.connect(f"{number}.example", 443, names) for number in range(20)]
        refusals = await asyncio.gather(*attempts, return_exceptions=True)
        assert [str(refusal) for refusal in refusals] == [
            f"{n}.example cannot be resolved" for n in range(20)
        ]
        assert asked == egress.NAMES_AT_ONCE
        answer.set()
        with pytest.raises(Refusal, match="not on the public internet"):
            await proxy.proxy.connect("later.example", 443, names)


async def test_names_are_not_looked_up_in_the_platforms_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [(None, None, None, None, (threading.current_thread().name, 0))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", look)
    assert await egress.resolve_by_system("a.example", 443) == ["egress name"]


async def test_refusals_do_not_fill_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "REFUSALS_LOGGED", 3)
    with capture_logs() as lines:
        async with Asking(anything_goes=False) as proxy:
            for _ in range(6):
                await proxy.ask("CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n")
    assert [line["event"] for line in lines] == ["egress_refused"] * 3


@pytest.mark.parametrize(
    "host", ["2130706433", "017700000001", "0x7f000001", "127.1", "0", "localhost", "[::ffff:7f00:1]"]
)
async def test_no_spelling_of_this_machine_leads_to_it(host: str, server: int) -> None:
    """By the system's own name service, which understands all of these."""
    proxy = EgressProxy(structlog.get_logger("tests"), gate=FakeGate(), ports=(server,))
    request = parse_request(f"CONNECT {host}:{server} HTTP/1.1\r\n\r\n".encode())
    with pytest.raises(Refusal, match=r"not on the public internet|cannot be resolved"):
        await proxy.connect(request.host, request.port, asyncio.Semaphore(1))


async def test_a_name_is_judged_by_the_address_that_is_connected_to(server: int) -> None:
    """A name server may give another answer each time: it is asked once."""
    async with Asking(anything_goes=False) as proxy:
        proxy.answers["rebinding.example"] = ["127.0.0.1"]
        answer = await proxy.ask(f"CONNECT rebinding.example:{server} HTTP/1.1\r\n\r\n")
    assert b" 403 " in answer
    assert proxy.asked == ["rebinding.example"]


async def test_only_the_ports_of_the_settings_and_never_mail(server: int) -> None:
    async with Asking(anything_goes=True, ports=(25, 80, 443)) as proxy:
        for port in (25, 22, server):
            answer = await proxy.ask(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n")
            assert f"port {port} is not allowed; allowed are 80, 443".encode() in answer


async def test_an_agent_that_may_not_is_refused_in_words(server: int) -> None:
    gate = FakeGate()
    gate.open = False
    async with Asking(anything_goes=True, gate=gate) as proxy:
        answer = await proxy.ask(f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"the internet is switched off for this agent" in answer
    assert not proxy.asked, "no name was looked up for it"


async def test_what_is_open_ends_when_the_policy_changes(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "LOOK_AGAIN", 0.05)
    gate = FakeGate()
    async with Asking(anything_goes=True, gate=gate) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        gate.open = False
        async with asyncio.timeout(10):
            assert await reader.read() == b""
        writer.close()


async def test_the_bytes_of_a_day_are_booked_before_they_flow_and_what_is_left_is_given_back(
    server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "GRANTS", (1000,))
    gate = FakeGate(left=3000)
    async with Asking(anything_goes=True, gate=gate) as proxy:
        connect = f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\n\r\n"
        assert b"A" * 900 in await proxy.ask(connect, then=b"a" * 900)
        answer = await proxy.ask(connect, then=b"a" * 9000)
        assert len(answer) < 3000
        answer = await proxy.ask(connect, then=b"a" * 900)
        assert len(answer) < 1000
    assert gate.spent <= 3000
    gate.left = 0
    async with Asking(anything_goes=True, gate=gate) as proxy:
        assert b"today is used up" in await proxy.ask(connect)


async def test_new_connections_have_a_rate(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "NEW_AT_ONCE", 3)
    monkeypatch.setattr(egress, "NEW_PER_SECOND", 0.001)
    async with Asking(anything_goes=True) as proxy:
        answers = [await proxy.ask(f"CONNECT 127.0.0.1:{server} HTTP/1.1\r\n\r\n") for _ in range(5)]
    assert [answer.split(b" ")[1] for answer in answers] == [b"200"] * 3 + [b"429"] * 2
