"""One row of the audit log and how rows are chained. Pure.

`hash = sha256(previous ‖ id ‖ at ‖ action ‖ actor ‖ subject ‖ details_hash)`, where `details_hash =
sha256(salt ‖ details)`. So what names a person (details and salt) can be erased later, and the chain still
holds: without the salt the hash tells nothing, not even to who would try all addresses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

START = b""
"""The hash before the first row."""
SALT_BYTES = 16


@dataclass(frozen=True)
class Actor:
    """Who changes something, for whom, and from where; the platform's own operator is none.

    The two differ while an administrator looks through a user's eyes. Membership and ownership follow
    `on_behalf_of`; the audit log names both.
    """

    by: UUID
    """The person at the keyboard."""
    on_behalf_of: UUID
    """The user whose account the request is about."""
    address: str | None = None

    @classmethod
    def oneself(cls, user_id: UUID, address: str | None = None) -> Actor:
        """Return somebody who acts for themselves."""
        return cls(user_id, user_id, address)


@dataclass(frozen=True)
class Row:
    """One thing that was done."""

    id: int
    at: datetime
    action: str
    """Room and verb: `session.opened`, `user.suspended`, `vault.item_put`."""
    actor_id: UUID | None
    """None: the platform itself, or nobody known."""
    subject_id: UUID | None
    """The user whose account it concerns."""
    salt: bytes | None
    details: Mapping[str, Any] | None
    """`address`, `before`, `after` and what else there is to say, never a secret; None: erased."""
    details_hash: bytes
    previous: bytes
    hash: bytes


def hash_of_details(salt: bytes, details: Mapping[str, Any]) -> bytes:
    """Of the details, in their one spelling as JSON."""
    text = json.dumps(details, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(salt + text.encode()).digest()


def hash_of_row(
    previous: bytes,
    *,
    id: int,
    at: datetime,
    action: str,
    actor_id: UUID | None,
    subject_id: UUID | None,
    details_hash: bytes,
) -> bytes:
    """Of a row and, by `previous`, of all before it."""
    fields = (
        previous,
        str(id).encode(),
        at.astimezone(UTC).isoformat(timespec="microseconds").encode(),
        action.encode(),
        actor_id.bytes if actor_id else b"",
        subject_id.bytes if subject_id else b"",
        details_hash,
    )
    whole = hashlib.sha256()
    for field in fields:  # with their lengths, so that nothing can move from one into the next
        whole.update(len(field).to_bytes(4, "big") + field)
    return whole.digest()


def fault_of(row: Row, previous: bytes, expected_id: int) -> str | None:
    """What is wrong with a row that should follow `previous`, in words; None: nothing."""
    if row.id != expected_id:
        return f"row {expected_id} is missing"
    if row.previous != previous:
        return f"row {row.id} does not follow the row before it"
    if row.details is not None and row.salt is not None:
        if hash_of_details(row.salt, row.details) != row.details_hash:
            return f"the details of row {row.id} were changed"
    elif row.details is not None or row.salt is not None:
        return f"row {row.id} was erased by half"
    found = hash_of_row(
        previous,
        id=row.id,
        at=row.at,
        action=row.action,
        actor_id=row.actor_id,
        subject_id=row.subject_id,
        details_hash=row.details_hash,
    )
    return None if found == row.hash else f"row {row.id} was changed"
