"""Known attacks on the intake of webhooks and on the upgrade, each to its end, while others are served.

The server's patience is shortened (`tests.hostile.server`), so that its end is seen; what is waited for here
is only that nothing hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import random
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from uuid import uuid4

import pytest

from ocmt.channels.model import MAX_BODY
from ocmt.channels.wire import TOLERANCE
from ocmt.platform.http.protocol import MAX_HEAD
from tests.hostile.genuine import Door, Request
from tests.hostile.stage import ANSWER_SECONDS, Stage
from tests.hostile.storm import GIVEN_UP, many
from tests.hostile.wire import Frame, answers, ask, connection, frame, frames, open_connection

pytestmark = [pytest.mark.anyio, pytest.mark.chaos, pytest.mark.timeout(300)]

GUESSES = 10_000
MEMORY = 48 * 1024**2
"""Bytes that an attack may leave behind: caches, and what the allocator keeps."""
NOWHERE = f"/webhooks/signed/{uuid4()}".encode()
UPLOAD = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


@dataclass
class Others:
    """Genuine senders that go on meanwhile."""

    stage: Stage
    served: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def go_on(self, door: Door) -> None:
        while not self.over.is_set():
            answer = await self.stage.post(door)
            assert answer.status == 200, answer
            self.served += 1
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def others_are_served(stage: Stage) -> AsyncIterator[None]:
    """At every door, all the time. At the end the server is well."""
    others = Others(stage)
    async with asyncio.TaskGroup() as tasks:
        for door in stage.doors:
            tasks.create_task(others.go_on(door))
        try:
            yield
        finally:
            others.over.set()
    assert others.served >= len(stage.doors)
    await stage.is_well()


@contextlib.asynccontextmanager
async def nothing_stays_open(stage: Stage) -> AsyncIterator[None]:
    """Neither connections nor memory."""
    memory, files = stage.memory(), stage.files()
    yield
    assert stage.memory() - memory < MEMORY
    async with asyncio.timeout(GIVEN_UP):
        while stage.files() > files + 20:
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def nothing_gets_in(stage: Stage) -> AsyncIterator[None]:
    """And no row either."""
    kept = len(await stage.kept())
    async with nothing_stays_open(stage):
        yield
    assert len(await stage.kept()) == kept


def slow_ones(stage: Stage) -> list[tuple[bytes, bytes]]:
    """What is sent at once, and what follows a byte at a time; b"": nothing does."""
    request = stage.doors[0].request(stage.host)
    head, handshake = request.head(), stage.handshake()
    signed_in = f"Host: {stage.host}\r\nOrigin: http://{stage.host}\r\nCookie: {stage.cookies[0]}".encode()
    chunked = request.having(b"Content-Length").having(b"Transfer-Encoding", b"chunked").head()
    expecting = request.having(b"Expect", b"100-continue").having(b"Content-Length", b"5000").head()
    return [
        (b"", b""),
        (b"", b"POST /webhooks/" + b"a" * 10_000),
        (b"POST /webh", b""),
        (head[:-2], b""),
        (head[:-2], b"X-Slow: " + b"a" * 10_000),
        (head[:-2], b"a: b\r\n" * 1_000),
        (request.having(b"Content-Length", b"5000").head(), b""),
        (request.having(b"Content-Length", b"5000").head(), b"{" * 4_000),
        (chunked, b""),
        (chunked, b"1\r\na\r\n" * 1_000),
        (chunked + b"0\r\n", b"X: y\r\n" * 1_000),
        (expecting, b""),
        (UPLOAD % NOWHERE, b"a" * 10_000),
        (UPLOAD % b"/api/v1/auth/magic-link", b"{" * 10_000),
        (UPLOAD % b"/agent/conversations", b"{" * 10_000),
        ((UPLOAD % b"/agent/conversations").replace(b"Host: x", signed_in), b"{" * 10_000),
        (request.wire() + head[:50], b"b" * 10_000),
        (handshake[:-2], b""),
        (handshake[:-2], b"X-Slow: " + b"a" * 10_000),
        (handshake[:-2] + b"Content-Length: 50000\r\n\r\n", b"a" * 10_000),
    ]


async def test_what_is_sent_slowly_is_cut_off_while_others_are_served(stage: Stage) -> None:
    dice = random.Random(1)

    async def attack(first: bytes, rest: bytes) -> None:
        opened = await open_connection(stage.port)
        until = time.monotonic() + GIVEN_UP
        try:
            await opened.send([first] if first else [])
            for byte in rest:
                await opened.read(dice.uniform(0.05, 0.3))
                if opened.ended or time.monotonic() > until:
                    break
                await opened.send([bytes([byte])])
            ended = await opened.end(until - time.monotonic())
        finally:
            opened.abort()
        assert ended, f"it hangs: {first!r} {rest[:50]!r}, {bytes(opened.received)!r}"
        assert all(answer.status < 500 for answer in answers(bytes(opened.received))[0])

    async with connection(stage.port) as quiet:
        await quiet.send([stage.handshake(1)])
        assert (await quiet.answer(ANSWER_SECONDS)).status == 101
        async with others_are_served(stage), nothing_stays_open(stage), asyncio.TaskGroup() as tasks:
            for _ in range(12):
                for first, rest in slow_ones(stage):
                    tasks.create_task(attack(first, rest))
        # A socket may be silent for as long as it likes.
        await quiet.send([frame(1, b"still here")])
        while not frames(bytes(quiet.received))[0]:
            assert await quiet.read(ANSWER_SECONDS)


@pytest.mark.parametrize(
    "much",
    [
        lambda request: replace(request, target=request.target + b"?" + b"a" * 2_000_000),
        lambda request: replace(request, target=b"/" + b"a" * 2_000_000),
        lambda request: request.having(b"X-Long", b"a" * 2_000_000),
        lambda request: request.having(b"A" * 2_000_000, b"x"),
        lambda request: request.having(b"X-Many", *([b"a"] * 200_000)),
        lambda request: request.having(b"Cookie", *([b"ocmt=" + b"a" * 60] * 30_000)),
        lambda request: replace(request, method=b"A" * 2_000_000),
    ],
    ids=["query", "path", "value", "name", "many", "cookies", "method"],
)
async def test_a_head_that_is_too_large_is_refused_and_not_kept(stage: Stage, much: object) -> None:
    async def attack(number: int) -> None:
        request = much(stage.doors[number % 5].request(stage.host))  # type: ignore[operator]
        async with connection(stage.port) as opened:
            await opened.send([request.wire()])
            # A connection that is reset may not have brought its answer.
            await opened.end(GIVEN_UP)
            assert opened.ended
            assert [one.status for one in answers(bytes(opened.received))[0]] in ([], [400])

    async with nothing_gets_in(stage):
        await many(20, 5, attack)


async def test_a_head_of_nearly_the_most_is_no_trouble(stage: Stage) -> None:
    for door in stage.doors:
        request = door.request(stage.host).having(b"X-Long", b"a" * (MAX_HEAD - 2_000))
        assert (await ask(stage.port, request.wire())).status == 200


async def test_bytes_that_are_no_utf8_are_no_trouble(stage: Stage) -> None:
    bad = b"\xff\xfe\xc0\xaf\xed\xa0\x80\xf4\x90\x80\x80"
    for door in stage.doors:
        request = door.request(stage.host)
        for target in (request.target + bad, request.target + b"/%ff%c0%af", b"/webhooks/%ff/%fe", bad):
            answer = await ask(stage.port, replace(request, target=target).wire())
            assert answer.status in (400, 404), target
        assert (await ask(stage.port, request.having(b"X-Odd", bad).wire())).status == 200
        answer = await ask(stage.port, request.having(door.proof, bad).wire())
        assert answer.status == 401
        body = b'{"text": "' + bad + b'"}'
        # A signed webhook is whatever its sender signs; the vendors' are JSON.
        answer = await ask(stage.port, door.request(stage.host, body=body).wire())
        assert answer.status == (200 if door.channel == "signed" else 400)
    for header in (b"Cookie: ocmt=", b"Origin: ", b"Sec-WebSocket-Key: "):
        handshake = stage.handshake().replace(header, header + bad)
        assert 400 <= (await ask(stage.port, handshake)).status < 500
    await stage.is_well()


async def test_a_compressed_bomb_is_refused_and_never_expanded(stage: Stage) -> None:
    zeros = b"\0" * 64 * 1024**2
    # A gigabyte, as one file of many.
    bomb = gzip.compress(zeros) * 15
    assert MAX_BODY * 0.9 < len(bomb) < MAX_BODY
    bombs = [
        (b"gzip", bomb),
        (b"x-gzip", bomb),
        (b"gzip, gzip", gzip.compress(bomb)),
        (b"deflate", zlib.compress(zeros)),
        (b"br", b"\x5b\xff\xff\x3f\x00" * 100),
        (b"zstd", b"\x28\xb5\x2f\xfd" + b"\0" * 100),
        (b"identity, gzip", bomb[:100_000]),
    ]

    async def attack(number: int) -> None:
        coding, body = bombs[number % len(bombs)]
        door = stage.doors[number % len(stage.doors)]
        request = door.request(stage.host, body=body).having(b"Content-Encoding", coding)
        assert (await ask(stage.port, request.wire())).status == 415
        # Where it is the transfer that is compressed, that is no HTTP.
        request = request.having(b"Content-Encoding").having(b"Content-Length")
        request = request.having(b"Transfer-Encoding", b"gzip")
        async with connection(stage.port) as opened:
            await opened.send([request.wire()])
            await opened.end(GIVEN_UP)
            assert [one.status for one in answers(bytes(opened.received))[0]] in ([], [400])

    async with nothing_gets_in(stage):
        await many(70, 7, attack)
    await stage.is_well()


def wrong_lengths(request: Request) -> list[Request]:
    """The same, each with another Content-Length that is none, or not this body's."""
    size = len(request.body)
    odd = ["0", "-1", f"+{size}", f"{size:#x}", f"{size}, {size}", f"{size} {size}", f"{size}.0", "", " "]
    huge = ["9" * 30, "18446744073709551616", "9223372036854775807", "1048577"]
    several = [[str(size)] * 2, [str(size), str(size - 1)]]
    given = [*([one] for one in (*odd, *huge, str(size - 1), str(size + 1))), *several]
    chunks = replace(request, body=b"%x\r\n%s\r\n0\r\n\r\n" % (size, request.body))
    return [
        *(request.having(b"Content-Length", *(value.encode() for value in values)) for values in given),
        chunks.having(b"Content-Length", b"%d" % size, b"%d" % len(chunks.body)),
        replace(chunks, headers=[*chunks.headers, (b"Transfer-Encoding", b"chunked")]),
    ]


async def test_a_content_length_that_is_wrong_gets_nothing_in(stage: Stage) -> None:
    async def attack(request: Request) -> None:
        async with connection(stage.port) as opened:
            await opened.send([request.wire()])
            answer = await opened.answer(GIVEN_UP)
            assert answer.status in (400, 401, 408, 413), (request.wire(), answer)
            assert await opened.end(GIVEN_UP), request.wire()
            assert all(one.status == 400 for one in answers(bytes(opened.received))[0]), request.wire()

    async with nothing_gets_in(stage), asyncio.TaskGroup() as tasks:
        for door in stage.doors:
            for request in wrong_lengths(door.request(stage.host)):
                tasks.create_task(attack(request))


async def test_the_same_delivery_again_is_taken_and_not_run_again(stage: Stage) -> None:
    for door in stage.doors:
        request = door.request(stage.host)
        told = await asyncio.gather(*(ask(stage.port, request.wire()) for _ in range(20)))
        assert {answer.status for answer in told} == {200}
        assert (await ask(stage.port, request.wire())).status == 200
        assert await stage.times_kept(door.endpoint, request) == 1


async def test_a_signature_of_more_than_five_minutes_ago_or_ahead_is_refused(stage: Stage) -> None:
    timed = [door for door in stage.doors if door.stamp is not None]
    assert {door.channel for door in timed} == {"slack", "signed"}
    for door in timed:
        fresh = door.request(stage.host, age=TOLERANCE - 60)
        assert (await ask(stage.port, fresh.wire())).status == 200
        for age in (TOLERANCE + 30, -TOLERANCE - 30, 1e6, -1e6):
            request = door.request(stage.host, age=age)
            assert (await ask(stage.port, request.wire())).status == 401
            assert await stage.times_kept(door.endpoint, request) == 0
            # Under a fresh time that was not signed it is no better.
            stamp = dict(door.request(stage.host).headers)[door.stamp or b""]
            assert (await ask(stage.port, request.having(door.stamp or b"", stamp).wire())).status == 401


async def test_ten_thousand_endpoints_guessed_are_not_there_and_cost_little(stage: Stage) -> None:
    said: set[tuple[int, bytes]] = set()
    channels = [door.channel for door in stage.doors]
    at_once = 50

    async def guess(number: int) -> None:
        async with connection(stage.port) as opened:
            for each in range(GUESSES // at_once):
                path = f"/webhooks/{channels[each % 5]}/{uuid4()}".encode()
                await opened.send([Request(path, [(b"Host", b"x"), (b"Content-Length", b"2")], b"{}").wire()])
                answer = await opened.answer(ANSWER_SECONDS)
                said.add((answer.status, answer.body))

    for door in stage.doors:
        await stage.post(door)
    looked = await looks(stage)
    async with others_are_served(stage), nothing_stays_open(stage):
        await many(at_once, at_once, guess)
    assert len(said) == 1
    ((status, body),) = said
    assert (status, b"not_found" in body) == (404, True)
    await asyncio.sleep(1.2)  # PostgreSQL counts once a second, at the end of a transaction
    await stage.is_well()
    # What comes while a look is under way shares the next one.
    print(f"hostile: {GUESSES} guesses, {await looks(stage) - looked} looks into the table")
    assert await looks(stage) - looked < GUESSES / 4


async def looks(stage: Stage) -> int:
    """How often endpoints were looked for in the database, as far as it has been counted."""
    await stage.database.execute("select pg_stat_clear_snapshot()")
    return int(
        await stage.database.fetchval(
            "select seq_scan + coalesce(idx_scan, 0) from pg_stat_user_tables where relname = $1",
            "channel_endpoints",
        )
    )


async def test_a_guess_is_answered_as_what_is_not_there_at_all(stage: Stage) -> None:
    door, other = stage.doors[0], stage.doors[1]
    paths = [
        *(f"/webhooks/{door.channel}/{uuid4()}", f"/webhooks/{other.channel}/{door.endpoint}"),
        *("/webhooks/", "/webhooks/nothing", f"/webhooks/nothing/{door.endpoint}"),
    ]
    told = [
        await ask(stage.port, replace(door.request(stage.host), target=path.encode()).wire())
        for path in paths
    ]
    assert len({(answer.status, answer.body) for answer in told}) == 1
    assert told[0].status == 404


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(1, b"x", reserved=4), 1002),
        (frame(3, b"x"), 1002),
        (frame(1, b"x", masked=False), 1002),
        (frame(9, b"x", final=False), 1002),
        (frame(9, b"x" * 126), 1002),
        (frame(0, b"x"), 1002),
        (frame(1, b"x", final=False) + frame(1, b"x"), 1002),
        (frame(1, b"\xff\xfe"), 1007),
        (frame(8, b"\x03"), 1002),
        (frame(8, b"\x03\xed"), 1002),
        (bytes([0x82, 0xFF]) + (1 << 63).to_bytes(8, "big") + b"\0\0\0\0", 1009),
        (bytes([0x82, 0xFF]) + (25 * 1024**2 + 1).to_bytes(8, "big") + b"\0\0\0\0", 1009),
    ],
    ids=lambda given: given.hex()[:12] if isinstance(given, bytes) else None,
)
async def test_a_frame_that_is_none_ends_the_socket_in_order(stage: Stage, bad: bytes, code: int) -> None:
    async with connection(stage.port) as opened:
        await opened.send([stage.handshake(2)])
        assert (await opened.answer(ANSWER_SECONDS)).status == 101
        await opened.send([frame(1, b"before")])
        while not frames(bytes(opened.received))[0]:
            assert await opened.read(ANSWER_SECONDS)
        await opened.send([bad])
        assert await opened.end(GIVEN_UP)
        first, *_, last = frames(bytes(opened.received))[0]
        assert first == Frame(1, True, b"before")
        assert (last.opcode, int.from_bytes(last.payload[:2], "big")) == (8, code)


async def test_handshakes_of_strangers_are_refused_while_others_are_served(stage: Stage) -> None:
    good = stage.handshake()
    cookie = next(line for line in good.split(b"\r\n") if line.startswith(b"Cookie"))
    strangers = [
        good.replace(cookie, b"Cookie: ocmt=guessed"),
        good.replace(cookie + b"\r\n", b""),
        good.replace(b"Origin: http://", b"Origin: http://evil."),
        good.replace(cookie, b"Authorization: Bearer guessed"),
    ]

    async def attack(number: int) -> None:
        answer = await ask(stage.port, strangers[number % len(strangers)])
        assert answer.status in (401, 403), answer

    async with others_are_served(stage), nothing_stays_open(stage):
        await many(400, 20, attack)
