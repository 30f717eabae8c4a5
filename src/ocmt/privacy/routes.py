"""Export and deletion over HTTP: of oneself, and of anybody by an administrator; and the proofs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from ocmt.identity.browsers import clear
from ocmt.identity.guards import Me, actor_of, administrator, auditor, require_recent
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock
from ocmt.platform.http.headers import fields
from ocmt.privacy.service import Privacy

_PIECE = 256 * 1024


class Confirmation(BaseModel):
    """That it is meant."""

    model_config = ConfigDict(extra="forbid")

    confirm: str = Field(max_length=1000, description="Your e-mail address, written out.")


class DeletionView(BaseModel):
    """An account that is being deleted, or was."""

    id: UUID
    user_id: UUID
    asked_at: datetime
    asked_by: UUID | None
    finished_at: datetime | None
    report: dict[str, Any] = Field(description="Rows by table and objects, counted before and after.")


class DeletionPage(BaseModel):
    """Deletions, newest first."""

    items: list[DeletionView]
    next: UUID | None


def routes(privacy: Privacy, identity: Identity, clock: Clock) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    router = APIRouter(tags=["privacy"])

    @router.get("/me/export", response_class=StreamingResponse)
    async def export(me: Me, request: Request) -> StreamingResponse:
        """All that is yours as a zip. Takes a recent sign-in."""
        require_recent(me, clock)
        ready = privacy.export(actor_of(me, request))
        file, size = await ready.__aenter__()

        async def pieces() -> AsyncIterator[bytes]:
            try:
                while piece := await asyncio.to_thread(file.read, _PIECE):
                    yield piece
            finally:
                await ready.__aexit__(None, None, None)

        headers = {
            "content-length": str(size),
            "content-disposition": 'attachment; filename="ocmt-export.zip"',
            "cache-control": "no-store",
        }
        return StreamingResponse(pieces(), media_type="application/zip", headers=fields(headers))

    @router.delete("/me", status_code=status.HTTP_202_ACCEPTED, response_class=Response)
    async def delete_me(body: Confirmation, me: Me, request: Request) -> Response:
        """Delete your account and all that is yours. You are signed out at once. Takes a recent sign-in."""
        require_recent(me, clock)
        await privacy.ask_deletion(actor_of(me, request), me.user_id, confirm=body.confirm)
        response = Response(status_code=status.HTTP_202_ACCEPTED)
        clear(response, identity.address)
        return response

    @router.delete(
        "/admin/users/{user_id}",
        status_code=status.HTTP_202_ACCEPTED,
        response_class=Response,
        dependencies=[Depends(administrator)],
    )
    async def delete_user(user_id: UUID, me: Me, request: Request) -> Response:
        """Delete somebody's account and all that is theirs. Takes a recent sign-in."""
        require_recent(me, clock)
        await privacy.ask_deletion(actor_of(me, request), user_id)
        return Response(status_code=status.HTTP_202_ACCEPTED)

    @router.get("/admin/deletions", dependencies=[Depends(auditor)])
    async def list_deletions(
        after: UUID | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> DeletionPage:
        """Accounts that were deleted, with the proof."""
        found = await privacy.deletions(after=after, limit=limit + 1)
        page = [DeletionView.model_validate(one, from_attributes=True) for one in found[:limit]]
        return DeletionPage(items=page, next=page[-1].id if len(found) > limit else None)

    return router
