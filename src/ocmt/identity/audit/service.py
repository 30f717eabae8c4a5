"""Writes the audit log, in the transaction of the change that it tells of, and reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ocmt.identity.audit.model import SALT_BYTES, Actor, Row, fault_of, hash_of_details, hash_of_row
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import load_queries

_queries = load_queries("ocmt.identity.audit")


BATCH = 1000


@dataclass(frozen=True)
class Verdict:
    """What was found of the chain."""

    rows: int
    """How many were looked at and found right."""
    head: str
    """The hash of the last one, hexadecimal: to be kept elsewhere, and compared the next time."""
    fault: str | None
    """What is wrong, in words; None: nothing."""


class Audit:
    """The log of this installation."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def record(
        self,
        connection: Connection,
        action: str,
        *,
        actor: Actor | None = None,
        subject_id: UUID | None = None,
        **details: Any,
    ) -> None:
        """Add a row, as the last thing of the caller's transaction: it locks the end of the chain until the
        commit.

        `details` are JSON values without secrets, by custom `before` and `after`. The time is the chain's
        own: two rows never stand in another order than their times.
        """
        through_other_eyes = actor is not None and actor.by != actor.on_behalf_of
        if actor is not None and through_other_eyes:
            # The user whose account it is reads of it, too.
            details["on_behalf_of"] = str(actor.on_behalf_of)
            subject_id = subject_id or actor.on_behalf_of
        said = {"address": actor.address if actor else None, **details}
        kept: Mapping[str, Any] = {name: value for name, value in said.items() if value is not None}
        salt = os.urandom(SALT_BYTES)
        head = await _queries.lock_head(connection)
        row: dict[str, Any] = {
            "id": head["last_id"] + 1,
            "at": self._clock.now(),
            "action": action,
            "actor_id": actor.by if actor else None,
            "subject_id": subject_id,
            "details_hash": hash_of_details(salt, kept),
        }
        own = hash_of_row(head["hash"], **row)
        await _queries.add_row(connection, **row, salt=salt, details=kept, previous=head["hash"], hash=own)
        await _queries.move_head(connection, last_id=row["id"], hash=own)

    async def page(
        self,
        *,
        user_id: UUID | None,
        before: int | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Row]:
        """Rows by or about a user (None: all users), newest first, older than the row `before`.

        `action`: how it begins. `since`, `until`: from then on, and before then.
        """
        async with self._database.connection() as connection:
            rows = _queries.page_rows(
                connection,
                user_id=user_id,
                before=before,
                action=action,
                since=since,
                until=until,
                limit=limit,
            )
            return [Row(**row) async for row in rows]

    async def read(self, *, after: int = 0, limit: int = BATCH) -> Sequence[Row]:
        """Rows of everybody behind the row `after`, oldest first."""
        async with self._database.connection() as connection:
            return [Row(**row) async for row in _queries.read_rows(connection, after=after, limit=limit)]

    async def verify(self) -> Verdict:
        """Walk the whole chain that is kept. Rows that come meanwhile are looked at as well."""
        async with self._database.connection() as connection:
            start = await _queries.head(connection)
        previous, expected, count = start["anchor"], start["first_id"], 0
        while rows := await self.read(after=expected - 1):
            for row in rows:
                fault = fault_of(row, previous, expected)
                if fault is not None:
                    return Verdict(count, previous.hex(), fault)
                previous, expected, count = row.hash, row.id + 1, count + 1
        if expected <= start["last_id"]:
            return Verdict(count, previous.hex(), f"row {expected} is missing")
        if expected == start["last_id"] + 1 and previous != start["hash"]:
            return Verdict(count, previous.hex(), "the end of the log was changed")
        return Verdict(count, previous.hex(), None)

    async def has(self, head: bytes) -> bool:
        """Whether a row with that hash is in the log, or was the last that retention has dropped."""
        async with self._database.connection() as connection:
            return bool(await _queries.has_hash(connection, hash=head))

    async def forget_before(self, moment: datetime) -> int:
        """Retention: drop rows older than that; the chain of the rest still holds. Returns how many went."""
        async with self._database.transaction() as connection:
            await _queries.lock_head(connection)
            last: int | None = await _queries.last_before(connection, before=moment)
            head = await _queries.head(connection)
            if last is None or last < head["first_id"]:
                return 0
            anchor: bytes = await _queries.find_hash(connection, id=last)
            await _queries.move_start(connection, first_id=last + 1, anchor=anchor)
            await _queries.drop_before(connection, first_id=last + 1)
            dropped: int = last + 1 - head["first_id"]
            await self.record(connection, "audit.retained", before=moment.isoformat(), dropped=dropped)
        return dropped

    async def erase(self, connection: Connection, user_id: UUID) -> None:
        """What names that user in rows by or about them goes, for good. The chain still holds."""
        await _queries.erase(connection, user_id=user_id)
