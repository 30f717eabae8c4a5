"""What the users of webhooks may send before they are counted in the database again. Pure.

A hundred users of one batch would be a hundred more rows to write. So whoever was counted a moment ago, and
has room, is trusted for a short time and a small amount, and is counted with a later batch. The amount is all
by which a process can pass a budget, and all that stays uncounted where it is killed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

TRUST_SECONDS = 0.5
TRUST_BYTES = 64 * 1024
"""Of one user, in one process."""
_MOST_ENDPOINTS = 10_000


@dataclass
class _Allowance:
    """Of one user: how much may come before the next count, and what came since the last."""

    bytes_left: int
    until: float
    items: int = 0
    bytes: int = 0


class Carried(NamedTuple):
    """What is to be counted, as columns."""

    users: list[UUID]
    items: list[int]
    bytes: list[int]


class Allowances:
    """Of one process. Times are a clock's monotonic seconds."""

    def __init__(self) -> None:
        self._of: dict[UUID, _Allowance] = {}
        self._users: OrderedDict[UUID, UUID] = OrderedDict()
        """endpoint → user, of the endpoints that were used last."""

    def owners(self, endpoints: Iterable[UUID]) -> set[UUID]:
        """Return the users of those of these endpoints that are known."""
        return {user for endpoint in endpoints if (user := self._users.get(endpoint)) is not None}

    def trusts(self, sizes: Mapping[UUID, int], now: float) -> bool:
        """Whether nobody has to be counted now. `sizes`: endpoint → bytes that come.

        A batch counts all of its users or none, so that they all are trusted for the same time.
        """
        coming: dict[UUID, int] = {}
        for endpoint, size in sizes.items():
            user = self._users.get(endpoint)
            if user is None:
                return False
            coming[user] = coming.get(user, 0) + size
        for user, size in coming.items():
            known = self._of.get(user)
            if known is None or now >= known.until or size > known.bytes_left:
                return False
        return True

    def know(self, endpoint: UUID, user: UUID) -> None:
        """Remember whose an endpoint is."""
        if endpoint in self._users:
            self._users.move_to_end(endpoint)
            return
        self._users[endpoint] = user
        if len(self._users) > _MOST_ENDPOINTS:
            self._users.popitem(last=False)

    def take(self, user: UUID, items: int, size: int) -> None:
        """So much of a trusted user was kept."""
        known = self._of[user]
        known.bytes_left -= size
        known.items += items
        known.bytes += size

    def counted(self, user: UUID, bytes_left: int, now: float) -> None:
        """The user was counted just now; so many bytes of the budget are left."""
        before = self._of.get(user)
        items, size = (before.items, before.bytes) if before else (0, 0)
        self._of[user] = _Allowance(min(bytes_left, TRUST_BYTES) - size, now + TRUST_SECONDS, items, size)

    def carry(self, users: Iterable[UUID] | None = None) -> Carried:
        """Take out what is not counted yet, of those users or of all: it is on its way to be counted."""
        carried = Carried([], [], [])
        for user in list(self._of) if users is None else users:
            known = self._of.get(user)
            if known is not None and known.items:
                carried.users.append(user)
                carried.items.append(known.items)
                carried.bytes.append(known.bytes)
                known.items = known.bytes = 0
        return carried

    def put_back(self, carried: Carried, counted: Collection[UUID] = ()) -> None:
        """Of all but those users it was not counted after all."""
        for user, items, size in zip(*carried, strict=True):
            if user not in counted:
                known = self._of.setdefault(user, _Allowance(0, 0.0))
                known.items += items
                known.bytes += size

    @property
    def all_counted(self) -> bool:
        """Whether nothing waits to be counted."""
        return not any(known.items for known in self._of.values())

    def forget_idle(self, now: float) -> None:
        """Forget users who sent nothing for a while and are counted."""
        for user in [user for user, known in self._of.items() if known.until <= now and not known.items]:
            del self._of[user]
