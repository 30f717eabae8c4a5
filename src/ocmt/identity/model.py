"""Types and rules of identity, all pure: addresses, users, how long links live.

No framework, no driver, no clock of its own: the time is an argument. What stands here is the policy;
`service.py` carries it out and `queries.sql` guards it where two requests race.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

import idna

from ocmt.errors import InvalidInput
from ocmt.platform.principal import Role
from ocmt.platform.tags import tag_of

Status = Literal["active", "pending", "suspended", "deleting"]
"""`pending`: made by signing up, waits for an administrator's approval."""

DEFAULT_ADMIN = "admin@localhost"
"""The address that the start link gives the first administrator, until they set their own."""

LINK_LIFETIME = timedelta(minutes=15)
START_LINK_LIFETIME = timedelta(hours=1)
"""How long the link works that makes the first administrator."""
LINK_KEPT = timedelta(hours=1)
"""How long the row of an expired link is kept."""

# What browsers take for an address: https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address
# ASCII only, and so without the surprises of case folding and of look-alikes.
_ADDRESS = re.compile(
    r"[a-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@"
    r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
)
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}")
_LONGEST_ADDRESS = 254
_LONGEST_DOMAIN = 253
_LONGEST_NAME = 200
_LONGEST_USER_AGENT = 300


@dataclass(frozen=True)
class User:
    """Somebody who may have an agent."""

    id: UUID
    email: str
    name: str | None
    role: Role
    status: Status
    mfa_required: bool
    created_at: datetime

    @property
    def is_admin(self) -> bool:
        """Whether the administration is theirs."""
        return self.role == "admin"

    @property
    def tag(self) -> str:
        """Of the state that an administrator edits."""
        return tag_of(self.role, self.status, self.mfa_required)


def own_tag(name: str | None, email: str) -> str:
    """Of the state that users edit of themselves."""
    return tag_of(name, email)


def normalise_email(text: str) -> str:
    """Return the one spelling under which an address is kept and compared.

    It is trimmed, in lower case, and with its domain in ASCII: `ada@München.de` is `ada@xn--mnchen-3ya.de`.
    Raises: InvalidInput where it is not an address that a mail server would take.
    """
    address = text.strip()
    if not address.isascii():
        local, at, domain = address.rpartition("@")
        if not local.isascii():
            raise InvalidInput("Only what follows the @ may have letters beyond a to z.")
        address = f"{local}{at}{_in_ascii(domain)}"
    address = address.lower()
    if len(address) > _LONGEST_ADDRESS or not _ADDRESS.fullmatch(address):
        raise InvalidInput("This is not an e-mail address; write it like ada@example.org.")
    return address


def normalise_domain(text: str) -> str:
    """Return the one spelling of a domain, as in `normalise_email`. Raises: InvalidInput."""
    domain = text.strip().lower().removeprefix("@")
    domain = domain if domain.isascii() else _in_ascii(domain)
    if len(domain) > _LONGEST_DOMAIN or not _DOMAIN.fullmatch(domain):
        raise InvalidInput("This is not a domain; write it like example.org.")
    return domain


def _in_ascii(domain: str) -> str:
    """Return a domain as DNS knows it (IDNA 2008, after the mapping of UTS 46)."""
    try:
        return idna.encode(domain, uts46=True).decode()
    except idna.IDNAError as error:
        raise InvalidInput("This domain has characters that no domain can have.") from error


def normalise_name(text: str | None) -> str | None:
    """A display name on one line, or None for an empty one.

    Raises: InvalidInput where it is too long or holds control characters.
    """
    name = (text or "").strip()
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidInput(f"A name is one line of at most {_LONGEST_NAME} characters.")
    return name or None


def one_line(name: str, of: str) -> str:
    """What a user calls something of theirs, `of` as in "the passkey". Raises InvalidInput."""
    name = " ".join(name.split())
    if not name or len(name) > 100 or not name.isprintable():
        raise InvalidInput(f"Give {of} a name of one line, at most 100 characters.")
    return name


def shorten_user_agent(text: str | None) -> str | None:
    """What we keep of a browser's description of itself: printable, and not as long as it likes."""
    kept = "".join(character for character in text or "" if character.isprintable())
    return kept[:_LONGEST_USER_AGENT].strip() or None


def may_change_address(user: User) -> bool:
    """Whether a user may set their own address without anybody proving that it is theirs.

    Only administrators, who could add any address anyway. Anybody else could take a colleague's address
    and let them sign in to an account that is not theirs.
    """
    return user.is_admin


def new_token() -> str:
    """256 random bits, fit for a URL's fragment and for a cookie."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What we store of a token. It is random through and through, so a plain SHA-256 cannot be guessed back,
    and looking the hash up tells an attacker's clock nothing about the token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def has_token(holder: str | None, stored: bytes) -> bool:
    """Whether what somebody holds is the token that we have stored so."""
    return holder is not None and token_hash(holder) == stored
