"""Who asks: turns a cookie or a bearer token into `scope["state"]["principal"]`, for every room behind it.

It refuses what another site's page sends with our cookie (writes and sockets, by their Origin), what a token
is not meant for (`access.py`), and what lasts longer than a session without a recent sign-in (`lasting.py`).
It lets everything else pass, signed in or not: whether one must be is the
route's own business. Bare ASGI, because event streams and sockets run through it.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ocmt.errors import OcmtError, Refused, Unauthenticated
from ocmt.identity import access, lasting
from ocmt.identity.origin import PublicAddress
from ocmt.platform.http import problem
from ocmt.platform.http.addresses import Network, client_address
from ocmt.platform.principal import Principal

Still = Callable[[], Awaitable[Principal | None]]
"""`scope["state"]["still"]`, for what lasts longer than a request (sockets, streams): who the cookie or token
stands for by now; None or Unauthenticated: nobody any more."""

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_FORMS = frozenset({"text/plain", "multipart/form-data", "application/x-www-form-urlencoded"})
_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013


Tell = Callable[[Principal, str], Awaitable[None]]
"""Has a user hear by mail what was done in their name."""


class Bearer(Protocol):
    """One kind of token that comes in `Authorization: Bearer`."""

    def knows(self, token: str) -> bool:
        """Whether a token is of this kind, by its looks alone."""

    async def authenticate(self, token: str, *, address: str | None) -> Principal | None:
        """Whose it is; None where it is not valid (any more). `address`: where it is used."""


class Cookies(Protocol):
    """Those who know whose a cookie is: the entrance, or the visits at the agents' own host name."""

    async def authenticate(self, token: str, /) -> Principal | None:
        """Whose it is; None where it is nobody's (any more)."""

    def now(self) -> datetime:
        """Return the time by their clock."""


class Authentication:
    """ASGI middleware; what needs no session still passes through it."""

    def __init__(
        self,
        app: ASGIApp,
        entrance: Cookies,
        address: PublicAddress,
        *,
        bearers: Sequence[Bearer] = (),
        proxies: Sequence[Network] = (),
        tell: Tell | None = None,
    ) -> None:
        """`tell`: sends a notice about what lasts longer than the session that made it."""
        self._app = app
        self._entrance = entrance
        self._address = address
        self._bearers = bearers
        self._proxies = proxies
        self._tell = tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        state = scope.setdefault("state", {})
        state.pop("principal", None)
        state.pop("still", None)
        state["address"] = client_address(connection, self._proxies)
        rule = None
        try:
            principal = await self._identify(connection, state["address"])
            if principal is not None:
                method = scope.get("method", "WEBSOCKET")
                access.check(principal, method, scope["path"])
                rule = lasting.rule_of(method, scope["path"])
                if rule is not None:
                    lasting.check(rule, principal, self._entrance.now())
                state["principal"] = principal
                state["still"] = self._asker_again(connection, state["address"])
        except OcmtError as error:
            await _turn_away(error, scope, receive, send)
            return
        if rule is None or rule.notice is None or principal is None or self._tell is None:
            await self._app(scope, receive, send)
            return
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, watch)
        if 200 <= status < 300:
            await self._tell(principal, rule.notice)

    async def _identify(self, connection: HTTPConnection, address: str | None) -> Principal | None:
        bearer = _bearer(connection)
        if bearer is not None:
            return await self._by_token(bearer, address)
        token = connection.cookies.get(self._address.cookie)
        if not token:
            return None
        is_write = connection.scope["type"] == "websocket" or connection.scope["method"] not in _READS
        if is_write and not self._address.admits_write(
            connection.headers.get("origin"), connection.headers.get("sec-fetch-site")
        ):
            raise Refused("This request came from another site's page.")
        if is_write and _is_a_forms(connection):
            raise Refused("Send JSON, or the header X-OCMT-Request: this looks like another site's form.")
        return await self._entrance.authenticate(token)

    def _asker_again(self, connection: HTTPConnection, address: str | None) -> Still:
        """Who looks again later, keeping of the request only what proves who it is."""
        bearer = _bearer(connection)
        if bearer is not None:
            return functools.partial(self._by_token, bearer, address)
        return functools.partial(self._entrance.authenticate, connection.cookies[self._address.cookie])

    async def _by_token(self, token: str, address: str | None) -> Principal:
        for bearer in self._bearers:
            if bearer.knows(token):
                principal = await bearer.authenticate(token, address=address)
                if principal is not None:
                    return principal
        raise Unauthenticated("This token is not valid, or not any more.")


def _bearer(connection: HTTPConnection) -> str | None:
    """The token of `Authorization: Bearer`; None where there is no such header.

    On a socket that no page has opened also the password of `Basic`: programs that can send no header of
    ours, OpenClaw's command line for one, make that of what stands before the @ in their address.
    """
    kind, _, token = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    if (
        kind.lower() == "basic"
        and connection.scope["type"] == "websocket"
        and "origin" not in connection.headers
    ):
        try:
            return base64.b64decode(token, validate=True).decode("latin-1").partition(":")[2]
        except ValueError:  # binascii.Error is one
            return ""
    return None


def _is_a_forms(connection: HTTPConnection) -> bool:
    """Whether any page of the web could have sent this without being asked first (CORS): a plain form."""
    kind = connection.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind in _FORMS and "x-ocmt-request" not in connection.headers


async def _turn_away(error: OcmtError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
        await problem(error)(scope, receive, send)
        return
    # Closing before accepting makes the server answer the handshake with 403.
    code = _TRY_AGAIN_LATER if error.retryable else _POLICY_VIOLATION
    await send({"type": "websocket.close", "code": code, "reason": error.code})
