"""Providers that people sign in by, as doubles on the wire: an OpenID Connect issuer, and GitHub.

    async with FakeIssuer(clock) as issuer:
        issuer.person = Person(email="ada@example.org")
        issuer.claims["nonce"] = "another"    # …and it lies

Real servers on loopback with real keys, as strict with their client as the specifications ask. Who comes to
the authorization endpoint is signed in as `person` at once. Shapes: OpenID Connect Core and Discovery 1.0,
RFC 7636, and https://docs.github.com/en/apps/oauth-apps (GitHub says its errors with status 200).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote_plus, urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from ocmt.platform.clock import Clock
from ocmt.testing.web import WebDouble

CLIENT_ID = "ocmt-client"
CLIENT_SECRET = "client secret: 100%"  # noqa: S105 - with what must be encoded in a header

Signing = Literal["ES256", "RS256", "HS256", "none"]


@dataclass
class Person:
    """Whoever sits at the browser."""

    subject: str = "person-1"
    email: str | None = "ada@example.org"
    email_verified: object = True
    more: dict[str, Any] = field(default_factory=dict)
    """Further claims."""

    def claims(self) -> dict[str, Any]:
        """As an issuer knows them."""
        known = {"email": self.email, "email_verified": self.email_verified}
        return {"sub": self.subject, **{k: v for k, v in known.items() if v is not None}, **self.more}


@dataclass
class _Grant:
    redirect_uri: str
    challenge: str
    nonce: str | None
    person: dict[str, Any]


class _Double(WebDouble):
    """A server that can be slow, down, or answer something else."""

    def __init__(self) -> None:
        self.down = False
        """Cut every connection."""
        self.hold: asyncio.Event | None = None
        """Wait for this before every answer."""
        self.instead: dict[str, web.Response] = {}
        """By path: what to answer in place of what should be."""
        self.seen: list[str] = []
        """The paths that were asked for."""
        self.refuses = ""
        """Whoever comes to the authorization endpoint goes back with this error."""
        self._grants: dict[str, _Grant] = {}
        self._tokens: dict[str, dict[str, Any]] = {}

    def _routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._moods])
        app.router.add_routes(self._routes())
        return app

    @web.middleware
    async def _moods(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.seen.append(request.path)
        if self.down:
            assert request.transport is not None
            request.transport.abort()
            await asyncio.Event().wait()
        if self.hold is not None:
            await self.hold.wait()
        if request.path in self.instead:
            given = self.instead[request.path]
            return web.Response(status=given.status, headers=given.headers, body=given.body)
        answer: web.StreamResponse = await handler(request)
        return answer

    def _authorize(self, request: web.Request, person: dict[str, Any], **more: str) -> web.Response:
        asked = request.query
        # A wrong client or address is told to the person, never to the address.
        if asked.get("client_id") != CLIENT_ID or not asked.get("redirect_uri"):
            return web.Response(status=400, text="unknown client")
        if asked.get("response_type") != "code" or asked.get("code_challenge_method") != "S256":
            return web.Response(status=400, text="not as it should be")
        code = secrets.token_urlsafe()
        challenge, nonce = asked["code_challenge"], asked.get("nonce")
        self._grants[code] = _Grant(asked["redirect_uri"], challenge, nonce, person)
        answer = {"error": self.refuses} if self.refuses else {"code": code}
        back = urlencode({**answer, "state": asked["state"], **more})
        return web.Response(status=302, headers={"location": f"{asked['redirect_uri']}?{back}"})

    def _redeem(self, form: Mapping[str, Any]) -> _Grant | None:
        """A code works once, at the address and with the verifier of whoever began."""
        grant = self._grants.pop(str(form.get("code")), None)
        challenge = _base64(hashlib.sha256(str(form.get("code_verifier")).encode()).digest())
        if (
            grant is None
            or form.get("grant_type", "authorization_code") != "authorization_code"
            or form.get("redirect_uri") != grant.redirect_uri
            or challenge.decode() != grant.challenge
        ):
            return None
        return grant

    def _bearer(self, request: web.Request) -> dict[str, Any] | None:
        return self._tokens.get(request.headers.get("authorization", "").removeprefix("Bearer "))


class FakeIssuer(_Double):
    """An OpenID Connect issuer. Use it as an asynchronous context manager; `url` is its address then."""

    def __init__(self, clock: Clock, *, sign: Signing = "ES256") -> None:
        super().__init__()
        self._clock = clock
        self.person = Person()
        self.sign: Signing = sign
        self.claims: dict[str, Any] = {}
        """Put into the next ID tokens over what should be there; None leaves it out."""
        self.description: dict[str, Any] = {}
        """The same for what it says of itself."""
        self.address_in_token = True
        """Whether the ID token has the address; else userinfo alone."""
        self.userinfo: dict[str, Any] = {}
        """Put into userinfo over what should be there; None leaves it out."""
        self.signs_userinfo = False
        """Whether userinfo is a signed token (application/jwt)."""
        self.names_itself = False
        self.answer_issuer: str | None = None
        """Put into `iss` of the answer in place of itself."""
        self.auth_method = "client_secret_basic"
        self._tampers = False
        self._keys: list[ECKey | RSAKey] = []
        self._shown: list[ECKey | RSAKey] = []
        self.rotate()

    def rotate(self, *, keep: bool = True) -> None:
        """Sign with new keys from now on. `keep`: still show the old ones."""
        number = len(self._shown)
        self._keys = [
            ECKey.generate_key("P-256", {"kid": f"ec-{number}", "use": "sig"}),
            RSAKey.generate_key(2048, {"kid": f"rsa-{number}", "use": "sig"}),
        ]
        self._shown = [*(self._shown if keep else []), *self._keys]

    def withdraw(self) -> None:
        """Show none of the keys any more that it signs with."""
        self._shown = [RSAKey.generate_key(2048, {"kid": "another", "use": "sig"})]

    def forge(self) -> None:
        """Sign with keys that it never shows, as somebody else would."""
        self._keys = [
            ECKey.generate_key("P-256", {"kid": "forged", "use": "sig"}),
            RSAKey.generate_key(2048, {"kid": "forged", "use": "sig"}),
        ]

    def tamper(self) -> None:
        """Change the next ID tokens after they were signed."""
        self._tampers = True

    @property
    def now(self) -> int:
        """In seconds since 1970."""
        return int(self._clock.now().timestamp())

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/.well-known/openid-configuration", self._describe),
            web.get("/authorize", self._sign_in),
            web.post("/token", self._token),
            web.get("/jwks", self._jwks),
            web.get("/userinfo", self._userinfo),
        ]

    async def _describe(self, _request: web.Request) -> web.Response:
        described = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256", "RS256"],
            "token_endpoint_auth_methods_supported": [self.auth_method],
            "authorization_response_iss_parameter_supported": self.names_itself,
        }
        return web.json_response({**described, **self.description})

    async def _sign_in(self, request: web.Request) -> web.Response:
        if "openid" not in request.query.get("scope", "").split():
            return web.Response(status=400, text="no openid")
        own = self.answer_issuer or self.url
        return self._authorize(request, self.person.claims(), **({"iss": own} if self.names_itself else {}))

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if not self._is_client(request, form):
            return web.json_response({"error": "invalid_client"}, status=401)
        grant = self._redeem(form)
        if grant is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        access_token = secrets.token_urlsafe()
        self._tokens[access_token] = grant.person
        return web.json_response(
            {
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_in": 300,
                "id_token": self._id_token(grant, access_token),
            }
        )

    def _is_client(self, request: web.Request, form: Mapping[str, Any]) -> bool:
        sent = (form.get("client_id"), form.get("client_secret"))
        if self.auth_method == "client_secret_basic":
            pair = base64.b64decode(request.headers.get("authorization", "").removeprefix("Basic ")).decode()
            sent = (unquote_plus(pair.partition(":")[0]), unquote_plus(pair.partition(":")[2]))
        if self.auth_method == "none":
            return sent == (CLIENT_ID, None)
        return sent == (CLIENT_ID, CLIENT_SECRET)

    def _id_token(self, grant: _Grant, access_token: str) -> str:
        now = self.now
        half = hashlib.sha256(access_token.encode()).digest()[:16]
        person = dict(grant.person)
        if not self.address_in_token:
            person = {"sub": person["sub"]}
        claims = {
            "iss": self.url,
            "aud": CLIENT_ID,
            "exp": now + 300,
            "iat": now,
            "nonce": grant.nonce,
            "at_hash": _base64(half).decode(),
            **person,
            **self.claims,
        }
        token = self.signed({name: value for name, value in claims.items() if value is not None})
        if not self._tampers:
            return token
        head, _, signature = token.split(".")
        return f"{head}.{_base64(json.dumps({**claims, 'more': 1}).encode()).decode()}.{signature}"

    def signed(self, claims: Mapping[str, Any], **header: Any) -> str:
        """A token of its own, by the way of signing that is set."""
        elliptic, rsa = self._keys
        if self.sign in ("none", "HS256"):
            # The old tricks; joserfc does neither. Of the HMAC the secret is the public key, which everybody
            # has.
            head = {"alg": self.sign, "typ": "JWT", "kid": rsa.kid, **header}
            signed = b".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
            code = hmac.digest(rsa.as_pem(private=False), signed, "sha256") if self.sign == "HS256" else b""
            return b".".join((signed, _base64(code))).decode()
        key = rsa if self.sign == "RS256" else elliptic
        return jwt.encode({"alg": self.sign, "kid": key.kid, **header}, dict(claims), key)

    async def _jwks(self, _request: web.Request) -> web.Response:
        return web.json_response({"keys": [key.as_dict(private=False) for key in self._shown]})

    async def _userinfo(self, request: web.Request) -> web.Response:
        person = self._bearer(request)
        if person is None:
            return web.json_response({"error": "invalid_token"}, status=401)
        told = {name: value for name, value in {**person, **self.userinfo}.items() if value is not None}
        if self.signs_userinfo:
            signed = self.signed({"iss": self.url, "aud": CLIENT_ID, **told})
            return web.Response(text=signed, content_type="application/jwt")
        return web.json_response(told)


class FakeGitHub(_Double):
    """GitHub, as an Enterprise Server has it: pages and API at one address."""

    def __init__(self) -> None:
        super().__init__()
        self.user: dict[str, Any] = {"id": 4711, "login": "ada", "name": "Ada", "email": None}
        self.emails: Any = [
            {"email": "old@example.org", "primary": False, "verified": True, "visibility": None},
            {"email": "ada@example.org", "primary": True, "verified": True, "visibility": "private"},
        ]

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/login/oauth/authorize", self._sign_in),
            web.post("/login/oauth/access_token", self._token),
            web.get("/api/v3/user", self._user),
            web.get("/api/v3/user/emails", self._emails),
        ]

    async def _sign_in(self, request: web.Request) -> web.Response:
        return self._authorize(request, {"scope": request.query.get("scope", "")})

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return web.json_response({"error": "incorrect_client_credentials"})
        grant = self._redeem(form)
        if grant is None:
            return web.json_response({"error": "bad_verification_code"})
        access_token = f"gho_{secrets.token_hex(18)}"
        self._tokens[access_token] = grant.person
        scope = str(grant.person["scope"]).replace(" ", ",")
        return web.json_response({"access_token": access_token, "token_type": "bearer", "scope": scope})

    async def _user(self, request: web.Request) -> web.Response:
        if self._bearer(request) is None or not request.headers.get("user-agent"):
            return web.json_response({"message": "Bad credentials"}, status=401)
        return web.json_response(self.user)

    async def _emails(self, request: web.Request) -> web.Response:
        granted = self._bearer(request)
        if granted is None or "user:email" not in granted["scope"].split():
            return web.json_response({"message": "Not Found"}, status=404)
        return web.json_response(self.emails)


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
