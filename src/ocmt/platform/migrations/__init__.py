"""The schema's history: one numbered SQL file a step, run by Alembic in order.

A revision expands the schema (old and new programs both work on it) unless its name begins with
`NNNN_post_`: those contract it, run only once every replica runs the new program, and raise
`installation.needs_revision`, by which an older program is refused from then on. Alembic (which takes
0.9 s to import) is loaded only where something is to be done; it renders the script, asyncpg runs it, in one
transaction under an advisory lock, so that of two replicas one migrates and the other finds it done.
"""

from __future__ import annotations

import io
import re
from importlib import resources
from pathlib import Path
from typing import Literal

import asyncpg
import structlog

from ocmt.errors import SetupProblem, Unavailable
from ocmt.platform.database import Connection, connect
from ocmt.platform.queries import load_queries
from ocmt.platform.work import OTHER

Phase = Literal["pre", "all"]

log = structlog.get_logger(__name__)
_queries = load_queries("ocmt.platform")

_LOCK = 0x6F636D74  # "ocmt"
_LOCK_SECONDS = 60


def revisions() -> list[tuple[str, str]]:
    """Every revision as (number, name), oldest first: `[("0001", "0001_initial"), …]`."""
    folder = resources.files(__name__).joinpath("versions")
    names = sorted(entry.name[:-4] for entry in folder.iterdir() if re.match(r"\d{4}_\w+\.sql$", entry.name))
    return [(name[:4], name) for name in names]


def target_revision(phase: Phase = "all") -> str:
    """The newest revision of that phase: with `pre`, the one before the contractions at the end begin."""
    numbers = [number for number, name in revisions() if phase == "all" or not name[5:].startswith("post_")]
    return numbers[-1]


async def check_not_too_new(dsn: str) -> None:
    """Make sure that this program may work over the schema, which a newer one may have migrated.

    Raises: SetupProblem where the schema says that it needs a newer program; Unavailable.
    """
    connection = await connect(dsn)
    try:
        applied = await applied_revision(connection) or ""
        if applied <= target_revision():
            return
        needed = await _queries.find_needs_revision(connection)
        if needed > target_revision():
            raise SetupProblem(
                f"The database's schema ({applied}) needs a newer version of OCMT: this one knows schemas up "
                f"to {target_revision()}. Update this program, or restore a backup from before the update."
            )
        log.warning("schema_newer_than_program", schema=applied, known=target_revision(), needed=needed)
    finally:
        await connection.close(timeout=5)


async def schema_is_current(dsn: str, phase: Phase = "all") -> bool:
    """Whether nothing is left to migrate. A schema newer than this program counts as current.

    Raises: Unavailable where the database does not answer.
    """
    return (await schema_revision(dsn) or "") >= target_revision(phase)


async def schema_revision(dsn: str) -> str | None:
    """Return the revision that the schema is at; None for an empty database. Raises: Unavailable."""
    connection = await connect(dsn)
    try:
        return await applied_revision(connection)
    finally:
        await connection.close(timeout=5)


async def migrate(dsn: str, phase: Phase = "all") -> list[str]:
    """Bring the schema up to date; returns the revisions applied, oldest first. All of them or none.

    Raises: Unavailable where the database does not answer, or another replica migrates for over a minute;
    SetupProblem where a statement fails.
    """
    connection = await connect(dsn)
    try:
        async with connection.transaction():
            return await migrate_within(connection, target_revision(phase))
    except asyncpg.LockNotAvailableError as error:
        raise Unavailable("Another process is migrating the database. Try again in a minute.") from error
    except asyncpg.PostgresError as error:
        raise SetupProblem(f"The database could not be migrated: {error}.") from error
    finally:
        await connection.close(timeout=5)


async def migrate_within(connection: Connection, target: str) -> list[str]:
    """Bring the schema to that revision in the caller's transaction, if it is behind; see `migrate`.

    Raises: asyncpg.LockNotAvailableError where another process migrates for over a minute.
    """
    await connection.execute(f"set local lock_timeout = '{_LOCK_SECONDS}s'")
    await connection.execute("set local statement_timeout = 0")
    await connection.execute("select pg_advisory_xact_lock($1)", _LOCK, timeout=_LOCK_SECONDS + 5)
    applied = await applied_revision(connection)
    if (applied or "") >= target:
        return []
    # Imports SQLAlchemy and works on text only: off the event loop.
    script = await OTHER.run(_render, applied, target)
    await connection.execute(script, timeout=3600)
    return [number for number, _ in revisions() if (applied or "") < number <= target]


async def applied_revision(connection: Connection) -> str | None:
    """The revision that the database is at; None for an empty one."""
    if await connection.fetchval("select to_regclass('alembic_version')") is None:
        return None
    number: str | None = await connection.fetchval("select version_num from alembic_version")
    return number


def _render(applied: str | None, target: str) -> str:
    """The SQL that leads from one revision to another, Alembic's bookkeeping included."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["output"] = output = io.StringIO()
    command.upgrade(config, f"{applied}:{target}" if applied else target, sql=True)
    return output.getvalue()


def run_sql(revision_file: str) -> None:
    """Called by a revision: emit the SQL file beside it, word for word."""
    from alembic import op
    from sqlalchemy import text

    sql = Path(revision_file).with_suffix(".sql").read_text("utf-8")
    op.execute(text(sql.replace(":", r"\:")))  # a colon is never a parameter here
