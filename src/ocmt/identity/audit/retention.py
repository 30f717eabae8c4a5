"""Forgets what is in the audit log for longer than the operator wants it kept."""

from __future__ import annotations

from datetime import timedelta

import structlog

from ocmt.identity.audit.service import Audit
from ocmt.platform.clock import Clock, again

EVERY = timedelta(hours=1)
_log = structlog.get_logger(__name__)


class Retention:
    """Of one process; several at once do no harm: a row can be forgotten once only."""

    def __init__(self, audit: Audit, clock: Clock, keep: timedelta | None) -> None:
        """`keep`: None for ever."""
        self._audit = audit
        self._clock = clock
        self._keep = keep

    async def run(self) -> None:
        """Look every hour, until cancelled."""
        await again(self._clock, EVERY, self.look, _log, "audit_not_shortened")

    async def look(self) -> int:
        """Forget what is old enough; how many rows went."""
        if self._keep is None:
            return 0
        dropped = await self._audit.forget_before(self._clock.now() - self._keep)
        if dropped:
            _log.info("audit_shortened", rows=dropped)
        return dropped
