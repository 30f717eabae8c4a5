"""What people send as one thing, and the vendor delivers as several webhooks, becomes one message.

Which deliveries belong together is decided once, under the lease of the first one, and written down in one
transaction (`joined_to`). From then on the others have ended, and the first one stands for all of them: at
every further try, when its sender is let in later, and when it is run again. So nothing is lost or doubled
wherever a process dies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ocmt.channels.endpoints import queries
from ocmt.channels.model import fault
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.queries import every

MOST_JOINED = 20
"""Deliveries of one message. An album has ten pictures; a text of that many pieces is over the limit
anyway."""
MOST_BYTES = 2 * 1024 * 1024
"""Of their bodies together."""
GAP = timedelta(seconds=1.5)
"""Between two neighbors that are one message."""
LONGEST_WAIT = timedelta(seconds=5)
"""From the first one on: then what is there is the message."""
ALBUM = "album:"
_LOOKED_AT = 50
_JOINED = fault("joined", "It is part of the message before it.")


@dataclass(frozen=True)
class Part:
    """A delivery that may be part of a message."""

    id: UUID
    together: str | None
    received_at: datetime
    next_at: datetime
    """Until then something that belongs to it may come."""
    size: int


def belonging(first: Part, behind: Sequence[Part]) -> list[Part]:
    """Which of those behind the first one are one message with it. Pure.

    Parts of an album are found anywhere: in a group others write in between. Otherwise only neighbors count.
    """
    found: list[Part] = []
    size, last = first.size, first.received_at
    album = (first.together or "").startswith(ALBUM)
    for one in behind:
        if one.together != first.together:
            if album:
                continue
            break
        size += one.size
        late = one.received_at - last > GAP or one.received_at - first.received_at > LONGEST_WAIT
        if late or size > MOST_BYTES or len(found) + 2 > MOST_JOINED:
            break
        found.append(one)
        last = one.received_at
    return found


def complete_at(first: Part, others: Sequence[Part]) -> datetime:
    """When nothing more is waited for. Pure."""
    return min(max(one.next_at for one in (first, *others)), first.received_at + LONGEST_WAIT)


class Gathering:
    """Of one process."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def bodies(self, row: Any) -> list[bytes] | None:
        """The bodies that are one message with a claimed delivery's own, which is the first.

        None: something that belongs to it may still come, or somebody else has it; its lease is given back.
        """
        if row["together"] is None:
            return [row["body"]]
        if row["joined_to"] is None and not await self._join(row):
            return None
        async with self._database.connection() as connection:
            rows = await every(
                queries.joined_bodies(
                    connection,
                    user_id=row["user_id"],
                    endpoint_id=row["endpoint_id"],
                    id=row["id"],
                    limit=MOST_JOINED,
                )
            )
        return [one["body"] for one in rows]

    async def _join(self, row: Any) -> bool:
        mine = {"user_id": row["user_id"], "id": row["id"], "token": row["lease_token"]}
        now = self._clock.now()
        async with self._database.transaction() as connection:
            rows = await every(
                queries.behind_delivery(
                    connection,
                    user_id=row["user_id"],
                    endpoint_id=row["endpoint_id"],
                    thread=row["thread"],
                    id=row["id"],
                    received_at=row["received_at"],
                    limit=_LOOKED_AT,
                )
            )
            first = Part(row["id"], row["together"], row["received_at"], now, len(row["body"]))
            others = belonging(first, [Part(**one) for one in rows])
            if (until := complete_at(first, others)) > now:
                await queries.delivery_later(connection, failed=0, next_at=until, error=None, **mine)
                return False
            joined = await queries.join_deliveries(
                connection, ids=[one.id for one in others], error=_JOINED, now=now, **mine
            )
            return joined is not None
