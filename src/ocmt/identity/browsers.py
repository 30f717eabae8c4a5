"""What routes read from a browser and set in it: where it asks from, and our cookies, all HttpOnly.

Beside the session there are two that live for minutes: the asker's secret, which binds a sign-in link or an
OIDC attempt to the browser that began it, and the challenge of a sign-in that waits for its second factor.
"""

from __future__ import annotations

from fastapi import Request, Response

from ocmt.identity.entrance.model import CHALLENGE_LIFETIME, IMPERSONATION, SESSION_ABSOLUTE, Browser
from ocmt.identity.entrance.service import Entered, Outcome
from ocmt.identity.model import LINK_LIFETIME
from ocmt.identity.origin import PublicAddress


def browser_of(request: Request) -> Browser:
    """Where a request comes from."""
    return Browser(request.headers.get("user-agent"), getattr(request.state, "address", None))


def asker_of(request: Request, address: PublicAddress) -> str | None:
    """The secret by which we know the browser again that began something."""
    return request.cookies.get(f"{address.cookie}-asker")


def set_asker(response: Response, address: PublicAddress, secret: str) -> None:
    """Have the browser keep it."""
    _set(response, address, f"{address.cookie}-asker", secret, int(LINK_LIFETIME.total_seconds()))


def challenge_of(request: Request, address: PublicAddress) -> str | None:
    """Of a sign-in that waits for its second factor."""
    return request.cookies.get(f"{address.cookie}-challenge")


def set_outcome(response: Response, address: PublicAddress, outcome: Outcome) -> None:
    """The cookie of the session that was opened, or of the challenge that waits."""
    if isinstance(outcome, Entered):
        _set(response, address, address.cookie, outcome.token, int(SESSION_ABSOLUTE.total_seconds()))
        clear(response, address, f"{address.cookie}-challenge")
    else:
        lifetime = int(CHALLENGE_LIFETIME.total_seconds())
        _set(response, address, f"{address.cookie}-challenge", outcome.token, lifetime)


def keep_own_session(request: Request, response: Response, address: PublicAddress) -> None:
    """Put an administrator's own session aside while they look through somebody's eyes."""
    own = request.cookies.get(address.cookie)
    if own is not None:
        _set(response, address, f"{address.cookie}-own", own, int(IMPERSONATION.total_seconds()))


def back_to_own_session(request: Request, response: Response, address: PublicAddress) -> None:
    """At the end of that, take it out again; who has none put aside is signed out."""
    own = request.cookies.get(f"{address.cookie}-own")
    clear(response, address, f"{address.cookie}-own")
    if own is None:
        clear(response, address)
    else:
        _set(response, address, address.cookie, own, int(SESSION_ABSOLUTE.total_seconds()))


def clear(response: Response, address: PublicAddress, name: str | None = None) -> None:
    """Take a cookie away; by default that of the session."""
    response.delete_cookie(
        name or address.cookie, path="/", secure=address.secure, httponly=True, samesite="lax"
    )


def _set(response: Response, address: PublicAddress, name: str, value: str, seconds: int) -> None:
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=address.secure, httponly=True, samesite="lax"
    )
    response.headers["cache-control"] = "no-store"
