"""A double of who decides about an agent's internet and counts it."""

from __future__ import annotations

from uuid import UUID


class FakeGate:
    """Allows everything until it is told otherwise. `left`: bytes that may still flow; None: any number."""

    def __init__(self, *, left: int | None = None) -> None:
        self.open = True
        self.left = left
        self.spent = 0

    async def allows(self, user_id: UUID) -> bool:
        """See Gate."""
        return self.open

    async def spend(self, user_id: UUID, size: int) -> bool:
        """See Gate."""
        if self.left is not None:
            if size > self.left:
                return False
            self.left -= size
        self.spent += size
        return True

    async def give_back(self, user_id: UUID, size: int) -> None:
        """See Gate."""
        self.spent -= size
        if self.left is not None:
            self.left += size
