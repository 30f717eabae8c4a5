"""The administration over HTTP: sign-up rules, invitations, impersonation. Auditors may read."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Depends, Path, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from ocmt.identity.administration.service import Administration, Invitation
from ocmt.identity.browsers import browser_of, keep_own_session, set_outcome
from ocmt.identity.entrance.model import RuleKind
from ocmt.identity.guards import (
    Me,
    actor_of,
    administrator,
    auditor,
    require_recent,
    require_recent_of_people,
)
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock
from ocmt.platform.principal import Role


class RuleView(BaseModel):
    """An address or a domain whose people may make an account, where the policy lets listed ones in."""

    kind: RuleKind
    value: str
    created_at: datetime


class RulesView(BaseModel):
    """All rules, and the policy that they add to."""

    mode: str
    from_settings: list[str] = Field(description="What OCMT_SIGN_UP_ALLOWED lists.")
    items: list[RuleView]
    next: None = None


class NewInvitation(BaseModel):
    """Whom to invite."""

    model_config = ConfigDict(extra="forbid")

    email: str = Field(max_length=1000, examples=["ada@example.org"])
    role: Role = "user"


class InvitationView(BaseModel):
    """An invitation."""

    id: UUID
    email: str
    role: Role
    created_at: datetime
    expires_at: datetime
    accepted_at: datetime | None
    revoked_at: datetime | None


class InvitationPage(BaseModel):
    """Invitations, newest first."""

    items: list[InvitationView]
    next: UUID | None


class Reason(BaseModel):
    """Why."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(max_length=1000, examples=["They asked me to look at a job that fails."])


Value = Annotated[str, Path(max_length=300)]


def routes(administration: Administration, identity: Identity, clock: Clock) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    whole = APIRouter()
    whole.routes += _to_read(administration, identity).routes
    whole.routes += _to_change(administration, identity, clock).routes
    return whole


def _to_read(administration: Administration, identity: Identity) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(auditor)])

    @router.get("/sign-up-rules")
    async def list_rules() -> RulesView:
        """Who may make an account."""
        policy = identity.entrance.policy
        return RulesView(
            mode=policy.mode,
            from_settings=sorted(policy.addresses | policy.domains),
            items=[
                RuleView.model_validate(rule, from_attributes=True) for rule in await administration.rules()
            ],
        )

    @router.get("/invitations")
    async def list_invitations(
        after: UUID | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> InvitationPage:
        """Whom administrators have invited."""
        found = await administration.invitations(after=after, limit=limit + 1)
        page = [_view(one) for one in found[:limit]]
        return InvitationPage(items=page, next=page[-1].id if len(found) > limit else None)

    return router


def _to_change(administration: Administration, identity: Identity, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(administrator)])

    @router.put(
        "/sign-up-rules/{kind}/{value}",
        status_code=204,
        response_class=Response,
    )
    async def put_rule(kind: RuleKind, value: Value, me: Me, request: Request) -> Response:
        """Let an address or a domain in."""
        await administration.put_rule(kind, value, actor=actor_of(me, request))
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    @router.delete(
        "/sign-up-rules/{kind}/{value}",
        status_code=204,
        response_class=Response,
    )
    async def drop_rule(kind: RuleKind, value: Value, me: Me, request: Request) -> Response:
        """Take a rule away; who came by it stays."""
        await administration.drop_rule(kind, value, actor=actor_of(me, request))
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    @router.post("/invitations", status_code=status.HTTP_201_CREATED)
    async def invite(
        body: NewInvitation, me: Me, request: Request, background: BackgroundTasks
    ) -> InvitationView:
        """Invite somebody by mail: who proves that address within a week is let in, with that role."""
        if body.role != "user":
            require_recent_of_people(me, clock)
        invitation, letter = await administration.invite(body.email, body.role, actor=actor_of(me, request))
        background.add_task(identity.deliver, letter)
        return _view(invitation)

    @router.delete(
        "/invitations/{invitation_id}",
        status_code=204,
        response_class=Response,
    )
    async def revoke(invitation_id: UUID, me: Me, request: Request) -> Response:
        """Take an invitation back."""
        await administration.revoke(invitation_id, actor=actor_of(me, request))
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    @router.post(
        "/users/{user_id}/impersonate",
        status_code=204,
        response_class=Response,
    )
    async def impersonate(user_id: UUID, body: Reason, me: Me, request: Request) -> Response:
        """See what a user sees, for an hour at most. Takes a recent sign-in; signing out brings oneself
        back."""
        require_recent(me, clock)
        entered = await administration.impersonate(me, user_id, body.reason, browser_of(request))
        response = Response(status_code=status.HTTP_204_NO_CONTENT)
        keep_own_session(request, response, identity.address)
        set_outcome(response, identity.address, entered)
        return response

    return router


def _view(invitation: Invitation) -> InvitationView:
    return InvitationView.model_validate(invitation, from_attributes=True)
