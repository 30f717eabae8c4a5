"""The signing keys in the secret store: the whole ring for who signs, the public part by itself for who
verifies."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from uuid_utils.compat import uuid7

from ocmt.identity.tokens import model
from ocmt.identity.tokens.model import Jwk, Ring
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.queries import load_queries
from ocmt.platform.secrets import Secrets

if TYPE_CHECKING:
    from joserfc.jwk import OKPKey

RING = "token-signing-keys"
PUBLIC = "token-public-keys"

_queries = load_queries("ocmt.identity.tokens")


class SigningKeys:
    """The ring as this process knows it, read again every `model.REREAD`."""

    def __init__(self, secrets: Secrets, database: Database, clock: Clock) -> None:
        self._secrets = secrets
        self._database = database
        self._clock = clock
        self._ring: Ring | None = None
        self._read_at = float("-inf")

    async def ring(self) -> Ring:
        """The keys; made where there are none yet."""
        now = self._clock.monotonic()
        if self._ring is None or now - self._read_at >= model.REREAD.total_seconds():
            self._ring = await self._read() or await self._make()
            self._read_at = now
        return self._ring

    async def rotate(self) -> Ring:
        """The next key signs from now on. Raises: NotYet right after another rotation."""
        await self.ring()
        async with self._database.transaction() as connection:
            await _queries.lock_ring(connection)
            ring = await self._read()
            assert ring is not None, "it was just read or made"
            self._ring = model.rotated(ring, new_jwk(), self._clock.now())
            await self._write(self._ring)
        return self._ring

    async def _read(self) -> Ring | None:
        data = await self._secrets.get(RING)
        return None if data is None else model.from_data(json.loads(data))

    async def _make(self) -> Ring:
        async with self._database.transaction() as connection:
            await _queries.lock_ring(connection)
            ring = await self._read()
            if ring is None:
                ring = model.new_ring(new_jwk(), new_jwk(), self._clock.now())
                await self._write(ring)
        return ring

    async def _write(self, ring: Ring) -> None:
        # The public part first: nobody ever signs by a key that is not published.
        await self._secrets.put(PUBLIC, json.dumps(model.public_part(ring.published)).encode())
        await self._secrets.put(RING, json.dumps(model.as_data(ring)).encode())


class PublicKeys:
    """The public keys as this process knows them: read every `model.REREAD`, and sooner for a name it does
    not know."""

    SOONER = 5.0
    """Seconds between two readings for names that are not known: anybody can make one up."""

    def __init__(self, secrets: Secrets, clock: Clock) -> None:
        self._secrets = secrets
        self._clock = clock
        self._keys: dict[str, OKPKey] = {}
        self._read_at = float("-inf")

    async def find(self, kid: str) -> OKPKey | None:
        """The key of that name; None: there is none."""
        age = self._clock.monotonic() - self._read_at
        if age >= model.REREAD.total_seconds() or (kid not in self._keys and age >= self.SOONER):
            from joserfc.jwk import OKPKey

            data = await self._secrets.get(PUBLIC)
            entries: list[dict[str, Any]] = [] if data is None else json.loads(data)["keys"]
            self._keys = {entry["kid"]: OKPKey.import_key(entry) for entry in entries}
            self._read_at = self._clock.monotonic()
        return self._keys.get(kid)


def new_jwk() -> Jwk:
    """A fresh Ed25519 key."""
    from joserfc.jwk import OKPKey

    key = OKPKey.generate_key(
        "Ed25519", {"kid": str(uuid7()), "use": "sig", "alg": model.ALGORITHM}, private=True
    )
    return dict(key.as_dict(private=True))


def dropped_at(ring: Ring) -> datetime | None:
    """When the last of the keys before is of no use any more; None: there are none."""
    return max((key.since + model.KEPT for key in ring.previous), default=None)
