"""The ring of signing keys and what a token says. Pure: keys are JSON Web Keys as dictionaries, times are
arguments.

There is always a next key, published long before it signs, so that no verifier ever meets a signature by a
key that it could not know; and those before stay published until the last token that they signed has expired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from ocmt.errors import NotYet
from ocmt.platform.principal import Role

ALGORITHM = "Ed25519"
"""EdDSA with Ed25519, by its fully specified name (RFC 9864; `EdDSA` is deprecated)."""
AUDIENCE = "ocmt"
LIFETIME = timedelta(minutes=15)
LEEWAY = timedelta(seconds=30)
REREAD = timedelta(seconds=30)
"""Every process reads the ring again at least this often."""
PUBLISHED = timedelta(seconds=300)
"""How long others may keep the public keys (Cache-Control of the JWKS)."""
_BEFORE_USE = PUBLISHED + 2 * REREAD
"""A key must have been published for so long before it signs."""
KEPT = LIFETIME + LEEWAY + 2 * REREAD
"""A key stays published for so long after it has signed for the last time."""

Jwk = Mapping[str, Any]


@dataclass(frozen=True)
class SigningKey:
    """One key, private part and all; `since` it is what it is now."""

    jwk: Jwk
    since: datetime

    @property
    def kid(self) -> str:
        """Its name in the header of tokens."""
        return str(self.jwk["kid"])


@dataclass(frozen=True)
class Ring:
    """All signing keys of an installation."""

    next: SigningKey
    current: SigningKey
    previous: tuple[SigningKey, ...] = ()

    @property
    def published(self) -> tuple[SigningKey, ...]:
        """Those whose public part everybody may know."""
        return (self.current, self.next, *self.previous)


@dataclass(frozen=True)
class Claims:
    """What a token says of its holder."""

    user_id: UUID
    email: str
    role: Role
    scopes: frozenset[str] | None
    """None: everything that the user may do but what takes a session."""
    issued_at: datetime
    id: str


def new_ring(current: Jwk, next_: Jwk, now: datetime) -> Ring:
    """The first one of an installation: nobody can have cached an older one, so its current key signs at
    once."""
    return Ring(next=SigningKey(next_, now), current=SigningKey(current, now))


def rotated(ring: Ring, fresh: Jwk, now: datetime) -> Ring:
    """The next key becomes the current one, and `fresh` the next.

    Raises: NotYet where the next key was published so lately that a verifier could not know it.
    """
    waits = (_BEFORE_USE - (now - ring.next.since)).total_seconds()
    if waits > 0:
        raise NotYet(
            f"The next key is not known everywhere yet: rotate again in {waits:.0f} seconds.",
            retry_after=waits,
        )
    return Ring(
        next=SigningKey(fresh, now),
        current=SigningKey(ring.next.jwk, now),
        previous=(SigningKey(ring.current.jwk, now), *tidied(ring, now).previous),
    )


def tidied(ring: Ring, now: datetime) -> Ring:
    """Without the keys whose last token has expired."""
    return replace(ring, previous=tuple(key for key in ring.previous if now - key.since < KEPT))


def as_data(ring: Ring) -> dict[str, Any]:
    """For the secret store."""

    def one(key: SigningKey) -> dict[str, Any]:
        return {"jwk": dict(key.jwk), "since": key.since.isoformat()}

    return {
        "next": one(ring.next),
        "current": one(ring.current),
        "previous": [one(key) for key in ring.previous],
    }


def from_data(data: Mapping[str, Any]) -> Ring:
    """From the secret store."""

    def one(entry: Mapping[str, Any]) -> SigningKey:
        return SigningKey(entry["jwk"], datetime.fromisoformat(entry["since"]))

    return Ring(one(data["next"]), one(data["current"]), tuple(one(entry) for entry in data["previous"]))


def public_part(keys: Sequence[SigningKey]) -> dict[str, Any]:
    """The JSON Web Key Set that everybody may have."""
    return {"keys": [{name: value for name, value in key.jwk.items() if name != "d"} for key in keys]}


def claims_to_sign(claims: Claims, *, issuer: str) -> dict[str, Any]:
    """The claims of RFC 7519 and RFC 9068, and ours."""
    issued = int(claims.issued_at.timestamp())
    said: dict[str, Any] = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": str(claims.user_id),
        "jti": claims.id,
        "iat": issued,
        "exp": issued + int(LIFETIME.total_seconds()),
        "email": claims.email,
        "role": claims.role,
    }
    if claims.scopes is not None:
        said["scope"] = " ".join(sorted(claims.scopes))
    return said


def claims_from(said: Mapping[str, Any], *, issuer: str, now: datetime) -> Claims | None:
    """What a token says whose signature is right; None where it is not for us, or its time is over."""
    try:
        issued = datetime.fromtimestamp(said["iat"], UTC)
        expires = datetime.fromtimestamp(said["exp"], UTC)
        ours = said["iss"] == issuer and said["aud"] == AUDIENCE
        if not ours or not issued - LEEWAY <= now < expires + LEEWAY or said["role"] not in _ROLES:
            return None
        scope = said.get("scope")
        return Claims(
            user_id=UUID(said["sub"]),
            email=str(said["email"]),
            role=said["role"],
            scopes=None if scope is None else frozenset(str(scope).split()),
            issued_at=issued,
            id=str(said["jti"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


_ROLES = frozenset({"user", "admin", "auditor"})
