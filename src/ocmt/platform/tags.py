"""Tags of what can be edited: a short hash, by which who edits says what they have seen (If-Match)."""

from __future__ import annotations

import hashlib
import json

from ocmt.errors import PreconditionFailed

_LENGTH = 20


def tag_of(*parts: object) -> str:
    """Of what can be edited of something, in a fixed order: 20 hexadecimal digits."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:_LENGTH]


def require_seen(seen: str | None, tag: str) -> None:
    """Raises: PreconditionFailed where who edits has seen another state; None: they do not say."""
    if seen is not None and seen != tag:
        raise PreconditionFailed("It was changed meanwhile: read it again.")
