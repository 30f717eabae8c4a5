"""What came in and what became of it: to be looked at, and to be run again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from ocmt.channels.endpoints import queries
from ocmt.channels.model import ENDED, KEEP, KEEP_BODY, KEEP_WAITING_BODY, MOST_FORGOTTEN, Delivery, State
from ocmt.errors import Conflict, InvalidInput, NotFound
from ocmt.platform.clock import Clock, again
from ocmt.platform.database import Database
from ocmt.platform.queries import every
from ocmt.platform.storage import Budgets, Store, lock

_EXPORTED_AT_ONCE = 500
_SWEEP_EVERY = timedelta(minutes=5)
_AT_ONCE = 1_000
"""Rows that one statement of a sweep changes: it holds their user's count for as long."""
NO_ENDPOINT = "There is no such channel."
NO_DELIVERY = "There is no such delivery."

log = structlog.get_logger(__name__)


class Deliveries:
    """Of all users; every call takes the user's id and sees only theirs."""

    def __init__(self, database: Database, clock: Clock, budgets: Budgets | None = None) -> None:
        """`budgets`: what each user may keep where the plan does not say."""
        self._database = database
        self._clock = clock
        self._budgets = budgets or Budgets()

    async def page(
        self,
        user_id: UUID,
        endpoint_id: UUID,
        *,
        before: UUID | None = None,
        state: str | None = None,
        limit: int = 50,
    ) -> list[Delivery]:
        """The latest first; `before` is the id of the last one on the page before. Raises: NotFound."""
        if state is not None and state not in set(State):
            raise InvalidInput(f"A delivery's state is one of: {', '.join(State)}.")
        async with self._database.connection() as connection:
            if await queries.find_endpoint(connection, user_id=user_id, id=endpoint_id) is None:
                raise NotFound(NO_ENDPOINT)
            rows = await every(
                queries.list_deliveries(
                    connection,
                    user_id=user_id,
                    endpoint_id=endpoint_id,
                    before=before,
                    state=state,
                    limit=limit,
                )
            )
        return [Delivery(**{name: row[name] for name in Delivery.__dataclass_fields__}) for row in rows]

    async def replay(self, user_id: UUID, endpoint_id: UUID, delivery_id: UUID) -> None:
        """Have one that has ended run again, as a new turn.

        Raises: NotFound, Conflict where it is open or its body was dropped.
        """
        async with self._database.transaction() as connection:
            known = await queries.find_delivery(
                connection, user_id=user_id, endpoint_id=endpoint_id, id=delivery_id
            )
            if known is None:
                raise NotFound(NO_DELIVERY)
            if known["joined_to"] not in (None, delivery_id):
                raise Conflict("This delivery is part of the message before it. Run that one again.")
            if known["body_dropped"]:
                raise Conflict(
                    "The body of this delivery is not kept anymore, so it cannot run again. "
                    "Ask its sender to send it again."
                )
            if not await self._replay(connection, user_id, endpoint_id, ids=[delivery_id]):
                raise Conflict("This delivery is under way.")

    async def replay_many(
        self,
        user_id: UUID,
        endpoint_id: UUID,
        *,
        ids: Sequence[UUID] | None = None,
        since: datetime | None = None,
        till: datetime | None = None,
        states: Sequence[str] = (State.DEAD,),
    ) -> int:
        """Have those run again that came in from `since` until before `till`; how many. Raises: NotFound."""
        for state in states:
            if state not in ENDED:
                raise InvalidInput(f"What can be run again is: {', '.join(ENDED)}.")
        async with self._database.transaction() as connection:
            if await queries.find_endpoint(connection, user_id=user_id, id=endpoint_id) is None:
                raise NotFound(NO_ENDPOINT)
            return await self._replay(
                connection, user_id, endpoint_id, ids=ids, since=since, till=till, states=states
            )

    async def resend(self, user_id: UUID, endpoint_id: UUID, delivery_id: UUID) -> int:
        """Send what of its answer was given up; how many messages. Raises: NotFound."""
        async with self._database.transaction() as connection:
            where = {"user_id": user_id, "endpoint_id": endpoint_id}
            if await queries.find_delivery(connection, id=delivery_id, **where) is None:
                raise NotFound(NO_DELIVERY)
            count: int = await queries.resend_outbox(
                connection, delivery_id=delivery_id, now=self._clock.now(), **where
            )
            return count

    async def everything(self, user_id: UUID) -> list[dict[str, Any]]:
        """For an export: each endpoint with its `senders`, and what is still known of its `deliveries`.

        What was said stands in the conversations.
        """
        async with self._database.connection() as connection:
            endpoints = [
                dict(row) for row in await every(queries.list_endpoints(connection, user_id=user_id))
            ]
            for one in endpoints:
                where = {"user_id": user_id, "endpoint_id": one["id"]}
                one["senders"] = [dict(row) for row in await every(queries.list_senders(connection, **where))]
        for one in endpoints:
            one["deliveries"], last = [], None
            while page := await self.page(user_id, one["id"], before=last, limit=_EXPORTED_AT_ONCE):
                one["deliveries"] += [asdict(delivery) for delivery in page]
                last = page[-1].id
        return endpoints

    async def endpoints(self, email: str | None = None) -> list[dict[str, Any]]:
        """For operators: all endpoints, or those of one user, with what is open there."""
        async with self._database.connection() as connection:
            return [dict(row) for row in await every(queries.list_all_endpoints(connection, email=email))]

    async def owner(self, endpoint_id: UUID) -> UUID:
        """For operators: whose it is. Raises: NotFound."""
        async with self._database.connection() as connection:
            found: UUID | None = await queries.endpoint_owner(connection, id=endpoint_id)
        if found is None:
            raise NotFound(NO_ENDPOINT)
        return found

    async def clear(self, user_id: UUID, endpoint_id: UUID) -> int:
        """Forget every delivery of an endpoint that has ended and owes nothing. Returns how many.

        One of them that its sender sends once more runs again. Raises: NotFound.
        """
        async with self._database.transaction() as connection:
            if await queries.find_endpoint(connection, user_id=user_id, id=endpoint_id) is None:
                raise NotFound(NO_ENDPOINT)
            count: int = await queries.clear_deliveries(
                connection, user_id=user_id, endpoint_id=endpoint_id, now=self._clock.now()
            )
        return count

    async def sweep(self) -> None:
        """Forget what ended long ago, drop bodies that are of no use, make room where a budget is nearly
        full."""
        now = self._clock.now()
        async with self._database.connection() as connection:
            await queries.sweep_deliveries(connection, before=now - KEEP, now=now)
            await queries.sweep_forgotten(connection, most=MOST_FORGOTTEN)
            while await queries.drop_bodies(
                connection, before=now - KEEP_BODY, waiting_before=now - KEEP_WAITING_BODY, limit=_AT_ONCE
            ):
                pass
            crowded = await every(queries.crowded_users(connection, most_bytes=self._budgets.delivery_bytes))
        for row in crowded:
            await self._make_room(row["user_id"], row["excess"], now)

    async def _make_room(self, user_id: UUID, excess: int, now: datetime) -> None:
        """Free so many bytes: bodies first, which nobody needs anymore; then rows that are a day old."""
        for statement, given in (
            (queries.make_room_of_bodies, {}),
            (queries.make_room_of_rows, {"before": now - KEEP_BODY, "now": now}),
        ):
            while excess > 0:
                async with self._database.transaction() as connection:
                    before = await lock(connection, user_id, Store.DELIVERIES, self._budgets)
                    excess = before.bytes - before.most_bytes // 2
                    if excess <= 0 or not await statement(
                        connection, user_id=user_id, excess=excess, limit=_AT_ONCE, **given
                    ):
                        break

    async def keep_sweeping(self) -> None:
        """That, every hour, until cancelled."""
        await again(self._clock, _SWEEP_EVERY, self.sweep, log, "deliveries_not_swept")

    async def _replay(
        self,
        connection: Any,
        user_id: UUID,
        endpoint_id: UUID,
        *,
        ids: Sequence[UUID] | None = None,
        since: datetime | None = None,
        till: datetime | None = None,
        states: Sequence[str] = ENDED,
    ) -> int:
        count: int = await queries.replay_deliveries(
            connection,
            user_id=user_id,
            endpoint_id=endpoint_id,
            ids=list(ids) if ids is not None else None,
            since=since,
            till=till,
            states=list(states),
            now=self._clock.now(),
        )
        return count
