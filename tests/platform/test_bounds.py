"""Every table has an owner of its size: a bound that is written down, and that holds for writers at once."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import ocmt
from ocmt.channels.model import MAX_ENDPOINTS
from ocmt.errors import LimitReached
from ocmt.groups.model import MOST_GROUPS, MOST_INVITATIONS, MOST_MEMBERS
from ocmt.identity.api_keys.model import MOST_KEYS
from ocmt.identity.oidc.model import MOST_ACCOUNTS
from ocmt.identity.passkeys.model import MOST_PASSKEYS
from ocmt.platform.database import Database
from ocmt.vault.model import MOST_ITEMS
from tests.accounts import make_user

pytestmark = pytest.mark.anyio
PAGE = Path(__file__).parents[2] / "docs/reference/limits.md"
LATER = datetime.now(UTC) + timedelta(days=1)


def listed() -> dict[str, str]:
    """table → the rest of its line in the reference."""
    lines = re.findall(r"^\| `(\w+)` \|(.+)\|$", PAGE.read_text("utf-8"), re.M)
    assert len(lines) == len(dict(lines)), "a table is named twice"
    return dict(lines)


async def test_every_table_of_the_schema_is_listed_with_its_bound(database: Database) -> None:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select relname from pg_class "
            "where relkind in ('r', 'p') and relnamespace = current_schema()::regnamespace"
        )
    there = {row["relname"] for row in rows} - {"alembic_version"}
    assert there - listed().keys() == set(), "say in docs/reference/limits.md what bounds these tables"
    assert listed().keys() - there == set()
    for table, line in listed().items():
        owner, bound, _where = (part.strip() for part in line.split("|"))
        assert owner, table
        assert bound, table


async def test_every_trigger_that_bounds_a_table_is_in_its_line(database: Database) -> None:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "select tgrelid::regclass::text as name, tgname, tgargs as given from pg_trigger "
            "where tgname like 'bound_%' or tgname like 'crowd_out_%'"
        )
    assert len(rows) >= 12
    for row in rows:
        number = int(row["given"].split(b"\0")[1])
        assert f"{number:,}" in listed()[row["name"]], (row["name"], number)


def test_only_one_statement_adds_what_is_counted_in_the_statement() -> None:
    """Events and deliveries are counted by the statement that adds them, so there may be no other."""
    text = "\n".join(path.read_text() for path in sorted(Path(ocmt.__file__).parent.rglob("queries.sql")))
    assert len(re.findall(r"insert into events\b", text)) == 1
    # Two that are chosen between in one place, `channels/writer.py`.
    assert len(re.findall(r"insert into deliveries\b", text)) == 2


def row_of(table: str, owner: UUID) -> tuple[str, list[Any]]:
    """A statement that adds one more row, and what is given to it."""
    now = datetime.now(UTC)
    match table:
        case "api_keys":
            return (
                "insert into api_keys (id, user_id, name, prefix, key_hash, scopes, created_at) "
                "values ($1, $2, 'n', 'p', $3, '{}', $4)",
                [uuid4(), owner, uuid4().bytes, now],
            )
        case "passkeys":
            return (
                "insert into passkeys (id, user_id, credential_id, public_key, sign_count, name, created_at) "
                "values ($1, $2, $3, '', 0, 'n', $4)",
                [uuid4(), owner, uuid4().bytes, now],
            )
        case "oidc_accounts":
            return (
                "insert into oidc_accounts (id, provider, subject, user_id, email, created_at) "
                "values ($1, 'p', $3, $2, 'e', $4)",
                [uuid4(), owner, str(uuid4()), now],
            )
        case "vault_items":
            return (
                "insert into vault_items (user_id, name, version, ciphertext) values ($1, $2, 1, '')",
                [owner, str(uuid4())],
            )
        case "holds":
            return (
                "insert into holds (user_id, reason, reference, expires_at) values ($1, 'socket', $2, $3)",
                [owner, str(uuid4()), LATER],
            )
        case "channel_endpoints":
            return (
                "insert into channel_endpoints (id, user_id, channel, name, sealed) "
                "values ($1, $2, 'signed', 'n', '')",
                [uuid4(), owner],
            )
        case _:
            raise AssertionError(table)


@pytest.mark.parametrize(
    ("table", "most"),
    [
        ("api_keys", 4 * MOST_KEYS),
        ("passkeys", MOST_PASSKEYS),
        ("oidc_accounts", MOST_ACCOUNTS),
        ("vault_items", MOST_ITEMS),
        ("holds", 200),
        ("channel_endpoints", MAX_ENDPOINTS),
    ],
)
async def test_no_number_of_writers_at_once_passes_a_bound(database: Database, table: str, most: int) -> None:
    """Whoever counts first and adds afterwards is passed by who does the same at that moment."""
    anna, bert = await make_user(database, "a@example.org"), await make_user(database, "b@example.org")
    async with database.connection() as connection:
        for user in (anna, bert):
            await connection.execute(
                "insert into agents (user_id, runtime, broker_token_hash) values ($1, 'sandbox', $2)",
                user,
                user.bytes,
            )

    async def add(owner: UUID) -> str:
        statement, given = row_of(table, owner)
        try:
            async with database.transaction() as connection:
                await connection.execute(statement, *given)
        except LimitReached as error:
            return error.message
        return "added"

    said = await asyncio.gather(*(add(anna) for _ in range(most + 15)))
    assert said.count("added") == most
    assert {one[-1] for one in said if one != "added"} == {"."}
    assert await add(bert) == "added"
    async with database.connection() as connection:
        await connection.execute(f"delete from {table} where user_id = $1", anna)
    assert await add(anna) == "added"


async def test_members_groups_and_invitations_are_bounded(database: Database) -> None:
    async with database.connection() as connection:
        anna = await make_user(database, "anna@example.org")
        for number in range(MOST_GROUPS + 1):
            group = uuid4()
            await connection.execute("insert into groups values ($1, 'g', null, now(), $2)", group, anna)
            join = "insert into group_members values ($1, $2, 'admin', now())"
            if number < MOST_GROUPS:
                await connection.execute(join, group, anna)
        with pytest.raises(LimitReached, match="leave one first"):
            async with database.connection() as other:
                await other.execute(join, group, anna)
        await connection.execute(
            "insert into users (id, email) "
            "select gen_random_uuid(), n || '@x.org' from generate_series(1, 501) n"
        )
        with pytest.raises(LimitReached, match="group is full"):
            async with database.connection() as other:
                await other.execute(
                    "insert into group_members "
                    "select $1, id, 'member', now() from users where email like '%@x.org'",
                    group,
                )
    assert (MOST_MEMBERS, MOST_INVITATIONS) == (500, 100)


async def test_what_was_revoked_or_decided_is_kept_up_to_a_number(database: Database) -> None:
    anna = await make_user(database, "anna@example.org")
    async with database.connection() as connection:
        for _ in range(260):
            statement, given = row_of("api_keys", anna)
            await connection.execute(statement, *given)
            await connection.execute("update api_keys set revoked_at = now() where id = $1", given[0])
        assert 200 <= await connection.fetchval("select count(*) from api_keys") <= 201
