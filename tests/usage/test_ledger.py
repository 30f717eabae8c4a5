"""The ledger by itself; that the broker keeps to it is in tests/broker/test_limits.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from fastapi import FastAPI
from uuid_utils.compat import uuid7

from ocmt.platform.database import Database
from ocmt.platform.principal import Principal
from ocmt.platform.storage import Budgets, used
from ocmt.testing.clock import VirtualClock
from ocmt.usage.model import CallRefused, Fault, Limits, NewCall, Tokens, Usage, refusal
from ocmt.usage.routes import routes
from ocmt.usage.service import Ledger
from tests.accounts import make_user
from tests.identity.browser import Browser

pytestmark = pytest.mark.anyio
LIMITS = Limits(turn_calls=3, daily_tokens=1_000)


@pytest.fixture
def ledger(database: Database, clock: VirtualClock) -> Ledger:
    return Ledger(database, clock)


@pytest.fixture
async def user_id(database: Database) -> UUID:
    return await make_user(database, "a@example.org")


def call_of(user_id: UUID, turn_id: UUID | None, *, estimated_tokens: int = 0) -> NewCall:
    return NewCall(user_id, turn_id, "anthropic", "claude", "user", estimated_tokens)


@pytest.mark.parametrize(
    ("calls", "tokens", "in_turn", "code"),
    [
        (3, 0, True, "turn_call_limit"),
        (3, 0, False, "hourly_call_limit"),
        (0, 1_000, True, "daily_token_limit"),
    ],
)
def test_the_limits(calls: int, tokens: int, in_turn: bool, code: str) -> None:
    assert refusal(calls=calls, tokens=tokens, limits=LIMITS, in_turn=in_turn).code == code


async def test_of_many_at_once_only_as_many_open_as_may(ledger: Ledger, user_id: UUID) -> None:
    turn_id = uuid7()
    opened = await asyncio.gather(
        *(ledger.open_call(call_of(user_id, turn_id), LIMITS) for _ in range(9)), return_exceptions=True
    )
    assert sum(isinstance(one, UUID) for one in opened) == 3
    assert sum(isinstance(one, CallRefused) for one in opened) == 6


async def test_the_estimate_stands_until_better_is_known(ledger: Ledger, user_id: UUID) -> None:
    known = await ledger.open_call(call_of(user_id, None, estimated_tokens=400), LIMITS)
    unknown = await ledger.open_call(call_of(user_id, None, estimated_tokens=300), LIMITS)
    assert await ledger.tokens_today(user_id) == 700
    await ledger.close_call(known, user_id=user_id, status=200, tokens=Tokens(1, 2, 50, 4), fault=None)
    await ledger.close_call(unknown, user_id=user_id, status=None, tokens=None, fault=Fault("x", "y"))
    assert await ledger.tokens_today(user_id) == 1 + 2 + 5 + 4 + 300


async def test_the_first_closing_counts_and_only_the_owners(ledger: Ledger, user_id: UUID) -> None:
    turn_id = uuid7()
    call = await ledger.open_call(call_of(user_id, turn_id), LIMITS)
    await ledger.close_call(call, user_id=uuid7(), status=200, tokens=Tokens(99, 99), fault=None)
    await ledger.close_call(call, user_id=user_id, status=200, tokens=Tokens(5, 6), fault=None)
    await ledger.close_call(call, user_id=user_id, status=500, tokens=Tokens(), fault=Fault("late", "late"))
    assert await ledger.turn_usage(user_id, turn_id) == Usage(5, 6, 1)
    assert await ledger.turn_usage(uuid7(), turn_id) == Usage(0, 0, 0)


async def test_the_fault_of_a_turn_is_that_of_its_last_call(
    ledger: Ledger, user_id: UUID, clock: VirtualClock
) -> None:
    turn_id = uuid7()
    assert await ledger.last_fault(user_id, turn_id) is None
    for fault in (Fault("provider_overloaded", "Busy."), None, Fault("client_gone", "…")):
        call = await ledger.open_call(call_of(user_id, turn_id), LIMITS)
        await ledger.close_call(call, user_id=user_id, status=None, tokens=Tokens(), fault=fault)
        last = await ledger.last_fault(user_id, turn_id)
        assert last == (fault if fault and fault.code != "client_gone" else None)
        await clock.advance(1)
    with pytest.raises(CallRefused):
        await ledger.open_call(call_of(user_id, turn_id), LIMITS)
    last = await ledger.last_fault(user_id, turn_id)
    assert last is not None
    assert last.code == "turn_call_limit"


async def test_people_see_today_this_month_and_their_limits(
    ledger: Ledger, user_id: UUID, clock: VirtualClock, database: Database
) -> None:
    for _ in range(2):
        call = await ledger.open_call(call_of(user_id, None), LIMITS)
        await ledger.close_call(call, user_id=user_id, status=200, tokens=Tokens(10, 1), fault=None)
        await clock.advance(timedelta(days=1).total_seconds())
    await ledger.open_call(call_of(user_id, None), LIMITS)
    await clock.advance(timedelta(hours=1).total_seconds())
    app = FastAPI()
    app.include_router(
        routes(ledger, LIMITS, partial(used, database, budgets=Budgets(conversations=7))), prefix="/api/v1"
    )

    async def signed_in(scope, receive, send):  # type: ignore[no-untyped-def]
        scope["state"] = {"principal": Principal(user_id, None, "a@example.org")}
        await app(scope, receive, send)

    shown = (await Browser(signed_in).call("GET", "/api/v1/usage")).json()
    assert (shown["today"]["calls"], shown["today"]["unfinished"]) == (1, 1)
    assert (shown["month"]["calls"], shown["month"]["tokens"]) == (3, 22)
    assert shown["limits"] == {"turn_calls": 3, "daily_tokens": 1000}
    assert [one["store"] for one in shown["storage"]] == [
        "conversations",
        "deliveries",
        "attachments",
        "snapshots",
    ]
    assert shown["storage"][0] == {
        "store": "conversations",
        "count": 0,
        "bytes": 0,
        "most_count": 7,
        "most_bytes": 512 * 1024**2,
        "refused_at": None,
    }
    assert shown["storage"][3]["most_bytes"] == 4 * 1024**3


async def test_the_demo_models_tokens_are_shown_and_neither_counted_nor_limited(
    ledger: Ledger, user_id: UUID
) -> None:
    """What Settings show, its bar as its words, is what holds."""
    limits = Limits(turn_calls=100, daily_tokens=1000)
    demo = replace(call_of(user_id, None), key_source="demo", estimated_tokens=5_000_000)
    for _ in range(3):
        call = await ledger.open_call(demo, limits)
        await ledger.close_call(call, user_id=user_id, status=200, tokens=Tokens(5_000_000, 9), fault=None)
    used = await ledger.used_today(user_id)
    assert (used.calls, used.input_tokens, used.tokens) == (3, 15_000_000, 0)
    assert await ledger.tokens_today(user_id) == 0
    await ledger.open_call(call_of(user_id, None), limits)
    few = Limits(turn_calls=4, daily_tokens=0)
    with pytest.raises(CallRefused):
        await ledger.open_call(demo, few)
