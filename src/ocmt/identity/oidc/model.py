"""Providers as data, what they say of a person, and whose account that may open. Pure.

Nothing here asks a provider anything. Every refusal has a `code` of its own, which is all that the address
bar of the browser gets to see; the reason is for the log.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlsplit
from uuid import UUID

from ocmt.errors import Conflict, InvalidInput, Refused, SetupProblem, Unauthenticated, Unavailable
from ocmt.identity.entrance.model import domain_of
from ocmt.identity.model import normalise_domain, normalise_email
from ocmt.identity.origin import is_loopback

ATTEMPT_LIFETIME = timedelta(minutes=10)
LEEWAY = timedelta(seconds=60)
"""How far a provider's clock may be from ours."""
MOST_ACCOUNTS = 20
"""That one user may connect."""
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"})
"""What an ID token may be signed with: keys of which the provider alone has the private half."""

_GOOGLE = "https://accounts.google.com"
_GITHUB = "https://github.com"
_ID = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_LONGEST_SUBJECT = 255
_MICROSOFT = (
    "https://login.microsoftonline.com/",
    "https://login.microsoftonline.us/",
    "https://sts.windows.net/",
)
_VERIFIED = ("email_verified", "xms_edov")
"""Claims that say that an address is the person's."""


class AttemptExpired(Unauthenticated):
    """This sign-in was begun too long ago, in another browser, or is over already."""

    code = "attempt_expired"


class AttemptOver(AttemptExpired):
    """This sign-in is over: its answer was brought before, or so long ago that nobody remembers it."""


class Cancelled(Refused):
    """The person said no at the provider."""

    code = "cancelled"


class ProviderUnavailable(Unavailable):
    """The provider does not answer, or not as the protocol says."""

    code = "provider_unavailable"


class ProviderRejected(Refused):
    """The provider does not take our request: mostly a wrong client id, secret or redirect address."""

    code = "provider_rejected"


class TokenInvalid(Unauthenticated):
    """What the provider sent does not prove anything."""

    code = "token_invalid"


class AddressUnverified(Refused):
    """The provider does not say that the person's address is really theirs."""

    code = "email_unverified"


class LinkNeeded(Conflict):
    """There is an account with this address, and this provider's word is not enough to open it."""

    code = "link_needed"


class AlreadyLinked(Conflict):
    """This account at the provider is connected to another user."""

    code = "already_linked"


class NotAdmitted(Refused):
    """The sign-up policy, or an administrator, keeps this person out."""

    code = "not_admitted"


class AwaitsApproval(Refused):
    """The account is made, and an administrator has to approve it."""

    code = "awaits_approval"


@dataclass(frozen=True)
class Provider:
    """Somebody who can say who a person is. Made by `configure`."""

    id: str
    label: str
    kind: Literal["oidc", "github"]
    issuer: str
    """The address of the issuer, or of the GitHub."""
    client_id: str
    client_secret: str = field(repr=False, default="")
    """Empty for a public client, which has PKCE alone."""
    also_issuer: str | None = None
    """A second spelling in `iss`."""
    trusted_domains: frozenset[str] = frozenset()
    """The operator's word: of these domains' addresses what the provider says is true."""
    own_domains: frozenset[str] = frozenset()
    """Whose mailboxes are the provider's own."""
    hosted_domain_claim: str | None = None
    """The claim that names the organisation's domain whose accounts the provider keeps."""

    @property
    def method(self) -> str:
        """As sessions and the audit log name it."""
        return f"oidc:{self.id}"


@dataclass(frozen=True)
class Profile:
    """What a provider says of a person, checked."""

    subject: str
    """Never changes and is never given to another; the address may be both."""
    email: str
    """In our spelling, and verified."""
    authoritative: bool
    """Whether the provider itself decides whose address this is, today."""


@dataclass(frozen=True)
class Account:
    """Somebody's account at a provider, connected to a user."""

    id: UUID
    provider: str
    email: str
    created_at: datetime
    last_used_at: datetime | None


def configure(
    id: str,
    *,
    client_id: str | None,
    client_secret: str | None = None,
    issuer: str | None = None,
    label: str | None = None,
    trusted_domains: Collection[str] = (),
) -> Provider:
    """A provider from settings; `google` and `github` know their own addresses.

    Raises: SetupProblem that names the setting and says what to do.
    """
    name = f"oidc.{id}"
    if not _ID.fullmatch(id):
        raise SetupProblem(f"Call a sign-in provider by small letters, digits, - and _: not {id!r} ({name}).")
    if not client_id:
        raise SetupProblem(f"The setting {name}.client_id is missing: it comes from the provider.")
    kind: Literal["oidc", "github"] = "github" if id == "github" else "oidc"
    own = {"google": _GOOGLE, "github": _GITHUB}.get(id)
    if issuer is None and own is None:
        raise SetupProblem(f"The setting {name}.issuer is missing: the address of the provider.")
    if own is not None and not client_secret:
        raise SetupProblem(f"The setting {name}.client_secret is missing: it comes with the client id.")
    try:
        domains = {normalise_domain(domain) for domain in trusted_domains if domain.strip()}
    except InvalidInput as error:
        raise SetupProblem(f"Write {name}.trusted_domains as domains: example.org, example.com.") from error
    google = id == "google" and issuer in (None, _GOOGLE)
    return Provider(
        id=id,
        label=label or {"google": "Google", "github": "GitHub"}.get(id, id.replace("_", " ").capitalize()),
        kind=kind,
        issuer=_safe_issuer(issuer or own or "", f"{name}.issuer"),
        client_id=client_id,
        client_secret=client_secret or "",
        also_issuer="accounts.google.com" if google else None,
        trusted_domains=frozenset(domains),
        own_domains=frozenset({"gmail.com", "googlemail.com"}) if google else frozenset(),
        hosted_domain_claim="hd" if google else None,
    )


def _safe_issuer(text: str, setting: str) -> str:
    url = text.strip().removesuffix("/.well-known/openid-configuration").rstrip("/")
    if not is_safe(url, local=True) or "?" in url or "#" in url:
        raise SetupProblem(f"Write {setting} like https://login.example.org (http only on this machine).")
    return url


def is_safe(url: str, *, local: bool) -> bool:
    """Whether we may send something there: https, or where `local` also http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        return False
    if not host or parts.username is not None or not url.isascii() or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (local and parts.scheme == "http" and is_loopback(host))


def is_local(provider: Provider) -> bool:
    """Whether it runs on this machine: only then is plain http safe."""
    return provider.issuer.startswith("http://")


def profile(provider: Provider, claims: Mapping[str, Any]) -> Profile:
    """Of the claims `sub`, `email`, `email_verified` that a provider has proved.

    Raises: TokenInvalid without a subject, AddressUnverified without an address that is the person's.
    """
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or "\0" in subject:
        raise TokenInvalid("The provider did not say who you are.", detail="sub")
    address = _address(claims)
    if address is None:
        raise _unverified(provider, "no address that mail could be sent to")
    domain = domain_of(address)
    trusted = domain in provider.trusted_domains
    if not trusted and not is_verified(provider, claims):
        raise _unverified(provider, "email_verified is not true")
    hosted = provider.hosted_domain_claim and claims.get(provider.hosted_domain_claim) == domain
    return Profile(subject, address, trusted or bool(hosted) or domain in provider.own_domains)


def is_verified(provider: Provider, claims: Mapping[str, Any]) -> bool:
    """Whether a set of claims says that the address in the same set is the person's."""
    said = claims.get("email_verified")
    if said is None and provider.issuer.startswith(_MICROSOFT):
        # Microsoft's own word for it: the owner of the domain has proved it. Without it an address there is
        # whatever the administrator of some tenant has typed.
        said = claims.get("xms_edov")
        return said in (True, 1, "1") or _says_true(said)
    return _says_true(said)


def _says_true(said: object) -> bool:
    """Some issuers write their booleans as text (Amazon Cognito)."""
    return said is True or (isinstance(said, str) and said.lower() == "true")


def lacks(provider: Provider, claims: Mapping[str, Any]) -> bool:
    """Whether the claims of an ID token leave open what userinfo may tell: the address, or whether it is
    verified. What the signed token denies stays denied."""
    address = _address(claims)
    if address is None:
        return claims.get("email_verified") is None or _says_true(claims.get("email_verified"))
    if domain_of(address) in provider.trusted_domains or is_verified(provider, claims):
        return False
    return claims.get("email_verified") is None


def completed(claims: Mapping[str, Any], userinfo: Mapping[str, Any]) -> dict[str, Any]:
    """Return the claims of an ID token with what userinfo adds to them.

    An address counts as verified only by the word of whoever names that very address: so both come from
    userinfo, or the two name the same. Raises: TokenInvalid where userinfo is about somebody else.
    """
    # Otherwise anybody's userinfo would do (OpenID Connect Core 5.3.2).
    if not isinstance(userinfo.get("sub"), str) or userinfo["sub"] != claims.get("sub"):
        raise TokenInvalid("The provider's answer does not fit together.", detail="sub of userinfo")
    signed, told = _address(claims), _address(userinfo)
    if told is None or (signed is not None and told != signed):
        return dict(claims)
    added = {name: userinfo[name] for name in ("email", *_VERIFIED) if name in userinfo}
    return {**{name: value for name, value in claims.items() if name not in _VERIFIED}, **added}


def _address(claims: Mapping[str, Any]) -> str | None:
    email = claims.get("email")
    try:
        return normalise_email(email) if isinstance(email, str) else None
    except InvalidInput:
        return None


def _unverified(provider: Provider, why: str) -> AddressUnverified:
    return AddressUnverified(
        f"{provider.label} does not vouch for your e-mail address: verify it there, then try again.",
        detail=why,
    )


def may_link(profile: Profile, *, untouched: bool) -> bool:
    """Whether a verified address alone connects a provider's account to the user who has that address.

    `untouched`: nobody has ever used that user's account. See docs/decisions/0023.
    """
    return profile.authoritative or untouched
