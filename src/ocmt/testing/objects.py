"""The object store in memory, which runs the same contract tests as the real ones, and one with faults."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from ocmt.errors import NotFound
from ocmt.platform.objects import checked_key


class MemoryObjects:
    """See `ocmt.platform.objects.Objects`."""

    _takes_nothing = False

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}

    @contextmanager
    def taking_nothing(self) -> Iterator[None]:
        """What is to be stored meanwhile is refused with an OSError."""
        self._takes_nothing = True
        try:
            yield
        finally:
            self._takes_nothing = False

    def _check_takes(self) -> None:
        if self._takes_nothing:
            raise OSError("the store is away")

    async def put(self, key: str, data: bytes) -> None:
        """See Objects."""
        self._check_takes()
        self.stored[checked_key(key)] = data

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """See Objects."""
        self._check_takes()
        if checked_key(key) in self.stored:
            return False
        self.stored[key] = data
        return True

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """See Objects."""
        self._check_takes()
        checked_key(key)
        self.stored[key] = b"".join([piece async for piece in pieces])

    async def get(self, key: str) -> bytes:
        """See Objects."""
        try:
            return self.stored[checked_key(key)]
        except KeyError:
            raise NotFound("There is no such file.", detail=f"object {key!r}") from None

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See Objects."""
        return [self.stored.get(checked_key(key)) for key in keys]

    async def get_pieces(self, key: str) -> AsyncIterator[bytes]:
        """See Objects."""
        data = await self.get(key)
        middle = len(data) // 2
        for piece in (data[:middle], data[middle:]):
            yield piece

    async def delete(self, key: str) -> None:
        """See Objects."""
        self.stored.pop(checked_key(key), None)

    async def list(self, prefix: str) -> list[str]:
        """See Objects."""
        return sorted(await self.sizes(prefix))

    async def sizes(self, prefix: str) -> dict[str, int]:
        """See Objects."""
        folder = checked_key(prefix.removesuffix("/")) + "/" if prefix else ""
        return {key: len(data) for key, data in self.stored.items() if key.startswith(folder)}

    async def persist(self, keys: Sequence[str]) -> None:
        """See Objects."""
        for key in keys:
            if checked_key(key) not in self.stored:
                raise FileNotFoundError(key)


class Crash(BaseException):
    """The process has died here, as far as the code under test can tell."""


class FaultyObjects(MemoryObjects):
    """An object store in memory that fails at one call, and whose objects can be spoilt.

    `calls` records every call as (method, key). `fail_at`: the number of the call (from 0) that raises
    `error`, before it does anything or, with `late`, once it is done.
    """

    def __init__(self, *, error: type[BaseException] = Crash) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self.fail_at: int | None = None
        self.late = False
        self.error = error

    def corrupt(self, key: str) -> None:
        """Change one byte in the middle; an empty object gets one."""
        data = bytearray(self.stored[key])
        if data:
            data[len(data) // 2] ^= 1
        self.stored[key] = bytes(data or b"x")

    def lose(self, key: str) -> None:
        """It is gone."""
        del self.stored[key]

    def tear(self, key: str) -> None:
        """Only the first half of it was ever written."""
        self.stored[key] = self.stored[key][: len(self.stored[key]) // 2]

    @contextmanager
    def _call(self, method: str, key: str) -> Iterator[None]:
        fails = len(self.calls) == self.fail_at
        self.calls.append((method, key))
        if fails and not self.late:
            raise self.error(f"{method} {key}: a fault made for a test")
        yield
        if fails:
            raise self.error(f"{method} {key}: a fault made for a test")

    async def put(self, key: str, data: bytes) -> None:
        """See FaultyObjects."""
        with self._call("put", key):
            await super().put(key, data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        """See FaultyObjects."""
        with self._call("put_if_absent", key):
            return await super().put_if_absent(key, data)

    async def put_pieces(self, key: str, pieces: AsyncIterator[bytes]) -> None:
        """See FaultyObjects."""
        with self._call("put_pieces", key):
            await super().put_pieces(key, pieces)

    async def get(self, key: str) -> bytes:
        """See FaultyObjects."""
        with self._call("get", key):
            return await super().get(key)

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """See FaultyObjects."""
        with self._call("get_many", keys[0] if keys else ""):
            return await super().get_many(keys)

    async def delete(self, key: str) -> None:
        """See FaultyObjects."""
        with self._call("delete", key):
            await super().delete(key)

    async def sizes(self, prefix: str) -> dict[str, int]:
        """See FaultyObjects."""
        with self._call("sizes", prefix):
            return await super().sizes(prefix)

    async def persist(self, keys: Sequence[str]) -> None:
        """See FaultyObjects."""
        with self._call("persist", ""):
            await super().persist(keys)
