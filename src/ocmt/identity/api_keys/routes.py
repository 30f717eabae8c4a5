"""API keys over HTTP, for whoever is signed in with a browser: a key makes no keys."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response, status
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ocmt.identity.access import SCOPES
from ocmt.identity.api_keys.model import ApiKey
from ocmt.identity.api_keys.service import ApiKeys
from ocmt.identity.browsers import browser_of
from ocmt.identity.guards import Me, require_recent, signed_in
from ocmt.identity.service import Identity
from ocmt.platform.clock import Clock


class NewKey(BaseModel):
    """What a key is to be called and used for."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=1000, examples=["backup script"])
    scopes: list[str] = Field(max_length=20, examples=[["agent:read"]])
    expires_at: AwareDatetime | None = Field(default=None, description="Null: it does not expire.")


class KeyView(BaseModel):
    """A key, without its secret."""

    id: UUID
    name: str
    prefix: str = Field(description="Its first characters, by which you know it again.")
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    last_address: str | None


class MadeKey(KeyView):
    """A key that was just made."""

    key: str = Field(description="The key itself: it is shown this once and never again.")


class KeyPage(BaseModel):
    """All keys, newest first, and what there is to choose from for a new one."""

    items: list[KeyView]
    next: None = None
    scopes: dict[str, str] = Field(description="Every scope, with what it allows.")


def routes(keys: ApiKeys, identity: Identity, clock: Clock) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    router = APIRouter(prefix="/api-keys", tags=["api-keys"], dependencies=[Depends(signed_in)])

    @router.get("")
    async def list_keys(me: Me) -> KeyPage:
        """One's keys."""
        return KeyPage(items=[_view(key) for key in await keys.list(me.user_id)], scopes=SCOPES)

    @router.post("", status_code=status.HTTP_201_CREATED)
    async def make_key(body: NewKey, me: Me, request: Request, response: Response) -> MadeKey:
        """Make a key. Takes a recent sign-in."""
        require_recent(me, clock)
        address = browser_of(request).address
        made, secret = await keys.make(
            me, body.name, body.scopes, expires_at=body.expires_at, address=address
        )
        response.headers["cache-control"] = "no-store"
        return MadeKey(**_view(made).model_dump(), key=secret)

    @router.delete("/{key_id}", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def revoke_key(key_id: UUID, me: Me, request: Request) -> Response:
        """Revoke a key: it is of no use any more, from this moment on."""
        await keys.revoke(me, key_id, address=browser_of(request).address)
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    return router


def _view(key: ApiKey) -> KeyView:
    return KeyView(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        scopes=key.scopes,
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        last_address=key.last_address,
    )
