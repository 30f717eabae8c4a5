"""Types and rules of passkeys. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ocmt.errors import Refused

CHALLENGE_LIFETIME = timedelta(minutes=5)
MOST_PASSKEYS = 20
"""Of one user."""
LONGEST_ID = 1023
"""Bytes (https://www.w3.org/TR/webauthn-3/#credential-id); longer ones do not fit into the index either."""


class NotAccepted(Refused):
    """The passkey is not known here, or its answer does not fit what was asked."""

    code = "passkey_not_accepted"


@dataclass(frozen=True)
class Passkey:
    """One as it may be shown."""

    id: UUID
    name: str
    backed_up: bool
    """Whether it is synchronised, so that it outlives its device."""
    created_at: datetime
    last_used_at: datetime | None
