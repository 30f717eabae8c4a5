"""Identity over HTTP, mounted under /api/v1: signing in and out, oneself, one's sessions, the users.

Three routers by who may enter: anybody, whoever is signed in, administrators. A new route belongs to one of
them and is thereby guarded. A link is consumed by POST only: mail scanners open every address they see.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Depends, Query, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field

from ocmt.errors import Refused
from ocmt.identity import model
from ocmt.identity.model import User
from ocmt.identity.origin import PublicAddress
from ocmt.identity.service import Identity
from ocmt.platform.http import Principal, principal

Me = Annotated[Principal, Depends(principal)]
"""The asking user. Raises: Unauthenticated."""


def administrator(me: Me) -> Principal:
    """The asking user, an administrator. Raises: Unauthenticated, Refused."""
    if not me.is_admin:
        raise Refused("Only administrators may do this.")
    return me


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class LinkRequest(_Body):
    """Who wants a link."""

    email: str = Field(max_length=1000)


class LinkUse(_Body):
    """The token of a link, from its fragment."""

    token: str = Field(max_length=1000)


class MeChange(_Body):
    """What users may change of themselves; what is not given stays, a name of null is taken away."""

    name: str | None = Field(default=None, max_length=1000)
    email: str = Field(default="", max_length=1000)


class NewUser(_Body):
    """Whom an administrator lets in."""

    email: str = Field(max_length=1000)
    name: str | None = Field(default=None, max_length=1000)
    is_admin: bool = False


class MeView(BaseModel):
    """A user, to themselves."""

    id: UUID
    email: str
    name: str | None
    is_admin: bool
    created_at: datetime


class UserView(MeView):
    """A user, to an administrator."""

    status: Literal["active", "suspended"]


class UserPage(BaseModel):
    """Users, oldest first."""

    items: list[UserView]
    next: UUID | None = Field(description="Give it as `after` for the next page; null: this is the last.")


class SessionView(BaseModel):
    """A login session, to its user."""

    id: UUID
    user_agent: str | None
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    current: bool = Field(description="Whether it is the one that asks.")


class SessionPage(BaseModel):
    """All live login sessions, most recently used first; there is no next page."""

    items: list[SessionView]
    next: None = None


def routes(identity: Identity) -> APIRouter:
    """All routes of this room, without the /api/v1."""
    whole = APIRouter()
    whole.include_router(_entrance(identity))
    whole.include_router(_own(identity))
    whole.include_router(_administration(identity))
    return whole


def _entrance(identity: Identity) -> APIRouter:
    def not_by_another_site(request: Request) -> None:
        headers = request.headers
        if not identity.address.admits_sign_in(headers.get("origin"), headers.get("sec-fetch-site")):
            raise Refused("This request came from another site's page.")

    router = APIRouter(prefix="/auth", tags=["sign-in"], dependencies=[Depends(not_by_another_site)])

    @router.post("/magic-link", status_code=status.HTTP_202_ACCEPTED, response_class=Response)
    async def request_link(body: LinkRequest, background: BackgroundTasks) -> Response:
        """Mail a sign-in link to this address if it may sign in. The answer is the same in any case."""
        letter = await identity.prepare_link(body.email)
        if letter is not None:
            background.add_task(identity.deliver, letter)
        return Response(status_code=status.HTTP_202_ACCEPTED, background=background)

    @router.post("/magic-link/verify")
    async def use_link(body: LinkUse, request: Request, response: Response) -> MeView:
        """Use a link up: opens a login session and sets its cookie."""
        user, token = await identity.sign_in(body.token, user_agent=request.headers.get("user-agent"))
        before = getattr(request.state, "principal", None)
        if before is not None:  # its cookie is about to be overwritten: nobody could ever end it
            await identity.sign_out(before)
        _set_cookie(response, identity.address, token)
        return _me(user)

    return router


def _own(identity: Identity) -> APIRouter:
    router = APIRouter(tags=["me"], dependencies=[Depends(principal)])

    @router.post("/auth/logout", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def sign_out(me: Me) -> Response:
        """End the session that asks."""
        await identity.sign_out(me)
        response = Response(status_code=status.HTTP_204_NO_CONTENT)
        _clear_cookie(response, identity.address)
        return response

    @router.get("/me")
    async def get_me(me: Me) -> MeView:
        """Who is signed in."""
        return _me(await identity.user(me.user_id))

    @router.patch("/me")
    async def change_me(body: MeChange, me: Me) -> MeView:
        """Change one's name; administrators also their address."""
        return _me(await identity.change_user(me.user_id, **body.model_dump(exclude_unset=True)))

    @router.get("/sessions")
    async def list_sessions(me: Me) -> SessionPage:
        """Where one is signed in."""
        sessions = await identity.sessions(me.user_id)
        return SessionPage(
            items=[SessionView(**asdict(each), current=each.id == me.session_id) for each in sessions]
        )

    @router.delete("/sessions/{session_id}", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def end_session(session_id: UUID, me: Me) -> Response:
        """Sign a browser out from afar."""
        await identity.end_session(me.user_id, session_id)
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    return router


def _administration(identity: Identity) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(administrator)])

    @router.get("/users")
    async def list_users(
        after: UUID | None = None, limit: Annotated[int, Query(ge=1, le=500)] = 100
    ) -> UserPage:
        """Everybody, page by page."""
        found = await identity.users(after=after, limit=limit + 1)
        page = found[:limit]
        return UserPage(
            items=[UserView(**asdict(each)) for each in page],
            next=page[-1].id if len(found) > limit else None,
        )

    @router.post("/users", status_code=status.HTTP_201_CREATED)
    async def add_user(body: NewUser) -> UserView:
        """Let somebody in; they get no mail, they just can sign in from now on."""
        added = await identity.add_user(body.email, body.is_admin, name=body.name)
        return UserView(**asdict(added))

    return router


def _me(user: User) -> MeView:
    return MeView(
        id=user.id, email=user.email, name=user.name, is_admin=user.is_admin, created_at=user.created_at
    )


def _set_cookie(response: Response, address: PublicAddress, token: str) -> None:
    response.set_cookie(
        address.cookie,
        token,
        max_age=int(model.SESSION_ABSOLUTE.total_seconds()),
        path="/",
        secure=address.secure,
        httponly=True,
        samesite="lax",
    )
    response.headers["cache-control"] = "no-store"


def _clear_cookie(response: Response, address: PublicAddress) -> None:
    response.delete_cookie(address.cookie, path="/", secure=address.secure, httponly=True, samesite="lax")
