"""The database's part: every row by COPY, read in one snapshot, and written again in one transaction.

No pg_dump: COPY's text is the same for all versions of the server, and the schema is made by our own
migrations at the revision that the rows were written under, which then lead to the present one.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter
from uuid import UUID

import asyncpg

from ocmt.backup.model import Part, Writer
from ocmt.errors import Conflict
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection
from ocmt.platform.migrations import migrate_within, target_revision
from ocmt.platform.queries import every, load_queries

queries = load_queries(__package__)

_TABLE_SECONDS = 4 * 3600.0
_OTHERS_SECONDS = 3.0
# Text that reads the same whatever this server and the next one are set to; and no row hidden from us.
_SESSION = (
    "set local datestyle = 'ISO, YMD'; set local intervalstyle = 'postgres'; set local timezone = 'UTC'; "
    "set local extra_float_digits = 1; set local bytea_output = 'hex'; set local row_security = off; "
    "set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0"
)


@dataclass(frozen=True)
class Table:
    """One table of the schema."""

    name: str
    columns: tuple[str, ...]
    statement: str
    """Which selects its rows."""


async def tables(connection: Connection) -> list[Table]:
    """All of them, each behind those that its rows refer to."""
    found = {
        row["name"]: Table(row["name"], tuple(row["columns"]), row["statement"])
        for row in await every(queries.find_tables(connection))
    }
    graph: dict[str, set[str]] = {name: set() for name in found}
    for row in await every(queries.find_references(connection)):
        graph[row["source"]].add(row["target"])
    return [found[name] for name in TopologicalSorter(graph).static_order()]


async def write_tables(connection: Connection, writer: Writer) -> None:
    """Every row and sequence as parts. The caller's transaction is a snapshot."""
    await connection.execute(_SESSION)

    async def take(data: bytes) -> None:
        writer.data(data)

    for table in await tables(connection):
        writer.part(Part("table", table.name, table.columns))
        await connection.copy_from_query(table.statement, output=take, timeout=_TABLE_SECONDS)
        writer.end_part()
    sequences = {row["name"]: row["last_value"] for row in await every(queries.find_sequences(connection))}
    writer.part(Part("sequences", "sequences"))
    writer.data(json.dumps(sequences).encode())
    writer.end_part()


async def check_nobody_else(connection: Connection, clock: Clock) -> None:
    """Raises Conflict where a program of ours uses this database. One that just ended gets a moment to go."""
    give_up = clock.monotonic() + _OTHERS_SECONDS
    while others := await queries.count_others(connection):
        if clock.monotonic() >= give_up:
            raise Conflict(f"OCMT runs on this database ({others} connections). Stop it, then restore again.")
        await clock.sleep(0.1)


async def check_ours(connection: Connection) -> None:
    """Raises Conflict where the schema is another program's, which we would drop."""
    schema = await queries.find_schema(connection)
    if schema["is_used"] and not schema["is_ours"]:
        raise Conflict("This database holds another program's tables: restore into one of its own.")


async def holds_users(connection: Connection) -> bool:
    """Whether anybody lives here. A schema that was only made has rows, too: its plans."""
    schema = await queries.find_schema(connection)
    return bool(schema["is_used"]) and bool(await queries.has_users(connection))


async def make_schema(connection: Connection, revision: str) -> None:
    """An empty schema of that revision, in place of whatever there is, in the caller's transaction."""
    await connection.execute(_SESSION)
    schema = await queries.find_schema(connection)
    if schema["is_used"]:
        recreate = f"drop schema {schema['name']} cascade; create schema {schema['name']}"
        await connection.execute(recreate, timeout=600)
    await migrate_within(connection, revision)
    # The rows of `storage_used` come with the others: no trigger may count them a second time.
    await connection.execute("set local ocmt.restoring = 'on'")
    # A migration may bring rows of its own; the backup has them as they became.
    names = [f'"{table.name}"' for table in await tables(connection)]
    await connection.execute(f"truncate {', '.join(names)} restart identity", timeout=600)


async def load_table(connection: Connection, part: Part, rows: AsyncIterator[bytes]) -> None:
    """The rows of one part."""
    await connection.copy_to_table(part.name, source=rows, columns=list(part.columns), timeout=_TABLE_SECONDS)


async def set_sequences(connection: Connection, data: bytes) -> None:
    """So that the next number is one that was never given."""
    for name, last_value in json.loads(data).items():
        await queries.set_sequence(connection, name=name, last_value=last_value)


async def find_revocations(connection: Connection) -> Mapping[str, list[UUID]]:
    """Return what the installation that is about to be replaced has revoked, suspended, and deleted.

    A schema that is empty, or older than accounts, knows of nothing.
    """
    try:
        async with connection.transaction():
            return dict(await queries.find_revocations(connection))
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        return {}


async def settle(connection: Connection, revocations: Mapping[str, list[UUID]]) -> None:
    """Bring the rows to this program's schema, and forget what was true of the other machine only.

    Nobody is signed in afterwards, and what was revoked since the backup stays revoked as far as
    `revocations` tell.
    """
    await migrate_within(connection, target_revision())
    await queries.forget_agents(connection)
    await queries.forget_holds(connection)
    await queries.forget_transcripts(connection)
    await queries.end_sessions(connection)
    await queries.end_tokens(connection)
    await queries.forget_half_ways(connection)
    await queries.keep_revoked(connection, keys=revocations.get("keys", []))
    await queries.keep_suspended(connection, suspended=revocations.get("suspended", []))
    await queries.keep_deleted(connection, deleted=revocations.get("deleted", []))
    await queries.renew_installation(connection)


NeededObjects = Callable[[Connection], Awaitable[set[str]]]
"""The keys of the objects without which the rows of this snapshot would be of no use."""
