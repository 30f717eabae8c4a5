"""Keeps webhooks, many in one transaction: what arrives while a batch is written makes up the next one.

Nobody waits for a batch to fill, and under load a commit is shared by hundreds.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import structlog
from uuid_utils.compat import uuid7

from ocmt.channels.allowances import TRUST_SECONDS, Allowances
from ocmt.channels.base import Accepted
from ocmt.channels.endpoints import queries
from ocmt.channels.model import short_id
from ocmt.errors import InvalidInput, LimitReached, NotFound, OcmtError, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import every
from ocmt.platform.storage import Budgets

MOST = 500
"""Webhooks of one batch."""
MOST_BYTES = 8 * 1024 * 1024
"""Of their bodies, together; one that is larger goes alone."""
QUEUE = 5_000
QUEUE_BYTES = 64 * 1024 * 1024
QUEUE_BYTES_OF_ONE = 16 * 1024 * 1024
"""Of one endpoint: large webhooks of one sender leave room for those of others."""
_ROW = 500
"""Bytes that a delivery counts as beside its body: `delivery_size` in migration 0017."""
RETRY_AFTER = 2.0
FULL = (
    "The owner of this address keeps as many webhooks as the plan allows, so this one was not kept. "
    "Send it again later, or tell the owner."
)
FULL_RETRY_AFTER = 3600.0
"""Seconds; in less, no room comes to be by itself."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Arrival:
    id: UUID
    endpoint_id: UUID
    external_id: str
    thread: str
    urgent: bool
    together: str | None
    body: bytes
    received_at: datetime
    next_at: datetime
    kept: asyncio.Future[None]


class Writer:
    """Of one process. It works while something is to be written, and needs no task of its own."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        queue: int = QUEUE,
        most: int = MOST,
        budgets: Budgets | None = None,
    ) -> None:
        """`queue`: how many may wait; `most`: how many one transaction takes; `budgets`: what each user may
        keep where the plan does not say."""
        self._database = database
        self._clock = clock
        self._queue = queue
        self._most = most
        self._budgets = budgets or Budgets()
        self._waiting: deque[_Arrival] = deque()
        self._bytes = 0
        self._bytes_of: dict[UUID, int] = {}
        """Of those that wait, by endpoint."""
        self._writing: asyncio.Task[None] | None = None
        self._allowances = Allowances()
        self._counting: asyncio.Task[None] | None = None
        self.batches = 0
        """Transactions so far."""

    async def keep(self, endpoint_id: UUID, accepted: Accepted, body: bytes) -> None:
        """Returns once it is committed, now or earlier. Who stops waiting has it kept all the same.

        Raises: Unavailable (perhaps it was kept), NotFound where the endpoint has gone, LimitReached where
        the user of the endpoint keeps as much as the plan allows.
        """
        if len(self._waiting) >= self._queue or (self._waiting and self._bytes + len(body) > QUEUE_BYTES):
            raise Unavailable("Too much comes in just now.", retry_after=RETRY_AFTER)
        waiting = self._bytes_of.get(endpoint_id, 0)
        if waiting and waiting + len(body) > QUEUE_BYTES_OF_ONE:
            raise LimitReached("That was too much at once.", retry_after=RETRY_AFTER)
        now = self._clock.now()
        arrival = _Arrival(
            id=uuid7(),
            endpoint_id=endpoint_id,
            external_id=short_id(accepted.external_id),
            thread=short_id(accepted.thread),
            urgent=accepted.urgent,
            together=accepted.together,
            body=body,
            received_at=now,
            next_at=now + timedelta(seconds=accepted.wait) if accepted.wait else now,
            kept=asyncio.get_running_loop().create_future(),
        )
        self._waiting.append(arrival)
        self._bytes += len(body)
        self._bytes_of[endpoint_id] = waiting + len(body)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_all(), name="webhooks")
        await arrival.kept

    async def _write_all(self) -> None:
        while self._waiting:
            batch = [self._next()]
            size = len(batch[0].body)
            while self._waiting and len(batch) < self._most:
                size += len(self._waiting[0].body)
                if size > MOST_BYTES:
                    break
                batch.append(self._next())
            try:
                await self._write(batch)
            except BaseException as error:
                for arrival in batch:
                    _settle(arrival, _as_ours(error))
                if not isinstance(error, Exception):
                    for arrival in self._waiting:
                        _settle(arrival, _as_ours(error))
                    raise

    def _next(self) -> _Arrival:
        arrival = self._waiting.popleft()
        self._bytes -= len(arrival.body)
        left = self._bytes_of.pop(arrival.endpoint_id, 0) - len(arrival.body)
        if left > 0:
            self._bytes_of[arrival.endpoint_id] = left
        return arrival

    async def _write(self, batch: list[_Arrival]) -> None:
        try:
            try:
                gone, refused = await self._insert(batch)
            except Unavailable as error:
                if not isinstance(error.__cause__, asyncpg.DeadlockDetectedError):
                    raise
                gone, refused = await self._insert(batch)  # two processes counted the same users
        except (InvalidInput, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            # One of them cannot be kept, or its endpoint went this moment: the others must not suffer for it.
            log.warning("webhooks_not_kept_together", count=len(batch), error=repr(error)[:500])
            if len(batch) == 1:
                raise InvalidInput("This webhook can not be kept as it is.") from error
            for arrival in batch:
                try:
                    await self._write([arrival])
                except OcmtError as alone:
                    _settle(arrival, alone)
            return
        for arrival in batch:
            if arrival.id in gone:
                _settle(arrival, NotFound("There is no such page."))
            elif arrival.id in refused:
                _settle(arrival, LimitReached(FULL, retry_after=FULL_RETRY_AFTER))
            else:
                _settle(arrival, None)

    async def _insert(self, batch: list[_Arrival]) -> tuple[set[UUID], set[UUID]]:
        """Insert and count those for which there is room.

        Returns the arrivals whose endpoints do not exist, and those that were refused because the budget of
        their user is used up.
        """
        sizes: dict[UUID, int] = {}
        for one in batch:
            sizes[one.endpoint_id] = sizes.get(one.endpoint_id, 0) + _ROW + len(one.body)
        now = self._clock.monotonic()
        if self._allowances.trusts(sizes, now):
            rows = await self._keep_trusted(batch)
            self._note_trusted(rows, Counter(one.endpoint_id for one in batch), sizes)
            refused: set[UUID] = set()
        else:
            rows, refused = await self._keep_counted(batch, sizes, now)
        self.batches += 1
        there = {row["id"] for row in rows}
        return {one.id for one in batch if one.endpoint_id not in there}, refused

    async def _keep_trusted(self, batch: list[_Arrival]) -> list[Any]:
        """Keep a batch of users who are counted later. Returns the rows of `keep_trusted`."""
        async with self._database.transaction() as connection:
            rows = await every(queries.keep_trusted(connection, **_columns(batch)))
            await self._uncount_known(connection, batch, rows)
        return rows

    def _note_trusted(self, rows: list[Any], numbers: Mapping[UUID, int], sizes: Mapping[UUID, int]) -> None:
        for row in rows:
            self._allowances.take(row["user_id"], numbers[row["id"]], sizes[row["id"]])
        if self._counting is None or self._counting.done():
            self._counting = asyncio.create_task(self._count_later(), name="webhooks: count")

    async def _keep_counted(
        self, batch: list[_Arrival], sizes: Mapping[UUID, int], now: float
    ) -> tuple[list[Any], set[UUID]]:
        """Keep those of a batch whose users have room, and count them.

        Returns the rows of `keep_deliveries`, and the arrivals that were refused.
        """
        carried = self._allowances.carry(self._allowances.owners(sizes))
        counted: set[UUID] = set()
        try:
            async with self._database.transaction() as connection:
                rows = await every(
                    queries.keep_deliveries(
                        connection,
                        **_columns(batch),
                        carrying=carried.users,
                        carried_items=carried.items,
                        carried_bytes=carried.bytes,
                        most_bytes=self._budgets.delivery_bytes,
                    )
                )
                full = {row["id"] for row in rows if row["bytes_left"] is None}
                await self._uncount_known(
                    connection, [one for one in batch if one.endpoint_id not in full], rows
                )
                refused = [one for one in batch if one.endpoint_id in full]
                kept = await self._refuse(connection, refused) if refused else set()
            counted = {row["user_id"] for row in rows if row["bytes_left"] is not None}
        finally:
            self._allowances.put_back(carried, counted)
        for row in rows:
            self._allowances.know(row["id"], row["user_id"])
            if row["bytes_left"] is not None:
                self._allowances.counted(row["user_id"], row["bytes_left"], now)
        return rows, {one.id for one in refused} - kept

    async def _uncount_known(self, connection: Connection, batch: list[_Arrival], rows: list[Any]) -> None:
        """Take off what was counted, or will be, for webhooks that were known already."""
        there = {row["id"] for row in rows}
        taken = [one for one in batch if one.endpoint_id in there]
        if rows and rows[0]["added"] < len(taken):
            await queries.uncount_known(
                connection,
                ids=[one.id for one in taken],
                endpoint_ids=[one.endpoint_id for one in taken],
                sizes=[len(one.body) for one in taken],
            )

    async def _count_later(self) -> None:
        """Count what no later batch has counted; ends once everything is."""
        while not self._allowances.all_counted:
            await self._clock.sleep(TRUST_SECONDS)
            try:
                await self.count_now()
            except OcmtError as error:
                log.warning("webhooks_not_counted_yet", error=error.message)
        self._allowances.forget_idle(self._clock.monotonic())

    async def count_now(self) -> None:
        """Count what was kept for trusted users. Raises: Unavailable."""
        carried = self._allowances.carry()
        if not carried.users:
            return
        try:
            async with self._database.connection() as connection:
                await queries.count_deliveries(
                    connection,
                    carrying=carried.users,
                    carried_items=carried.items,
                    carried_bytes=carried.bytes,
                )
        except BaseException:
            self._allowances.put_back(carried)
            raise

    async def _refuse(self, connection: Connection, refused: list[_Arrival]) -> set[UUID]:
        """Note it for their users. Returns those that were kept before, which are fine as they are."""
        rows = queries.refuse_deliveries(
            connection,
            ids=[one.id for one in refused],
            endpoint_ids=[one.endpoint_id for one in refused],
            external_ids=[one.external_id for one in refused],
            now=self._clock.now(),
        )
        return {row["id"] for row in await every(rows)}


def _columns(batch: list[_Arrival]) -> dict[str, list[Any]]:
    return {
        "ids": [one.id for one in batch],
        "endpoint_ids": [one.endpoint_id for one in batch],
        "external_ids": [one.external_id for one in batch],
        "threads": [one.thread for one in batch],
        "bodies": [one.body for one in batch],
        "times": [one.received_at for one in batch],
        "next_times": [one.next_at for one in batch],
        "urgent": [one.urgent for one in batch],
        "togethers": [one.together for one in batch],
    }


def _settle(arrival: _Arrival, error: OcmtError | None) -> None:
    if arrival.kept.done():
        return  # who sent it has gone
    if error is None:
        arrival.kept.set_result(None)
    else:
        arrival.kept.set_exception(error)


def _as_ours(error: BaseException) -> OcmtError:
    if isinstance(error, OcmtError):
        return error
    return Unavailable("This service ends just now.", retry_after=RETRY_AFTER, detail=repr(error)[:500])
