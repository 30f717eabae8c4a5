"""Writes the audit log, in the transaction of the change that it tells of, and reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from ocmt.identity.audit.model import SALT_BYTES, Row, hash_of_details, hash_of_row
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import load_queries

_queries = load_queries("ocmt.identity.audit")


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
        actor_id: UUID | None = None,
        subject_id: UUID | None = None,
        address: str | None = None,
        **details: Any,
    ) -> None:
        """Add a row, as the last thing of the caller's transaction: it locks the end of the chain until the
        commit.

        `details` are JSON values without secrets, by custom `before` and `after`. The time is the chain's
        own: two rows never stand in another order than their times.
        """
        kept: Mapping[str, Any] = {
            name: value for name, value in {"address": address, **details}.items() if value is not None
        }
        salt = os.urandom(SALT_BYTES)
        head = await _queries.lock_head(connection)
        row: dict[str, Any] = {
            "id": head["last_id"] + 1,
            "at": self._clock.now(),
            "action": action,
            "actor_id": actor_id,
            "subject_id": subject_id,
            "details_hash": hash_of_details(salt, kept),
        }
        own = hash_of_row(head["hash"], **row)
        await _queries.add_row(connection, **row, salt=salt, details=kept, previous=head["hash"], hash=own)
        await _queries.move_head(connection, last_id=row["id"], hash=own)

    async def page(
        self, *, user_id: UUID | None, before: int | None = None, limit: int = 100
    ) -> Sequence[Row]:
        """Rows by or about a user (None: all users), newest first, older than the row `before`."""
        async with self._database.connection() as connection:
            rows = _queries.page_rows(connection, user_id=user_id, before=before, limit=limit)
            return [Row(**row) async for row in rows]
