"""Bounds on what agents may have in hand at once and how often they may ask, for each user and for all.

Everything is asked before a body is read or parsed, so that a refusal costs next to nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from starlette.types import Receive, Scope

from ocmt.broker.wire import Answer, ClientGone, header
from ocmt.platform.bucket import Bucket
from ocmt.platform.clock import Clock

MIB = 1024 * 1024
LEAST_RATE = MIB
"""Bytes in a second that a body brings at least, once the grace is over."""


@dataclass(frozen=True)
class Bounds:
    """How much agents may have in hand at once, and how often they may ask."""

    calls: int = 16
    """Of one user at once."""
    bytes: int = 64 * MIB
    """Of one user at once, in requests and in answers that are not streamed."""
    all_bytes: int = 256 * MIB
    """Of all users together, beyond what each has for certain."""
    own_bytes: int = 2 * MIB
    """What each user has for certain, whatever the others hold."""
    calls_per_second: float = 10
    burst: int = 100


@dataclass
class _Held:
    calls: int = 0
    bytes: int = 0


class Admission:
    """What all agents have in hand."""

    def __init__(self, clock: Clock, bounds: Bounds | None = None) -> None:
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._shared = 0
        """Bytes that users hold beyond what each has for certain."""
        self._held: dict[UUID, _Held] = {}
        self._rates: OrderedDict[UUID, Bucket] = OrderedDict()

    @contextmanager
    def seat(self, user_id: UUID) -> Iterator[Seat]:
        """A place for one call, with room for its body. Raises: Answer where the user has too many."""
        held = self._held.setdefault(user_id, _Held())
        if held.calls >= self._bounds.calls:
            raise Answer(529, "overloaded_error", "Too many calls at once.", retry_after=1)
        held.calls += 1
        seat = Seat(self, user_id)
        try:
            yield seat
        finally:
            seat.give_back()
            held.calls -= 1
            if not held.calls:
                del self._held[user_id]

    def knock(self, user_id: UUID) -> None:
        """Count one request at that user's listener. Raises: Answer where there are too many."""
        now = self._clock.monotonic()
        bucket = self._rates.setdefault(user_id, Bucket(self._bounds.calls_per_second, self._bounds.burst))
        if wait := bucket.wait(1, now):
            raise Answer(429, "rate_limit_error", "Too many calls.", retry_after=1 + int(wait))
        bucket.pour(1, now)
        self._rates.move_to_end(user_id)
        if len(self._rates) > 10_000:
            self._rates.popitem(last=False)

    def take(self, user_id: UUID, size: int) -> None:
        """Reserve bytes. Raises: Answer where there are none left."""
        held = self._held[user_id]
        own = self._bounds.own_bytes
        shared = max(0, held.bytes + size - own) - max(0, held.bytes - own)
        if held.bytes + size > self._bounds.bytes or self._shared + shared > self._bounds.all_bytes:
            raise Answer(529, "overloaded_error", "Too many large requests at once.", retry_after=1)
        held.bytes += size
        self._shared += shared

    def give(self, user_id: UUID, size: int) -> None:
        """Give bytes back."""
        held = self._held[user_id]
        own = self._bounds.own_bytes
        self._shared -= max(0, held.bytes - own) - max(0, held.bytes - size - own)
        held.bytes -= size


@dataclass
class Seat:
    """One admitted call and the bytes it holds."""

    _admission: Admission
    _user_id: UUID
    bytes: int = 0
    body: bytearray = field(default_factory=bytearray, repr=False)
    """The request's. Nobody else keeps it, so that giving it back frees it."""

    def take(self, size: int) -> None:
        """Hold so many bytes more. Raises: Answer where there is no room for them."""
        self._admission.take(self._user_id, size)
        self.bytes += size

    def give_back(self) -> None:
        """Hold nothing anymore."""
        self._admission.give(self._user_id, self.bytes)
        self.bytes = 0
        self.body = bytearray()

    async def read_body(
        self, scope: Scope, receive: Receive, *, limit: int, timeout: float, grace: float
    ) -> None:
        """Take in the request's whole body.

        It must be there after `timeout` seconds, and after `grace` seconds it must have come at LEAST_RATE.
        Raises: Answer (too large, too slow), ClientGone.
        """
        too_large = Answer(413, "request_too_large", f"The request is larger than {limit} bytes.")
        declared = header(scope, b"content-length")
        if declared.isdigit() and int(declared[:20]) > limit:
            raise too_large
        body = self.body
        begun = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout_at(begun + min(grace, timeout)) as patience:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    piece = message.get("body", b"")
                    if len(body) + len(piece) > limit:
                        raise too_large
                    self.take(len(piece))
                    body += piece
                    if not message.get("more_body", False):
                        return
                    patience.reschedule(begun + min(grace + len(body) / LEAST_RATE, timeout))
        except TimeoutError:
            raise Answer(408, "timeout_error", "The request did not arrive in time.") from None
