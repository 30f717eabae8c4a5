"""Who may enter a route, as FastAPI dependencies; each says no in words."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from ocmt.errors import Refused
from ocmt.identity import limits
from ocmt.identity.audit.model import Actor
from ocmt.identity.entrance.model import SignInAgain, is_recent
from ocmt.identity.lasting import AGAIN
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock
from ocmt.platform.http import principal
from ocmt.platform.principal import Principal


async def signed_in(request: Request) -> Principal:
    """The asking user. Raises: Unauthenticated."""
    # Each of these is async: FastAPI gives a plain function to a thread, which costs more than all of it.
    return principal(request)


Me = Annotated[Principal, Depends(signed_in)]
"""The asking user. Raises: Unauthenticated."""

_READS = frozenset({"GET", "HEAD"})


async def administrator(me: Me) -> Principal:
    """The asking user, an administrator. Raises: Unauthenticated, Refused."""
    if not me.is_admin:
        raise Refused("Only administrators may do this.")
    return me


async def auditor(me: Me, request: Request) -> Principal:
    """The asking user, an administrator, or to read also an auditor. Raises: Unauthenticated, Refused."""
    if me.is_admin or (me.role == "auditor" and request.method in _READS):
        return me
    raise Refused("Only administrators may do this.")


def not_too_often(identity: Identity) -> Callable[[Request], Awaitable[None]]:
    """Of the entrance: counts who knocks, by their network address. Raises: LimitReached."""

    async def count(request: Request) -> None:
        if request.method not in _READS:
            await identity.rates.take(limits.KNOCKS_FROM, getattr(request.state, "address", None) or "here")

    return count


def no_flood(identity: Identity) -> Callable[[Request, Principal], Awaitable[None]]:
    """Of everything else: counts an account's changes. Raises: LimitReached."""

    async def count(request: Request, me: Me) -> None:
        if request.method not in _READS:
            await identity.rates.take(limits.WRITES_OF, str(me.user_id))

    return count


def require_recent(me: Principal, clock: Clock) -> None:
    """Raises: SignInAgain where the last proof is too long ago, or the request comes with a token."""
    if not is_recent(me.authenticated_at, clock.now()):
        raise SignInAgain(AGAIN)


def require_recent_of_people(me: Principal, clock: Clock) -> None:
    """The same of who comes with a browser: programs have no way to prove anything anew, and have a scope."""
    if me.via == "session":
        require_recent(me, clock)


def actor_of(me: Principal, request: Request) -> Actor:
    """Return who acts, and for whom."""
    address = getattr(request.state, "address", None)
    return Actor(by=me.impersonator_id or me.user_id, on_behalf_of=me.user_id, address=address)
