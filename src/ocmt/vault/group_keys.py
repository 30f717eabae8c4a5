"""A provider's key that a group shares: sealed under a data key of the group's own, as a user's items are.

Who may set one is the groups' business (`require_admin`); whose agent may use one is asked at every call, so
that leaving a group takes it away at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from ocmt.errors import InvalidInput
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import load_queries
from ocmt.platform.sealing import new_key, seal
from ocmt.vault import model
from ocmt.vault.keys import MasterKeys
from ocmt.vault.model import item_binding, unseal

_queries = load_queries("ocmt.vault")
RequireAdmin = Callable[[Connection, Actor, UUID], Awaitable[object]]


class GroupKeys:
    """The shared keys of all groups."""

    def __init__(self, database: Database, master: MasterKeys, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._master = master
        self._audit = audit
        self._clock = clock

    async def put(
        self, actor: Actor, group_id: UUID, name: str, value: str, *, require_admin: RequireAdmin
    ) -> None:
        """Store or replace one. Raises: InvalidInput, and what `require_admin` raises."""
        if name not in model.PROVIDERS:
            raise InvalidInput(f"A group shares {' or '.join(model.PROVIDERS)}.")
        kept = model.checked_value(name, "provider_key", value)
        async with self._database.transaction() as connection:
            await require_admin(connection, actor, group_id)
            key = await self._data_key(connection, group_id)
            before = await _queries.find_group_version(connection, group_id=group_id, name=name)
            version: int = (before or 0) + 1
            await _queries.put_group_item(
                connection,
                group_id=group_id,
                name=name,
                version=version,
                ciphertext=seal(key, kept.encode(), item_binding(group_id, name, version)),
                hint=model.hint_of("provider_key", kept),
                updated_by=actor.on_behalf_of,
                now=self._clock.now(),
            )
            await self._record(connection, "group.key_put", actor, group_id, name)

    async def delete(self, actor: Actor, group_id: UUID, name: str, *, require_admin: RequireAdmin) -> None:
        """Deleting what is not there succeeds. Raises what `require_admin` raises."""
        async with self._database.transaction() as connection:
            await require_admin(connection, actor, group_id)
            if await _queries.drop_group_item(connection, group_id=group_id, name=name) is not None:
                await self._record(connection, "group.key_deleted", actor, group_id, name)

    async def has(self, user_id: UUID, name: str) -> bool:
        """Whether some group of the user's shares such a key."""
        async with self._database.connection() as connection:
            return await _queries.find_shared(connection, user_id=user_id, name=name) is not None

    async def find(self, user_id: UUID, name: str) -> tuple[UUID, str] | None:
        """(group, key) of the group that the user has been in for the longest time. Raises: VaultDamaged."""
        async with self._database.connection() as connection:
            row = await _queries.find_shared(connection, user_id=user_id, name=name)
        if row is None:
            return None
        group_id: UUID = row["group_id"]
        key = await self._master.unwrap(group_id, row["wrapped"], row["master_version"])
        bound_to = item_binding(group_id, name, row["version"])
        return group_id, unseal(key, row["ciphertext"], bound_to).decode()

    async def used(self, group_id: UUID, name: str) -> None:
        """Count a use."""
        async with self._database.connection() as connection:
            await _queries.group_item_used(connection, group_id=group_id, name=name, now=self._clock.now())

    async def _data_key(self, connection: Connection, group_id: UUID) -> bytes:
        row = await _queries.find_group_key(connection, group_id=group_id)
        if row is None:
            plain = new_key()
            wrapped, version = await self._master.wrap(connection, group_id, plain)
            await _queries.add_group_key(
                connection, group_id=group_id, wrapped=wrapped, master_version=version
            )
            return plain
        return await self._master.unwrap(group_id, row["wrapped"], row["master_version"])

    async def _record(
        self, connection: Connection, action: str, actor: Actor, group_id: UUID, name: str
    ) -> None:
        await self._audit.record(
            connection,
            action,
            actor=actor,
            group=str(group_id),
            name=name,
        )
