"""Who may make an account, when a second factor is due, and how long sessions and challenges live. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from ocmt.errors import InvalidInput, Refused
from ocmt.identity.model import normalise_domain, normalise_email
from ocmt.platform.principal import Role

SESSION_IDLE = timedelta(days=7)
SESSION_ABSOLUTE = timedelta(days=30)
SESSION_TOUCH = timedelta(minutes=5)
"""A session's last use is written down at most this often."""
MOST_SESSIONS = 20
"""Of one user; the one that was not used for the longest time makes room."""
RECENT = timedelta(minutes=10)
"""A proof of who one is counts as recent for so long: for what a stolen session must not be able to do."""
IMPERSONATION = timedelta(hours=1)

CHALLENGE_LIFETIME = timedelta(minutes=10)
CHALLENGE_ATTEMPTS = 5
"""Wrong codes for one challenge; then the first factor is due again."""

SECOND_FACTORS = frozenset({"totp", "backup_code", "passkey"})
"""Methods that count as the second factor. A passkey is both at once: the device asks for its owner."""

RuleKind = Literal["address", "domain"]
SignUpMode = Literal["invitation", "allowlist", "approval", "open"]


class SignInAgain(Refused):
    """Only who has proved a moment ago who they are may do this."""

    code = "recent_sign_in_needed"


class SecondFactorMissing(Refused):
    """A second factor is demanded of this account, and it has none yet."""

    code = "second_factor_missing"


@dataclass(frozen=True)
class Browser:
    """Where a request comes from, as it says itself and as the network says."""

    user_agent: str | None = None
    address: str | None = None


@dataclass(frozen=True)
class SignUpPolicy:
    """Who may make an account by proving an address."""

    mode: SignUpMode = "invitation"
    addresses: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, mode: SignUpMode, allowed: Collection[str]) -> SignUpPolicy:
        """Read the setting that names whom to let in: addresses (`ada@example.org`) and domains
        (`example.org`). Raises: InvalidInput that names the entry and says how to write it."""
        found: dict[RuleKind, set[str]] = {"address": set(), "domain": set()}
        for entry in filter(None, map(str.strip, allowed)):
            kind: RuleKind = "address" if "@" in entry.removeprefix("@") else "domain"
            try:
                found[kind].add(listing(kind, entry))
            except InvalidInput as error:
                raise InvalidInput(
                    f"OCMT_SIGN_UP_ALLOWED has {entry!r}, which is neither an address nor a domain. "
                    "Write ada@example.org for one person, and example.org for everybody with such an "
                    "address; name each subdomain by itself.",
                    detail=error.message,
                ) from error
        return cls(mode, frozenset(found["address"]), frozenset(found["domain"]))

    def lists(self, email: str) -> bool:
        """Whether the settings name this address or its domain."""
        return email in self.addresses or domain_of(email) in self.domains


@dataclass(frozen=True)
class Newcomer:
    """An address that has no account, and what is known of it."""

    email: str
    invited_as: Role | None = None
    listed: bool = False
    """By a rule that an administrator made."""


@dataclass(frozen=True)
class Admission:
    """How a newcomer is let in."""

    status: Literal["active", "pending"]
    role: Role = "user"


@dataclass(frozen=True)
class SecondFactors:
    """What an account can show beside its first proof."""

    totp: bool = False
    passkeys: int = 0
    backup_codes: int = 0

    @property
    def methods(self) -> tuple[str, ...]:
        """As the API names them. Backup codes stand in for the others and are none by themselves."""
        own = [name for name, there in (("passkey", self.passkeys), ("totp", self.totp)) if there]
        return (*own, "backup_code") if own and self.backup_codes else tuple(own)


@dataclass(frozen=True)
class Session:
    """A login session as its user may see it."""

    id: UUID
    user_agent: str | None
    address: str | None
    methods: list[str]
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    impersonated: bool = field(default=False)


def listing(kind: RuleKind, value: str) -> str:
    """Return an address or domain that people are let in by, as it is kept. Raises: InvalidInput."""
    if "*" in value:
        raise InvalidInput("Write a whole address or domain, without *. Name each subdomain by itself.")
    return normalise_email(value) if kind == "address" else normalise_domain(value)


def domain_of(email: str) -> str:
    """What stands behind the @."""
    return email.rpartition("@")[2]


def admission(policy: SignUpPolicy, newcomer: Newcomer) -> Admission | None:
    """Return how to let in somebody who has proved an address; None: not at all.

    Nobody becomes an administrator by being the first to sign up: only the start link, an operator's command,
    or an administrator's invitation makes one.
    """
    if newcomer.invited_as is not None:
        return Admission("active", newcomer.invited_as)
    listed = newcomer.listed or policy.lists(newcomer.email)
    if policy.mode == "open" or (listed and policy.mode in ("allowlist", "approval")):
        return Admission("active")
    return Admission("pending") if policy.mode == "approval" else None


def second_factor_due(methods: Collection[str], factors: SecondFactors) -> bool:
    """Whether who has proved themselves by `methods` must show one more before a session is opened."""
    return bool(factors.methods) and not SECOND_FACTORS & set(methods)


def must_enrol(methods: Collection[str], *, demanded: bool) -> bool:
    """Whether a session may do nothing but get itself a second factor."""
    return demanded and not SECOND_FACTORS & set(methods)


def session_expiry(created_at: datetime, used_at: datetime) -> datetime:
    """When a session ends if it is not used again: after a week unused, after 30 days in any case."""
    return min(used_at + SESSION_IDLE, created_at + SESSION_ABSOLUTE)


def touch_is_due(last_seen_at: datetime, now: datetime) -> bool:
    """Whether a session's last use is old enough to be written down again."""
    return now - last_seen_at >= SESSION_TOUCH


def is_recent(authenticated_at: datetime | None, now: datetime) -> bool:
    """Whether that proof still counts as recent."""
    return authenticated_at is not None and now - authenticated_at <= RECENT
