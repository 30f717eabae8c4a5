"""The object store in memory. Runs the same contract tests as the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator

from ocmt.errors import NotFound
from ocmt.platform.objects import checked_key


class MemoryObjects:
    """See `ocmt.platform.objects.Objects`."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> None:
        """See Objects."""
        self.stored[checked_key(key)] = data

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """See Objects."""
        if checked_key(key) in self.stored:
            return False
        self.stored[key] = data
        return True

    async def get(self, key: str) -> bytes:
        """See Objects."""
        try:
            return self.stored[checked_key(key)]
        except KeyError:
            raise NotFound("There is no such file.", detail=f"object {key!r}") from None

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """See Objects."""
        await self.put(key, b"".join([piece async for piece in pieces]))

    async def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        """See Objects."""
        yield await self.get(key)

    async def delete(self, key: str) -> None:
        """See Objects."""
        self.stored.pop(checked_key(key), None)

    async def list(self, prefix: str) -> list[str]:
        """See Objects."""
        folder = checked_key(prefix.removesuffix("/")) + "/" if prefix else ""
        return sorted(key for key in self.stored if key.startswith(folder))
