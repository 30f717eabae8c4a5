"""The audit log: written with the change or not at all, in one chain in which whatever is changed is
found."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocmt.identity.audit.model import START, Actor, Row, fault_of, hash_of_details, hash_of_row
from ocmt.identity.audit.service import Audit
from ocmt.platform.database import Database
from ocmt.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def chain(length: int) -> list[Row]:
    rows: list[Row] = []
    for number in range(1, length + 1):
        fields: dict[str, Any] = {
            "id": number,
            "at": NOON + timedelta(seconds=number),
            "action": "user.changed",
            "actor_id": UUID(int=number),
            "subject_id": None,
            "details_hash": hash_of_details(b"salt", {"after": number}),
        }
        previous = rows[-1].hash if rows else START
        own = hash_of_row(previous, **fields)
        rows.append(Row(**fields, salt=b"salt", details={"after": number}, previous=previous, hash=own))
    return rows


def first_fault(rows: list[Row]) -> str | None:
    previous, expected = START, 1
    for row in rows:
        fault = fault_of(row, previous, expected)
        if fault:
            return fault
        previous, expected = row.hash, expected + 1
    return None


CHANGES: list[dict[str, Any]] = [
    {"at": NOON},
    {"action": "user.changee"},
    {"actor_id": None},
    {"subject_id": UUID(int=9)},
    {"details": {"after": 0}},
    {"salt": b"pepper"},
    {"details": None},
    {"details_hash": b"x" * 32},
    {"hash": b"x" * 32},
    {"previous": b"x" * 32},
]


@given(place=st.integers(0, 5), change=st.sampled_from(CHANGES))
def test_a_changed_row_is_found(place: int, change: dict[str, Any]) -> None:
    rows = chain(6)
    rows[place] = replace(rows[place], **change)
    assert first_fault(rows) is not None


@given(place=st.integers(0, 4))
def test_a_removed_or_swapped_row_is_found(place: int) -> None:
    rows = chain(6)
    assert first_fault([*rows[:place], *rows[place + 1 :]]) is not None
    rows[place], rows[place + 1] = rows[place + 1], rows[place]
    assert first_fault(rows) is not None


@given(places=st.sets(st.integers(0, 5)))
def test_what_names_a_person_can_be_erased_and_the_chain_holds(places: set[int]) -> None:
    rows = [replace(row, salt=None, details=None) if n in places else row for n, row in enumerate(chain(6))]
    assert first_fault(rows) is None


async def stored(database: Database) -> list[Row]:
    async with database.connection() as connection:
        return [Row(**row) for row in await connection.fetch("select * from audit_log order by id")]


async def test_twenty_who_write_at_once_make_one_chain(database: Database, clock: VirtualClock) -> None:
    audit = Audit(database, clock)

    async def write(number: int) -> None:
        async with database.transaction() as connection:
            await audit.record(
                connection, "test.done", actor=Actor.oneself(UUID(int=number)), before=None, after=number
            )

    await asyncio.gather(*(write(number) for number in range(20)))
    rows = await stored(database)
    assert len(rows) == 20
    assert first_fault(rows) is None


async def test_what_was_rolled_back_leaves_neither_row_nor_gap(
    database: Database, clock: VirtualClock
) -> None:
    audit = Audit(database, clock)
    for number in range(3):
        with suppress(KeyError):
            async with database.transaction() as connection:
                await audit.record(connection, "test.done", after=number)
                {0: 0, 2: 0}[number]  # the second one fails behind it
    rows = await stored(database)
    assert [row.details for row in rows] == [{"after": 0}, {"after": 2}]
    assert first_fault(rows) is None


async def test_pages_go_from_new_to_old_and_are_ones_own(database: Database, clock: VirtualClock) -> None:
    audit, ada, bob = Audit(database, clock), UUID(int=1), UUID(int=2)
    async with database.transaction() as connection:
        for actor, subject in ((ada, ada), (bob, ada), (bob, bob), (ada, None)):
            await audit.record(connection, "test.done", actor=Actor.oneself(actor), subject_id=subject)
    assert [row.id for row in await audit.page(user_id=ada)] == [4, 2, 1]
    assert [row.id for row in await audit.page(user_id=ada, before=4, limit=1)] == [2]
    assert [row.id for row in await audit.page(user_id=None)] == [4, 3, 2, 1]
