"""The pool, its transactions, and hints, on a real server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import asyncpg
import pytest

from ocmt.errors import InvalidInput, Unavailable
from ocmt.platform import database as module
from ocmt.platform.database import Database, Hints, Subscription, connect, notify
from ocmt.testing.clock import VirtualClock

pytestmark = pytest.mark.anyio


async def test_json_columns_are_python_objects(database: Database) -> None:
    value = {"text": "ü", "list": [1, None, True]}
    async with database.transaction() as connection:
        assert await connection.fetchval("select $1::jsonb", value) == value
        assert await connection.fetchval("select $1::json", None) is None


async def test_a_transaction_commits_at_its_end_and_rolls_back_on_any_error(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("create table things (name text)")
        await connection.execute("insert into things values ('kept')")

    async def fail() -> None:
        async with database.transaction() as connection:
            await connection.execute("insert into things values ('lost')")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    async with database.connection() as connection:
        assert [row["name"] for row in await connection.fetch("select name from things")] == ["kept"]


async def test_a_session_setting_does_not_leak_from_a_transaction(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("set local lock_timeout = '7s'")
    async with database.connection() as connection:
        assert await connection.fetchval("show lock_timeout") == "0"
        assert await connection.fetchval("show statement_timeout") == "30s"
        assert await connection.fetchval("show timezone") == "UTC"


async def test_an_exhausted_pool_is_unavailable_rather_than_endless(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACQUIRE_SECONDS", 0.05)
    database = await Database.open(dsn, pool_size=1)
    try:
        async with database.connection():
            with pytest.raises(Unavailable) as refusal:
                async with database.connection():
                    pass
            assert refusal.value.retry_after
    finally:
        await database.close()


async def test_a_connection_that_the_server_cuts_is_unavailable_and_replaced(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.transaction() as connection:
            await connection.execute("select pg_terminate_backend(pg_backend_pid())")
    async with database.connection() as connection:
        assert await connection.fetchval("select 1") == 1


@pytest.mark.parametrize("code", ["53100", "53200", "58030", "57014", "25006"])
async def test_a_server_that_can_not_just_now_is_unavailable(database: Database, code: str) -> None:
    with pytest.raises(Unavailable):
        async with database.transaction() as connection:
            await connection.execute(f"do $$ begin raise exception using errcode = '{code}'; end $$")


async def test_a_server_that_does_not_answer_is_unavailable(database: Database) -> None:
    with pytest.raises(Unavailable):
        async with database.connection() as connection:
            await connection.fetchval("select pg_sleep(60)", timeout=0.1)
    async with database.connection() as connection:
        assert await connection.fetchval("select 1") == 1


async def test_a_server_that_has_frozen_is_unavailable_and_its_connection_replaced(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACQUIRE_SECONDS", 0.2)
    database = await Database.open(dsn, pool_size=1)
    frozen = 0
    try:
        async with database.connection() as connection:
            frozen = await connection.fetchval("select pg_backend_pid()")
        os.kill(frozen, signal.SIGSTOP)
        with pytest.raises(Unavailable):
            async with database.connection() as connection:
                await connection.fetchval("select 1", timeout=0.1)
        async with database.connection() as connection:
            assert await connection.fetchval("select pg_backend_pid()") != frozen
    finally:
        os.kill(frozen, signal.SIGCONT)
        await database.close()


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await Database.open("postgresql://ocmt@/ocmt?host=/nonexistent")


@pytest.mark.parametrize("statement", ["select $1::text", "select $1::jsonb"])
async def test_text_that_it_cannot_store_is_the_senders_to_mend(database: Database, statement: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be stored"):
        async with database.transaction() as connection:
            await connection.execute(statement, "\0" if "text" in statement else {"name": "\0"})


async def test_what_breaks_a_rule_of_the_schema_keeps_its_own_error(database: Database) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        async with database.transaction() as connection:
            await connection.execute(
                "insert into users (id, email, status) values (gen_random_uuid(), 'a@b', 'odd')"
            )


class TestHints:
    """Hints wake whoever waits for their channel and payload; after a lost connection they come back."""

    @pytest.fixture
    async def hints(self, dsn: str, clock: VirtualClock) -> AsyncIterator[Hints]:
        hints = Hints(dsn, clock)
        await hints.start()
        yield hints
        await hints.close()

    async def test_one_is_waked_by_its_payload_and_many_hints_count_as_one(
        self, hints: Hints, database: Database, clock: VirtualClock
    ) -> None:
        with hints.subscribe("agents", "mine") as mine, hints.subscribe("agents") as every:
            assert await mine.wait(60)  # the hint that listening has begun
            assert await every.wait(60)
            for payload in ("other", "mine", "mine"):
                async with database.connection() as connection:
                    await notify(connection, "agents", payload)
            assert await mine.wait(60)
            assert await every.wait(60)
            waiting = asyncio.ensure_future(mine.wait(60))
            await clock.advance(61)
            assert not await waiting

    async def test_whoever_waits_for_any_is_told_which_they_were(
        self, hints: Hints, database: Database, clock: VirtualClock
    ) -> None:
        with hints.subscribe("agents") as subscription:
            assert await subscription.wait(60)  # the hint that listening has begun
            assert subscription.named is None  # what was missed by then, nobody knows
            async with database.transaction() as connection:
                await notify(connection, "agents", "anna")
                await notify(connection, "agents", "bert")
            named: set[str] = set()
            while len(named) < 2:
                assert await subscription.wait(60)
                assert subscription.named
                named |= subscription.named
            assert named == {"anna", "bert"}

    async def test_more_than_can_be_counted_may_have_been_any(self, clock: VirtualClock) -> None:
        subscription = Subscription(clock, None)
        for number in range(2_000):
            subscription.hint(f"user {number}")
        assert await subscription.wait(60)
        assert subscription.named is None

    async def test_nothing_is_hinted_before_the_commit(self, hints: Hints, database: Database) -> None:
        with hints.subscribe("agents") as subscription:
            assert await subscription.wait(60)
            async with database.transaction() as connection:
                await notify(connection, "agents", "")
                assert not subscription.hinted
            assert await subscription.wait(60)

    async def test_it_listens_again_after_the_server_cut_the_connection(
        self, hints: Hints, database: Database, clock: VirtualClock
    ) -> None:
        with hints.subscribe("agents") as subscription:
            assert await subscription.wait(60)
            async with database.connection() as connection:
                await connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where query like 'LISTEN%' and datname = current_database()"
                )
            # What was missed meanwhile is made up for by one hint.
            hinted = asyncio.ensure_future(subscription.wait(3600))
            async with asyncio.timeout(10):
                while not hinted.done():
                    await clock.advance(0.05)
            assert await hinted
            async with database.connection() as connection:
                await notify(connection, "agents", "")
            assert await subscription.wait(60)


async def test_a_lone_connection_reads_json_as_well(dsn: str) -> None:
    connection = await connect(dsn)
    assert await connection.fetchval("""select '{"a": 1}'::jsonb""") == {"a": 1}
    await connection.close()
