"""Makes, lists and revokes API keys, and knows whose one is. There is no cache: a revoked key is dead at
once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.errors import InvalidInput, LimitReached, NotFound
from ocmt.identity.api_keys import model
from ocmt.identity.api_keys.model import ApiKey
from ocmt.identity.audit.model import Actor
from ocmt.identity.audit.service import Audit
from ocmt.identity.model import token_hash
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.principal import Principal
from ocmt.platform.queries import load_queries

_queries = load_queries("ocmt.identity.api_keys")


class ApiKeys:
    """The keys of all users; a `Bearer` of the middleware."""

    def __init__(self, database: Database, audit: Audit, clock: Clock) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def make(
        self,
        me: Principal,
        name: str,
        scopes: Collection[str],
        *,
        expires_at: datetime | None = None,
        address: str | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key of a user's own, and the secret, which is shown this once.

        Raises: InvalidInput, Refused for scopes beyond the user's role, LimitReached.
        """
        now = self._clock.now()
        if expires_at is not None and expires_at <= now:
            raise InvalidInput("The key would have expired already: choose a later time, or none.")
        secret = model.new_key()
        made = ApiKey(
            id=uuid7(),
            name=model.checked_name(name),
            prefix=model.shown(secret),
            scopes=model.checked_scopes(scopes, me.role),
            created_at=now,
            expires_at=expires_at,
            last_used_at=None,
            last_address=None,
        )
        async with self._database.transaction() as connection:
            await _queries.lock_keys(connection, user_id=me.user_id)
            if await _queries.count_keys(connection, user_id=me.user_id, now=now) >= model.MOST_KEYS:
                raise LimitReached(f"You have {model.MOST_KEYS} keys: revoke one that you do not need.")
            await _queries.add_key(
                connection,
                id=made.id,
                user_id=me.user_id,
                name=made.name,
                prefix=made.prefix,
                key_hash=token_hash(secret),
                scopes=made.scopes,
                now=now,
                expires_at=expires_at,
            )
            await self._audit.record(
                connection,
                "api_key.made",
                actor=Actor.oneself(me.user_id, address),
                subject_id=me.user_id,
                after={"name": made.name, "prefix": made.prefix, "scopes": made.scopes},
            )
        return made, secret

    async def list(self, user_id: UUID) -> Sequence[ApiKey]:
        """A user's keys, newest first, also those that have expired, not those that were revoked."""
        async with self._database.connection() as connection:
            return [ApiKey(**row) async for row in _queries.list_keys(connection, user_id=user_id)]

    async def revoke(self, me: Principal, key_id: UUID, *, address: str | None = None) -> None:
        """From now on it is nobody's. Raises: NotFound where the user has none by this id."""
        async with self._database.transaction() as connection:
            gone = await _queries.revoke_key(connection, id=key_id, user_id=me.user_id, now=self._clock.now())
            if gone is None:
                raise NotFound("There is no such key.")
            await self._audit.record(
                connection,
                "api_key.revoked",
                actor=Actor.oneself(me.user_id, address),
                subject_id=me.user_id,
                before=dict(gone),
            )

    def knows(self, token: str) -> bool:
        """See Bearer."""
        return model.is_key(token)

    async def authenticate(self, token: str, *, address: str | None) -> Principal | None:
        """See Bearer."""
        now = self._clock.now()
        async with self._database.connection() as connection:
            found = await _queries.find_key(connection, key_hash=token_hash(token), now=now)
            if found is None:
                return None
            if found["last_used_at"] is None or now - found["last_used_at"] >= model.TOUCH:
                await _queries.touch_key(
                    connection, id=found["id"], user_id=found["user_id"], now=now, address=address
                )
        return Principal(
            user_id=found["user_id"],
            session_id=None,
            email=found["email"],
            role=found["role"],
            name=found["name"],
            user_since=found["user_since"],
            # Whoever has lost a role since has lost what their keys could do with it.
            scopes=frozenset(found["scopes"]) & model.allowed(found["role"]),
            via="api_key",
        )
