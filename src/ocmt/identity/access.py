"""What a request needs beside a user: a scope of its token, a session, a recent sign-in, a role. Pure.

One table, looked at by the middleware before any room: what stands in none of its lines is denied to tokens.
A route that asks for more (an administrator, a recent sign-in) says so itself as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocmt.errors import Refused
from ocmt.identity.entrance.model import SecondFactorMissing
from ocmt.platform.principal import Principal

SCOPES = {
    "agent:read": "See the agent, its conversations and files.",
    "agent:write": "Talk to the agent, change its files, wake it and put it to sleep.",
    "account:read": "See the account, its usage and its groups.",
    "account:write": "Change the account and its groups.",
    "vault:read": "See what is in the vault, never the values.",
    "vault:write": "Store and delete what is in the vault.",
    "admin:read": "See the administration (administrators and auditors only).",
    "admin:write": "Administer (administrators only).",
}
"""What a token can be limited to, in words for the person who makes one."""

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
SESSION_ONLY = "session"
_OPEN = "open"

# By the beginning of the path, the longest first; what is given for reading, then for everything else.
_RULES: tuple[tuple[str, str, str], ...] = tuple(
    sorted(
        (
            ("/api/v1/auth/", _OPEN, _OPEN),
            ("/api/v1/auth/logout", SESSION_ONLY, SESSION_ONLY),
            ("/api/v1/openapi.json", _OPEN, SESSION_ONLY),
            ("/.well-known/", _OPEN, SESSION_ONLY),
            ("/api/v1/me", "account:read", "account:write"),
            ("/api/v1/me/export", SESSION_ONLY, SESSION_ONLY),
            ("/api/v1/sessions", SESSION_ONLY, SESSION_ONLY),
            ("/api/v1/api-keys", SESSION_ONLY, SESSION_ONLY),
            ("/api/v1/mfa", SESSION_ONLY, SESSION_ONLY),
            ("/api/v1/passkeys", SESSION_ONLY, SESSION_ONLY),
            ("/api/v1/oidc-accounts", SESSION_ONLY, SESSION_ONLY),
            ("/api/v1/vault", "vault:read", "vault:write"),
            ("/api/v1/groups", "account:read", "account:write"),
            ("/api/v1/group-invitations", "account:read", "account:write"),
            ("/api/v1/shares", "account:read", SESSION_ONLY),
            ("/api/v1/usage", "account:read", SESSION_ONLY),
            ("/api/v1/audit", "account:read", SESSION_ONLY),
            ("/api/v1/admin", "admin:read", "admin:write"),
            ("/agent", "agent:read", "agent:write"),
        ),
        key=lambda rule: -len(rule[0]),
    )
)

_WHILE_ENROLLING = ("/api/v1/auth/", "/api/v1/mfa", "/api/v1/passkeys", "/api/v1/sessions")
"""And to read who one is; not the export or the end of the account: those are what the second factor is
for."""
_NOT_THROUGH_OTHER_EYES = (
    "/api/v1/api-keys",
    "/api/v1/mfa",
    "/api/v1/passkeys",
    "/api/v1/oidc-accounts",
    "/api/v1/vault",
    "/api/v1/me/export",
    "/agent/gateway",
)
"""What an administrator who looks through somebody's eyes may not even see. The gateway's pages and sockets
are programs of the agent's, which do more than show."""
_WAY_BACK = ("POST", "/api/v1/auth/logout")
LOOKING_ONLY = (
    "You are looking through this user's eyes: you can read, but not change anything. "
    "Return to your own account first."
)


@dataclass(frozen=True)
class Need:
    """What one request needs."""

    scope: str
    """A key of SCOPES, or `session`: no token may; or `open`: everybody may."""


def need_of(method: str, path: str) -> Need:
    """Of a request; a path that no line knows needs a session."""
    for beginning, read, write in _RULES:
        if path == beginning or path.startswith(beginning if beginning.endswith("/") else beginning + "/"):
            return Need(read if method in _READS else write)
    return Need(SESSION_ONLY)


def check(principal: Principal, method: str, path: str) -> None:
    """Raises: Refused where this principal may not make this request, whatever the route would say."""
    if principal.impersonator_id is not None:
        _check_looking(method, path)
    if principal.scopes is None and not principal.must_enrol:
        return
    need = need_of(method, path)
    if need.scope == _OPEN:
        return
    enrolling = path.startswith(_WHILE_ENROLLING) or (path == "/api/v1/me" and method in _READS)
    if principal.must_enrol and not enrolling:
        raise SecondFactorMissing(
            "Your administrator asks for a second factor: set one up under Settings first."
        )
    if principal.scopes is not None:
        if need.scope == SESSION_ONLY:
            raise Refused("This takes a browser's session; no token may do it.")
        if need.scope not in principal.scopes:
            raise Refused(f"This token lacks the scope {need.scope}.")


def _check_looking(method: str, path: str) -> None:
    """Of who looks through other eyes: nothing is changed, and some things are not shown. Raises: Refused."""
    if path.startswith(_NOT_THROUGH_OTHER_EYES):
        raise Refused("This is the user's own: it can be neither seen nor changed on their behalf.")
    if method not in _READS and (method, path) != _WAY_BACK:
        raise Refused(LOOKING_ONLY)
