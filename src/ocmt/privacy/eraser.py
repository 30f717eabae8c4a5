"""Deletes all that is somebody's, so that nothing is left: by looking, not by trusting.

A deletion is a row. Whoever finds it open goes on with it, from the beginning: every step can be done again,
so a crash at any line delays it only. Its report is what was counted before and after, in every table that
points to a user.
"""

from __future__ import annotations

import re
from uuid import UUID

import structlog

from ocmt.errors import OcmtError
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.objects import Objects
from ocmt.platform.queries import every, load_queries
from ocmt.privacy import model
from ocmt.privacy.model import Deletion, Forget, Quiet, Remembered

_queries = load_queries("ocmt.privacy")
_log = structlog.get_logger(__name__)
LOOK = 5.0
"""Seconds between two looks for deletions that are open."""
LEFTOVERS = 300.0
"""And for what is left here of those that were carried out elsewhere."""
_NAME = re.compile(r"[a-z_]+")


class Eraser:
    """Of one process that can reach the agents; the state is in the database."""

    def __init__(
        self,
        database: Database,
        objects: Objects,
        audit: Audit,
        clock: Clock,
        *,
        quiet: Quiet,
        forget: Forget,
        remembered: Remembered,
    ) -> None:
        self._database = database
        self._objects = objects
        self._audit = audit
        self._clock = clock
        self._quiet = quiet
        self._forget = forget
        self._remembered = remembered

    async def run(self) -> None:
        """Carry out what is open, until cancelled."""
        cleared = float("-inf")
        while True:
            try:
                await self.carry_out()
                if self._clock.monotonic() - cleared >= LEFTOVERS:
                    await self.clear_leftovers()
                    cleared = self._clock.monotonic()
            except (OcmtError, OSError) as error:
                _log.warning("deletions_not_carried_out", error=str(error))
            await self._clock.sleep(LOOK)

    async def carry_out(self) -> int:
        """One look at all that are open; returns how many were finished."""
        async with self._database.connection() as connection:
            found = [Deletion(**row) for row in await every(_queries.open_deletions(connection))]
        finished = 0
        for deletion in found:
            try:
                finished += await self._delete(deletion)
            except (OcmtError, OSError) as error:
                _log.warning("account_not_deleted_yet", user_id=str(deletion.user_id), error=str(error))
        return finished

    async def clear_leftovers(self) -> int:
        """Forget here whom another machine has deleted: an agent may have left files on both. How many."""
        async with self._database.connection() as connection:
            rows = await every(_queries.deleted_of(connection, user_ids=list(await self._remembered())))
        for row in rows:
            await self._forget(row["user_id"])
            _log.info("leftovers_of_account_cleared", user_id=str(row["user_id"]))
        return len(rows)

    async def _delete(self, deletion: Deletion) -> bool:
        user_id, report = deletion.user_id, dict(deletion.report)
        prefix = f"users/{user_id}/"
        if "before" not in report:  # else it was begun already, and some of it is gone
            rows = await self._count(user_id)
            report["before"] = {"rows": rows, "objects": len(await self._objects.list(prefix))}
            async with self._database.connection() as connection:
                await _queries.note_report(connection, id=deletion.id, report=report)
        if not await self._quiet(user_id):
            return False
        await self._forget(user_id)
        for key in await self._objects.list(prefix):
            await self._objects.delete(key)
        async with self._database.transaction() as connection:
            email: str | None = await _queries.email_of(connection, user_id=user_id)
            await self._audit.erase(connection, user_id)
            if email is not None:
                await _queries.forget_address(connection, email=email)
            await _queries.drop_user(connection, user_id=user_id)
        rows = await self._count(user_id)
        report["after"] = {"rows": rows, "objects": len(await self._objects.list(prefix))}
        if any(rows.values()) or report["after"]["objects"]:
            _log.error("account_not_wholly_deleted", user_id=str(user_id), left=report["after"])
            return False
        async with self._database.transaction() as connection:
            await _queries.finish(connection, id=deletion.id, report=report, now=self._clock.now())
            asker = Actor.oneself(deletion.asked_by) if deletion.asked_by else None
            await self._audit.record(connection, "account.deleted", actor=asker)
        _log.info("account_deleted", user_id=str(user_id))
        return True

    async def _count(self, user_id: UUID) -> dict[str, int]:
        """Rows that point to a user, by `table.column`; only what there is."""
        counts: dict[str, int] = {}
        async with self._database.connection() as connection:
            columns = await every(_queries.columns(connection, names=sorted(model.POINTERS)))
            for table, column in columns:
                if table in model.KEPT:
                    continue
                count = await _count_in(connection, table, column, user_id)
                if count:
                    counts[f"{table}.{column}"] = count
            if await _queries.email_of(connection, user_id=user_id) is not None:
                counts["users.id"] = 1
        return counts


async def _count_in(connection: Connection, table: str, column: str, user_id: UUID) -> int:
    assert _NAME.fullmatch(table), table
    assert _NAME.fullmatch(column), column
    # What the audit log keeps is a number without anything that it names.
    named = " and details is not null" if table == "audit_log" else ""
    statement = f'select count(*) from "{table}" where "{column}" = $1{named}'  # noqa: S608 - names of our own
    return int(await connection.fetchval(statement, user_id))
