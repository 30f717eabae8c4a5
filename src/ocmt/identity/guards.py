"""Who may enter a route, as FastAPI dependencies; each says no in words."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from ocmt.errors import Refused
from ocmt.identity.entrance.model import SignInAgain, is_recent
from ocmt.identity.service import Actor
from ocmt.platform.clock import Clock
from ocmt.platform.http import principal
from ocmt.platform.principal import Principal

Me = Annotated[Principal, Depends(principal)]
"""The asking user. Raises: Unauthenticated."""

_READS = frozenset({"GET", "HEAD"})


def administrator(me: Me) -> Principal:
    """The asking user, an administrator. Raises: Unauthenticated, Refused."""
    if not me.is_admin:
        raise Refused("Only administrators may do this.")
    return me


def auditor(me: Me, request: Request) -> Principal:
    """The asking user, an administrator, or to read also an auditor. Raises: Unauthenticated, Refused."""
    if me.is_admin or (me.role == "auditor" and request.method in _READS):
        return me
    raise Refused("Only administrators may do this.")


def require_recent(me: Principal, clock: Clock) -> None:
    """Raises: SignInAgain where the last proof is too long ago, or the request comes with a token."""
    if not is_recent(me.authenticated_at, clock.now()):
        raise SignInAgain("Prove once more that it is you: sign in again, then repeat this.")


def actor_of(me: Principal, request: Request) -> Actor:
    """For the audit log: the person who really acts."""
    return Actor(me.impersonator_id or me.user_id, getattr(request.state, "address", None))
