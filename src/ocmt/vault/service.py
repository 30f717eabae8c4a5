"""The vault: envelope encryption, a data key per user wrapped under the installation's master key.

A data key appears with the first item and goes with the last. Plain values exist only in the memory of a
call; whoever gets one must not keep or log it.
"""

from __future__ import annotations

from uuid import UUID

from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import load_queries
from ocmt.platform.sealing import new_key, seal
from ocmt.platform.secrets import Secrets
from ocmt.vault.model import (
    VaultItem,
    checked_value,
    data_key_binding,
    item_binding,
    unseal,
)

queries = load_queries("ocmt.vault")
MASTER_KEY = "vault-master-key"


class Vault:
    """Users' secrets by name."""

    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._secrets = secrets
        self._master: bytes | None = None

    async def put(self, user_id: UUID, name: str, value: str) -> None:
        """Store or replace an item.

        Raises: InvalidInput where the name or the value is not what it should be, VaultDamaged where the
        user's data key does not open.
        """
        kept = checked_value(name, value)
        master = await self._master_key()
        async with self._database.transaction() as connection:
            key = await self._own_data_key(connection, user_id, master)
            version = (await queries.find_version(connection, user_id=user_id, name=name) or 0) + 1
            await queries.put_item(
                connection,
                user_id=user_id,
                name=name,
                version=version,
                ciphertext=seal(key, kept.encode(), item_binding(user_id, name, version)),
                hint=kept[-4:],
            )

    async def get(self, user_id: UUID, name: str) -> str | None:
        """The plain value, None where there is no such item. Raises VaultDamaged."""
        async with self._database.connection() as connection:
            row = await queries.find_item(connection, user_id=user_id, name=name)
        if row is None:
            return None
        key = unseal(await self._master_key(), row["wrapped"], data_key_binding(user_id))
        return unseal(key, row["ciphertext"], item_binding(user_id, name, row["version"])).decode()

    async def delete(self, user_id: UUID, name: str) -> None:
        """Forget an item. Deleting what is not there succeeds."""
        async with self._database.transaction() as connection:
            await queries.lock_data_key(connection, user_id=user_id)
            await queries.drop_item(connection, user_id=user_id, name=name)
            await queries.drop_unused_data_key(connection, user_id=user_id)

    async def list(self, user_id: UUID) -> list[VaultItem]:
        """What the user has stored, without the values."""
        async with self._database.connection() as connection:
            return [VaultItem(**row) async for row in queries.list_items(connection, user_id=user_id)]

    async def _own_data_key(self, connection: Connection, user_id: UUID, master: bytes) -> bytes:
        fresh = seal(master, new_key(), data_key_binding(user_id))
        await queries.add_data_key(connection, user_id=user_id, wrapped=fresh)
        wrapped: bytes = await queries.lock_data_key(connection, user_id=user_id)
        return unseal(master, wrapped, data_key_binding(user_id))

    async def _master_key(self) -> bytes:
        if self._master is None:
            self._master = await self._secrets.ensure(MASTER_KEY, new_key)
        return self._master
