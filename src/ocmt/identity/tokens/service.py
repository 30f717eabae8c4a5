"""Issues access tokens, and verifies them without asking the database about each.

The signature says that a token is ours and its claims who holds it. What can change within its 15 minutes is
only that its user is shut out or has another role: those are few, and `Revocations` has them in memory.

joserfc is imported by the first token: it takes a twentieth of a start.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from ocmt.errors import Refused, Unavailable
from ocmt.identity.api_keys.model import allowed
from ocmt.identity.tokens import model
from ocmt.identity.tokens.keys import PublicKeys, SigningKeys
from ocmt.identity.tokens.model import Claims
from ocmt.platform.clock import Clock
from ocmt.platform.database import Database
from ocmt.platform.principal import Principal
from ocmt.platform.queries import load_queries

_queries = load_queries("ocmt.identity.tokens")
_LONGEST = 4096
_TYPE = "at+jwt"


@dataclass(frozen=True)
class AccessToken:
    """A token that was just issued."""

    token: str
    expires_in: int
    """Seconds."""
    scopes: frozenset[str]


class Revocations:
    """Users some of whose tokens are void: all that could still be alive, read again every 15 s.

    A replica that cannot read them for a minute refuses tokens altogether: a user who was shut out a minute
    ago is out everywhere, whatever happens to the database.
    """

    REFRESH = 15.0
    STALE = 60.0

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._valid_from: dict[UUID, datetime] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")

    async def voids(self, user_id: UUID, issued_at: datetime) -> bool:
        """Whether a token of that user from then is void. Raises: Unavailable where nobody can know."""
        now = self._clock.monotonic()
        if now - self._tried_at >= self.REFRESH:
            self._tried_at = now
            try:
                await self._refresh()
            except Unavailable:
                if now - self._read_at >= self.STALE:
                    self._tried_at = float("-inf")
                    raise
        elif now - self._read_at >= self.STALE:
            raise Unavailable("Tokens cannot be checked just now. Try again in a moment.", retry_after=5)
        valid_from = self._valid_from.get(user_id)
        return valid_from is not None and issued_at < valid_from

    async def _refresh(self) -> None:
        since = self._clock.now() - model.LIFETIME - model.LEEWAY
        async with self._database.connection() as connection:
            rows = [row async for row in _queries.recently_revoked(connection, since=since)]
        self._valid_from = {row["id"]: row["tokens_valid_from"] for row in rows}
        self._read_at = self._clock.monotonic()


class Issuer:
    """Signs access tokens for those who have shown who they are."""

    def __init__(self, keys: SigningKeys, clock: Clock, *, issuer: str) -> None:
        self.keys = keys
        self._clock = clock
        self._issuer = issuer

    async def issue(self, me: Principal, scopes: Collection[str] | None = None) -> AccessToken:
        """A token for that user: with the scopes asked for, or with all that they may give away.

        Raises: Refused for a scope that they do not have themselves, to those who look through other eyes,
        and to an access token that asks for its successor: it would never end.
        """
        if me.impersonator_id is not None or me.must_enrol:
            raise Refused("No token is made for this session.")
        if me.via == "access_token":
            raise Refused("An access token is not renewed by itself: use your API key, or sign in.")
        own = allowed(me.role) if me.scopes is None else me.scopes
        wanted = own if scopes is None else frozenset(scopes)
        beyond = sorted(wanted - own)
        if beyond:
            raise Refused(f"You do not have the scope {beyond[0]} yourself.")
        claims = Claims(me.user_id, me.email, me.role, wanted, self._clock.now(), str(uuid7()))
        from joserfc import jwt
        from joserfc.jwk import OKPKey

        key = (await self.keys.ring()).current
        token = jwt.encode(
            {"alg": model.ALGORITHM, "kid": key.kid, "typ": _TYPE},
            model.claims_to_sign(claims, issuer=self._issuer),
            OKPKey.import_key(dict(key.jwk)),
            algorithms=[model.ALGORITHM],
        )
        return AccessToken(token, int(model.LIFETIME.total_seconds()), wanted)


class Verifier:
    """Checks access tokens; a `Bearer` of the middleware."""

    def __init__(self, keys: PublicKeys, revocations: Revocations, clock: Clock, *, issuer: str) -> None:
        self._keys = keys
        self._revocations = revocations
        self._clock = clock
        self._issuer = issuer

    def knows(self, token: str) -> bool:
        """See Bearer."""
        return token.count(".") == 2 and len(token) <= _LONGEST

    async def authenticate(self, token: str, *, address: str | None) -> Principal | None:
        """See Bearer. Raises: Unavailable where nobody can know whether it is still good."""
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jws import extract_compact

        try:
            header = extract_compact(token.encode("ascii")).headers()
            if header.get("typ") != _TYPE or header.get("alg") != model.ALGORITHM:
                return None
            key = await self._keys.find(str(header.get("kid")))
            if key is None:
                return None
            said = jwt.decode(token, key, algorithms=[model.ALGORITHM]).claims
        except (JoseError, ValueError):
            return None
        claims = model.claims_from(said, issuer=self._issuer, now=self._clock.now())
        if claims is None or await self._revocations.voids(claims.user_id, claims.issued_at):
            return None
        return Principal(
            user_id=claims.user_id,
            session_id=None,
            email=claims.email,
            role=claims.role,
            scopes=claims.scopes if claims.scopes is not None else allowed(claims.role),
            via="access_token",
        )
