"""The ledger of model calls: opened before a call is made, closed when it has ended, read for the limits.

The check of the limits and the opening of the row are one step that no other call of the same user can pass
at the same time. A row that was never closed (the process was killed) still counts, with its estimate.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import load_queries
from ocmt.usage.model import (
    CLIENT_GONE,
    OPEN_AT_MOST,
    REFUSALS,
    UNATTRIBUTED_WINDOW,
    CallRefused,
    Fault,
    Limits,
    NewCall,
    PeriodUsage,
    Tokens,
    Usage,
    refusal,
)

queries = load_queries("ocmt.usage")
_REFUSALS = sorted(REFUSALS)


class Ledger:
    """Every model call of every user. Times come from the clock; a day is a UTC day."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def open_call(self, call: NewCall, limits: Limits, *, forbidden: Fault | None = None) -> UUID:
        """Check the limits and book the call as under way, in one step. Returns the call's id.

        `forbidden`: why it may not be made whatever the limits say, with a code that is one of REFUSALS.
        Raises: CallRefused where that or a limit forbids it; the ledger then has the refusal, once a turn
        and reason.
        """
        if forbidden is None:
            return await self._open(call, limits)
        async with self._database.transaction() as connection:
            await queries.lock_calls_of_user(connection, user_id=call.user_id)
            await self._record(connection, call, forbidden)
        raise CallRefused(forbidden)

    async def _open(self, call: NewCall, limits: Limits) -> UUID:
        async with self._database.transaction() as connection:
            await queries.lock_calls_of_user(connection, user_id=call.user_id)
            call_id: UUID = uuid7()
            used = await queries.open_call(
                connection,
                id=call_id,
                user_id=call.user_id,
                turn_id=call.turn_id,
                provider=call.provider,
                model=call.model,
                key_source=call.key_source,
                started_at=self._clock.now(),
                estimated_tokens=call.estimated_tokens,
                counted_from=call.counted_from if call.turn_id else self._clock.now() - UNATTRIBUTED_WINDOW,
                refusals=_REFUSALS,
                midnight=self._midnight(),
                turn_calls=limits.turn_calls,
                daily_tokens=None if call.key_source == "demo" else limits.daily_tokens,
            )
            if used["opened"]:
                return call_id
            fault = refusal(
                calls=used["calls"], tokens=used["tokens"], limits=limits, in_turn=call.turn_id is not None
            )
            await self._record(connection, call, fault)
        raise CallRefused(fault)

    async def _record(self, connection: Connection, call: NewCall, fault: Fault) -> None:
        await queries.record_refusal(
            connection,
            id=uuid7(),
            user_id=call.user_id,
            turn_id=call.turn_id,
            provider=call.provider,
            model=call.model,
            key_source=call.key_source,
            now=self._clock.now(),
            since=call.counted_from or self._clock.now() - UNATTRIBUTED_WINDOW,
            error_code=fault.code,
            error_message=fault.message,
        )

    async def close_call(
        self, call_id: UUID, *, user_id: UUID, status: int | None, tokens: Tokens | None, fault: Fault | None
    ) -> None:
        """Book how a call ended. `tokens` None: nobody knows what it used, so the estimate stays.

        `status` is the provider's HTTP status, None where none came. Closing a closed call changes nothing.
        """
        async with self._database.connection() as connection:
            await queries.close_call(
                connection,
                id=call_id,
                user_id=user_id,
                finished_at=self._clock.now(),
                status=status,
                error_code=fault.code if fault else None,
                error_message=fault.message if fault else None,
                input_tokens=tokens.input if tokens else None,
                output_tokens=tokens.output if tokens else None,
                cache_read_tokens=tokens.cache_read if tokens else None,
                cache_write_tokens=tokens.cache_write if tokens else None,
            )

    async def calls_in_turn(self, user_id: UUID, turn_id: UUID) -> int:
        """How many model calls were made for a turn, finished or not."""
        async with self._database.connection() as connection:
            count: int = await queries.count_calls_in_turn(
                connection, user_id=user_id, turn_id=turn_id, refusals=_REFUSALS
            )
        return count

    async def tokens_today(self, user_id: UUID) -> int:
        """Tokens that count against today's (UTC) limit, the estimates of running calls included."""
        async with self._database.connection() as connection:
            total: int = await queries.sum_tokens(connection, user_id=user_id, since=self._midnight())
        return total

    async def turn_usage(self, user_id: UUID, turn_id: UUID) -> Usage:
        """What a turn used so far; zeros for a turn without calls."""
        async with self._database.connection() as connection:
            row = await queries.turn_usage(connection, user_id=user_id, turn_id=turn_id, refusals=_REFUSALS)
        return Usage(**row)

    async def last_fault(self, user_id: UUID, turn_id: UUID) -> Fault | None:
        """Why the last call of a turn failed or was refused; None where it went well or there was none."""
        async with self._database.connection() as connection:
            row = await queries.last_outcome(
                connection, user_id=user_id, turn_id=turn_id, client_gone=CLIENT_GONE
            )
        if row is None or row["error_code"] is None:
            return None
        return Fault(row["error_code"], row["error_message"] or "The model call failed.")

    async def used_today(self, user_id: UUID) -> PeriodUsage:
        """Totals since 00:00 UTC."""
        return await self._used_since(user_id, self._midnight())

    async def used_this_month(self, user_id: UUID) -> PeriodUsage:
        """Totals since the first of the month, 00:00 UTC."""
        return await self._used_since(user_id, self._midnight().replace(day=1))

    async def _used_since(self, user_id: UUID, since: datetime) -> PeriodUsage:
        async with self._database.connection() as connection:
            row = await queries.usage_since(
                connection,
                user_id=user_id,
                since=since,
                open_since=self._clock.now() - OPEN_AT_MOST,
                refusals=_REFUSALS,
            )
        return PeriodUsage(**row)

    def _midnight(self) -> datetime:
        return self._clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
