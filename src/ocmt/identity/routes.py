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
from ocmt.identity import letters
from ocmt.identity.browsers import (
    asker_of,
    back_to_own_session,
    browser_of,
    clear,
    set_asker,
    set_outcome,
)
from ocmt.identity.entrance.service import Entered, Outcome
from ocmt.identity.etags import IfMatch, seen_of, set_etag
from ocmt.identity.guards import (
    Me,
    actor_of,
    administrator,
    auditor,
    not_too_often,
    require_recent,
    require_recent_of_people,
)
from ocmt.identity.model import Status, User, new_token, own_tag
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock
from ocmt.platform.http import principal
from ocmt.platform.principal import Principal, Role


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class LinkRequest(_Body):
    """Who wants a link."""

    email: str = Field(max_length=1000)


class LinkUse(_Body):
    """The token of a link, from its fragment."""

    token: str = Field(max_length=1000)
    confirm: bool = Field(
        default=False, description="Sign in here although another browser has asked for the link."
    )


class MeChange(_Body):
    """What users may change of themselves; what is not given stays, a name of null is taken away."""

    name: str | None = Field(default=None, max_length=1000)
    email: str = Field(default="", max_length=1000)


class NewUser(_Body):
    """Whom an administrator lets in."""

    email: str = Field(max_length=1000)
    name: str | None = Field(default=None, max_length=1000)
    role: Role = "user"


class UserChange(_Body):
    """What an administrator changes of a user; what is not given stays."""

    status: Literal["active", "suspended"] | None = None
    role: Role | None = None
    mfa_required: bool | None = None


class MeView(BaseModel):
    """A user, to themselves."""

    id: UUID
    email: str
    name: str | None
    is_admin: bool
    role: Role
    created_at: datetime


class SignedIn(MeView):
    """Who is signed in now."""

    mfa_required: Literal[False] = False


class SecondFactorView(BaseModel):
    """Half way in: the second proof goes to `auth/mfa`, or to `auth/passkey/verify`."""

    mfa_required: Literal[True] = True
    methods: list[Literal["passkey", "totp", "backup_code"]]


class OwnView(MeView):
    """Oneself, and what stands in one's way."""

    must_enrol: bool = Field(description="A second factor has to be set up before anything else.")
    impersonated_by: UUID | None = Field(description="The administrator who looks through this user's eyes.")


class UserView(MeView):
    """A user, to an administrator."""

    status: Status
    mfa_required: bool


class UserPage(BaseModel):
    """Users, oldest first."""

    items: list[UserView]
    next: UUID | None = Field(description="Give it as `after` for the next page; null: this is the last.")


class SessionView(BaseModel):
    """A login session, to its user."""

    id: UUID
    user_agent: str | None
    address: str | None
    methods: list[str]
    created_at: datetime
    last_seen_at: datetime
    expires_at: datetime
    impersonated: bool
    current: bool = Field(description="Whether it is the one that asks.")


class SessionPage(BaseModel):
    """All live login sessions, most recently used first; there is no next page."""

    items: list[SessionView]
    next: None = None


def routes(identity: Identity, clock: Clock) -> APIRouter:
    """All routes of this room, without the /api/v1."""
    whole = APIRouter()
    # First: routes are looked through in their order, and `me` is asked most.
    whole.routes += _own(identity, clock).routes
    whole.routes += _entrance(identity).routes
    whole.routes += _administration(identity, clock).routes
    return whole


def _entrance(identity: Identity) -> APIRouter:
    async def not_by_another_site(request: Request) -> None:
        headers = request.headers
        if not identity.address.admits_sign_in(headers.get("origin"), headers.get("sec-fetch-site")):
            raise Refused("This request came from another site's page.")

    entrance = [Depends(not_by_another_site), Depends(not_too_often(identity))]
    router = APIRouter(prefix="/auth", tags=["sign-in"], dependencies=entrance)

    @router.post("/magic-link", status_code=status.HTTP_202_ACCEPTED, response_class=Response)
    async def request_link(body: LinkRequest, request: Request, background: BackgroundTasks) -> Response:
        """Mail a sign-in link to this address if it may sign in. The answer is the same in any case."""
        asker = asker_of(request, identity.address) or new_token()
        letter = await identity.prepare_link(body.email, asker=asker)
        if letter is not None:
            background.add_task(identity.deliver, letter)
        response = Response(status_code=status.HTTP_202_ACCEPTED, background=background)
        set_asker(response, identity.address, asker)
        return response

    @router.post("/magic-link/verify")
    async def use_link(body: LinkUse, request: Request, response: Response) -> SignedIn | SecondFactorView:
        """Use a link up: opens a login session and sets its cookie, or asks for the second factor."""
        outcome = await identity.sign_in(
            body.token,
            browser_of(request),
            asker=asker_of(request, identity.address),
            confirmed=body.confirm,
        )
        return await let_in(identity, request, response, outcome)

    return router


def _own(identity: Identity, clock: Clock) -> APIRouter:
    router = APIRouter(tags=["me"])

    @router.post("/auth/logout", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def sign_out(me: Me, request: Request) -> Response:
        """End the session that asks."""
        await identity.entrance.sign_out(me, address=browser_of(request).address)
        response = Response(status_code=status.HTTP_204_NO_CONTENT)
        if me.impersonator_id is not None:
            back_to_own_session(request, response, identity.address)
        else:
            clear(response, identity.address)
        return response

    # Every page asks this first, so it does without what FastAPI would do with dependencies and the answer.
    @router.get("/me", response_model=OwnView)
    async def get_me(request: Request) -> Response:
        """Who is signed in."""
        me = principal(request)
        # A session and a key were found together with their user: that is not asked for twice.
        view = _seen(me) or _me(await identity.user(me.user_id))
        own = OwnView(**view.model_dump(), must_enrol=me.must_enrol, impersonated_by=me.impersonator_id)
        response = Response(own.model_dump_json(), media_type="application/json")
        set_etag(response, own_tag(own.name, own.email))
        return response

    @router.patch("/me")
    async def change_me(
        body: MeChange, me: Me, request: Request, response: Response, if_match: IfMatch = None
    ) -> MeView:
        """Change one's name; administrators also their address, which takes a recent sign-in: links to sign
        in go there."""
        changes = body.model_dump(exclude_unset=True)
        if changes.get("email", me.email) != me.email:
            require_recent(me, clock)
        changed = await identity.change_user(
            me.user_id, **changes, seen=seen_of(if_match), actor=actor_of(me, request)
        )
        set_etag(response, own_tag(changed.name, changed.email))
        return _me(changed)

    @router.get("/sessions")
    async def list_sessions(me: Me) -> SessionPage:
        """Where one is signed in."""
        sessions = await identity.entrance.sessions(me.user_id)
        return SessionPage(
            items=[SessionView(**asdict(each), current=each.id == me.session_id) for each in sessions]
        )

    @router.delete("/sessions/{session_id}", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def end_session(session_id: UUID, me: Me, request: Request) -> Response:
        """Sign a browser out from afar."""
        await identity.entrance.end_session(me, session_id, address=browser_of(request).address)
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    return router


def _administration(identity: Identity, clock: Clock) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"], dependencies=[Depends(auditor)])

    @router.get("/users")
    async def list_users(
        after: UUID | None = None,
        search: Annotated[str | None, Query(max_length=100, description="In the address or name.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> UserPage:
        """Everybody, page by page."""
        found = await identity.users(after=after, search=search, limit=limit + 1)
        page = found[:limit]
        return UserPage(
            items=[_user(each) for each in page], next=page[-1].id if len(found) > limit else None
        )

    @router.get("/users/{user_id}")
    async def get_user(user_id: UUID, response: Response) -> UserView:
        """One of them, with the ETag of what can be changed here."""
        user = await identity.user(user_id)
        set_etag(response, user.tag)
        return _user(user)

    @router.post("/users", status_code=status.HTTP_201_CREATED, dependencies=[Depends(administrator)])
    async def add_user(body: NewUser, me: Me, request: Request) -> UserView:
        """Let somebody in; they get no mail, they just can sign in from now on."""
        actor = actor_of(me, request)
        if body.role != "user":
            require_recent_of_people(me, clock)
        return _user(await identity.add_user(body.email, body.role, name=body.name, actor=actor))

    @router.patch("/users/{user_id}", dependencies=[Depends(administrator)])
    async def change_user(
        user_id: UUID,
        body: UserChange,
        me: Me,
        request: Request,
        response: Response,
        background: BackgroundTasks,
        if_match: IfMatch = None,
    ) -> UserView:
        """Suspend, approve or let in again; change a role; demand a second factor. Who is approved hears of
        it by mail."""
        actor = actor_of(me, request)
        # Shutting somebody out must not wait; letting them in, or do more, outlives the session.
        if body.role is not None or body.status == "active" or body.mfa_required is False:
            require_recent_of_people(me, clock)
        before = await identity.user(user_id)
        user = await identity.administer(
            user_id,
            role=body.role,
            status=body.status,
            mfa_required=body.mfa_required,
            seen=seen_of(if_match),
            actor=actor,
        )
        set_etag(response, user.tag)
        if before.status == "pending" and user.status == "active":
            background.add_task(identity.deliver, letters.approval(user.email, identity.address.url))
        return _user(user)

    return router


async def let_in(
    identity: Identity, request: Request, response: Response, outcome: Outcome
) -> SignedIn | SecondFactorView:
    """The end of every way to sign in: the cookie of the session, or of the challenge, and what to say of
    it."""
    before = getattr(request.state, "principal", None)
    set_outcome(response, identity.address, outcome)
    if not isinstance(outcome, Entered):
        return SecondFactorView.model_validate({"methods": outcome.methods})
    if before is not None:  # its cookie is about to be overwritten: nobody could ever end it
        await identity.entrance.sign_out(before, address=browser_of(request).address)
    return SignedIn(**_me(outcome.user).model_dump())


def _me(user: User) -> MeView:
    return MeView(
        id=user.id,
        email=user.email,
        name=user.name,
        is_admin=user.is_admin,
        role=user.role,
        created_at=user.created_at,
    )


def _seen(me: Principal) -> MeView | None:
    if me.user_since is None:
        return None
    return MeView(
        id=me.user_id,
        email=me.email,
        name=me.name,
        is_admin=me.is_admin,
        role=me.role,
        created_at=me.user_since,
    )


def _user(user: User) -> UserView:
    return UserView(**_me(user).model_dump(), status=user.status, mfa_required=user.mfa_required)
