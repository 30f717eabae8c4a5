"""What routes read from a browser and set in it: where it asks from, and our cookies, all HttpOnly.

Beside the session there are two that live for minutes: the asker's secret, which binds a sign-in link or an
OIDC attempt to the browser that began it, and the challenge of a sign-in that waits for its second factor.
"""

from __future__ import annotations

from fastapi import Request, Response

from ocmt.identity import model
from ocmt.identity.entrance.model import CHALLENGE_LIFETIME, SESSION_ABSOLUTE, Browser
from ocmt.identity.entrance.service import Entered, Outcome
from ocmt.identity.origin import PublicAddress

ASKER_LIFETIME = model.LINK_LIFETIME


def browser_of(request: Request) -> Browser:
    """Where a request comes from."""
    return Browser(request.headers.get("user-agent"), getattr(request.state, "address", None))


def asker_of(request: Request, address: PublicAddress) -> str | None:
    """The secret by which we know the browser again that began something."""
    return request.cookies.get(f"{address.cookie}-asker")


def set_asker(response: Response, address: PublicAddress, secret: str) -> None:
    """Have the browser keep it."""
    _set(response, address, f"{address.cookie}-asker", secret, int(ASKER_LIFETIME.total_seconds()))


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
