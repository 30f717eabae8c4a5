"""Holds: named reasons to stay awake, that last as long as what needs the agent, and no longer."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from ocmt.agents import holds as holds_module
from ocmt.agents.holds import TTL, WORDS, Holds, words
from ocmt.agents.model import Hold
from ocmt.agents.service import MAX_HOLDS, Agents
from ocmt.errors import LimitReached, Unavailable
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock
from tests.agents.replica import until

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)


@pytest.fixture
def agents(database: Database, clock: VirtualClock) -> Agents:
    return Agents(database, clock, runtime="fake")


@pytest.fixture
def holds(agents: Agents, clock: VirtualClock) -> Holds:
    return Holds(agents, clock)


async def reasons(agents: Agents, user_id: UUID) -> list[str]:
    return [hold.reason for hold in (await agents.find(user_id)).holds]


@pytest.mark.parametrize("reason", WORDS)
async def test_every_reason_can_be_held_and_has_words(agents: Agents, anna: UUID, reason: str) -> None:
    await agents.find(anna)
    await agents.hold(anna, reason, "1", ttl=MINUTE)
    (hold,) = (await agents.find(anna)).holds
    assert hold.reason == reason
    assert words(hold)[0].isupper()


def test_an_operators_words_are_shown_with_the_reason() -> None:
    assert words(Hold("operator", "cli", None, "a demo")) == "An operator keeps it awake: a demo"


async def test_a_hold_runs_out_by_itself(agents: Agents, anna: UUID, clock: VirtualClock) -> None:
    await agents.find(anna)
    await agents.hold(anna, "socket", "1", ttl=MINUTE)
    await clock.advance(59)
    assert await reasons(agents, anna) == ["socket"]
    await clock.advance(1)
    assert await reasons(agents, anna) == []


async def test_it_lasts_as_long_as_what_holds(
    holds: Holds, agents: Agents, anna: UUID, clock: VirtualClock
) -> None:
    async with holds.held(anna, "transfer", "notes.txt"):
        for _ in range(10):
            await clock.wait_for_sleepers()
            await clock.advance(TTL.total_seconds() / 3)
            assert await reasons(agents, anna) == ["transfer"]
    assert await reasons(agents, anna) == []


async def test_it_is_given_up_when_what_holds_fails(holds: Holds, agents: Agents, anna: UUID) -> None:
    async def fail() -> None:
        async with holds.held(anna, "transfer", "notes.txt"):
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await fail()
    assert await reasons(agents, anna) == []


async def test_it_survives_a_database_that_is_away_for_a_while(
    holds: Holds, agents: Agents, anna: UUID, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = TTL.total_seconds() / 3
    tried = 0

    async def away(*_: object, **__: object) -> None:
        nonlocal tried
        tried += 1
        raise Unavailable("The database does not answer just now.")

    async with holds.held(anna, "delivery", "7"):
        await clock.wait_for_sleepers()
        with monkeypatch.context() as patched:
            patched.setattr(Agents, "hold", away)
            patched.setattr(Agents, "release", away)
            for _ in range(2):
                await clock.advance(third)
                await clock.wait_for_sleepers()
        assert tried == 2
        assert await reasons(agents, anna) == ["delivery"], "it has not run out yet"
        await clock.advance(third)
        await until(lambda: clock.sleepers > 0)
        await clock.advance(third * 2)
        assert await reasons(agents, anna) == ["delivery"], "it was renewed as soon as that was possible"
    assert await reasons(agents, anna) == []


async def test_one_that_can_not_be_released_runs_out(
    holds: Holds, agents: Agents, anna: UUID, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> bool:
        raise Unavailable("The database does not answer just now.")

    async with holds.held(anna, "delivery", "7"):
        monkeypatch.setattr(Agents, "release", away)
    assert await reasons(agents, anna) == ["delivery"]
    await clock.advance(TTL.total_seconds())
    assert await reasons(agents, anna) == []


async def test_there_is_a_bound_for_one_agent_and_for_one_server(
    holds: Holds, agents: Agents, anna: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    await agents.find(anna)
    for number in range(MAX_HOLDS):
        await agents.hold(anna, "socket", str(number), ttl=MINUTE)
    with pytest.raises(LimitReached):
        await agents.hold(anna, "socket", "one too many", ttl=MINUTE)
    await agents.hold(anna, "socket", "0", ttl=MINUTE)  # one that there is can be renewed
    monkeypatch.setattr(holds_module, "MAX_HELD", 0)
    with pytest.raises(LimitReached):
        async with holds.held(anna, "socket", "0"):
            pass


async def test_two_that_hold_for_one_reason_do_not_release_each_other(
    holds: Holds, agents: Agents, anna: UUID
) -> None:
    async with holds.held(anna, "socket", "one"):
        async with holds.held(anna, "socket", "other"):
            await asyncio.sleep(0)
        assert await reasons(agents, anna) == ["socket"]


async def test_what_has_run_out_is_tidied_up(agents: Agents, anna: UUID, clock: VirtualClock) -> None:
    await agents.find(anna)
    await agents.hold(anna, "socket", "1", ttl=MINUTE)
    await clock.advance(61)
    await agents.tidy()
    assert await agents.release(anna, "socket", "1") is False
