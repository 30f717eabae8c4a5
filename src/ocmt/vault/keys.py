"""The master key, in versions, and how data keys are wrapped by it and wrapped anew.

Version 1 is the secret `vault-master-key`, later ones `vault-master-key-N`. Which one wraps new data keys
says a row of the database, read in the transaction that writes them: so nothing is wrapped by an old version
once a rotation has begun, whatever a process remembers. An old version goes when no data key needs it any
more.
"""

from __future__ import annotations

from uuid import UUID

from ocmt.platform.database import Connection, Database
from ocmt.platform.queries import load_queries
from ocmt.platform.sealing import new_key, seal
from ocmt.platform.secrets import Secrets
from ocmt.vault.model import VaultDamaged, data_key_binding, unseal

MASTER_KEY = "vault-master-key"
_BATCH = 100

_queries = load_queries("ocmt.vault")


class MasterKeys:
    """The master key's versions, as this process has read them."""

    def __init__(self, secrets: Secrets, database: Database) -> None:
        self._secrets = secrets
        self._database = database
        self._known: dict[int, bytes] = {}

    async def wrap(self, connection: Connection, owner_id: UUID, data_key: bytes) -> tuple[bytes, int]:
        """A data key wrapped by the present version, and which one that is."""
        version: int = await _queries.current_master(connection)
        return seal(await self._key(version), data_key, data_key_binding(owner_id)), version

    async def unwrap(self, owner_id: UUID, wrapped: bytes, version: int) -> bytes:
        """Raises VaultDamaged, also where that version is gone (a row read before a rotation: read it
        again)."""
        return unseal(await self._key(version), wrapped, data_key_binding(owner_id))

    async def rotate(self) -> tuple[int, int]:
        """A new version of the master key; every data key is wrapped by it. Returns (version, data keys).

        May be killed at any point and begun again. Readers and writers go on meanwhile.
        """
        async with self._database.transaction() as connection:
            version: int = await _queries.next_master(connection)
            await self._secrets.ensure(_name(version), new_key)
            await _queries.move_master(connection, version=version)
        count = 0
        while wrapped := await self._rewrap(version):
            count += wrapped
        await self._drop_before(version)
        return version, count

    async def _rewrap(self, version: int) -> int:
        async with self._database.transaction() as connection:
            count = 0
            for find, put in (
                (_queries.wrapped_before, _queries.rewrap),
                (_queries.group_wrapped_before, _queries.group_rewrap),
            ):
                rows = [row async for row in find(connection, version=version, limit=_BATCH)]
                for row in rows:
                    plain = await self.unwrap(row["owner_id"], row["wrapped"], row["master_version"])
                    fresh = seal(await self._key(version), plain, data_key_binding(row["owner_id"]))
                    await put(connection, owner_id=row["owner_id"], wrapped=fresh, version=version)
                count += len(rows)
        return count

    async def _drop_before(self, version: int) -> None:
        async with self._database.connection() as connection:
            needed: int = await _queries.oldest_master(connection, current=version)
        for number in range(1, needed):
            await self._secrets.delete(_name(number))

    async def _key(self, version: int) -> bytes:
        if version not in self._known:
            if version == 1:
                self._known[1] = await self._secrets.ensure(MASTER_KEY, new_key)
            else:
                found = await self._secrets.get(_name(version))
                if found is None:
                    raise VaultDamaged(
                        "Your vault cannot be opened because the server lacks the key that it is sealed "
                        "with. Your items are still stored. Tell your administrator.",
                        detail=f"master key version {version} is not in the secret store",
                    )
                self._known[version] = found
        return self._known[version]


async def find_unopened_key(connection: Connection, secrets: Secrets) -> str | None:
    """Return in words what the secret store lacks to open the users' data keys, or None."""
    row = await _queries.find_wrapped_key(connection)
    if row is None:
        return None
    name = _name(row["master_version"])
    key = await secrets.get(name)
    if key is None:
        return f"the secret {name}, which is not in the secret store"
    try:
        unseal(key, row["wrapped"], data_key_binding(row["owner_id"]))
    except VaultDamaged:
        return f"another secret {name} than the one in the secret store"
    return None


def _name(version: int) -> str:
    return MASTER_KEY if version == 1 else f"{MASTER_KEY}-{version}"
