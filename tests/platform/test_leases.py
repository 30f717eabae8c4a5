"""Leases: one holder at a time, and a token that never matches again once its lease is gone."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uuid_utils.compat import uuid7

from ocmt.platform.database import Database
from ocmt.platform.leases import Lease, Leases

pytestmark = pytest.mark.anyio

KEY = uuid7()


@pytest.fixture
async def table(database: Database) -> Database:
    """A database with one row that can be leased."""
    async with database.transaction() as connection:
        await connection.execute(
            "create table things (id uuid primary key, lease_owner text, "
            "lease_token bigint not null default 0, lease_expires_at timestamptz)"
        )
        await connection.execute("insert into things (id) values ($1)", KEY)
    return database


def leases(database: Database, owner: str) -> Leases:
    return Leases(database, table="things", key="id", owner=owner)


async def expire(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("update things set lease_expires_at = now() - interval '1 second'")


async def guarded_write(database: Database, token: int) -> bool:
    """What every holder does: write only where the token is still its own."""
    async with database.connection() as connection:
        return (
            await connection.execute("update things set id = id where lease_token = $1", token)
        ) == "UPDATE 1"


async def test_only_one_owner_holds_it_until_it_expires(table: Database) -> None:
    ours, theirs = leases(table, "ours"), leases(table, "theirs")
    first = await ours.take(KEY)
    assert first is not None
    assert await theirs.take(KEY) is None
    again = await ours.take(KEY)
    assert again is not None
    assert again.token == first.token

    await expire(table)
    second = await theirs.take(KEY)
    assert second is not None
    assert second.token > first.token
    assert await ours.heartbeat([KEY]) == {KEY}
    assert not await guarded_write(table, first.token)
    assert await guarded_write(table, second.token)


async def test_a_heartbeat_extends_even_what_expired_as_long_as_nobody_took_it(table: Database) -> None:
    ours, theirs = leases(table, "ours"), leases(table, "theirs")
    assert await ours.take(KEY)
    await expire(table)
    assert await ours.heartbeat([KEY]) == set()
    assert await theirs.take(KEY) is None


async def test_a_lease_given_back_is_free_at_once_and_its_token_worthless(table: Database) -> None:
    ours, theirs = leases(table, "ours"), leases(table, "theirs")
    lease = await ours.take(KEY)
    assert lease is not None
    await ours.release(lease)
    assert not await guarded_write(table, lease.token)
    taken = await theirs.take(KEY)
    assert taken is not None
    await ours.release(lease)  # late, and without effect
    assert await theirs.heartbeat([KEY]) == set()
    assert await ours.heartbeat([KEY]) == {KEY}


async def test_there_is_no_lease_on_a_row_that_is_not_there(table: Database) -> None:
    ours = leases(table, "ours")
    nowhere = uuid7()
    assert await ours.take(nowhere) is None
    assert await ours.heartbeat([nowhere]) == {nowhere}


async def test_a_lease_lasts_as_long_as_asked_for_by_the_clock_of_the_database(table: Database) -> None:
    brief = Leases(table, table="things", key="id", owner="ours", duration=timedelta(seconds=3))
    lease = await brief.take(KEY)
    assert lease is not None
    async with table.connection() as connection:
        left = lease.expires_at - await connection.fetchval("select clock_timestamp()")
    assert timedelta(seconds=1) < left <= timedelta(seconds=3)


STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "heartbeat", "release", "expire"]), st.sampled_from(["a", "b", "c"])),
    min_size=4,
    max_size=14,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_whatever_happens_a_lost_token_never_validates_again(
    table: Database, steps: list[tuple[str, str]]
) -> None:
    owners = {name: leases(table, name) for name in "abc"}
    held: dict[str, Lease] = {}
    lost: set[int] = set()
    for step, name in steps:
        if step == "expire":
            await expire(table)
        elif step == "release" and name in held:
            lease = held.pop(name)
            await owners[name].release(lease)
            lost.add(lease.token)
        elif step == "heartbeat" and await owners[name].heartbeat([KEY]):
            if name in held:
                lost.add(held.pop(name).token)
        elif step == "take":
            lease_now = await owners[name].take(KEY)
            if lease_now is not None:
                lost |= {other.token for other in held.values() if other.token != lease_now.token}
                held = {name: lease_now}
        assert not any([await guarded_write(table, token) for token in lost])
        assert len(held) <= 1
