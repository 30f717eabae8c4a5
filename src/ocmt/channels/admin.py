"""Deliveries of everybody, for those who run the platform: what became of them, and having them run again.

Facts only: what was said, by whom, where and in which conversation is its owner's alone. Who may enter, and
the audit log, are identity's, and are passed in.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, status
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ocmt.channels.endpoints import queries
from ocmt.channels.model import ENDED, State
from ocmt.errors import InvalidInput
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import every

PAGE = 50
MOST_AT_ONCE = 500
"""Deliveries that can be named in one request; a time has no such bound."""


@dataclass(frozen=True)
class DeliveryOfAll:
    """One webhook and what became of it, as an administrator may know it."""

    id: UUID
    email: str
    channel: str
    endpoint_id: UUID
    state: str
    attempts: int
    replays: int
    received_at: datetime
    finished_at: datetime | None
    error: Mapping[str, Any] | None
    body_dropped: bool
    sent: int
    pending: int
    dead: int
    may_be_double: bool


class DeliveriesOfAll:
    """Of the whole installation; the state is in the database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def page(
        self,
        *,
        before: UUID | None = None,
        state: str | None = None,
        email: str | None = None,
        limit: int = PAGE,
    ) -> list[DeliveryOfAll]:
        """The latest first; `before` is the id of the last one on the page before."""
        async with self._database.connection() as connection:
            rows = queries.list_deliveries_of_all(
                connection, before=before, state=state, email=email, limit=limit
            )
            return [DeliveryOfAll(**row) for row in await every(rows)]

    async def replay(
        self,
        *,
        ids: Sequence[UUID] | None = None,
        since: datetime | None = None,
        till: datetime | None = None,
        states: Sequence[str] = ENDED,
        email: str | None = None,
        note: Callable[[Connection, Mapping[UUID, int]], Awaitable[None]],
    ) -> int:
        """Have those run again, as new turns of their users; how many. Open ones stay as they are.

        `note` is awaited last in the same transaction, with how many of whom, where there are any.
        """
        async with self._database.transaction() as connection:
            rows = queries.replay_deliveries_of_all(
                connection,
                ids=list(ids) if ids is not None else None,
                since=since,
                till=till,
                states=list(states),
                email=email,
                now=self._clock.now(),
            )
            moved = {row["user_id"]: row["count"] for row in await every(rows)}
            if moved:
                await note(connection, moved)
        return sum(moved.values())


class FaultView(BaseModel):
    """What went wrong, or why nothing was done."""

    code: str = Field(examples=["agent_failed"])
    message: str = Field(examples=["The agent could not answer."])


class DeliveryView(BaseModel):
    """One webhook of somebody's channel and what became of it; nothing of what was said."""

    id: UUID
    email: str = Field(description="Whose channel it is.")
    channel: str = Field(examples=["telegram"])
    endpoint_id: UUID
    state: State
    attempts: int = Field(description="That failed.")
    replays: int = Field(description="How often somebody had it run again.")
    received_at: datetime
    finished_at: datetime | None
    error: FaultView | None
    body_dropped: bool = Field(description="Its body is not kept anymore, so it cannot run again.")
    sent: int = Field(description="Messages of its answer that were sent; likewise `pending` and `dead`.")
    pending: int
    dead: int
    may_be_double: bool = Field(description="Nobody knows whether a try to send it had gone through.")


class DeliveryPage(BaseModel):
    """Deliveries, newest first."""

    items: list[DeliveryView]
    next: UUID | None = Field(description="Give it as `cursor` for the next page; null: this is the last.")


class ReplayOfAll(BaseModel):
    """Which are to run again: those of `ids`, or those that came in from `from` until before `to`."""

    model_config = ConfigDict(extra="forbid")

    ids: list[UUID] | None = Field(default=None, min_length=1, max_length=MOST_AT_ONCE)
    since: AwareDatetime | None = Field(default=None, alias="from")
    till: AwareDatetime | None = Field(default=None, alias="to")
    states: list[Literal["done", "ignored", "waiting", "dead"]] | None = Field(
        default=None,
        min_length=1,
        description="If not said: of a time those that are dead, of ids all.",
    )
    email: str | None = Field(default=None, max_length=1000, description="Those of this user alone.")


class Replayed(BaseModel):
    """How many run again."""

    count: int


class Record(Protocol):
    """Writes the audit log in a transaction: on whose request, what was done, and whom it concerns."""

    async def __call__(
        self, connection: Connection, request: Request, action: str, subject_id: UUID | None, **details: Any
    ) -> None:
        """Last in the transaction."""


def routes(
    deliveries: DeliveriesOfAll,
    *,
    looks: Callable[..., Any],
    changes: Callable[..., Any],
    record: Record,
) -> APIRouter:
    """The routes, to be mounted under `/api/v1`. `looks`, `changes`: who may, as FastAPI dependencies."""
    router = APIRouter(prefix="/admin", tags=["admin"])

    @router.get("/deliveries", dependencies=[Depends(looks)])
    async def list_deliveries(
        state: State | None = None,
        email: Annotated[str | None, Query(max_length=1000)] = None,
        cursor: UUID | None = None,
    ) -> DeliveryPage:
        """What came in over everybody's channels, and what became of it."""
        found = await deliveries.page(before=cursor, state=state, email=email or None, limit=PAGE + 1)
        page = [DeliveryView.model_validate(one, from_attributes=True) for one in found[:PAGE]]
        return DeliveryPage(items=page, next=page[-1].id if len(found) > PAGE else None)

    @router.post("/deliveries/replay", status_code=status.HTTP_202_ACCEPTED, dependencies=[Depends(changes)])
    async def replay(body: ReplayOfAll, request: Request) -> Replayed:
        """Have deliveries run again, as new turns of their users' agents; how many. Open ones go on."""
        if (body.ids is None) == (body.since is None):
            raise InvalidInput("Say which: from (and to), or ids.")
        states = body.states or (ENDED if body.ids is not None else (State.DEAD,))
        said = body.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"email", "states"})

        async def note(connection: Connection, moved: Mapping[UUID, int]) -> None:
            # Of one user it stands in what happened to their account, too.
            subject = next(iter(moved)) if len(moved) == 1 else None
            details = {**said, "states": list(states), "count": sum(moved.values())}
            await record(connection, request, "deliveries.replayed", subject, **details)

        count = await deliveries.replay(
            ids=body.ids,
            since=body.since,
            till=body.till,
            states=states,
            email=body.email or None,
            note=note,
        )
        return Replayed(count=count)

    return router
