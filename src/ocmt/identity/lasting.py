"""The one list of things that outlive the session that made them. Pure.

Whoever has somebody's session for a minute must not be able to keep a way in. So each thing on this list
takes a recent sign-in, is done by a person and not by a token unless the list says so, writes a row in the
audit log, and is told to its user by mail; and nothing of it is done through other eyes. The front
(`middleware.py`) enforces the list before any room is asked. A test walks all routes and fails where one that
changes something stands neither here nor among `HARMLESS`.

Connecting an account at a sign-in provider ends in a page that the provider sends the browser to, which no
list of writes contains: its own route does the same (`oidc/routes.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ocmt.errors import Refused
from ocmt.identity.entrance.model import SignInAgain, is_recent
from ocmt.platform.principal import Principal

AGAIN = "Prove once more that it is you: sign in again, then repeat this."


@dataclass(frozen=True)
class Lasting:
    """One way to make, change or remove something that outlives a session."""

    notice: str | None
    """What the user reads in a mail; None: nothing is made yet, or the log of the administration tells it."""
    audit: tuple[str, ...] = ()
    """Actions of the audit log; each success writes one of them."""
    tables: tuple[str, ...] = ()
    """Where it is kept."""
    tokens: bool = False
    """Whether a token with the right scope may do it without a recent sign-in."""


_ADMIN = "/api/v1/admin"

LASTING: Mapping[tuple[str, str], Lasting] = {
    # Ways to sign in
    ("POST", "/api/v1/api-keys"): Lasting("An API key was added", ("api_key.made",), ("api_keys",)),
    ("POST", "/api/v1/passkeys/options"): Lasting(None),
    ("POST", "/api/v1/passkeys"): Lasting("A passkey was added", ("passkey.added",), ("passkeys",)),
    ("DELETE", "/api/v1/passkeys/{id}"): Lasting("A passkey was removed", ("passkey.removed",)),
    ("POST", "/api/v1/mfa/totp"): Lasting(None),
    ("POST", "/api/v1/mfa/totp/confirm"): Lasting(
        "An authenticator app was added", ("mfa.totp_added",), ("totp_secrets", "backup_codes")
    ),
    ("DELETE", "/api/v1/mfa/totp"): Lasting("The authenticator app was removed", ("mfa.totp_removed",)),
    ("POST", "/api/v1/mfa/backup-codes"): Lasting(
        "New backup codes were made", ("mfa.backup_codes_made",), ("backup_codes",)
    ),
    ("DELETE", "/api/v1/oidc-accounts/{id}"): Lasting(
        "An account at a sign-in provider was disconnected", ("oidc.unlinked",)
    ),
    # A token of 15 minutes, which lives on after a sign-out.
    ("POST", "/api/v1/auth/token"): Lasting(None, tokens=True),
    # Who may use the agent
    ("POST", "/agent/channels"): Lasting(
        "A channel was connected to your agent", ("channel.connected",), ("channel_endpoints",)
    ),
    ("POST", "/agent/channels/{id}/reconnect"): Lasting(
        "A channel of your agent was connected anew", ("channel.reconnected",), ("channel_endpoints",)
    ),
    ("POST", "/agent/channels/{id}/senders/approve"): Lasting(
        "A sender may write to your agent now", ("channel.sender_approved",), ("channel_senders",)
    ),
    # What the agent may reach
    ("PATCH", "/agent"): Lasting(
        "Your agent's access to the internet was changed", ("agent.egress",), ("agents",)
    ),
    # Groups
    ("POST", "/api/v1/groups/{id}/invitations"): Lasting(
        "You invited somebody to a group", ("group.invited",), ("group_invitations",)
    ),
    ("POST", "/api/v1/group-invitations/{id}/accept"): Lasting(
        "You joined a group", ("group.joined",), ("group_members",)
    ),
    ("PUT", "/api/v1/groups/{id}/members/{id}"): Lasting(
        "You changed what a member of a group may do", ("group.member_role",), ("group_members",)
    ),
    ("PUT", "/api/v1/groups/{id}/keys/{name}"): Lasting(
        "You shared a key with a group", ("group.key_put",), ("group_vault_items",)
    ),
    # All that is somebody's
    ("GET", "/api/v1/me/export"): Lasting("A copy of all your data was downloaded", ("account.exported",)),
    ("DELETE", "/api/v1/me"): Lasting(
        "Your account is being deleted", ("account.deletion_asked",), ("account_deletions",)
    ),
    # Administration: a program may do the daily work by the scope admin:write, and the log tells all of it.
    ("POST", f"{_ADMIN}/users"): Lasting(None, ("user.added",), ("users",), tokens=True),
    ("DELETE", f"{_ADMIN}/users/{{id}}"): Lasting(None, ("account.deletion_asked",), ("account_deletions",)),
    ("PUT", f"{_ADMIN}/sign-up-rules/{{kind}}/{{value}}"): Lasting(
        None, ("sign_up.rule_added",), ("sign_up_rules",), tokens=True
    ),
    ("POST", f"{_ADMIN}/invitations"): Lasting(None, ("user.invited",), ("invitations",), tokens=True),
    ("POST", f"{_ADMIN}/users/{{id}}/impersonate"): Lasting(
        None, ("session.impersonated",), ("login_sessions",)
    ),
}

HARMLESS: Mapping[tuple[str, str], str] = {
    ("PATCH", f"{_ADMIN}/users/{{id}}"): (
        "a suspension must not wait; for more rights the route itself asks for a recent sign-in"
    ),
    ("PATCH", "/api/v1/me"): "a name; for another address the route itself asks for a recent sign-in",
    ("POST", "/api/v1/auth/logout"): "ends something",
    ("DELETE", "/agent/channels/{id}/deliveries"): "forgets what has ended",
    ("POST", "/api/v1/auth/step-up"): "is the proof itself",
    ("POST", "/api/v1/auth/step-up/passkey"): "is the proof itself",
    ("POST", "/api/v1/auth/step-up/link"): "asks for the proof",
    ("DELETE", "/api/v1/sessions/{id}"): "ends something",
    ("DELETE", "/api/v1/api-keys/{id}"): "ends something",
    ("PATCH", "/api/v1/passkeys/{id}"): "a name",
    ("PUT", "/api/v1/vault/items/{name}"): "gives nobody access; has a scope and a row in the audit log",
    ("DELETE", "/api/v1/vault/items/{name}"): "ends something",
    ("POST", "/api/v1/vault/items/{name}/reveal"): "makes nothing; the route asks for a recent sign-in",
    ("POST", "/api/v1/vault/items/{name}/versions/{version}/restore"): "a value that was the user's before",
    ("POST", "/api/v1/vault/items/{name}/test"): "asks the provider",
    ("POST", "/api/v1/vault/unlock"): "takes the old vault's password",
    ("POST", "/api/v1/vault/recover"): "takes the old vault's words",
    ("POST", "/api/v1/vault/lock"): "ends something",
    ("POST", "/api/v1/groups"): "a group with its maker alone",
    ("PUT", "/api/v1/groups/{id}"): "a name",
    ("DELETE", "/api/v1/groups/{id}"): "ends something",
    ("DELETE", "/api/v1/groups/{id}/keys/{name}"): "ends something",
    ("DELETE", "/api/v1/groups/{id}/members/{id}"): "ends something",
    ("DELETE", "/api/v1/groups/{id}/invitations/{id}"): "ends something",
    ("POST", "/api/v1/group-invitations/{id}/decline"): "ends something",
    ("DELETE", f"{_ADMIN}/sign-up-rules/{{kind}}/{{value}}"): "ends something",
    ("DELETE", f"{_ADMIN}/invitations/{{id}}"): "ends something",
    ("POST", f"{_ADMIN}/deliveries/replay"): "repeats what has come in",
    ("POST", "/agent/wake"): "a message does as much",
    ("POST", "/agent/hibernate"): "ends something",
    ("POST", "/agent/restart"): "a message does as much",
    ("POST", "/agent/conversations"): "a conversation of the user's own",
    ("PATCH", "/agent/conversations/{id}"): "a name",
    ("DELETE", "/agent/conversations/{id}"): "ends something",
    ("POST", "/agent/conversations/{id}/turns"): "a message: what the session is for",
    ("POST", "/agent/turns/{id}/stop"): "ends something",
    ("POST", "/agent/turns/{id}/retry"): "a message does as much",
    ("POST", "/agent/attachments"): "a part of a message",
    ("DELETE", "/agent/attachments/{id}"): "ends something",
    ("POST", "/agent/snapshots"): "a message can change the agent's files as much",
    ("POST", "/agent/snapshots/{generation}/restore"): "a message can change the agent's files as much",
    ("PATCH", "/agent/channels/{id}"): "a name",
    ("DELETE", "/agent/channels/{id}"): "ends something",
    ("POST", "/agent/channels/{id}/senders/block"): "ends something",
    ("DELETE", "/agent/channels/{id}/senders/{sender}"): "ends something",
    ("POST", "/agent/channels/{id}/deliveries/replay"): "repeats what has come in",
    ("POST", "/agent/channels/{id}/deliveries/{id}/replay"): "repeats what has come in",
    ("POST", "/agent/channels/{id}/deliveries/{id}/resend"): "repeats what has gone out",
}
"""Every other route that changes something, and why it does not stand above."""


def _pattern(template: str) -> re.Pattern[str]:
    """Of the paths of a template; what is in braces is one segment.

    It takes what the router takes, and more: a slash at the end, and the line feed that a `$` overlooks.
    """
    parts = re.split(r"\{\w+\}", template)
    return re.compile("[^/]+".join(map(re.escape, parts)) + r"/?\n?")


_BY_METHOD: dict[str, list[tuple[re.Pattern[str], Lasting]]] = {}
for (_method, _template), _rule in LASTING.items():
    _BY_METHOD.setdefault(_method, []).append((_pattern(_template), _rule))


def rule_of(method: str, path: str) -> Lasting | None:
    """Return the rule for a request; None where it makes nothing that lasts."""
    for pattern, rule in _BY_METHOD.get(method, ()):
        if pattern.fullmatch(path):
            return rule
    return None


def check(rule: Lasting, principal: Principal, now: datetime) -> None:
    """Raises: SignInAgain where the last proof is too long ago, Refused for a token that may not do this."""
    if principal.via == "session":
        if not is_recent(principal.authenticated_at, now):
            raise SignInAgain(AGAIN)
    elif not rule.tokens:
        raise Refused("This lasts longer than a token: sign in with a browser to do it.")
