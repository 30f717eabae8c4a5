"""What people see of their usage: `GET /api/v1/usage`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from ocmt.platform.http import principal
from ocmt.platform.storage import Store, Used
from ocmt.usage.model import Limits, PeriodUsage
from ocmt.usage.service import Ledger

StorageOf = Callable[[UUID], Awaitable[list[Used]]]
"""user → how much of each store that user keeps."""


class LimitsView(BaseModel):
    """How much may be used."""

    turn_calls: int
    daily_tokens: int


class StorageView(BaseModel):
    """How much of one store you keep."""

    store: Store
    count: int = Field(description="Conversations, deliveries, files or snapshots.")
    bytes: int
    most_count: int | None = Field(description="How many may be kept; null: as many as fit.")
    most_bytes: int
    refused_at: datetime | None = Field(
        description="When something was last refused because the store was full; kept for deliveries."
    )


class UsageView(BaseModel):
    """Totals of today and this month (UTC), and the limits; `daily_tokens` limits `today.tokens`."""

    today: PeriodUsage
    month: PeriodUsage
    limits: LimitsView
    storage: list[StorageView] = Field(description="What you keep, by store, and how much you may.")


def _shown(used: Used) -> StorageView:
    return StorageView(
        store=used.store,
        count=used.items,
        bytes=used.bytes,
        most_count=used.most_items,
        most_bytes=used.most_bytes,
        refused_at=used.refused_at,
    )


def routes(ledger: Ledger, limits: Limits, storage_of: StorageOf) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    router = APIRouter(tags=["usage"])

    @router.get("/usage")
    async def usage(request: Request) -> UsageView:
        """What you used today and this month, what you keep, and how much you may."""
        user_id = principal(request).user_id
        return UsageView(
            today=await ledger.used_today(user_id),
            month=await ledger.used_this_month(user_id),
            limits=LimitsView(turn_calls=limits.turn_calls, daily_tokens=limits.daily_tokens),
            storage=[_shown(one) for one in await storage_of(user_id)],
        )

    return router
