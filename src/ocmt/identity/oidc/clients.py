"""How a provider is asked who somebody is: OpenID Connect with discovery, and GitHub's OAuth.

Two steps each, alike for both: where to send the browser, and what the code is worth that it brings back.
Authlib builds the addresses; its HTTP clients are not used, for they know nothing of our limits.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import quote_plus

from ocmt.identity.oidc import model
from ocmt.identity.oidc.fetching import TIMEOUT, Fetcher, Reply
from ocmt.identity.oidc.model import (
    AddressUnverified,
    Profile,
    Provider,
    ProviderRejected,
    ProviderUnavailable,
    TokenInvalid,
)
from ocmt.platform.clock import Clock
from ocmt.platform.http import HttpClient

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

KEPT_SECONDS = 3600.0
"""How long an issuer's description and its keys are believed."""
KEYS_AGAIN_SECONDS = 30.0
"""An unknown key makes us ask for the keys again, at most so often."""
FAULT_SECONDS = 5.0
"""So long nobody asks again a provider that did not answer."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ask:
    """One attempt, as the provider must know it."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str


class Client(Protocol):
    """The way one kind of provider is asked."""

    async def authorization_url(self, ask: Ask) -> str:
        """Where the browser goes. Raises: ProviderUnavailable."""

    async def profile(self, ask: Ask, code: str, *, issuer: str | None) -> Profile:
        """Who brought this code. `issuer`: who the answer says it is from (RFC 9207).

        Raises: ProviderUnavailable, ProviderRejected, TokenInvalid, AddressUnverified.
        """


Clients = Mapping[str, tuple[Provider, Client]]
"""By the provider's id, in the order of the settings."""


def clients_of(
    providers: Iterable[Provider],
    http: HttpClient,
    clock: Clock,
    *,
    timeout: float = TIMEOUT,
) -> Clients:
    """One for each provider, by its kind. `timeout`: seconds for each question."""

    def client(provider: Provider) -> Client:
        fetcher = Fetcher(http, provider, timeout=timeout)
        return GitHub(provider, fetcher) if provider.kind == "github" else Issuer(provider, fetcher, clock)

    return {each.id: (each, client(each)) for each in providers}


@dataclass(frozen=True)
class Description:
    """What an issuer says of itself (OpenID Connect Discovery 1.0)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    basic: bool
    """Whether the secret goes into the header: the default of the protocol."""
    names_itself: bool
    """Whether its answers must carry `iss`."""


class Issuer:
    """An OpenID Connect issuer."""

    def __init__(self, provider: Provider, fetcher: Fetcher, clock: Clock) -> None:
        self._provider = provider
        self._fetcher = fetcher
        self._clock = clock
        self._described: _Kept[Description] = _Kept(clock)
        self._keys: _Kept[KeySet] = _Kept(clock)

    async def authorization_url(self, ask: Ask) -> str:
        """See Client."""
        described = await self.describe()
        return _authorization_url(
            described.authorization_endpoint,
            self._provider,
            ask,
            scope="openid email profile",
            nonce=ask.nonce,
        )

    async def profile(self, ask: Ask, code: str, *, issuer: str | None) -> Profile:
        """See Client."""
        described = await self.describe()
        if issuer != described.issuer and (issuer is not None or described.names_itself):
            raise TokenInvalid("The answer came from another provider.", detail="iss of the answer")
        tokens = await self._exchange(described, ask, code)
        claims: Mapping[str, Any] = await self._claims(described, ask, tokens)
        if described.userinfo_endpoint is not None and model.lacks(self._provider, claims):
            claims = await self._more(described, claims, tokens.get("access_token"))
        return model.profile(self._provider, claims)

    async def describe(self) -> Description:
        """From its well-known address, or from memory. Raises: ProviderUnavailable."""

        async def fetch() -> Description:
            url = f"{self._provider.issuer}/.well-known/openid-configuration"
            return self._read(await self._fetcher.get(url))

        return await self._described.get(fetch, max_age=KEPT_SECONDS)

    def _read(self, reply: Reply) -> Description:
        found = reply.body
        if not reply.ok or not isinstance(found, dict):
            raise self._fetcher.unavailable(f"no description of the issuer (status {reply.status})")
        issuer = found.get("issuer")
        if not isinstance(issuer, str) or issuer.rstrip("/") != self._provider.issuer:
            raise self._fetcher.unavailable("the description is another issuer's")
        require = self._fetcher.require_safe
        userinfo = found.get("userinfo_endpoint")
        methods = found.get("token_endpoint_auth_methods_supported")
        return Description(
            issuer=issuer,
            authorization_endpoint=require(found.get("authorization_endpoint"), "authorization_endpoint"),
            token_endpoint=require(found.get("token_endpoint"), "token_endpoint"),
            jwks_uri=require(found.get("jwks_uri"), "jwks_uri"),
            userinfo_endpoint=None if userinfo is None else require(userinfo, "userinfo_endpoint"),
            basic=not isinstance(methods, list) or "client_secret_basic" in methods,
            names_itself=found.get("authorization_response_iss_parameter_supported") is True,
        )

    async def _exchange(self, described: Description, ask: Ask, code: str) -> Mapping[str, Any]:
        provider = self._provider
        form = _exchange_form(ask, code)
        headers = {}
        if provider.client_secret and described.basic:
            headers["authorization"] = _basic(provider.client_id, provider.client_secret)
        else:
            form["client_id"] = provider.client_id
            if provider.client_secret:
                form["client_secret"] = provider.client_secret
        reply = await self._fetcher.post(described.token_endpoint, form, headers=headers)
        return _tokens(provider, reply)

    async def _claims(self, described: Description, ask: Ask, tokens: Mapping[str, Any]) -> dict[str, Any]:
        from ocmt.identity.oidc import id_tokens

        def verified(keys: KeySet) -> dict[str, Any]:
            return id_tokens.verify(
                tokens.get("id_token"),
                keys,
                self._provider,
                issuer=described.issuer,
                nonce=ask.nonce,
                access_token=tokens.get("access_token"),
                now=self._clock.now(),
            )

        try:
            return verified(await self._key_set(described, max_age=KEPT_SECONDS))
        except id_tokens.UnknownKey:
            return verified(await self._key_set(described, max_age=KEYS_AGAIN_SECONDS))

    async def _key_set(self, described: Description, *, max_age: float) -> KeySet:
        from ocmt.identity.oidc import id_tokens

        async def fetch() -> KeySet:
            reply = await self._fetcher.get(described.jwks_uri)
            if not reply.ok:
                raise self._fetcher.unavailable(f"no keys (status {reply.status})")
            return id_tokens.key_set(reply.body)

        return await self._keys.get(fetch, max_age=max_age)

    async def _more(
        self, described: Description, claims: Mapping[str, Any], access_token: object
    ) -> Mapping[str, Any]:
        """Where the ID token leaves the address or its verification open, userinfo may tell."""
        url = described.userinfo_endpoint
        if url is None or not isinstance(access_token, str):
            return claims
        headers = {"authorization": _bearer(access_token), "accept": "application/json, application/jwt"}
        reply = await self._fetcher.get(url, headers=headers)
        told = reply.body
        if reply.ok and reply.kind == "application/jwt":
            told = await self._signed_userinfo(described, reply.text)
        if not reply.ok or not isinstance(told, dict):
            raise self._fetcher.unavailable(f"no userinfo (status {reply.status})")
        return model.completed(claims, told)

    async def _signed_userinfo(self, described: Description, token: str) -> dict[str, Any]:
        """Some issuers sign their userinfo (OpenID Connect Core 5.3.2)."""
        from ocmt.identity.oidc import id_tokens

        def verified(keys: KeySet) -> dict[str, Any]:
            return id_tokens.verify_userinfo(token, keys, self._provider, issuer=described.issuer)

        try:
            return verified(await self._key_set(described, max_age=KEPT_SECONDS))
        except id_tokens.UnknownKey:
            return verified(await self._key_set(described, max_age=KEYS_AGAIN_SECONDS))


class _Kept(Generic[T]):
    """One answer of a provider, asked for by one at a time; also that there was none is kept, for seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._value: tuple[float, T] | None = None
        self._fault: tuple[float, ProviderUnavailable] | None = None

    async def get(self, fetch: Callable[[], Awaitable[T]], *, max_age: float) -> T:
        """The answer, not older than `max_age` seconds. Raises: ProviderUnavailable."""
        async with self._lock:
            now = self._clock.monotonic()
            if self._value is not None and now - self._value[0] < max_age:
                return self._value[1]
            # Who waited for the lock must not wait as long again, one after the other.
            if self._fault is not None and now - self._fault[0] < FAULT_SECONDS:
                raise ProviderUnavailable(self._fault[1].message, detail=self._fault[1].detail)
            try:
                value = await fetch()
            except ProviderUnavailable as error:
                self._fault = (self._clock.monotonic(), error)
                raise
            self._value = (now, value)
            return value


class GitHub:
    """GitHub, or a GitHub Enterprise Server: OAuth 2 without ID tokens."""

    def __init__(self, provider: Provider, fetcher: Fetcher) -> None:
        self._provider = provider
        self._fetcher = fetcher
        own = provider.issuer == "https://github.com"
        self._api = "https://api.github.com" if own else f"{provider.issuer}/api/v3"

    async def authorization_url(self, ask: Ask) -> str:
        """See Client."""
        url = f"{self._provider.issuer}/login/oauth/authorize"
        return _authorization_url(url, self._provider, ask, scope="read:user user:email")

    async def profile(self, ask: Ask, code: str, *, issuer: str | None) -> Profile:
        """See Client. The subject is the number of the account: names can be given up and taken by others."""
        form = {
            **_exchange_form(ask, code),
            "client_id": self._provider.client_id,
            "client_secret": self._provider.client_secret,
        }
        url = f"{self._provider.issuer}/login/oauth/access_token"
        tokens = _tokens(self._provider, await self._fetcher.post(url, form))
        token = tokens.get("access_token")
        if not isinstance(token, str):
            raise self._fetcher.unavailable("no access token")
        user = await self._api_get("/user", token)
        number = user.get("id") if isinstance(user, dict) else None
        if not isinstance(number, int) or isinstance(number, bool):
            raise TokenInvalid("GitHub did not say who you are.", detail="id")
        email = _primary(await self._api_get("/user/emails", token))
        if email is None:
            raise AddressUnverified(
                f"{self._provider.label} knows no verified primary e-mail address of yours: verify it there.",
                detail="no verified primary address",
            )
        return model.profile(self._provider, {"sub": str(number), "email": email, "email_verified": True})

    async def _api_get(self, path: str, token: str) -> Any:
        headers = {
            "accept": "application/vnd.github+json",
            "authorization": _bearer(token),
            "x-github-api-version": "2022-11-28",
        }
        reply = await self._fetcher.get(self._api + path, headers=headers)
        if not reply.ok:
            raise self._fetcher.unavailable(f"{path}: status {reply.status}")
        return reply.body


def _primary(listed: object) -> str | None:
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("primary") is True and each.get("verified") is True:
            email = each.get("email")
            return email if isinstance(email, str) else None
    return None


def _authorization_url(endpoint: str, provider: Provider, ask: Ask, *, scope: str, **more: str) -> str:
    # Here and not above: the Management API starts without it.
    from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # type: ignore[import-untyped]
    from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]

    return str(
        prepare_grant_uri(
            endpoint,
            provider.client_id,
            "code",
            redirect_uri=ask.redirect_uri,
            scope=scope,
            state=ask.state,
            code_challenge=create_s256_code_challenge(ask.verifier),
            code_challenge_method="S256",
            **more,
        )
    )


def _exchange_form(ask: Ask, code: str) -> dict[str, str]:
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": ask.redirect_uri,
        "code_verifier": ask.verifier,
    }


def _tokens(provider: Provider, reply: Reply) -> Mapping[str, Any]:
    """GitHub says its errors with status 200."""
    body = reply.body if isinstance(reply.body, dict) else {}
    if not reply.ok or "error" in body:
        named = body.get("error")
        raise ProviderRejected(
            f"{provider.label} did not take our request: your administrator finds the reason in the log.",
            detail=f"token endpoint: {reply.status} {printable(named)}",
        )
    return body


def printable(text: object) -> str:
    """What a provider calls an error, fit for one line of the log."""
    return "".join(each for each in str(text or "") if each.isprintable())[:100]


def _bearer(token: str) -> str:
    return f"Bearer {_fit_for_header(token)}"


def _fit_for_header(token: str) -> str:
    """Fit for a header. Raises: TokenInvalid."""
    if not token.isascii() or not token.isprintable() or len(token) > 16 * 1024:
        raise TokenInvalid("The provider's answer is not as it should be.", detail="access token")
    return token


def _basic(client_id: str, secret: str) -> str:
    """RFC 6749, 2.3.1: both are form-encoded before they are joined."""
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()
