"""The schema's history: applied once, in order, all or nothing, by one replica at a time."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from ocmt.errors import SetupProblem
from ocmt.platform import migrations
from ocmt.platform.migrations import migrate, revisions, schema_is_current, target_revision

pytestmark = pytest.mark.anyio


@pytest.fixture
async def empty(postgres: str) -> AsyncIterator[str]:
    """The DSN of a database without any schema."""
    name = f"empty_{uuid4().hex}"
    admin = await asyncpg.connect(postgres)
    await admin.execute(f"create database {name}")
    yield postgres.replace("@/ocmt?", f"@/{name}?")
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


async def test_an_empty_database_is_brought_up_to_date_once(empty: str) -> None:
    assert not await schema_is_current(empty)
    assert await migrate(empty) == [number for number, _ in revisions()]
    assert await schema_is_current(empty)
    assert await migrate(empty) == []


async def test_two_replicas_that_migrate_at_once_apply_everything_once(empty: str) -> None:
    applied = await asyncio.gather(migrate(empty), migrate(empty))
    assert sorted(applied) == [[], [number for number, _ in revisions()]]


async def test_a_schema_from_a_newer_program_counts_as_current(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("update alembic_version set version_num = '9999'")
    await connection.close()
    assert await schema_is_current(dsn)
    assert await migrate(dsn) == []


async def test_a_revision_that_fails_leaves_nothing_behind(
    empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    render = migrations._render
    monkeypatch.setattr(migrations, "_render", lambda *given: render(*given) + "select * from nothing;")
    with pytest.raises(SetupProblem, match='relation "nothing" does not exist'):
        await migrate(empty)
    connection = await asyncpg.connect(empty)
    assert await connection.fetchval("select to_regclass('users')") is None
    await connection.close()


def test_alembic_sees_one_line_of_the_same_revisions() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [target_revision()]
    assert [item.revision for item in reversed(list(script.walk_revisions()))] == [
        number for number, _ in revisions()
    ]


def test_contractions_wait_when_only_expansions_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    history = [("0001", "0001_initial"), ("0002", "0002_add"), ("0003", "0003_post_drop")]
    monkeypatch.setattr(migrations, "revisions", lambda: history)
    assert target_revision("pre") == "0002"
    assert target_revision("all") == "0003"


async def test_looking_whether_the_schema_is_current_does_not_load_sqlalchemy(dsn: str) -> None:
    code = (
        "import asyncio, sys; from ocmt.platform.migrations import schema_is_current; "
        "assert asyncio.run(schema_is_current(sys.argv[1])); assert 'sqlalchemy' not in sys.modules"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, dsn)
    assert await asyncio.wait_for(process.wait(), 30) == 0


def test_a_contraction_says_which_program_it_needs() -> None:
    """An older program does not start over what it cannot live with."""
    folder = Path(migrations.__file__).parent / "versions"
    for number, name in revisions():
        if name[5:].startswith("post_") and number > "0015":
            assert "needs_revision" in (folder / f"{name}.sql").read_text(), name


async def test_what_is_there_at_an_upgrade_is_counted_and_stays_counted(empty: str) -> None:
    """From 0014, the schema before budgets: every store is counted once, and what goes later is taken off."""
    connection = await asyncpg.connect(empty)
    async with connection.transaction():
        await migrations.migrate_within(connection, "0014")
    user, talk, turn, endpoint, delivery = (uuid4() for _ in range(5))
    for statement, given in (
        ("insert into users (id, email) values ($1, 'anna@example.org')", (user,)),
        ("insert into agents (user_id, runtime, broker_token_hash) values ($1, 'sandbox', 'x')", (user,)),
        ("insert into snapshots values ($1, 1, now(), null, 1, 1, 'm', 'c')", (user,)),
        ("insert into conversations (id, user_id) values ($1, $2)", (talk, user)),
        (
            "insert into turns (id, conversation_id, user_id, idempotency_key, text, answer)"
            " values ($1, $2, $3, 'k', 'häl', 'x')",
            (turn, talk, user),
        ),
        ("insert into events values ($1, 1, $2, 'turn.tool', '{}')", (talk, turn)),
        (
            "insert into channel_endpoints (id, user_id, channel, name, sealed)"
            " values ($1, $2, 'signed', 'n', '')",
            (endpoint, user),
        ),
        (
            "insert into deliveries (id, user_id, endpoint_id, external_id, thread, body, received_at,"
            " next_at) values ($1, $2, $3, 'e', 't', 'body', now(), now())",
            (delivery, user, endpoint),
        ),
        (
            "insert into outbox (id, user_id, endpoint_id, delivery_id, run, part, thread, reply, text,"
            " next_at, created_at) values ($1, $2, $3, $4, 0, 0, 't', '{}', 'owed', now(), now())",
            (uuid4(), user, endpoint, delivery),
        ),
        (
            "insert into attachments (id, user_id, name, media_type, size, created_at)"
            " values ($1, $2, 'n', 'm', 77, now())",
            (uuid4(), user),
        ),
    ):
        await connection.execute(statement, *given)
    await connection.close()
    await migrate(empty)
    connection = await asyncpg.connect(empty)

    async def kept() -> dict[str, tuple[int, int]]:
        rows = await connection.fetch("select store, items, bytes from storage_used where user_id = $1", user)
        return {row["store"]: (row["items"], row["bytes"]) for row in rows}

    assert await kept() == {
        "conversations": (1, 500 + 4 + 1 + 102),
        "deliveries": (1, 500 + 4 + 300 + 4),
        "attachments": (1, 77),
        "snapshots": (1, 0),  # their bytes are counted at the next save
    }
    for table in ("conversations", "channel_endpoints", "attachments", "snapshots"):
        await connection.execute(f"delete from {table}")
    assert set((await kept()).values()) == {(0, 0)}
    await connection.close()
