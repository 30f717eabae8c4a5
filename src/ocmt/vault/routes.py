"""The user's own vault over HTTP: what is in it, put, delete, try, restore. Values go in; one comes out only
by `reveal`, to who has proved a moment ago who they are.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ocmt.errors import InvalidInput
from ocmt.identity.entrance.model import SignInAgain
from ocmt.identity.etags import seen_version, set_etag
from ocmt.identity.guards import Me, actor_of, require_recent
from ocmt.platform.clock import Clock
from ocmt.platform.rate import Rate
from ocmt.platform.rates import Rates
from ocmt.vault.model import Kind
from ocmt.vault.service import Vault
from ocmt.vault.trial import WORDS, Trial, Verdict, can_be_tried

TRIALS = Rate("key trials of", count=10, period=timedelta(minutes=10), burst=5)


class ItemView(BaseModel):
    """An item as it may be shown."""

    name: str
    kind: Kind
    version: int
    hint: str | None = Field(description="Its last four characters.")
    created_at: datetime
    updated_at: datetime
    last_used_at: datetime | None
    used_by: str | None = Field(description="What used it last: `broker`, for a call to a model.")
    uses: int


class ItemsView(BaseModel):
    """All items of the vault."""

    items: list[ItemView]
    next: None = None


class NewValue(BaseModel):
    """What to store."""

    model_config = ConfigDict(extra="forbid")

    value: Annotated[SecretStr, Field(min_length=1, max_length=60_000)]
    kind: Kind | None = Field(
        default=None, description="Not said: a provider's key where the name says so, else a token."
    )


class StoredView(BaseModel):
    """What was stored."""

    name: str
    version: int


class ValueView(BaseModel):
    """A value in the clear."""

    value: str


class VersionView(BaseModel):
    """A value before the present one."""

    version: int
    replaced_at: datetime


class VersionsView(BaseModel):
    """Those that are kept, newest first."""

    items: list[VersionView]
    next: None = None


class TrialView(BaseModel):
    """What the provider says of a key."""

    verdict: Verdict
    detail: str


Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
Name = Annotated[str, Path(max_length=64, pattern=r"^[a-z0-9_]+$")]
IfMatch = Annotated[
    str | None,
    Header(
        description='The ETag that you have seen: `"3"`; `"0"`: only if there is none yet.', max_length=30
    ),
]


def routes(vault: Vault, trial: Trial, rates: Rates, clock: Clock) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    router = APIRouter(prefix="/vault/items", tags=["vault"])

    @router.get("")
    async def list_items(me: Me) -> ItemsView:
        """What is in your vault, never the values."""
        return ItemsView(
            items=[
                ItemView.model_validate(item, from_attributes=True) for item in await vault.list(me.user_id)
            ]
        )

    @router.put("/{name}")
    async def put_item(
        me: Me,
        request: Request,
        response: Response,
        name: Name,
        new: NewValue,
        if_match: IfMatch = None,
    ) -> StoredView:
        """Store or replace an item. Its ETag is its version."""
        version = await vault.put(
            me.user_id,
            name,
            new.value.get_secret_value(),
            kind=new.kind,
            expected=seen_version(if_match),
            actor=actor_of(me, request),
        )
        set_etag(response, str(version))
        return StoredView(name=name, version=version)

    @router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def delete_item(me: Me, request: Request, name: Name, if_match: IfMatch = None) -> Response:
        """Forget an item, and all that is kept of it."""
        await vault.delete(me.user_id, name, expected=seen_version(if_match), actor=actor_of(me, request))
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    @router.post("/{name}/reveal")
    async def reveal_item(me: Me, request: Request, response: Response, name: Name) -> ValueView:
        """The value in the clear. Takes a recent sign-in, and is written into the audit log."""
        require_recent(me, clock)
        if me.vault_locked:
            raise SignInAgain("The vault is locked. Prove once more that it is you to see this value.")
        response.headers["cache-control"] = "no-store"
        return ValueView(value=await vault.reveal(me.user_id, name, actor=actor_of(me, request)))

    @router.get("/{name}/versions")
    async def list_versions(me: Me, name: Name) -> VersionsView:
        """The values before the present one, by number and time."""
        found = await vault.versions(me.user_id, name)
        return VersionsView(items=[VersionView.model_validate(one, from_attributes=True) for one in found])

    @router.post("/{name}/versions/{version}/restore")
    async def restore_version(
        me: Me,
        request: Request,
        response: Response,
        name: Name,
        version: Number,
    ) -> StoredView:
        """Put a kept value in the place of the present one."""
        fresh = await vault.restore(me.user_id, name, version, actor=actor_of(me, request))
        set_etag(response, str(fresh))
        return StoredView(name=name, version=fresh)

    @router.post("/{name}/test")
    async def try_key(me: Me, name: Name) -> TrialView:
        """Ask the provider whether this key works."""
        if not can_be_tried(name):
            raise InvalidInput("Only a provider's key can be tried.")
        await rates.take(TRIALS, str(me.user_id))
        verdict = await vault.tried(me.user_id, name, trial.of)
        return TrialView(verdict=verdict, detail=WORDS[verdict])

    return router
