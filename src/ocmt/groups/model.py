"""Types and rules of groups. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from ocmt.errors import InvalidInput
from ocmt.platform.tags import tag_of

MemberRole = Literal["member", "admin"]
INVITED_FOR = timedelta(days=7)
MOST_GROUPS = 50
"""That one user is in."""
MOST_MEMBERS = 500
MOST_INVITATIONS = 100
"""Open ones of one group."""


@dataclass(frozen=True)
class Group:
    """A group, to one of its members."""

    id: UUID
    name: str
    description: str | None
    created_at: datetime
    role: MemberRole
    """That of the member who asks."""
    members: int
    key_names: list[str]
    """Of the providers whose key it shares."""

    @property
    def tag(self) -> str:
        """Of what its admins edit."""
        return tag_of(self.name, self.description)


@dataclass(frozen=True)
class Member:
    """Somebody in a group."""

    user_id: UUID
    email: str
    name: str | None
    role: MemberRole
    joined_at: datetime


@dataclass(frozen=True)
class Invitation:
    """Somebody who may join, if they want to."""

    id: UUID
    group_id: UUID
    group_name: str
    email: str
    role: MemberRole
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True)
class Resource:
    """Of the old production: shown, not acted on. How one signs in to it is never shown."""

    id: UUID
    group_id: UUID
    name: str
    description: str | None
    resource_type: str
    endpoint: str
    status: str
    created_at: datetime


@dataclass(frozen=True)
class Share:
    """What a user may do with a resource, in the old production."""

    id: UUID
    resource_id: UUID
    resource_name: str
    permissions: dict[str, Any]
    status: str
    granted_at: datetime


def checked_description(text: str | None) -> str | None:
    """Raises InvalidInput."""
    text = (text or "").strip()
    if len(text) > 1000:
        raise InvalidInput("A description has at most 1000 characters.")
    return text or None
