"""Who asks: turns the session cookie into `scope["state"]["principal"]`, for every room behind it.

It refuses what another site's page sends with our cookie (writes and sockets, by their Origin), and lets
everything else pass, signed in or not: whether one must be is the route's own business. Bare ASGI, because
event streams and sockets run through it.
"""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.errors import OcmtError, Refused
from ocmt.identity.service import Identity
from ocmt.platform.http import Principal, problem

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_POLICY_VIOLATION = 1008
_TRY_AGAIN_LATER = 1013


class Authentication:
    """ASGI middleware; what needs no session still passes through it."""

    def __init__(self, app: ASGIApp, identity: Identity) -> None:
        self._app = app
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the module."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        try:
            principal = await self._identify(HTTPConnection(scope))
        except OcmtError as error:
            await _turn_away(error, scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state.pop("principal", None)
        if principal is not None:
            state["principal"] = principal
        await self._app(scope, receive, send)

    async def _identify(self, connection: HTTPConnection) -> Principal | None:
        token = connection.cookies.get(self._identity.address.cookie)
        if not token:
            return None
        is_write = connection.scope["type"] == "websocket" or connection.scope["method"] not in _READS
        if is_write and not self._identity.address.admits_write(
            connection.headers.get("origin"), connection.headers.get("sec-fetch-site")
        ):
            raise Refused("This request came from another site's page.")
        return await self._identity.authenticate(token)


async def _turn_away(error: OcmtError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await problem(error)(scope, receive, send)
        return
    # Closing before accepting makes the server answer the handshake with 403.
    code = _TRY_AGAIN_LATER if error.retryable else _POLICY_VIOLATION
    await send({"type": "websocket.close", "code": code, "reason": error.code})
