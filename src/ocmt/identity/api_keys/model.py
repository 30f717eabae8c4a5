"""What an API key looks like and what it may be used for. Pure, but for the randomness of new ones.

`ocmt_`, 43 random characters, and a checksum of 6, so that secret scanners and we know one by its looks,
without asking the database. Keys of the old production are `opw_live_` and 32 hexadecimal digits; they were
stored as SHA-256 as well, so they go on working.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ocmt.errors import InvalidInput, Refused
from ocmt.identity.access import SCOPES
from ocmt.identity.model import new_token
from ocmt.platform.principal import Role

PREFIX = "ocmt_"
MOST_KEYS = 50
"""Of one user, that are not revoked."""
TOUCH = timedelta(minutes=5)
"""A key's last use is written down at most this often."""
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_OWN = re.compile(r"ocmt_([A-Za-z0-9_-]{43})([0-9A-Za-z]{6})")
_IMPORTED = re.compile(r"opw_live_[0-9a-f]{32}")
_SHOWN = 12
_LONGEST_NAME = 100
_OF_ADMINISTRATION = frozenset({"admin:read", "admin:write"})


@dataclass(frozen=True)
class ApiKey:
    """A key as it may be shown."""

    id: UUID
    name: str
    prefix: str
    """Its beginning, by which its owner knows it again."""
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    last_address: str | None


def new_key() -> str:
    """A fresh one, to be shown once."""
    secret = new_token()
    return f"{PREFIX}{secret}{_checksum(secret)}"


def is_key(token: str) -> bool:
    """Whether something is one of our keys by its looks, or one of the old production's."""
    own = _OWN.fullmatch(token)
    if own is not None:
        return _checksum(own[1]) == own[2]
    return _IMPORTED.fullmatch(token) is not None


def shown(key: str) -> str:
    """What may be kept and shown of a key."""
    return key[:_SHOWN]


def checked_name(name: str) -> str:
    """A key's name on one line. Raises InvalidInput."""
    name = name.strip()
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"Give the key a name of one line, at most {_LONGEST_NAME} characters.")
    return name


def checked_scopes(scopes: Collection[str], role: Role) -> list[str]:
    """What a key may be used for, sorted. Raises: InvalidInput, Refused for what its maker may not do."""
    unknown = sorted(set(scopes) - SCOPES.keys())
    if unknown:
        raise InvalidInput(f"There is no scope {unknown[0]}; there are {', '.join(SCOPES)}.")
    if not scopes:
        raise InvalidInput("A key without a scope is of no use: choose at least one.")
    beyond = sorted(set(scopes) - allowed(role))
    if beyond:
        raise Refused(f"Your role does not give you the scope {beyond[0]}.")
    return sorted(set(scopes))


def allowed(role: Role) -> frozenset[str]:
    """The scopes that somebody of this role can give away."""
    match role:
        case "admin":
            return frozenset(SCOPES)
        case "auditor":
            return frozenset(SCOPES) - {"admin:write"}
        case "user":
            return frozenset(SCOPES) - _OF_ADMINISTRATION


def _checksum(secret: str) -> str:
    """CRC-32 in base 62, as GitHub's tokens have it: a typing error, or half a key, is no key."""
    number, digits = zlib.crc32(secret.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits
