"""Sign-in by other providers over HTTP, mounted under /api/v1.

Start and callback are pages that a browser walks through: whatever happens they send it back to our own
pages, with no more than a code in the fragment.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from urllib.parse import urlsplit
from uuid import UUID

import structlog
from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request, Response, status
from fastapi.responses import RedirectResponse
from pydantic import BaseModel

from ocmt.errors import OcmtError, Refused, Unauthenticated
from ocmt.identity import letters
from ocmt.identity.browsers import asker_of, browser_of, set_asker
from ocmt.identity.entrance.model import SecondFactorMissing
from ocmt.identity.entrance.service import Entered
from ocmt.identity.guards import Me, actor_of, require_recent, signed_in
from ocmt.identity.model import new_token
from ocmt.identity.oidc.model import AttemptOver, Provider
from ocmt.identity.oidc.service import Answer, Linked, Oidc
from ocmt.identity.routes import let_in
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock
from ocmt.platform.http import redirect, redirect_to
from ocmt.platform.principal import Principal

_log = structlog.get_logger(__name__)
_SIGN_IN = "/sign-in"
_SETTINGS = "/settings"
_NOT_GUESSED = Query(max_length=8192)


class ProviderView(BaseModel):
    """A provider that the sign-in page offers."""

    id: str
    label: str


class ProvidersView(BaseModel):
    """The ways to sign in."""

    oidc: list[ProviderView]
    magic_link: bool
    passkeys: bool


class AccountView(BaseModel):
    """One's account at a provider, by which one can sign in."""

    id: UUID
    provider: str
    label: str
    email: str
    created_at: datetime
    last_used_at: datetime | None


class AccountPage(BaseModel):
    """All of them, oldest first; there is no next page."""

    items: list[AccountView]
    next: None = None


def routes(oidc: Oidc, identity: Identity, clock: Clock) -> APIRouter:
    """All routes of this room, without the /api/v1."""
    whole = APIRouter()
    whole.routes += _entrance(oidc, identity, clock).routes
    whole.routes += _own(oidc).routes
    return whole


def _entrance(oidc: Oidc, identity: Identity, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/auth", tags=["sign-in"])

    @router.get("/providers")
    async def list_providers() -> ProvidersView:
        """The ways to sign in here."""
        return ProvidersView(
            oidc=[ProviderView(id=each.id, label=each.label) for each in oidc.providers],
            magic_link=True,
            passkeys=True,
        )

    @router.get("/oidc/{provider}/start", status_code=status.HTTP_302_FOUND, response_class=RedirectResponse)
    async def start(provider: str, request: Request, link: bool = False) -> Response:
        """Go to a provider to sign in there; `link=1` connects it to the account one is signed in to."""
        found = oidc.provider(provider)
        own = urlsplit(identity.address.url).netloc
        if not link and request.url.netloc != own and request.url.netloc in identity.address.hosts:
            # By another name of this machine: the provider sends people back to the public one, and that has
            # to have the cookie.
            return redirect_to(
                f"{identity.address.url}/api/v1/auth/oidc/{found.id}/start", status.HTTP_302_FOUND
            )
        asker = asker_of(request, identity.address) or new_token()
        try:
            linker = _linker(request, clock) if link else None
            url = await oidc.begin(found, browser_of(request), asker=asker, linker=linker)
        except OcmtError as error:
            return _sent_back(found, error, _SETTINGS if link else _SIGN_IN, status.HTTP_302_FOUND)
        response = redirect_to(url, status.HTTP_302_FOUND)
        set_asker(response, identity.address, asker)
        return response

    @router.get(
        "/oidc/{provider}/callback", status_code=status.HTTP_303_SEE_OTHER, response_class=RedirectResponse
    )
    async def come_back(
        provider: str,
        request: Request,
        state: Annotated[str, _NOT_GUESSED] = "",
        code: Annotated[str, _NOT_GUESSED] = "",
        error: Annotated[str, _NOT_GUESSED] = "",
        iss: Annotated[str | None, _NOT_GUESSED] = None,
    ) -> Response:
        """Where a provider sends the browser back to."""
        found = oidc.provider(provider)
        me = getattr(request.state, "principal", None)
        told = BackgroundTasks()

        def tell(email: str) -> None:
            letter = letters.notice(email, f"{found.label} was connected", identity.address.url)
            told.add_task(identity.deliver, letter)

        try:
            outcome = await oidc.finish(
                found,
                Answer(state=state, code=code, error=error, issuer=iss),
                browser_of(request),
                asker=asker_of(request, identity.address),
                principal=me,
                tell=tell,
            )
        except AttemptOver as fault:
            # The page was loaded twice, by the back button for one: who is signed in goes on to the app.
            if me is not None:
                return redirect("/", status.HTTP_303_SEE_OTHER)
            return _sent_back(found, fault, _SIGN_IN, status.HTTP_303_SEE_OTHER)
        except OcmtError as fault:
            # Who is signed in has no use for the page to sign in at.
            return _sent_back(found, fault, _SETTINGS if me else _SIGN_IN, status.HTTP_303_SEE_OTHER)
        if isinstance(outcome, Linked):
            target = f"{_SETTINGS}#linked={outcome.provider}"
            return redirect(target, status.HTTP_303_SEE_OTHER, background=told)
        target = "/" if isinstance(outcome, Entered) else f"{_SIGN_IN}#mfa"
        response = redirect(target, status.HTTP_303_SEE_OTHER, background=told)
        await let_in(identity, request, response, outcome)
        return response

    return router


def _own(oidc: Oidc) -> APIRouter:
    router = APIRouter(prefix="/oidc-accounts", tags=["me"], dependencies=[Depends(signed_in)])

    @router.get("")
    async def list_accounts(me: Me) -> AccountPage:
        """By which accounts at other providers one can sign in."""
        labels = {each.id: each.label for each in oidc.providers}
        return AccountPage(
            items=[
                AccountView(**asdict(each), label=labels.get(each.provider, each.provider))
                for each in await oidc.accounts(me.user_id)
            ]
        )

    @router.delete("/{account_id}", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def unlink(account_id: UUID, me: Me, request: Request) -> Response:
        """Disconnect one; sessions that it opened stay."""
        await oidc.unlink(me.user_id, account_id, actor=actor_of(me, request))
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    return router


def _linker(request: Request, clock: Clock) -> Principal:
    """Who connects a provider to their account. Raises: Unauthenticated, Refused, SignInAgain."""
    me = getattr(request.state, "principal", None)
    if not isinstance(me, Principal) or me.session_id is None:
        raise Unauthenticated("Sign in first.")
    # Another site's page could otherwise connect its own account to that of whoever visits it.
    if request.headers.get("sec-fetch-site") not in ("same-origin", "none"):
        raise Refused("This request came from another site's page.")
    if me.must_enrol:
        raise SecondFactorMissing("Your administrator asks for a second factor: set one up first.")
    require_recent(me, clock)
    return me


def _sent_back(provider: Provider, error: OcmtError, page: str, how: int) -> Response:
    _log.warning("oidc_sign_in_failed", provider=provider.id, code=error.code, reason=error.detail)
    return redirect(f"{page}#error={error.code}", how)
