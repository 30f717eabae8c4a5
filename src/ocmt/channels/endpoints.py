"""Endpoints by their addresses, opened and kept for some seconds: every webhook asks for one.

Whoever guesses addresses costs little: what is asked for while a look into the database is under way is
looked up together by the next one, and what there is not is remembered as well, apart from what there is: no
number of guesses makes us forget an endpoint, or turns away who sends to one.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import structlog

from ocmt.channels.base import Channel, Endpoint
from ocmt.channels.model import Seal, bound_to
from ocmt.errors import OcmtError, Unavailable
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database, Hints, notify
from ocmt.platform.queries import every, load_queries

ENDPOINTS_CHANNEL = "channel_endpoints"
"""LISTEN channel: an endpoint was connected, changed or removed; the payload is its id."""
LIFE = 5.0
"""Seconds that an answer is believed where no hint comes."""
MOST = 10_000
"""Endpoints that are kept, and as many addresses at which there is none."""
MOST_ASKED = 2_000
"""Different addresses that wait for a look; further ones that we do not know are told to come again."""
_CHECK = 60.0

log = structlog.get_logger(__name__)
queries = load_queries("ocmt.channels")


class Endpoints:
    """Of one process."""

    def __init__(self, database: Database, clock: Clock, seal: Seal, kinds: Mapping[str, Channel]) -> None:
        """`kinds`: the channels that there are, by name."""
        self.kinds = kinds
        self._database = database
        self._clock = clock
        self._seal = seal
        self._known: OrderedDict[UUID, tuple[float, Endpoint]] = OrderedDict()
        self._absent: OrderedDict[UUID, float] = OrderedDict()
        self._asked: dict[UUID, asyncio.Future[Endpoint | None]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._changes = 0

    async def get(self, endpoint_id: UUID) -> Endpoint | None:
        """None: there is none, or it is switched off. Raises: Unavailable, SetupProblem."""
        known = self._known.get(endpoint_id)
        if known is not None and known[0] > self._clock.monotonic():
            return known[1]
        if known is None and self._absent.get(endpoint_id, 0.0) > self._clock.monotonic():
            return None
        waiting = self._asked.get(endpoint_id)
        if waiting is None:
            if known is None and len(self._asked) >= MOST_ASKED:
                raise Unavailable("Too much comes in just now.", retry_after=2)
            waiting = self._asked[endpoint_id] = asyncio.get_running_loop().create_future()
            waiting.add_done_callback(_seen)
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look(), name="endpoints")
        return await asyncio.shield(waiting)

    async def connected(self, endpoint_id: UUID) -> tuple[Channel, Endpoint] | None:
        """It with its channel; None where one of the two is not there (any more). Raises as `get` does."""
        endpoint = await self.get(endpoint_id)
        channel = self.kinds.get(endpoint.channel) if endpoint is not None else None
        return None if endpoint is None or channel is None else (channel, endpoint)

    def forget(self, endpoint_id: UUID | None = None) -> None:
        """Look again at the next question; None: for all."""
        self._changes += 1
        if endpoint_id is None:
            self._known.clear()
            self._absent.clear()
        else:
            self._known.pop(endpoint_id, None)
            self._absent.pop(endpoint_id, None)

    async def listen(self, hints: Hints) -> None:
        """Forget what changes, until cancelled."""
        with hints.subscribe(ENDPOINTS_CHANNEL) as hinted:
            while True:
                if not await hinted.wait(_CHECK):
                    continue
                for payload in hinted.named or [""]:
                    self.forget(UUID(payload) if payload else None)

    async def _look(self) -> None:
        while self._asked:
            asked, self._asked = self._asked, {}
            changes = self._changes
            try:
                found = await self._find(list(asked))
            except Exception as error:
                for waiting in asked.values():
                    waiting.set_exception(error)
                continue
            until = self._clock.monotonic() + LIFE
            for endpoint_id, waiting in asked.items():
                opened = found.get(endpoint_id)
                if isinstance(opened, OcmtError):
                    waiting.set_exception(opened)
                    continue
                waiting.set_result(opened)
                if changes == self._changes:  # else what was read may be old already
                    self._remember(endpoint_id, opened, until)

    def _remember(self, endpoint_id: UUID, opened: Endpoint | None, until: float) -> None:
        self._known.pop(endpoint_id, None)
        self._absent.pop(endpoint_id, None)
        if opened is None:
            self._absent[endpoint_id] = until
            if len(self._absent) > MOST:
                self._absent.popitem(last=False)
        else:
            self._known[endpoint_id] = (until, opened)
            if len(self._known) > MOST:
                self._known.popitem(last=False)

    async def _find(self, ids: list[UUID]) -> dict[UUID, Endpoint | OcmtError]:
        async with self._database.connection() as connection:
            rows = await every(queries.find_endpoints(connection, ids=ids))
        found: dict[UUID, Endpoint | OcmtError] = {}
        for row in rows:
            try:
                found[row["id"]] = await open_endpoint(self._seal, row)
            except OcmtError as error:
                log.error("endpoint_not_opened", endpoint_id=str(row["id"]), error=error.message)  # noqa: TRY400
                found[row["id"]] = error
        return found


async def open_endpoint(seal: Seal, row: Any) -> Endpoint:
    """An endpoint from its row, with its secrets. Raises: SetupProblem where they do not open."""
    plain = await seal.unseal(row["user_id"], row["sealed"], bound_to(row["id"]))
    return Endpoint(
        id=row["id"],
        user_id=row["user_id"],
        channel=row["channel"],
        secrets=json.loads(plain),
        settings=row["settings"],
    )


async def announce(connection: Connection, endpoint_id: UUID) -> None:
    """Tell every process that this endpoint changed, once the transaction commits."""
    await notify(connection, ENDPOINTS_CHANNEL, str(endpoint_id))


def _seen(future: asyncio.Future[Endpoint | None]) -> None:
    """Who asked may have gone: its error is nobody's then."""
    if not future.cancelled():
        future.exception()
