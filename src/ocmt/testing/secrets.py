"""The secret store in memory. Runs the same contract tests as the real ones."""

from __future__ import annotations

from collections.abc import Callable

from ocmt.platform.secrets import checked_name


class MemorySecrets:
    """See `ocmt.platform.secrets.Secrets`."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def get(self, name: str) -> bytes | None:
        """See Secrets."""
        return self.kept.get(checked_name(name))

    async def put(self, name: str, value: bytes) -> None:
        """See Secrets."""
        self.kept[checked_name(name)] = value

    async def delete(self, name: str) -> None:
        """See Secrets."""
        self.kept.pop(checked_name(name), None)

    async def ensure(self, name: str, make: Callable[[], bytes]) -> bytes:
        """See Secrets."""
        if checked_name(name) not in self.kept:
            self.kept[name] = make()
        return self.kept[name]

    async def names(self) -> list[str]:
        """See Secrets."""
        return sorted(self.kept)
