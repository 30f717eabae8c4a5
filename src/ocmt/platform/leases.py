"""One replica's right to drive a row, with a fencing token that only ever grows.

Works over any table with the columns `lease_owner`, `lease_token`, `lease_expires_at`. The database's clock
decides. Whoever writes under a lease guards the write with `lease_token = <its token>`: once a lease was
taken over or given back, its token never matches again, however late its former holder wakes up.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ocmt.platform.database import Database

_NAME = re.compile(r"[a-z_]+")
DURATION = timedelta(seconds=15)


@dataclass(frozen=True)
class Lease:
    """Held until `expires_at` (the database's time), or longer with heartbeats."""

    key: UUID
    token: int
    owner: str
    expires_at: datetime


class Leases:
    """The leases that one owner holds on the rows of one table.

    `table`, `key`: the table and its UUID key column. `owner`: unlike that of any other living process; a
    process that comes back under the same name finds its unexpired leases its own.
    """

    def __init__(
        self, database: Database, *, table: str, key: str, owner: str, duration: timedelta = DURATION
    ) -> None:
        if not (_NAME.fullmatch(table) and _NAME.fullmatch(key)):
            raise ValueError("table and key must be plain names")
        self._database = database
        self._owner = owner
        self.duration = duration
        self._tokens: dict[UUID, int] = {}
        # Checked names only, never a user's words.
        self._take = f"""
            update {table} set
              lease_token = lease_token
                + case when lease_owner = $2 and lease_expires_at > clock_timestamp() then 0 else 1 end,
              lease_owner = $2,
              lease_expires_at = clock_timestamp() + $3::interval
            where {key} = $1
              and (lease_owner is null or lease_owner = $2 or lease_expires_at is null
                   or lease_expires_at <= clock_timestamp())
            returning lease_token, lease_expires_at
        """  # noqa: S608
        self._heartbeat = f"""
            update {table} set lease_expires_at = clock_timestamp() + $4::interval
            from unnest($1::uuid[], $2::bigint[]) as held (key, token)
            where {table}.{key} = held.key and lease_token = held.token and lease_owner = $3
            returning {table}.{key}
        """  # noqa: S608
        self._release = f"""
            update {table} set lease_owner = null, lease_expires_at = null, lease_token = lease_token + 1
            where {key} = $1 and lease_token = $2 and lease_owner = $3
        """  # noqa: S608

    async def take(self, key: UUID) -> Lease | None:
        """The lease on that row: with the token that it has if it is ours and alive, with the next one if it
        was free or had expired. None: another owner holds it, or there is no such row."""
        async with self._database.connection() as connection:
            row = await connection.fetchrow(self._take, key, self._owner, self.duration)
        if row is None:
            self._tokens.pop(key, None)
            return None
        self._tokens[key] = row["lease_token"]
        return Lease(key, row["lease_token"], self._owner, row["lease_expires_at"])

    async def heartbeat(self, keys: Sequence[UUID]) -> set[UUID]:
        """Extend them; returns those that are lost, for good. One that expired without anybody taking it is
        not lost. Raises Unavailable, which says nothing about any of them."""
        held = {key: self._tokens[key] for key in keys if key in self._tokens}
        lost = set(keys) - held.keys()
        if held:
            async with self._database.connection() as connection:
                rows = await connection.fetch(
                    self._heartbeat, list(held), list(held.values()), self._owner, self.duration
                )
            lost |= held.keys() - {row[0] for row in rows}
        for key in lost:
            self._tokens.pop(key, None)
        return lost

    async def release(self, lease: Lease) -> None:
        """Give it back; from then on its token is worth nothing. Releasing a lost lease does nothing."""
        async with self._database.connection() as connection:
            await connection.execute(self._release, lease.key, lease.token, self._owner)
        if self._tokens.get(lease.key) == lease.token:
            del self._tokens[lease.key]
