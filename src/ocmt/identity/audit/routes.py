"""The audit log over HTTP: one's own, and to administrators and auditors all of it, as pages, a file and a
stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field

from ocmt.errors import Unauthenticated
from ocmt.identity.audit.model import Row
from ocmt.identity.audit.service import Audit
from ocmt.identity.guards import Me, auditor, signed_in
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock

POLL = 2.0
"""Seconds; a stream looks so often for what has come."""
LONGEST = 900.0
"""Seconds of one stream; whoever follows opens the next with the last number."""


class RowView(BaseModel):
    """One thing that was done."""

    id: int
    at: datetime
    action: str
    actor_id: UUID | None = Field(description="Who did it; null: the platform, or nobody known.")
    subject_id: UUID | None = Field(description="Whose account it concerns.")
    details: dict[str, Any] | None = Field(description="Null: erased with the account that they named.")
    hash: str = Field(description="Of this row and all before it, hexadecimal.")


class NamedRowView(RowView):
    """The same to administrators, who know people by their addresses."""

    actor_email: str | None = Field(description="Null: nobody, or somebody who was deleted.")
    subject_email: str | None


class RowPage(BaseModel):
    """Rows, newest first."""

    items: list[RowView]
    next: int | None = Field(description="Give it as `before` for the next page; null: this is the last.")


class NamedRowPage(BaseModel):
    """Rows of everybody, newest first."""

    items: list[NamedRowView]
    next: int | None = Field(description="Give it as `before` for the next page; null: this is the last.")


Before = Annotated[int | None, Query(ge=1, le=2**63 - 1)]
After = Annotated[int, Query(ge=0, le=2**63 - 1)]
Limit = Annotated[int, Query(ge=1, le=500)]
Action = Annotated[str | None, Query(max_length=100, description="How the action begins: `session.`")]


def routes(identity: Identity, clock: Clock) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    whole = APIRouter(tags=["audit"], dependencies=[Depends(signed_in)])

    @whole.get("/audit")
    async def own_rows(me: Me, before: Before = None, limit: Limit = 100) -> RowPage:
        """What was done by you or to your account."""
        return _page(await identity.audit.page(user_id=me.user_id, before=before, limit=limit + 1), limit)

    whole.routes += _administration(identity, clock).routes
    return whole


def _administration(identity: Identity, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/admin/audit", tags=["audit"], dependencies=[Depends(auditor)])

    @router.get("")
    async def all_rows(
        before: Before = None,
        limit: Limit = 100,
        user_id: UUID | None = None,
        action: Action = None,
        since: AwareDatetime | None = None,
        until: AwareDatetime | None = None,
    ) -> NamedRowPage:
        """What was done by anybody, or by or to one user."""
        rows = await identity.audit.page(
            user_id=user_id, before=before, action=action, since=since, until=until, limit=limit + 1
        )
        page = _page(rows, limit)
        named = {each for row in page.items for each in (row.actor_id, row.subject_id) if each}
        emails = await identity.addresses(named)

        def email_of(user_id: UUID | None) -> str | None:
            return emails.get(user_id) if user_id else None

        return NamedRowPage(
            items=[
                NamedRowView(
                    **row.model_dump(),
                    actor_email=email_of(row.actor_id),
                    subject_email=email_of(row.subject_id),
                )
                for row in page.items
            ],
            next=page.next,
        )

    @router.get("/export", response_class=StreamingResponse)
    async def export(after: After = 0) -> StreamingResponse:
        """All of it as lines of JSON, oldest first, behind the row `after`."""
        return _lines(_rows(identity.audit, after))

    @router.get("/stream", response_class=StreamingResponse)
    async def stream(request: Request, after: After = 0) -> StreamingResponse:
        """As `export`, and it goes on with what comes, for a quarter of an hour."""
        return _lines(_following(identity.audit, clock, request, after))

    return router


def _lines(lines: AsyncIterator[str]) -> StreamingResponse:
    return StreamingResponse(lines, media_type="application/jsonl", headers={"cache-control": "no-store"})


def _line(row: Row) -> str:
    return json.dumps(_view(row).model_dump(mode="json"), ensure_ascii=False) + "\n"


async def _rows(audit: Audit, after: int) -> AsyncIterator[str]:
    while rows := await audit.read(after=after):
        for row in rows:
            yield _line(row)
        after = rows[-1].id


async def _following(audit: Audit, clock: Clock, request: Request, after: int) -> AsyncIterator[str]:
    ends = clock.monotonic() + LONGEST
    while clock.monotonic() < ends and not await request.is_disconnected():
        if not await _may_still_read(request):
            return
        rows = await audit.read(after=after)
        for row in rows:
            yield _line(row)
        if rows:
            after = rows[-1].id
        else:
            yield "\n"  # so that a reader who has gone is noticed
            await clock.sleep(POLL)


async def _may_still_read(request: Request) -> bool:
    """Whether who follows is still signed in, and still an administrator or auditor."""
    try:
        me = await request.state.still()
    except Unauthenticated:
        return False
    return me is not None and me.role in ("admin", "auditor")


def _page(rows: Any, limit: int) -> RowPage:
    shown = [_view(row) for row in rows[:limit]]
    return RowPage(items=shown, next=shown[-1].id if len(rows) > limit else None)


def _view(row: Row) -> RowView:
    return RowView(
        id=row.id,
        at=row.at,
        action=row.action,
        actor_id=row.actor_id,
        subject_id=row.subject_id,
        details=None if row.details is None else dict(row.details),
        hash=row.hash.hex(),
    )
