"""The user's own vault over HTTP: what is in it, put, delete. Values go in and never come out here."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field, SecretStr

from ocmt.platform.http import principal
from ocmt.vault.service import Vault


class ItemView(BaseModel):
    """An item as it may be shown; `hint` is its last four characters."""

    name: str
    hint: str | None
    updated_at: datetime


class ItemsView(BaseModel):
    """All items of the vault."""

    items: list[ItemView]


class NewValue(BaseModel):
    """What to store."""

    value: Annotated[SecretStr, Field(min_length=1, max_length=4096)]


Name = Annotated[str, Path(max_length=64, pattern=r"^[a-z0-9_]+$")]


def routes(vault: Vault) -> APIRouter:
    """The routes, to be mounted under `/api/v1`."""
    router = APIRouter(prefix="/vault/items", tags=["vault"])

    @router.get("")
    async def items(request: Request) -> ItemsView:
        """What is in your vault."""
        found = await vault.list(principal(request).user_id)
        return ItemsView(
            items=[ItemView(name=item.name, hint=item.hint, updated_at=item.updated_at) for item in found]
        )

    @router.put("/{name}", status_code=204)
    async def put(request: Request, name: Name, new: NewValue) -> None:
        """Store or replace an item."""
        await vault.put(principal(request).user_id, name, new.value.get_secret_value())

    @router.delete("/{name}", status_code=204)
    async def delete(request: Request, name: Name) -> None:
        """Forget an item."""
        await vault.delete(principal(request).user_id, name)

    return router
