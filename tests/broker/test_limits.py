"""What the broker refuses: too many calls for a turn, too many tokens a day, too much at once."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from ocmt.broker.admission import Admission, Bounds, Seat
from ocmt.broker.model import RunningTurn
from ocmt.broker.wire import Answer
from ocmt.testing.anthropic import Stalled, Streamed
from ocmt.testing.clock import VirtualClock
from tests.broker.conftest import Serve, World

pytestmark = pytest.mark.anyio


async def call(world: World, token: str, words: str = "hello", **body: Any) -> int:
    async with world.ask(token, words, **body) as response:
        await response.read()
        return int(response.status)


async def test_parallel_calls_cannot_pass_the_limit_of_a_turn_together(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve(turn_call_limit=5)
    user_id, token = await world.add_user()
    statuses = await asyncio.gather(*(call(world, token) for _ in range(12)))
    assert sorted(statuses) == [200] * 5 + [400] * 7
    assert len(world.anthropic.seen) == 5
    assert await world.ledger.calls_in_turn(user_id, turn.turn_id) == 5


async def test_the_limit_stops_openclaw_at_once_and_the_user_reads_why(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve(turn_call_limit=1)
    user_id, token = await world.add_user()
    assert await call(world, token) == 200
    for _ in range(3):
        async with world.ask(token) as response:
            assert (await response.json())["error"]["message"] == "The platform ended this call."
    fault = await world.ledger.last_fault(user_id, turn.turn_id)
    assert fault is not None
    assert (fault.code, fault.retryable) == ("turn_call_limit", False)
    assert "1 model calls for this message" in fault.message
    assert len(await world.rows(user_id)) == 2, "one call and one refusal, however often it is asked"


async def test_the_next_turn_has_an_allowance_of_its_own_and_so_has_a_second_attempt(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve(turn_call_limit=1)
    _, token = await world.add_user()
    assert [await call(world, token), await call(world, token)] == [200, 400]
    world.turns[:] = [RunningTurn(uuid7(), "another")]
    assert await call(world, token) == 200
    await world.clock.advance(1)
    world.turns[:] = [RunningTurn(turn.turn_id, turn.text, started_at=world.clock.now())]
    assert [await call(world, token), await call(world, token)] == [200, 400]


async def test_calls_outside_any_turn_share_an_hourly_allowance(world: World, serve: Serve) -> None:
    await serve(turn_call_limit=2)
    user_id, token = await world.add_user()
    assert [await call(world, token) for _ in range(3)] == [200, 200, 400]
    await world.clock.advance(3601)
    assert await call(world, token) == 200
    codes = [row["error_code"] for row in await world.rows(user_id)]
    assert codes == [None, None, "hourly_call_limit", None]


async def test_the_tokens_of_a_day_are_limited_and_the_next_day_is_new(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve(daily_token_limit=1000)
    user_id, token = await world.add_user()
    _, others_token = await world.add_user()
    world.anthropic.script(Streamed(input_tokens=600, output_tokens=500))
    assert await call(world, token) == 200
    assert await call(world, token) == 400
    fault = await world.ledger.last_fault(user_id, turn.turn_id)
    assert fault is not None
    assert fault.code == "daily_token_limit"
    assert "1,000 tokens" in fault.message
    assert await call(world, others_token) == 200, "each user has a budget of their own"
    midnight = (world.clock.now() + timedelta(days=1)).replace(hour=0)
    await world.clock.advance((midnight - world.clock.now()).total_seconds())
    assert await call(world, token) == 200


async def test_a_call_under_way_already_counts_with_an_estimate(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve(daily_token_limit=1000)
    _, token = await world.add_user()
    rest = asyncio.Event()
    world.anthropic.script(Streamed("One two", hold=rest))
    async with world.ask(token) as response:
        await response.content.readany()
        assert await call(world, token) == 400
        rest.set()
        await response.read()
    assert await call(world, token) == 200, "the real count is far smaller"


async def test_a_call_that_a_killed_process_left_open_still_counts(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve(turn_call_limit=1)
    user_id, token = await world.add_user()
    assert await call(world, token) == 200
    async with world.database.connection() as connection:
        await connection.execute("update model_calls set finished_at = null, input_tokens = 77")
    assert await call(world, token) == 400
    assert await world.ledger.tokens_today(user_id) >= 77
    await world.clock.advance(1800)
    assert (await world.ledger.used_today(user_id)).unfinished == 1


async def test_a_call_of_which_nothing_came_back_keeps_its_estimate(
    world: World, serve: Serve, turn: RunningTurn
) -> None:
    await serve()
    user_id, token = await world.add_user()
    world.anthropic.script(Stalled())
    assert await call(world, token, "x" * 4000) == 529
    assert await world.ledger.tokens_today(user_id) > 1000


def session_of(conversation: UUID) -> dict[str, object]:
    line = f"Runtime: agent=main | session=agent:main:web:{conversation} | sessionId=x | host=vm"
    return {"system": [{"type": "text", "text": "You are …"}, {"type": "text", "text": line}]}


async def test_with_several_turns_a_call_belongs_to_the_one_it_names_or_carries_else_the_oldest(
    world: World, serve: Serve
) -> None:
    await serve()
    user_id, token = await world.add_user()
    conversation = uuid7()
    oldest, second, named = (
        RunningTurn(uuid7(), "first words"),
        RunningTurn(uuid7(), "second\n words"),
        RunningTurn(uuid7(), "hm", conversation_id=conversation),
    )
    world.turns[:] = [oldest, second, named]
    await call(world, token, "something else")
    await call(world, token, "[Mon 2026-11-23 15:22 UTC] second words")
    await call(world, token, "first words", **session_of(conversation))
    assert [row["turn_id"] for row in await world.rows(user_id)] == [
        one.turn_id for one in (oldest, second, named)
    ]


async def test_a_user_cannot_hold_more_than_so_many_calls_or_bytes_at_once() -> None:
    admission = Admission(VirtualClock(), Bounds(calls=1, bytes=10, all_bytes=15, own_bytes=0))
    user_id, other = uuid7(), uuid7()

    async def read(seat: Seat, data: bytes) -> bytes:
        await seat.read_body({"headers": []}, body_of(data), limit=99, timeout=1, grace=1)
        return bytes(seat.body)

    with admission.seat(user_id), admission.seat(other) as seat:
        with pytest.raises(Answer, match="at once"), admission.seat(user_id):
            pass
        assert await read(seat, b"123456") == b"123456"
        with pytest.raises(Answer, match="large"):
            await read(seat, b"12345")
    with admission.seat(user_id) as seat:
        assert await read(seat, b"1234567890")
        with admission.seat(other) as another, pytest.raises(Answer, match="large"):
            await read(another, b"123456")
        seat.give_back()
        with admission.seat(other) as another:
            assert await read(another, b"123456")


async def test_what_a_user_has_for_certain_the_others_can_not_take() -> None:
    admission = Admission(VirtualClock(), Bounds(bytes=100, all_bytes=150, own_bytes=10))
    users = [uuid7() for _ in range(3)]
    with ExitStack() as held:
        seats = [held.enter_context(admission.seat(user)) for user in users]
        seats[0].take(100)
        seats[1].take(70)
        with pytest.raises(Answer, match="large"):
            seats[1].take(1)
        seats[2].take(10)
        with pytest.raises(Answer, match="large"):
            seats[2].take(1)
        seats[0].give_back()
        seats[2].take(90)


async def test_calls_have_a_rate_which_is_asked_before_anything_is_read() -> None:
    clock = VirtualClock()
    admission = Admission(clock, Bounds(calls_per_second=1, burst=3))
    user_id = uuid7()

    for _ in range(3):
        admission.knock(user_id)
    with pytest.raises(Answer) as refused:
        admission.knock(user_id)
    assert (refused.value.status, refused.value.error_type) == (429, "rate_limit_error")
    admission.knock(uuid7())
    await clock.advance(1)
    admission.knock(user_id)


def body_of(data: bytes):  # type: ignore[no-untyped-def]
    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": data, "more_body": False}

    return receive


async def test_the_demo_model_leaves_the_real_budget_alone(world: World, serve: Serve) -> None:
    await serve(demo_model=True)
    user_id, token = await world.add_user()
    assert await call(world, token, "hello", stream=False) == 200
    assert await world.ledger.tokens_today(user_id) == 0
    used = await world.ledger.used_today(user_id)
    assert (used.calls, used.tokens) == (1, 0)
    assert used.input_tokens > 0
