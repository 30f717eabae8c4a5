"""Passkeys over HTTP: at the door, as a further proof, and one's own list. Options and answers are
WebAuthn's JSON."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from ocmt.identity.browsers import asker_of, browser_of, challenge_of, set_asker
from ocmt.identity.guards import Me, not_too_often, require_recent
from ocmt.identity.model import new_token
from ocmt.identity.passkeys.service import Passkeys
from ocmt.identity.routes import SecondFactorView, SignedIn, let_in
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AnswerBody(_Body):
    """What an authenticator has answered (AuthenticationResponseJSON)."""

    credential: dict[str, Any]


class NewPasskey(_Body):
    """A new passkey (RegistrationResponseJSON), and what to call it."""

    name: str = Field(max_length=1000, examples=["My phone"])
    credential: dict[str, Any]


class NameBody(_Body):
    """What to call it."""

    name: str = Field(max_length=1000)


class OptionsView(BaseModel):
    """What the browser is to ask an authenticator, as WebAuthn's JSON."""

    options: dict[str, Any]


class PasskeyView(BaseModel):
    """A passkey."""

    id: UUID
    name: str
    backed_up: bool = Field(description="Whether it is synchronised, so that it outlives its device.")
    created_at: datetime
    last_used_at: datetime | None


class PasskeyPage(BaseModel):
    """One's passkeys, oldest first."""

    items: list[PasskeyView]
    next: None = None


class MadePasskey(BaseModel):
    """The one that was just registered."""

    id: UUID


def routes(passkeys: Passkeys, identity: Identity, clock: Clock) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    whole = APIRouter()
    whole.routes += _door(passkeys, identity).routes
    whole.routes += _own(passkeys, identity, clock).routes
    return whole


def _door(passkeys: Passkeys, identity: Identity) -> APIRouter:
    router = APIRouter(prefix="/auth", tags=["sign-in"], dependencies=[Depends(not_too_often(identity))])

    @router.post("/passkey/options")
    async def options(request: Request, response: Response) -> OptionsView:
        """Begin to sign in, or to prove once more who you are, by a passkey: the same browser answers."""
        asker = asker_of(request, identity.address) or new_token()
        set_asker(response, identity.address, asker)
        return OptionsView(options=await passkeys.question(asker))

    @router.post("/passkey/verify")
    async def verify(body: AnswerBody, request: Request, response: Response) -> SignedIn | SecondFactorView:
        """Sign in by a passkey: by itself, or as the second step of a sign-in."""
        outcome = await passkeys.sign_in(
            body.credential,
            browser_of(request),
            asker=asker_of(request, identity.address),
            challenge=challenge_of(request, identity.address),
        )
        return await let_in(identity, request, response, outcome)

    @router.post("/step-up/passkey", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def step_up(body: AnswerBody, me: Me, request: Request) -> Response:
        """Prove once more that it is you."""
        asker = asker_of(request, identity.address)
        await passkeys.prove_again(me, body.credential, browser_of(request), asker=asker)
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    return router


def _own(passkeys: Passkeys, identity: Identity, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/passkeys", tags=["second factor"])

    @router.get("")
    async def list_passkeys(me: Me) -> PasskeyPage:
        """One's passkeys."""
        found = await passkeys.list(me.user_id)
        return PasskeyPage(items=[PasskeyView.model_validate(one, from_attributes=True) for one in found])

    @router.post("/options")
    async def registration(me: Me) -> OptionsView:
        """Begin to register one. Takes a recent sign-in."""
        require_recent(me, clock)
        return OptionsView(options=await passkeys.registration(me))

    @router.post("", status_code=status.HTTP_201_CREATED)
    async def register(body: NewPasskey, me: Me, request: Request) -> MadePasskey:
        """Register one: the answer to what was begun."""
        address = browser_of(request).address
        made = await passkeys.register(me, body.name, body.credential, address=address)
        return MadePasskey(id=made)

    @router.patch("/{passkey_id}", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def rename(passkey_id: UUID, body: NameBody, me: Me, request: Request) -> Response:
        """Call it something else."""
        await passkeys.rename(me.user_id, passkey_id, body.name, address=browser_of(request).address)
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    @router.delete("/{passkey_id}", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def remove(passkey_id: UUID, me: Me, request: Request) -> Response:
        """Remove it. Takes a recent sign-in."""
        require_recent(me, clock)
        await passkeys.remove(me.user_id, passkey_id, address=browser_of(request).address)
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    return router
