"""How often one user may change something below `/agent`, as `no_flood` says it for `/api/v1`.

Counted in the memory of this process: a message must not wait for one more question to the database.
"""

from __future__ import annotations

from uuid import UUID

from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.errors import LimitReached
from ocmt.identity.limits import WRITES_OF
from ocmt.platform.bucket import Buckets
from ocmt.platform.clock import Clock
from ocmt.platform.http import problem
from ocmt.platform.principal import Principal

_READS = frozenset({"GET", "HEAD", "OPTIONS"})


class Floods:
    """The counts of one process."""

    def __init__(self, clock: Clock) -> None:
        self._buckets = Buckets(
            clock, burst=WRITES_OF.burst, per_second=WRITES_OF.count / WRITES_OF.period.total_seconds()
        )

    def take(self, user_id: UUID) -> None:
        """Count one change. Raises: LimitReached, with the seconds to wait."""
        self._buckets.take(user_id)


class WriteRates:
    """ASGI middleware behind the authentication: refuses changes that come too often with 429."""

    def __init__(self, app: ASGIApp, *, floods: Floods) -> None:
        self._app = app
        self._floods = floods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        asker = scope.get("state", {}).get("principal")
        if scope["type"] == "http" and scope["method"] not in _READS and isinstance(asker, Principal):
            try:
                self._floods.take(asker.user_id)
            except LimitReached as error:
                await problem(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
