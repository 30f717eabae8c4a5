"""What stands between a replica and what it stores things in, and can be told to fail: the object store's
wrapper, inside the replica, and the relay to the database, outside of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from ocmt.platform.objects import LocalObjects, Objects

SLOWEST = 1.5
"""Seconds that a call to a store takes that is slow."""
PIECE = 64 * 1024


class TroubledObjects(LocalObjects):
    """A folder of objects, as long as the file `sign` is not there. In it stands `down` or `slow`.

    A store that is down fails before it does what it should, or once it has done it.
    """

    def __init__(self, folder: Path, sign: Path) -> None:
        super().__init__(folder)
        self._sign = sign
        self._dice = random.Random()

    async def put(self, key: str, data: bytes) -> None:
        async with self._trouble():
            await super().put(key, data)

    async def put_if_absent(self, key: str, data: bytes) -> bool:
        async with self._trouble():
            return await super().put_if_absent(key, data)

    async def get(self, key: str) -> bytes:
        async with self._trouble():
            return await super().get(key)

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        async with self._trouble():
            return await super().get_many(keys)

    async def delete(self, key: str) -> None:
        async with self._trouble():
            await super().delete(key)

    async def sizes(self, prefix: str) -> dict[str, int]:
        async with self._trouble():
            return await super().sizes(prefix)

    async def persist(self, keys: Sequence[str]) -> None:
        async with self._trouble():
            await super().persist(keys)

    @asynccontextmanager
    async def _trouble(self) -> AsyncIterator[None]:
        trouble = self._sign.read_text() if self._sign.exists() else ""
        if trouble == "slow":
            await asyncio.sleep(self._dice.uniform(0, SLOWEST))
        late = self._dice.random() < 0.5
        if trouble == "down" and not late:
            raise OSError("the object store is down")
        yield
        if trouble == "down":
            raise OSError("the object store went down")


def _is_objects(store: TroubledObjects) -> Objects:
    return store


class Relay:
    """A replica's way to the database: a socket of its own, which can be cut."""

    def __init__(self, path: Path, target: Path) -> None:
        self._path = path
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen."""
        self._path.parent.mkdir()
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def close(self) -> None:
        """End all connections."""
        self._server.close()
        await self.hang_up()

    def cut(self) -> None:
        """Nothing passes any more, in neither direction; nobody is told."""
        self._open.clear()

    def mend(self) -> None:
        """What was sent meanwhile passes now."""
        self._open.set()

    async def hang_up(self) -> None:
        """All connections break."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        if connections:
            await asyncio.wait(connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._open.wait()
            with contextlib.suppress(OSError):  # the database is not there, or no more
                far_reader, far_writer = await asyncio.open_unix_connection(self._target)
                try:
                    await self._pass_both(reader, writer, far_reader, far_writer)
                finally:
                    far_writer.close()
        except asyncio.CancelledError:
            writer.transport.abort()  # not raised again: asyncio would complain about it
        finally:
            self._connections.discard(task)
            writer.close()

    async def _pass_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        ways = [
            asyncio.create_task(self._pass(reader, far_writer)),
            asyncio.create_task(self._pass(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.wait(ways)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(PIECE):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
