"""A worker's loop: claim what is due, a few at a time, and work on each in a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

import structlog

from ocmt.errors import OcmtError
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database, Hints, Subscription
from ocmt.platform.queries import every

POLL_INTERVAL = 1.0
LEASE = timedelta(seconds=30)
"""Of what is claimed: who claims it works on it for less."""

log = structlog.get_logger(__name__)

Claim = Callable[[Connection, datetime, datetime, int], AsyncIterator[Any]]
"""(connection, now, until, how many at most) → the rows, ours until then."""


class Claims:
    """Of one process; any number may run one."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        hints: Hints,
        *,
        channel: str,
        parallel: int,
        claim: Claim,
        work_on: Callable[[Any], Coroutine[Any, Any, None]],
    ) -> None:
        """`channel`: of hints that something is due, and its name in the log. `work_on` raises nothing."""
        self._database = database
        self._clock = clock
        self._hints = hints
        self._channel = channel
        self._parallel = parallel
        self._claim = claim
        self._work_on = work_on
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until cancelled; what is under way then is claimed again when its lease has run out."""
        try:
            with self._hints.subscribe(self._channel) as hinted:
                while True:
                    try:
                        await self._look(hinted)
                    except OcmtError as error:
                        log.warning("not_looked_for", what=self._channel, error=error.message)
                    await hinted.wait(POLL_INTERVAL)
        finally:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _look(self, hinted: Subscription) -> None:
        free = self._parallel - len(self._tasks)
        if free <= 0:
            return  # each that ends is a hint
        now = self._clock.now()
        async with self._database.connection() as connection:
            rows = await every(self._claim(connection, now, now + LEASE, free))
        for row in rows:
            task = asyncio.create_task(self._work_on(row), name=f"{self._channel} {row['id']}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: hinted.hint())  # the next one of its thread need not wait
