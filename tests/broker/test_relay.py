"""The way of a model call: agent → broker → Anthropic and back, over real sockets."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from structlog.testing import capture_logs

from ocmt.broker.model import RunningTurn
from ocmt.testing.anthropic import BrokeDown, Broken, Failed, Raw, Stalled, Streamed
from ocmt.usage.model import Usage
from tests.broker.conftest import KEY, PLATFORM_KEY, Serve, World

pytestmark = pytest.mark.anyio


async def test_every_byte_of_a_stream_passes_untouched(world: World, serve: Serve) -> None:
    pieces = (
        b"event: mess",
        b"age_start\r\nda",
        b"ta: {\xc3",
        b"\xa9}\n\n:comment\n\n",
        b"event: message_stop\n",
    )
    stop = b'data: {"type":"message_stop"}\n\n: and no line end'
    await serve()
    _, token = await world.add_user()
    world.anthropic.script(Raw((*pieces, stop)))
    async with world.ask(token) as response:
        assert await response.read() == b"".join(pieces) + stop
        assert response.content_type == "text/event-stream"


async def test_the_first_words_arrive_while_the_provider_still_speaks(world: World, serve: Serve) -> None:
    await serve()
    _, token = await world.add_user()
    rest = asyncio.Event()
    world.anthropic.script(Streamed("One two three", hold=rest))
    async with world.ask(token) as response:
        seen = b""
        while b"One" not in seen:
            seen += await response.content.readany()
        assert b"two" not in seen
        rest.set()
        assert b"three" in await response.read()


async def test_the_provider_gets_the_users_key_and_the_agents_words_and_nothing_else_of_it(
    world: World, serve: Serve
) -> None:
    await serve()
    _, token = await world.add_user()
    async with world.ask(token, "hello there", path="/v1/messages?beta=true") as response:
        await response.read()
    seen = await world.anthropic.request()
    assert (seen.path, seen.query) == ("/v1/messages", "beta=true")
    assert seen.headers["x-api-key"] == KEY
    assert seen.headers["anthropic-version"] == "2023-06-01"
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.body["messages"] == [{"role": "user", "content": "hello there"}]
    assert token not in json.dumps(dict(seen.headers))


async def test_a_call_is_booked_with_its_turn_and_tokens_before_the_agent_sees_its_end(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve()
    user_id, token = await world.add_user()
    world.anthropic.script(Streamed("Hi", input_tokens=7, output_tokens=3, cache_read=100, cache_write=20))
    async with world.ask(token) as response:
        seen = b""
        while b"message_stop" not in seen:
            seen += await response.content.readany()
        assert await world.ledger.turn_usage(user_id, turn.turn_id) == Usage(127, 3, 1)
    (row,) = await world.rows(user_id)
    assert (row["status"], row["error_code"], row["key_source"]) == (200, None, "user")
    assert (row["cache_read_tokens"], row["cache_write_tokens"]) == (100, 20)


async def test_an_answer_that_is_not_streamed_passes_and_is_booked(world: World, serve: Serve) -> None:
    await serve()
    user_id, token = await world.add_user()
    async with world.ask(token, stream=False) as response:
        answer = await response.json()
    assert answer["content"] == [{"type": "text", "text": "Hello from Claude."}]
    (row,) = await world.rows(user_id)
    assert (row["input_tokens"], row["output_tokens"]) == (25, 12)


async def test_an_agent_that_hangs_up_ends_the_call_to_the_provider(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    broker = await serve()
    user_id, token = await world.add_user()
    world.anthropic.script(Streamed("One two", hold=asyncio.Event()))
    async with world.ask(token) as response:
        await response.content.readany()
    seen = await world.anthropic.request()
    async with asyncio.timeout(5):
        await seen.hung_up.wait()
        while not (rows := [row for row in await world.rows(user_id) if row["finished_at"]]):
            await broker.drain()
    assert rows[0]["error_code"] == "client_gone"
    assert rows[0]["input_tokens"] == 25, "what was seen is booked"
    assert await world.ledger.last_fault(user_id, turn.turn_id) is None


async def test_a_slow_agent_slows_the_provider_down(world: World, serve: Serve) -> None:
    """64 MB are on offer and nobody reads: what is in flight must stay far below that."""
    written = 0

    class Flood(Raw):
        async def play(self, request, seen):  # type: ignore[no-untyped-def]
            nonlocal written
            response = aiohttp.web.StreamResponse(headers=self.headers)
            await response.prepare(request)
            for _ in range(1024):
                await response.write(b": " + b"x" * 65533 + b"\n")
                written += 65536
            return response

    await serve()
    _, token = await world.add_user()
    world.anthropic.script(Flood(()))
    async with world.ask(token):
        last = -1
        while written != last:
            last = written
            await asyncio.sleep(0.2)
        assert 0 < written < 32 * 1024 * 1024


async def test_a_token_serves_only_at_its_own_users_listener(world: World, serve: Serve) -> None:
    alice, alices = await world.add_user()
    _, bobs = await world.add_user()
    await serve(user_id=alice)
    async with world.ask(bobs) as response:
        assert response.status == 401
        assert (await response.json())["error"]["type"] == "authentication_error"
    async with world.ask("") as response:
        assert response.status == 401
    headers = {"authorization": f"Bearer {alices}", "anthropic-version": "2023-06-01"}
    async with world.http.post(
        f"{world.url}/v1/messages", json={"model": "m", "messages": []}, headers=headers
    ) as response:
        assert response.status == 200
    assert len(world.anthropic.seen) == 1


async def test_other_paths_and_methods_do_not_exist(world: World, serve: Serve) -> None:
    await serve()
    _, token = await world.add_user()
    async with world.ask(token, path="/v1/models") as response:
        assert response.status == 404
        assert (await response.json())["type"] == "error"
    async with world.http.get(f"{world.url}/v1/messages") as response:
        assert response.status == 404


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b'{"model": 1}', b"[" * 100_000, b'{"model": "a\\u0000b"}']
)
async def test_a_body_that_makes_no_sense_is_refused(world: World, serve: Serve, body: bytes) -> None:
    await serve()
    _, token = await world.add_user()
    async with world.send(token, body) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_too_long_a_body_is_refused_also_without_a_length(world: World, serve: Serve) -> None:
    await serve()
    _, token = await world.add_user()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(33 * 16):
            yield b" " * 65536

    for data in (io.BytesIO(b" " * (33 * 1024 * 1024)), endless()):
        try:
            async with world.send(token, data) as response:
                assert response.status == 413
        except aiohttp.ClientConnectionError:
            # The broker hung up on the rest of it: as good.
            pass
    assert not world.anthropic.seen


@pytest.mark.parametrize(
    ("answer", "code", "status"),
    [
        (Failed(401, "authentication_error", "invalid x-api-key"), "provider_key_refused", 400),
        (Failed(403, "permission_error", "not allowed"), "provider_key_refused", 400),
        (Failed(402, "billing_error", "payment"), "provider_credit", 400),
        (Failed(400, "invalid_request_error", "Your credit balance is too low"), "provider_credit", 400),
        (Failed(400, "invalid_request_error", "prompt is too long"), "provider_refused_request", 400),
        (Failed(404, "not_found_error", "model: none"), "provider_refused_request", 404),
        (Failed(429, "rate_limit_error", "slow", {"retry-after": "7"}), "provider_rate_limited", 429),
        (Failed(529, "overloaded_error", "Overloaded"), "provider_overloaded", 529),
        (Failed(500, "api_error", "oops"), "provider_failed", 500),
        (Failed(302, "x", "y", {"location": "http://127.0.0.1:1/"}), "provider_failed", 500),
        (Stalled(), "provider_timeout", 529),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_what_the_provider_says_no_with_is_known_in_plain_words(
    world: World, serve: Serve, turn: RunningTurn, answer: Failed, code: str, status: int
) -> None:
    await serve()
    user_id, token = await world.add_user()
    world.anthropic.script(answer)
    async with world.ask(token) as response:
        told = await response.json()
        assert response.status == status
        fault = await world.ledger.last_fault(user_id, turn.turn_id)
    assert fault is not None
    assert fault.code == code
    assert fault.retryable == bool(world.notices), "who is to wait is told so"
    if code in ("provider_key_refused", "provider_credit"):
        assert told["error"] == {"type": "ocmt_refused", "message": "The platform ended this call."}
    if code == "provider_refused_request":
        assert answer.message in fault.message
    if code == "provider_rate_limited":
        assert response.headers["retry-after"] == "7"


async def test_an_unreachable_provider_is_named_so(world: World, serve: Serve, turn: RunningTurn) -> None:
    await serve(anthropic_url="http://127.0.0.1:9")
    user_id, token = await world.add_user()
    async with world.ask(token) as response:
        assert response.status == 529
    fault = await world.ledger.last_fault(user_id, turn.turn_id)
    assert fault is not None
    assert fault.code == "provider_unreachable"
    assert await world.ledger.tokens_today(user_id) == 0


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Broken(), "provider_broke_off"),
        (Broken(mid_event=True), "provider_broke_off"),
        (Stalled("Hel"), "provider_timeout"),
        (BrokeDown(), "provider_overloaded"),
    ],
)
async def test_a_stream_that_breaks_off_ends_in_an_error_event_and_books_what_was_seen(
    world: World, serve: Serve, turn: RunningTurn, answer: Broken, code: str
) -> None:
    await serve()
    user_id, token = await world.add_user()
    world.anthropic.script(answer)
    async with world.ask(token) as response:
        body = await response.read()
    assert b"Hel" in body
    assert b"overloaded_error" in body.split(b"event: error\n", 1)[1]
    (row,) = await world.rows(user_id)
    assert (row["error_code"], row["input_tokens"]) == (code, 25)
    assert body.count(b"content_block_delta") == 2, "what was cut in the middle is not passed on"
    assert [turn_id for turn_id, _ in world.notices] == [turn.turn_id]


async def test_the_key_leaks_neither_into_answers_nor_the_log_nor_the_ledger(
    world: World, serve: Serve
) -> None:
    await serve()
    user_id, token = await world.add_user()
    world.anthropic.script(
        Failed(401, "authentication_error", f"bad key {KEY}"),
        Failed(400, "invalid_request_error", f"no {KEY} no"),
        Broken(),
        Streamed(),
    )
    heard = b""
    with capture_logs() as logs:
        for _ in range(4):
            async with world.ask(token) as response:
                heard += await response.read() + repr(response.headers).encode()
    assert KEY.encode() not in heard
    assert KEY not in repr(logs) + repr(await world.rows(user_id))
    assert token not in repr(logs)


async def test_the_users_key_goes_before_the_platforms_and_the_demo_model_comes_last(
    world: World, serve: Serve
) -> None:
    broker = await serve(platform_key=PLATFORM_KEY)
    with_key, token_with = await world.add_user()
    without, token_without = await world.add_user(key=None)
    for token in (token_with, token_without):
        async with world.ask(token) as response:
            await response.read()
    assert [seen.headers["x-api-key"] for seen in world.anthropic.seen] == [KEY, PLATFORM_KEY]
    assert [(await broker.model_for(one)).kind for one in (with_key, without)] == ["user", "platform"]
    assert (await world.broker().model_for(without)).kind == "demo"
    assert (await world.broker(platform_key=PLATFORM_KEY, demo_model=True).model_for(with_key)).kind == "demo"


async def test_a_key_that_no_longer_opens_is_said_to_the_user_and_not_replaced_by_another(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve(platform_key=PLATFORM_KEY)
    user_id, token = await world.add_user()
    async with world.database.connection() as connection:
        await connection.execute("update vault_items set version = 7")
    async with world.ask(token) as response:
        assert response.status == 400
    fault = await world.ledger.last_fault(user_id, turn.turn_id)
    assert fault is not None
    assert "still stored" in fault.message
    assert not world.anthropic.seen


async def test_counting_tokens_is_passed_on_and_is_a_call_without_tokens(world: World, serve: Serve) -> None:
    await serve(turn_call_limit=2)
    user_id, token = await world.add_user()
    _, without = await world.add_user(key=None)
    async with world.ask(token, path="/v1/messages/count_tokens") as response:
        assert await response.json() == {"input_tokens": 42}
    async with world.ask(without, path="/v1/messages/count_tokens") as response:
        assert (await response.json())["input_tokens"] > 10
    (row,) = await world.rows(user_id)
    assert (row["status"], row["input_tokens"], row["output_tokens"]) == (200, 0, 0)
    statuses = []
    for _ in range(2):
        async with world.ask(token, path="/v1/messages/count_tokens") as response:
            statuses.append(response.status)
    assert statuses == [200, 400], "it counts against the limit of calls"
