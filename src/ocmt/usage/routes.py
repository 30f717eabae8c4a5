"""What people see of their usage: `GET /api/v1/usage`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from ocmt.platform.http import principal
from ocmt.usage.model import Limits, PeriodUsage
from ocmt.usage.service import Ledger


class LimitsView(BaseModel):
    """How much may be used."""

    turn_calls: int
    daily_tokens: int


class UsageView(BaseModel):
    """Totals of today and this month (UTC), and the limits; `daily_tokens` limits `today.tokens`."""

    today: PeriodUsage
    month: PeriodUsage
    limits: LimitsView


def routes(ledger: Ledger, limits: Limits) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    router = APIRouter(tags=["usage"])

    @router.get("/usage")
    async def usage(request: Request) -> UsageView:
        """What you used today and this month, and how much you may."""
        user_id = principal(request).user_id
        return UsageView(
            today=await ledger.used_today(user_id),
            month=await ledger.used_this_month(user_id),
            limits=LimitsView(turn_calls=limits.turn_calls, daily_tokens=limits.daily_tokens),
        )

    return router
