"""What people may ask for with all that is theirs: a copy of it, and that it be deleted (see `eraser`)."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.errors import InvalidInput
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.free_space import FreeSpace, guarded
from ocmt.platform.http.download import Ready
from ocmt.platform.places import Places
from ocmt.platform.queries import load_queries
from ocmt.platform.rates import Rates
from ocmt.platform.work import FILES, OTHER
from ocmt.privacy import model
from ocmt.privacy.model import Deletion, Export

_queries = load_queries("ocmt.privacy")

AT_ONCE = 4
"""Exports in this process; one user has one at most."""


class Privacy:
    """Of one process; the state is in the database."""

    def __init__(
        self,
        database: Database,
        identity: Identity,
        rates: Rates,
        clock: Clock,
        *,
        exports: Sequence[Export],
        folder: Path,
        space: FreeSpace | None = None,
    ) -> None:
        """`folder`: on a disk, for archives that are gone when they are closed; `space` is that disk's."""
        self._database = database
        self._identity = identity
        self._audit: Audit = identity.audit
        self._rates = rates
        self._places = Places(AT_ONCE)
        self._clock = clock
        self._exports = exports
        self._folder = folder
        self._space = space

    # Export

    @asynccontextmanager
    async def export(self, actor: Actor) -> AsyncIterator[Ready]:
        """All that is a user's as a zip, to be sent to them. Raises: LimitReached, Unavailable."""
        of = actor.on_behalf_of
        await self._rates.take(model.EXPORTS, str(of))
        async with self._places.place(of) as pace:
            await OTHER.run(lambda: self._folder.mkdir(mode=0o700, parents=True, exist_ok=True))
            with tempfile.TemporaryFile(dir=self._folder) as plain:
                file = guarded(plain, self._space)
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                    for part in self._exports:
                        async for path, content in part(of):
                            await FILES.run(_add, archive, path, content, of=of)
                async with self._database.transaction() as connection:
                    await self._record(connection, "account.exported", actor, of)
                size = file.tell()
                file.seek(0)
                yield Ready(file, size, pace, of)

    # Deletion

    async def ask_deletion(self, actor: Actor, user_id: UUID, *, confirm: str | None = None) -> None:
        """Shut the account at once and have it deleted. `confirm`: the address, as the user must write it.

        Raises: NotFound, InvalidInput where the address is not right, Conflict for the last administrator.
        """
        user = await self._identity.user(user_id)
        if confirm is not None and confirm.strip().lower() != user.email.lower():
            raise InvalidInput("Write your e-mail address exactly to confirm that all shall be deleted.")
        await self._identity.administer(user_id, status="deleting", actor=actor)
        async with self._database.transaction() as connection:
            asked = await _queries.ask_deletion(
                connection, id=uuid7(), user_id=user_id, now=self._clock.now(), asked_by=actor.by
            )
            if asked is not None:
                await self._record(connection, "account.deletion_asked", actor, user_id)

    async def deletions(self, *, after: UUID | None = None, limit: int = 100) -> Sequence[Deletion]:
        """A page of them, newest first."""
        async with self._database.connection() as connection:
            rows = _queries.list_deletions(connection, after=after, limit=limit)
            return [Deletion(**row) async for row in rows]

    async def _record(self, connection: Connection, action: str, actor: Actor, user_id: UUID) -> None:
        await self._audit.record(connection, action, actor=actor, subject_id=user_id)


def _add(archive: zipfile.ZipFile, path: str, content: Any) -> None:
    if isinstance(content, bytes):
        archive.writestr(path, content)
        return
    with archive.open(path, "w", force_zip64=True) as target:
        while piece := content.read(1024 * 1024):
            target.write(piece)
