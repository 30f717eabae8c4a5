"""Access tokens over HTTP: one for whoever has a session or an API key; and the keys by which anybody checks
them."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from ocmt.identity.guards import Me
from ocmt.identity.tokens.model import PUBLISHED, public_part
from ocmt.identity.tokens.service import Issuer
from ocmt.platform.http.headers import safe


class TokenRequest(BaseModel):
    """What the token is to be used for."""

    model_config = ConfigDict(extra="forbid")

    scope: str | None = Field(
        default=None,
        max_length=500,
        description="Scopes with spaces between them; not said: all that you have yourself.",
        examples=["agent:read agent:write"],
    )


class TokenView(BaseModel):
    """An access token, as OAuth 2 answers (RFC 6749, 5.1)."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - the type, not a token
    expires_in: int = Field(description="Seconds.")
    scope: str


class KeySetView(BaseModel):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, Any]]


def routes(issuer: Issuer) -> APIRouter:
    """The route to be mounted under `/api/v1`."""
    router = APIRouter(prefix="/auth", tags=["tokens"])

    @router.post("/token")
    async def issue_token(me: Me, response: Response, body: TokenRequest | None = None) -> TokenView:
        """An access token of 15 minutes, for who comes with an API key or a session."""
        scopes = None if body is None or body.scope is None else body.scope.split()
        issued = await issuer.issue(me, scopes)
        response.headers["cache-control"] = "no-store"
        return TokenView(
            access_token=issued.token, expires_in=issued.expires_in, scope=" ".join(sorted(issued.scopes))
        )

    return router


def well_known(issuer: Issuer) -> APIRouter:
    """The route to be mounted at the root."""
    router = APIRouter(prefix="/.well-known", tags=["tokens"])

    @router.get("/jwks.json")
    async def key_set(response: Response) -> KeySetView:
        """The public keys of access tokens: the present one, the next, and those before."""
        response.headers["cache-control"] = safe(f"public, max-age={int(PUBLISHED.total_seconds())}")
        return KeySetView(**public_part((await issuer.keys.ring()).published))

    return router
