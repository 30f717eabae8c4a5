"""How a browser gets from the platform's own address to the agents', signed in there as well.

    public /agent/gateway/              leads to
    agents /agent/gateway/sign-in/begin sets a secret in the browser, and leads with its hash to
    public /agent/gateway/?for=…        which knows who is signed in: a ticket, in the fragment, for
    agents /agent/gateway/sign-in       whose page posts it; the secret must fit; a cookie, and the pages

The secret is what keeps others from signing somebody in as themselves. The ticket is in no log, because no
browser sends a fragment. Neither side ever sees a cookie of the other.
"""

from __future__ import annotations

import base64
import hashlib

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ocmt.errors import NotFound, OcmtError, Refused, Unauthenticated
from ocmt.identity.entrance.model import SESSION_ABSOLUTE
from ocmt.identity.model import new_token
from ocmt.identity.visits.model import (
    BEGIN,
    GATEWAY,
    SIGN_IN,
    TICKET_LIFETIME,
    AgentAddress,
    Elsewhere,
    binding_of,
    is_binding,
)
from ocmt.identity.visits.service import Visits
from ocmt.platform.http import json_body, principal, problem, redirect, redirect_to
from ocmt.platform.http.headers import fields

_SCRIPT = """
const say = (text) => { document.getElementById("said").textContent = text; };
const ticket = new URLSearchParams(location.hash.slice(1)).get("ticket") ?? "";
history.replaceState(null, "", location.pathname);
fetch(location.pathname, {
  method: "POST",
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify({ ticket }),
}).then(async (answer) => {
  if (answer.ok) location.replace("/agent/gateway/");
  else say((await answer.json()).detail);
}).catch(() => say("The server could not be reached."));
"""
_PAGE = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>OpenClaw</title>
<p id="said" role="status">Signing in…</p>
<p><a href="{BEGIN}">Begin again</a></p>
<noscript>OpenClaw's pages need JavaScript.</noscript>
<script>{_SCRIPT}</script>
"""
_HASH = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
_POLICY = (
    f"default-src 'none'; script-src 'sha256-{_HASH}'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


class Ticket(BaseModel):
    """What the page posts."""

    model_config = ConfigDict(extra="forbid")

    ticket: str = Field(max_length=200)


class Departure:
    """ASGI, at the public address, for `/agent/gateway` and all below it: leads to the agents' host name."""

    def __init__(self, visits: Visits, address: AgentAddress) -> None:
        self._visits = visits
        self._address = address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; the authentication is in front of it."""
        try:
            response = await self._respond(scope, receive)
        except OcmtError as error:
            response = problem(error)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        is_page = scope["path"] in (GATEWAY, f"{GATEWAY}/")
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD") or not is_page:
            raise Elsewhere(f"OpenClaw's pages and programs are served at {self._address.url}{GATEWAY}.")
        request = Request(scope, receive)
        binding = request.query_params.get("for")
        try:
            who = principal(request)
        except Unauthenticated:
            return redirect("/")
        if who.session_id is None:
            raise Elsewhere(f"Use this token at {self._address.url}{GATEWAY}.")
        if binding is None:
            return redirect_to(self._address.url + BEGIN)
        if request.headers.get("sec-fetch-dest", "document") != "document" or not is_binding(binding):
            raise Refused("Open OpenClaw's pages by the link in OCMT.")
        ticket = await self._visits.ticket(who, binding)
        return redirect_to(f"{self._address.url}{SIGN_IN}#ticket={ticket}")


class Arrival:
    """ASGI, at the agents' own host name, for the paths in `paths`."""

    paths = frozenset({SIGN_IN, BEGIN})

    def __init__(self, visits: Visits, address: AgentAddress, *, public_url: str) -> None:
        self._visits = visits
        self._address = address
        self._public_url = public_url
        self._asker = f"{address.cookie}-asker"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            response = await self._respond(Request(scope, receive))
        except OcmtError as error:
            response = problem(error)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        match request.method, request.url.path:
            case "GET" | "HEAD", path if path == BEGIN:
                return self._begin()
            case "GET" | "HEAD", path if path == SIGN_IN:
                return Response(
                    _PAGE,
                    headers=fields(
                        {"content-type": "text/html; charset=utf-8", "content-security-policy": _POLICY}
                    ),
                )
            case "POST", path if path == SIGN_IN:
                return await self._enter(request)
        raise NotFound("There is no such page.")

    def _begin(self) -> Response:
        secret = new_token()
        response = redirect_to(f"{self._public_url}{GATEWAY}/?for={binding_of(secret)}")
        self._set(response, self._asker, secret, int(5 * TICKET_LIFETIME.total_seconds()))
        return response

    async def _enter(self, request: Request) -> Response:
        headers = request.headers
        if not self._address.admits_write(headers.get("origin"), headers.get("sec-fetch-site")):
            raise Refused("This request came from another site's page.")
        secret = request.cookies.get(self._asker)
        if not secret:
            raise Unauthenticated(
                "Your browser kept no cookie for this address. Allow cookies, and begin again."
            )
        given = await json_body(request, Ticket)
        visit = await self._visits.redeem(given.ticket, binding_of(secret))
        response = JSONResponse({})
        self._set(response, self._address.cookie, visit, int(SESSION_ABSOLUTE.total_seconds()))
        self._set(response, self._asker, "", 0)
        return response

    def _set(self, response: Response, name: str, value: str, seconds: int) -> None:
        """No Domain: the browser sends it to this host name and no other."""
        secure = self._address.secure
        response.set_cookie(
            name, value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="lax"
        )
