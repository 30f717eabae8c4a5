"""Unlocks an imported vault, once: what is in it becomes items of the user's own vault, and the old form is
gone.

A wrong password or wrong words harm nothing, and make the next attempt wait: 1 s, 2 s, 4 s … an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from ocmt.errors import InvalidInput, LimitReached, NotFound
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.platform.argon import ArgonGate
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.queries import load_queries
from ocmt.vault.imported import model
from ocmt.vault.imported.model import Document
from ocmt.vault.service import Vault

_queries = load_queries("ocmt.vault.imported")


@dataclass(frozen=True)
class State:
    """Of a user's imported vault."""

    imported_at: datetime
    unlocked_at: datetime | None
    retry_at: datetime | None
    """Before this moment no attempt is taken."""


class ImportedVaults:
    """The old production's vaults of all users."""

    def __init__(self, database: Database, vault: Vault, audit: Audit, clock: Clock, gate: ArgonGate) -> None:
        self._database = database
        self._vault = vault
        self._audit = audit
        self._clock = clock
        self._gate = gate

    async def put(self, user_id: UUID, document: Mapping[str, Any]) -> None:
        """Keep a document for its user to unlock; for the migration. Raises: NotAVault.

        One that was unlocked already stays as it is: importing twice harms nothing.
        """
        model.parse(document)
        async with self._database.connection() as connection:
            await _queries.put_document(
                connection, user_id=user_id, document=dict(document), now=self._clock.now()
            )

    async def state(self, user_id: UUID) -> State | None:
        """None: nothing was imported for this user."""
        async with self._database.connection() as connection:
            row = await _queries.find_document(connection, user_id=user_id)
        return None if row is None else State(row["imported_at"], row["unlocked_at"], row["retry_at"])

    async def unlock_by_password(
        self, user_id: UUID, password: str, *, actor: Actor | None = None
    ) -> list[str]:
        """The names of the items that came of it. Raises: NotFound, DoesNotOpen, NotAVault, LimitReached."""
        return await self._unlock(
            user_id, lambda document: model.open_by_password(document, password), "password", actor
        )

    async def unlock_by_words(self, user_id: UUID, phrase: str, *, actor: Actor | None = None) -> list[str]:
        """As `unlock_by_password`, by the twelve words of recovery."""
        return await self._unlock(
            user_id, lambda document: model.open_by_words(document, phrase), "words", actor
        )

    async def _unlock(
        self, user_id: UUID, opens: Callable[[Document], dict[str, Any]], by: str, actor: Actor | None
    ) -> list[str]:
        now = self._clock.now()
        async with self._database.connection() as connection:
            begun = await _queries.begin_attempt(connection, user_id=user_id, now=now)
            known = await _queries.find_document(connection, user_id=user_id)
        if known is None or known["unlocked_at"] is not None:
            raise NotFound("There is no vault of yours to be unlocked.")
        if begun is None:
            seconds = max(1.0, (known["retry_at"] - now).total_seconds())
            raise LimitReached(
                f"That was wrong a moment ago. Try again in {seconds:.0f} seconds.", retry_after=seconds
            )
        document = model.parse(begun["document"])
        payload = await self._gate.run(lambda: opens(document))
        names = await self._take_over(user_id, payload, actor)
        async with self._database.transaction() as connection:
            await _queries.unlocked(connection, user_id=user_id, now=self._clock.now())
            await self._audit.record(
                connection,
                "vault.unlocked",
                actor=actor,
                subject_id=user_id,
                by=by,
                items=len(names),
            )
        return names

    async def _take_over(self, user_id: UUID, payload: Mapping[str, Any], actor: Actor | None) -> list[str]:
        """Every part as an item; one that is there already stays. Killed in between, it is done again
        whole."""
        present = {item.name for item in await self._vault.list(user_id)}
        names = []
        for item in model.items_of(payload):
            if item.name not in present and await self._put(user_id, item, actor):
                names.append(item.name)
        return names

    async def _put(self, user_id: UUID, item: model.Item, actor: Actor | None) -> bool:
        kind: Any = item.kind
        try:
            await self._vault.put(user_id, item.name, item.value, kind=kind, expected=0, actor=actor)
        except InvalidInput:
            # What no longer passes for a provider's key is in the token beside it, and in the notes.
            return False
        return True
