"""The vault: envelope encryption, a data key per user wrapped under the installation's master key.

A data key appears with the first item and goes with the last. Plain values exist only in the memory of a
call; whoever gets one must not keep or log it. Outside of this room that is the broker alone, by `ModelKeys`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from ocmt.errors import LimitReached, NotFound, PreconditionFailed
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.platform.clock import Clock
from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import load_queries
from ocmt.platform.sealing import new_key, seal
from ocmt.platform.secrets import Secrets
from ocmt.vault import model
from ocmt.vault.group_keys import GroupKeys
from ocmt.vault.keys import MasterKeys
from ocmt.vault.model import KeptVersion, Kind, VaultDamaged, VaultItem, item_binding, unseal
from ocmt.vault.trial import Verdict

queries = load_queries("ocmt.vault")


class Vault:
    """Users' secrets by name."""

    def __init__(self, database: Database, secrets: Secrets, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock
        self.master = MasterKeys(secrets, database)

    async def put(
        self,
        user_id: UUID,
        name: str,
        value: str,
        *,
        kind: Kind | None = None,
        expected: int | None = None,
        actor: Actor | None = None,
    ) -> int:
        """Store or replace an item; returns its version. The value before is kept as a version.

        `expected`: only if that is the present version (0: only if there is none).
        Raises: InvalidInput where the name or the value is not what it should be, PreconditionFailed,
        LimitReached, VaultDamaged where the user's data key does not open.
        """
        kind = model.checked_kind(name, kind)
        kept = model.checked_value(name, kind, value)
        async with self._database.transaction() as connection:
            key, key_version = await self._own_data_key(connection, user_id)
            before = await queries.find_version(connection, user_id=user_id, name=name)
            present = before["version"] if before else 0
            if expected is not None and expected != present:
                raise PreconditionFailed("This was changed meanwhile: look at it again first.")
            if not before and await queries.count_items(connection, user_id=user_id) >= model.MOST_ITEMS:
                raise LimitReached(f"Your vault is full: it holds {model.MOST_ITEMS} items.")
            version: int = present + 1
            if before:
                await self._keep(connection, user_id, name, before)
            await queries.put_item(
                connection,
                user_id=user_id,
                name=name,
                kind=kind,
                version=version,
                ciphertext=seal(key, kept.encode(), item_binding(user_id, name, version)),
                key_version=key_version,
                hint=model.hint_of(kind, kept),
                now=self._clock.now(),
            )
            await self._record(connection, "vault.item_put", user_id, actor, name=name, version=version)
        return version

    async def delete(
        self, user_id: UUID, name: str, *, expected: int | None = None, actor: Actor | None = None
    ) -> None:
        """Forget an item and its versions. Deleting what is not there succeeds. Raises:
        PreconditionFailed."""
        async with self._database.transaction() as connection:
            await queries.lock_data_key(connection, user_id=user_id)
            gone = await queries.drop_item(connection, user_id=user_id, name=name)
            if expected is not None and expected != (gone["version"] if gone else 0):
                raise PreconditionFailed("This was changed meanwhile: look at it again first.")
            await queries.drop_unused_data_key(connection, user_id=user_id)
            if gone is not None:
                await self._record(connection, "vault.item_deleted", user_id, actor, name=name)

    async def list(self, user_id: UUID) -> list[VaultItem]:
        """What the user has stored, without the values."""
        async with self._database.connection() as connection:
            return [VaultItem(**row) async for row in queries.list_items(connection, user_id=user_id)]

    async def has(self, user_id: UUID, name: str) -> bool:
        """Whether the user has stored something by that name."""
        async with self._database.connection() as connection:
            return await queries.find_version(connection, user_id=user_id, name=name) is not None

    async def versions(self, user_id: UUID, name: str) -> Sequence[KeptVersion]:
        """The values before the present one, newest first, by number and time."""
        async with self._database.connection() as connection:
            rows = queries.list_versions(connection, user_id=user_id, name=name)
            return [KeptVersion(**row) async for row in rows]

    async def restore(self, user_id: UUID, name: str, version: int, *, actor: Actor | None = None) -> int:
        """Put a kept value in the place of the present one, as a new version. Raises: NotFound,
        VaultDamaged."""
        async with self._database.transaction() as connection:
            key, key_version = await self._own_data_key(connection, user_id)
            before = await queries.find_version(connection, user_id=user_id, name=name)
            found = await queries.find_kept(connection, user_id=user_id, name=name, version=version)
            if before is None or found is None:
                raise NotFound("This version is not kept (any more).")
            value = unseal(key, found["ciphertext"], item_binding(user_id, name, version)).decode()
            fresh: int = before["version"] + 1
            await self._keep(connection, user_id, name, before)
            await queries.put_item(
                connection,
                user_id=user_id,
                name=name,
                kind=before["kind"],
                version=fresh,
                ciphertext=seal(key, value.encode(), item_binding(user_id, name, fresh)),
                key_version=key_version,
                hint=model.hint_of(before["kind"], value),
                now=self._clock.now(),
            )
            await self._record(
                connection, "vault.item_restored", user_id, actor, name=name, version=fresh, of=version
            )
        return fresh

    async def reveal(self, user_id: UUID, name: str, *, actor: Actor | None = None) -> str:
        """The plain value, for its own user, who has just proved who they are. Raises: NotFound,
        VaultDamaged."""
        value = await self._open(user_id, name)
        if value is None:
            raise NotFound("There is no such item in your vault.")
        async with self._database.transaction() as connection:
            await self._record(connection, "vault.item_revealed", user_id, actor, name=name)
        return value

    async def tried(self, user_id: UUID, name: str, ask: Callable[[str, str], Awaitable[Verdict]]) -> Verdict:
        """What its provider says of a key. Raises: NotFound, VaultDamaged."""
        value = await self._open(user_id, name)
        if value is None:
            raise NotFound("There is no such item in your vault.")
        return await ask(name, value)

    async def rotate_data_key(self, user_id: UUID) -> int:
        """A new data key for a user: all that is sealed is sealed anew, in one transaction. Returns how
        much."""
        async with self._database.transaction() as connection:
            old, key_version = await self._own_data_key(connection, user_id)
            fresh, count = new_key(), 0
            async for row in queries.all_items(connection, user_id=user_id):
                bound_to = item_binding(user_id, row["name"], row["version"])
                put = queries.reseal_kept if row["kept"] else queries.reseal_item
                await put(
                    connection,
                    user_id=user_id,
                    name=row["name"],
                    version=row["version"],
                    ciphertext=seal(fresh, unseal(old, row["ciphertext"], bound_to), bound_to),
                    key_version=key_version + 1,
                )
                count += 1
            wrapped, master_version = await self.master.wrap(connection, user_id, fresh)
            await queries.replace_data_key(
                connection, user_id=user_id, wrapped=wrapped, master_version=master_version
            )
            await self._record(connection, "vault.data_key_rotated", user_id, None, items=count)
        return count

    async def users(self, *, after: UUID | None = None, limit: int = 100) -> Sequence[UUID]:
        """A page of those who have something stored."""
        async with self._database.connection() as connection:
            rows = queries.users_with_keys(connection, after=after, limit=limit)
            return [row["user_id"] async for row in rows]

    async def _open(self, user_id: UUID, name: str) -> str | None:
        for attempt in (1, 2):
            async with self._database.connection() as connection:
                row = await queries.find_item(connection, user_id=user_id, name=name)
            if row is None:
                return None
            try:
                key = await self.master.unwrap(user_id, row["wrapped"], row["master_version"])
                return unseal(key, row["ciphertext"], item_binding(user_id, name, row["version"])).decode()
            except VaultDamaged:
                if attempt == 2:  # else its master key may have been rotated away since we read the row
                    raise
        return None

    async def _keep(self, connection: Connection, user_id: UUID, name: str, before: Any) -> None:
        await queries.keep_version(
            connection,
            user_id=user_id,
            name=name,
            version=before["version"],
            ciphertext=before["ciphertext"],
            key_version=before["key_version"],
            now=self._clock.now(),
        )
        await queries.forget_versions(
            connection, user_id=user_id, name=name, before=before["version"] - model.KEPT_VERSIONS
        )

    async def _own_data_key(self, connection: Connection, user_id: UUID) -> tuple[bytes, int]:
        """The user's data key, made if there is none, and its version. Their row is locked."""
        row = await queries.lock_data_key(connection, user_id=user_id)
        if row is None:
            wrapped, master_version = await self.master.wrap(connection, user_id, new_key())
            await queries.add_data_key(
                connection, user_id=user_id, wrapped=wrapped, master_version=master_version
            )
            row = await queries.lock_data_key(connection, user_id=user_id)
        return await self.master.unwrap(user_id, row["wrapped"], row["master_version"]), row["version"]

    async def _record(
        self, connection: Connection, action: str, user_id: UUID, actor: Actor | None, **details: object
    ) -> None:
        await self._audit.record(
            connection,
            action,
            actor=actor,
            subject_id=user_id,
            **details,
        )


@dataclass(frozen=True)
class FoundKey:
    """A provider's key for one model call."""

    source: Literal["user", "group"]
    name: str
    owner_id: UUID
    """The user, or the group."""
    value: str = field(repr=False)


class ModelKeys:
    """What the broker may have of the vault: the key of a model's provider, for the user's own agent.

    The user's own before one that a group of theirs shares. Asked for at every call: nothing is remembered.
    """

    def __init__(self, vault: Vault, groups: GroupKeys, database: Database, clock: Clock) -> None:
        self._vault = vault
        self._groups = groups
        self._database = database
        self._clock = clock

    async def source(self, user_id: UUID, name: str) -> Literal["user", "group"] | None:
        """Whose key would be used; None: there is none."""
        if await self._vault.has(user_id, name):
            return "user"
        return "group" if await self._groups.has(user_id, name) else None

    async def find(self, user_id: UUID, name: str) -> FoundKey | None:
        """The key itself. Raises: VaultDamaged."""
        if name not in model.PROVIDERS:
            return None
        own = await self._vault._open(user_id, name)
        if own is not None:
            return FoundKey("user", name, user_id, own)
        shared = await self._groups.find(user_id, name)
        return None if shared is None else FoundKey("group", name, *shared)

    async def used(self, key: FoundKey) -> None:
        """Count a use, after the call."""
        if key.source == "group":
            await self._groups.used(key.owner_id, key.name)
            return
        async with self._database.connection() as connection:
            await queries.item_used(
                connection, user_id=key.owner_id, name=key.name, used_by="broker", now=self._clock.now()
            )
