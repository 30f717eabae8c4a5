"""Unlocking an imported vault over HTTP. What was unlocked is in `vault/items` from then on."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from ocmt.identity.guards import Me, actor_of
from ocmt.identity.service import Identity
from ocmt.vault.imported.service import ImportedVaults


class ImportedView(BaseModel):
    """Whether there is a vault of the old production to be unlocked."""

    there: bool
    imported_at: datetime | None = None
    unlocked_at: datetime | None = None
    retry_at: datetime | None = Field(default=None, description="No attempt is taken before.")


class Password(BaseModel):
    """The password that the vault had there."""

    model_config = ConfigDict(extra="forbid")

    password: Annotated[SecretStr, Field(min_length=1, max_length=1000)]


class Phrase(BaseModel):
    """The twelve words of recovery."""

    model_config = ConfigDict(extra="forbid")

    phrase: Annotated[SecretStr, Field(min_length=1, max_length=1000)]


class UnlockedView(BaseModel):
    """The items that came of it."""

    names: list[str]


def routes(vaults: ImportedVaults, identity: Identity) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    router = APIRouter(prefix="/vault", tags=["vault"])

    @router.get("/imported")
    async def get_state(me: Me) -> ImportedView:
        """Whether there is one, and whether it was unlocked."""
        state = await vaults.state(me.user_id)
        if state is None:
            return ImportedView(there=False)
        return ImportedView(
            there=True,
            imported_at=state.imported_at,
            unlocked_at=state.unlocked_at,
            retry_at=state.retry_at,
        )

    @router.post("/unlock")
    async def unlock(body: Password, me: Me, request: Request) -> UnlockedView:
        """Unlock it by its old password: what is in it becomes yours here. A wrong one makes the next
        wait."""
        names = await vaults.unlock_by_password(
            me.user_id, body.password.get_secret_value(), actor=actor_of(me, request)
        )
        return UnlockedView(names=names)

    @router.post("/recover")
    async def recover(body: Phrase, me: Me, request: Request) -> UnlockedView:
        """Unlock it by its twelve words."""
        names = await vaults.unlock_by_words(
            me.user_id, body.phrase.get_secret_value(), actor=actor_of(me, request)
        )
        return UnlockedView(names=names)

    @router.post("/lock", status_code=status.HTTP_204_NO_CONTENT, response_class=Response)
    async def lock(me: Me) -> Response:
        """Reveal nothing of the vault in this session until you have proved again who you are.

        The rest of the session keeps its recent sign-in.
        """
        await identity.entrance.lock_vault(me)
        return Response(status_code=status.HTTP_204_NO_CONTENT)

    return router
