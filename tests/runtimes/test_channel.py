"""The control channel against an inside that does not keep to the rules."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ocmt.errors import Unavailable
from ocmt.runtimes import channel
from ocmt.runtimes.channel import MAX_MESSAGE, Channel, Misbehaviour, checked_socket

pytestmark = pytest.mark.anyio


def open_descriptors() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


class Ends:
    """Both ends of a channel, and what the platform's end has heard."""

    def __init__(self) -> None:
        ours, self.inside = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.inside.setblocking(False)
        self.heard: list[tuple[dict[str, Any], int | None]] = []
        self.ended: asyncio.Future[Misbehaviour | None] = asyncio.get_running_loop().create_future()
        self.channel = Channel(
            ours, on_message=lambda *what: self.heard.append(what), on_closed=self.ended.set_result
        )


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ends = Ends()
    yield ends
    ends.channel.close()
    ends.inside.close()


async def test_messages_go_both_ways(ends: Ends) -> None:
    ends.channel.send({"op": "dial", "id": 1})
    assert json.loads(ends.inside.recv(1000)) == {"op": "dial", "id": 1}
    ends.inside.send(b'{"event": "hello"}')
    ends.inside.close()
    async with asyncio.timeout(5):
        assert await ends.ended is None
    assert ends.heard == [({"event": "hello"}, None)]


@pytest.mark.parametrize(
    "data",
    [
        b"no json",
        b"[]",
        b'{"event": 1}',
        b"{}",
        b"\xff",
        b"[" * 50_000,
        b'{"event": "' + b"x" * MAX_MESSAGE + b'"}',
    ],
    ids=["text", "list", "number", "empty", "bytes", "deep", "large"],
)
async def test_nonsense_ends_it(ends: Ends, data: bytes) -> None:
    ends.inside.send(data)
    async with asyncio.timeout(5):
        assert isinstance(await ends.ended, Misbehaviour)
    assert ends.heard == []


async def test_more_than_one_descriptor_ends_it_and_none_stays_open(ends: Ends) -> None:
    before = open_descriptors()
    reading, writing = os.pipe()
    socket.send_fds(ends.inside, [b'{"event": "hello"}'], [reading, writing])
    os.close(reading)
    os.close(writing)
    async with asyncio.timeout(5):
        assert isinstance(await ends.ended, Misbehaviour)
    assert open_descriptors() <= before


async def test_a_flood_does_not_hold_up_the_others(ends: Ends) -> None:
    for _ in range(100):
        ends.inside.send(b'{"event": "hello"}')
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(ends.heard) < 100


async def test_who_does_not_read_is_not_waited_for(ends: Ends) -> None:
    def flood() -> None:
        for number in range(100_000):
            ends.channel.send({"op": "dial", "id": number})

    with pytest.raises(Unavailable):
        flood()


class TestSocketsFromInside:
    @pytest.fixture(autouse=True)
    def _another_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """These sockets are this process's own; the sandbox tests hand over real ones."""
        monkeypatch.setattr(channel, "_own_namespace", lambda: None)

    def test_a_listener_and_a_connection_as_asked_for(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with checked_socket(os.dup(listener.fileno()), port=port, listening=True) as checked:
                assert checked.getblocking() is False
            with (
                socket.create_connection(("127.0.0.1", port)) as connection,
                checked_socket(os.dup(connection.fileno()), port=port, listening=False) as checked,
            ):
                assert checked.getblocking() is False

    def test_everything_else_is_refused_and_closed(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.create_server(("0.0.0.0", 0)) as elsewhere,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as fresh,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as local,
            Path(os.devnull).open() as file,
        ):
            port = listener.getsockname()[1]
            before = open_descriptors()
            for number, wanted, listening in (
                (listener.fileno(), port + 1, True),
                (listener.fileno(), port, False),
                (elsewhere.fileno(), elsewhere.getsockname()[1], True),
                (fresh.fileno(), port, False),
                (fresh.fileno(), port, True),
                (datagrams.fileno(), port, False),
                (local.fileno(), port, False),
                (file.fileno(), port, False),
            ):
                with pytest.raises(Misbehaviour):
                    checked_socket(os.dup(number), port=wanted, listening=listening)
            with pytest.raises(Misbehaviour):
                checked_socket(None, port=port, listening=True)
            assert open_descriptors() == before


def test_a_socket_of_the_platform_s_own_network_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if channel._namespace_of(listener) is None:
            pytest.skip("this kernel does not tell network namespaces apart (before 5.14)")
        with pytest.raises(Misbehaviour):
            checked_socket(os.dup(listener.fileno()), port=listener.getsockname()[1], listening=True)
