"""On whose behalf something is done: what every room may know of who asks. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

Role = Literal["user", "admin", "auditor"]


@dataclass(frozen=True)
class Principal:
    """The user on whose behalf a request is served, and by what they showed who they are."""

    user_id: UUID
    session_id: UUID | None
    """None: they came with a token (`Authorization: Bearer`)."""
    email: str
    role: Role = "user"
    name: str | None = None
    user_since: datetime | None = None
    """When the account was made; None, as the name, where their row was not looked at: with access tokens."""
    scopes: frozenset[str] | None = None
    """What the token may be used for; None: everything that the user may do."""
    authenticated_at: datetime | None = None
    """When they last proved who they are; None for tokens."""
    via: Literal["session", "api_key", "access_token"] = "session"
    must_enrol: bool = False
    """A second factor is demanded of them and they have none yet: until then they may do nothing else."""
    impersonator_id: UUID | None = None
    """The administrator who looks through this user's eyes."""
    vault_locked: bool = False
    """The user has locked the vault in this session and has not proved since then who they are."""

    @property
    def is_admin(self) -> bool:
        """Whether the administration is theirs."""
        return self.role == "admin"
