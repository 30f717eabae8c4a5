"""Types of exports and deletions, and the columns by which a row is somebody's. Pure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import IO, Any
from uuid import UUID

from ocmt.platform.rate import Rate

EXPORTS = Rate("exports of", count=5, period=timedelta(days=1), burst=3)

Part = tuple[str, bytes | IO[bytes]]
"""(path in the archive, its content)."""
Export = Callable[[UUID], AsyncIterator[Part]]
"""A room's part of what is a user's."""
Quiet = Callable[[UUID], Awaitable[bool]]
"""Has a user's agent stopped; whether it has. Called again and again."""
Forget = Callable[[UUID], Awaitable[None]]
"""Removes what a room keeps of a user beside the database and the object store."""
Remembered = Callable[[], Awaitable[Sequence[UUID]]]
"""Of whom this machine still has files."""

POINTERS = frozenset(
    {
        "user_id",
        "subject_id",
        "actor_id",
        "created_by",
        "invited_by",
        "granted_by",
        "updated_by",
        "impersonator_id",
    }
)
"""Columns that say whose a row is, or who made it, in any table."""
KEPT = frozenset({"account_deletions"})
"""Tables whose rows stay: the proof itself, which holds no more than a number."""


@dataclass(frozen=True)
class Deletion:
    """One account that is being deleted, or was."""

    id: UUID
    user_id: UUID
    asked_at: datetime
    asked_by: UUID | None
    finished_at: datetime | None
    report: dict[str, Any]
    """`rows` and `objects`, `before` and `after`: counts by table, never what was in them."""
