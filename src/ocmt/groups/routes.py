"""Groups over HTTP. Of a group that one is not in there is nothing, not even a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ocmt.groups.model import Invitation, MemberRole
from ocmt.groups.service import Groups
from ocmt.identity.audit.model import Actor
from ocmt.identity.etags import IfMatch, seen_of, set_etag
from ocmt.identity.guards import Me, actor_of
from ocmt.identity.letters import Letter

Deliver = Callable[[Letter], Awaitable[None]]
PutKey = Callable[[Actor, UUID, str, str], Awaitable[None]]
DropKey = Callable[[Actor, UUID, str], Awaitable[None]]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class GroupBody(_Body):
    """A group's name, and what it is for."""

    name: str = Field(max_length=1000, examples=["Research"])
    description: str | None = Field(default=None, max_length=5000)


class RoleBody(_Body):
    """What a member may do."""

    role: MemberRole


class GroupInvitationBody(_Body):
    """Whom to ask."""

    email: str = Field(max_length=1000, examples=["ada@example.org"])
    role: MemberRole = "member"


class KeyBody(_Body):
    """A provider's key, for the agents of all members."""

    value: Annotated[SecretStr, Field(min_length=1, max_length=1000)]


class GroupView(BaseModel):
    """A group, to one of its members."""

    id: UUID
    name: str
    description: str | None
    created_at: datetime
    role: MemberRole
    members: int
    key_names: list[str] = Field(description="The providers' keys that it shares, never the values.")


class GroupPage(BaseModel):
    """All that one is in, by name."""

    items: list[GroupView]
    next: None = None


class MemberView(BaseModel):
    """A member."""

    user_id: UUID
    email: str
    name: str | None
    role: MemberRole
    joined_at: datetime


class MemberPage(BaseModel):
    """Members."""

    items: list[MemberView]
    next: UUID | None


class GroupInvitationView(BaseModel):
    """An open invitation."""

    id: UUID
    group_id: UUID
    group_name: str
    email: str
    role: MemberRole
    created_at: datetime
    expires_at: datetime


class GroupInvitationPage(BaseModel):
    """Open invitations, newest first."""

    items: list[GroupInvitationView]
    next: None = None


class MadeInvitation(BaseModel):
    """An invitation that was just sent."""

    id: UUID


class ResourceView(BaseModel):
    """Something of the old production's, kept to be seen."""

    id: UUID
    group_id: UUID
    name: str
    description: str | None
    resource_type: str
    endpoint: str
    status: str
    created_at: datetime


class ResourcePage(BaseModel):
    """Resources, by name."""

    items: list[ResourceView]
    next: None = None


class ShareView(BaseModel):
    """What was granted to one in the old production."""

    id: UUID
    resource_id: UUID
    resource_name: str
    permissions: dict[str, Any]
    status: str
    granted_at: datetime


class SharePage(BaseModel):
    """Shares, newest first."""

    items: list[ShareView]
    next: None = None


KeyName = Annotated[str, Path(max_length=64, pattern=r"^[a-z0-9_]+$")]
_EMPTY = status.HTTP_204_NO_CONTENT


def routes(groups: Groups, deliver: Deliver, put_key: PutKey, drop_key: DropKey) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    whole = APIRouter()
    whole.routes += _groups(groups, put_key, drop_key).routes
    whole.routes += _members(groups, deliver).routes
    whole.routes += _own(groups).routes
    return whole


def _groups(groups: Groups, put_key: PutKey, drop_key: DropKey) -> APIRouter:
    router = APIRouter(prefix="/groups", tags=["groups"])

    @router.get("")
    async def list_groups(me: Me) -> GroupPage:
        """The groups that you are in."""
        found = await groups.list(me.user_id)
        return GroupPage(items=[GroupView.model_validate(one, from_attributes=True) for one in found])

    @router.post("", status_code=status.HTTP_201_CREATED)
    async def make_group(body: GroupBody, me: Me, request: Request) -> GroupView:
        """Make one; you are its admin."""
        made = await groups.make(actor_of(me, request), body.name, body.description)
        return GroupView.model_validate(made, from_attributes=True)

    @router.get("/{group_id}")
    async def get_group(group_id: UUID, me: Me, response: Response) -> GroupView:
        """One of them, with its ETag."""
        group = await groups.find(me.user_id, group_id)
        set_etag(response, group.tag)
        return GroupView.model_validate(group, from_attributes=True)

    @router.put("/{group_id}")
    async def change_group(
        group_id: UUID,
        body: GroupBody,
        me: Me,
        request: Request,
        response: Response,
        if_match: IfMatch = None,
    ) -> GroupView:
        """Rename it (its admins)."""
        changed = await groups.change(
            actor_of(me, request), group_id, body.name, body.description, seen=seen_of(if_match)
        )
        set_etag(response, changed.tag)
        return GroupView.model_validate(changed, from_attributes=True)

    @router.delete("/{group_id}", status_code=_EMPTY, response_class=Response)
    async def delete_group(group_id: UUID, me: Me, request: Request) -> Response:
        """Delete it, with what it shares (its admins)."""
        await groups.delete(actor_of(me, request), group_id)
        return Response(status_code=_EMPTY)

    @router.put("/{group_id}/keys/{name}", status_code=_EMPTY, response_class=Response)
    async def share_key(group_id: UUID, name: KeyName, body: KeyBody, me: Me, request: Request) -> Response:
        """Share a provider's key: members' agents use it where their user has none (its admins)."""
        await put_key(actor_of(me, request), group_id, name, body.value.get_secret_value())
        return Response(status_code=_EMPTY)

    @router.delete("/{group_id}/keys/{name}", status_code=_EMPTY, response_class=Response)
    async def unshare_key(group_id: UUID, name: KeyName, me: Me, request: Request) -> Response:
        """Take a shared key away, at once (its admins)."""
        await drop_key(actor_of(me, request), group_id, name)
        return Response(status_code=_EMPTY)

    @router.get("/{group_id}/resources")
    async def list_resources(group_id: UUID, me: Me) -> ResourcePage:
        """What the group had in the old production."""
        found = await groups.resources(me.user_id, group_id)
        return ResourcePage(items=[ResourceView.model_validate(one, from_attributes=True) for one in found])

    return router


def _members(groups: Groups, deliver: Deliver) -> APIRouter:
    router = APIRouter(prefix="/groups/{group_id}", tags=["groups"])

    @router.get("/members")
    async def list_members(
        group_id: UUID, me: Me, after: UUID | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> MemberPage:
        """Who is in it."""
        found = await groups.members(me.user_id, group_id, after=after, limit=limit + 1)
        page = [MemberView.model_validate(one, from_attributes=True) for one in found[:limit]]
        return MemberPage(items=page, next=page[-1].user_id if len(found) > limit else None)

    @router.put("/members/{user_id}", status_code=_EMPTY, response_class=Response)
    async def set_role(group_id: UUID, user_id: UUID, body: RoleBody, me: Me, request: Request) -> Response:
        """Make a member an admin, or an admin a member (its admins)."""
        await groups.set_role(actor_of(me, request), group_id, user_id, body.role)
        return Response(status_code=_EMPTY)

    @router.delete("/members/{user_id}", status_code=_EMPTY, response_class=Response)
    async def remove_member(group_id: UUID, user_id: UUID, me: Me, request: Request) -> Response:
        """Leave, or remove somebody (its admins)."""
        await groups.remove(actor_of(me, request), group_id, user_id)
        return Response(status_code=_EMPTY)

    @router.get("/invitations")
    async def list_invitations(group_id: UUID, me: Me, request: Request) -> GroupInvitationPage:
        """Who was asked and has not answered (its admins)."""
        found = await groups.invitations(actor_of(me, request), group_id)
        return _invitations(found)

    @router.post("/invitations", status_code=status.HTTP_201_CREATED)
    async def invite(
        group_id: UUID, body: GroupInvitationBody, me: Me, request: Request, background: BackgroundTasks
    ) -> MadeInvitation:
        """Ask somebody to join, by mail; they decide (its admins)."""
        number, letter = await groups.invite(actor_of(me, request), group_id, body.email, body.role)
        if letter is not None:
            background.add_task(deliver, letter)
        return MadeInvitation(id=number)

    @router.delete("/invitations/{invitation_id}", status_code=_EMPTY, response_class=Response)
    async def withdraw(group_id: UUID, invitation_id: UUID, me: Me, request: Request) -> Response:
        """Take an invitation back (its admins)."""
        await groups.withdraw(actor_of(me, request), group_id, invitation_id)
        return Response(status_code=_EMPTY)

    return router


def _own(groups: Groups) -> APIRouter:
    router = APIRouter(tags=["groups"])

    @router.get("/group-invitations")
    async def own_invitations(me: Me) -> GroupInvitationPage:
        """What you are asked to join."""
        found = await groups.own_invitations(me.email)
        return _invitations(found)

    @router.post("/group-invitations/{invitation_id}/accept")
    async def accept(invitation_id: UUID, me: Me, request: Request) -> GroupView:
        """Join."""
        group_id = await groups.decide(actor_of(me, request), invitation_id, accept=True)
        return GroupView.model_validate(await groups.find(me.user_id, group_id), from_attributes=True)

    @router.post("/group-invitations/{invitation_id}/decline", status_code=_EMPTY, response_class=Response)
    async def decline(invitation_id: UUID, me: Me, request: Request) -> Response:
        """Say no."""
        await groups.decide(actor_of(me, request), invitation_id, accept=False)
        return Response(status_code=_EMPTY)

    @router.get("/shares")
    async def list_shares(me: Me) -> SharePage:
        """What was granted to you in the old production."""
        found = await groups.shares(me.user_id)
        return SharePage(items=[ShareView.model_validate(one, from_attributes=True) for one in found])

    return router


def _invitations(found: Sequence[Invitation]) -> GroupInvitationPage:
    return GroupInvitationPage(
        items=[GroupInvitationView.model_validate(one, from_attributes=True) for one in found]
    )
