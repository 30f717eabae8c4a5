"""HTTP edge of channels, below `/agent/channels`. The webhooks themselves are `intake`'s."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ocmt.channels.history import NO_DELIVERY, NO_ENDPOINT, Deliveries
from ocmt.channels.model import ENDED, Connection, Delivery, Sender, State
from ocmt.channels.service import Channels, Note, Opened
from ocmt.errors import InvalidInput
from ocmt.platform.http import json_body, path_id, principal

PAGE = 50


class NewChannel(BaseModel):
    """Body of `POST /agent/channels`."""

    model_config = ConfigDict(extra="forbid")

    channel: str
    name: str | None = None
    fields: dict[str, str] = Field(default={}, max_length=20)


class Rename(BaseModel):
    """Body of `PATCH /agent/channels/{id}`."""

    model_config = ConfigDict(extra="forbid")

    name: str


class Reconnect(BaseModel):
    """Body of `POST /agent/channels/{id}/reconnect`, which may be left out."""

    model_config = ConfigDict(extra="forbid")

    fields: dict[str, str] = Field(default={}, max_length=20)


class Approval(BaseModel):
    """Body of `POST /agent/channels/{id}/senders/approve` and `…/block`: one of the two."""

    model_config = ConfigDict(extra="forbid")

    code: str | None = None
    sender: str | None = None


class Replay(BaseModel):
    """Body of `POST /agent/channels/{id}/deliveries/replay`."""

    model_config = ConfigDict(extra="forbid")

    since: AwareDatetime | None = Field(default=None, alias="from")
    till: AwareDatetime | None = Field(default=None, alias="to")
    ids: list[UUID] | None = Field(default=None, max_length=500)
    states: list[str] | None = Field(default=None, min_length=1, max_length=len(State))
    """Without them: of `ids` all that have ended, of a time range the dead ones."""


Noting = Callable[[Request, str], Note]
"""(request, action) → what writes it into the audit log."""


def routes(channels: Channels, deliveries: Deliveries, noting: Noting) -> list[Route]:
    """The routes, to be mounted at the root of the orchestrator."""

    def shown(connection: Connection) -> dict[str, Any]:
        return describe(connection, channels.webhook_url(connection))

    async def list_all(request: Request) -> Response:
        found = await channels.endpoints(principal(request).user_id)
        kinds = [
            {
                "channel": kind.name,
                "label": kind.label,
                "fields": dict(kind.fields),
                "required": sorted(kind.required),
                "pairs": kind.pairs,
                "before": list(kind.before),
                "after": list(kind.after),
            }
            for kind in channels.kinds.values()
        ]
        return JSONResponse({"kinds": kinds, "items": [shown(one) for one in found]})

    async def connect(request: Request) -> Response:
        user_id = principal(request).user_id
        body = await json_body(request, NewChannel)
        opened = await channels.connect(
            user_id, body.channel, body.fields, body.name, note=noting(request, "channel.connected")
        )
        return JSONResponse(describe_opened(opened), 201)

    async def show(request: Request) -> Response:
        return JSONResponse(shown(await channels.find(principal(request).user_id, _endpoint(request))))

    async def rename(request: Request) -> Response:
        user_id, endpoint_id = principal(request).user_id, _endpoint(request)
        body = await json_body(request, Rename)
        renamed = await channels.rename(user_id, endpoint_id, body.name)
        return JSONResponse(shown(renamed))

    async def disconnect(request: Request) -> Response:
        await channels.disconnect(principal(request).user_id, _endpoint(request))
        return Response(status_code=204)

    async def reconnect(request: Request) -> Response:
        user_id, endpoint_id = principal(request).user_id, _endpoint(request)
        body = await json_body(request, Reconnect) if await request.body() else Reconnect()
        note = noting(request, "channel.reconnected")
        opened = await channels.reconnect(user_id, endpoint_id, body.fields, note=note)
        return JSONResponse(describe_opened(opened))

    async def list_senders(request: Request) -> Response:
        found = await channels.senders(principal(request).user_id, _endpoint(request))
        return JSONResponse({"items": [describe_sender(one) for one in found]})

    async def approve(request: Request) -> Response:
        user_id, endpoint_id = principal(request).user_id, _endpoint(request)
        body = await json_body(request, Approval)
        if (body.code is None) == (body.sender is None):
            raise InvalidInput("Send a code, or the id of a sender.")
        note = noting(request, "channel.sender_approved")
        if body.code is not None:
            sender = await channels.approve(user_id, endpoint_id, body.code, note=note)
        else:
            sender = await channels.set_sender(user_id, endpoint_id, body.sender or "", "approved", note=note)
        return JSONResponse(describe_sender(sender))

    async def block(request: Request) -> Response:
        user_id, endpoint_id = principal(request).user_id, _endpoint(request)
        body = await json_body(request, Approval)
        if body.sender is None or body.code is not None:
            raise InvalidInput("Send the id of a sender.")
        return JSONResponse(
            describe_sender(await channels.set_sender(user_id, endpoint_id, body.sender, "blocked"))
        )

    async def remove_sender(request: Request) -> Response:
        sender = request.path_params["sender"]
        await channels.remove_sender(principal(request).user_id, _endpoint(request), sender)
        return Response(status_code=204)

    async def list_deliveries(request: Request) -> Response:
        cursor = request.query_params.get("cursor")
        found = await deliveries.page(
            principal(request).user_id,
            _endpoint(request),
            before=_cursor(cursor) if cursor else None,
            state=request.query_params.get("state"),
            limit=PAGE,
        )
        more = str(found[-1].id) if len(found) == PAGE else None
        return JSONResponse({"items": [describe_delivery(one) for one in found], "next_cursor": more})

    async def clear(request: Request) -> Response:
        count = await deliveries.clear(principal(request).user_id, _endpoint(request))
        return JSONResponse({"count": count})

    async def replay(request: Request) -> Response:
        await deliveries.replay(principal(request).user_id, _endpoint(request), _delivery(request))
        return Response(status_code=202)

    async def resend(request: Request) -> Response:
        count = await deliveries.resend(principal(request).user_id, _endpoint(request), _delivery(request))
        return JSONResponse({"count": count}, 202)

    async def replay_many(request: Request) -> Response:
        user_id, endpoint_id = principal(request).user_id, _endpoint(request)
        body = await json_body(request, Replay)
        if body.ids is None and body.since is None:
            raise InvalidInput("Say which: from (and to), or ids.")
        count = await deliveries.replay_many(
            user_id,
            endpoint_id,
            ids=body.ids,
            since=body.since,
            till=body.till,
            states=body.states or (ENDED if body.ids is not None else [State.DEAD]),
        )
        return JSONResponse({"count": count}, 202)

    one = "/agent/channels/{endpoint_id}"
    return [
        Route("/agent/channels", list_all, methods=["GET"]),
        Route("/agent/channels", connect, methods=["POST"]),
        Route(one, show, methods=["GET"]),
        Route(one, rename, methods=["PATCH"]),
        Route(one, disconnect, methods=["DELETE"]),
        Route(f"{one}/reconnect", reconnect, methods=["POST"]),
        Route(f"{one}/senders", list_senders, methods=["GET"]),
        Route(f"{one}/senders/approve", approve, methods=["POST"]),
        Route(f"{one}/senders/block", block, methods=["POST"]),
        Route(f"{one}/senders/{{sender:path}}", remove_sender, methods=["DELETE"]),
        Route(f"{one}/deliveries", list_deliveries, methods=["GET"]),
        Route(f"{one}/deliveries", clear, methods=["DELETE"]),
        Route(f"{one}/deliveries/replay", replay_many, methods=["POST"]),
        Route(f"{one}/deliveries/{{delivery_id}}/replay", replay, methods=["POST"]),
        Route(f"{one}/deliveries/{{delivery_id}}/resend", resend, methods=["POST"]),
    ]


def describe(connection: Connection, webhook_url: str) -> dict[str, Any]:
    """An endpoint as its user sees it. `webhook_url`: the address that its vendor calls."""
    return {
        "id": str(connection.id),
        "channel": connection.channel,
        "name": connection.name,
        "webhook_url": webhook_url,
        "settings": dict(connection.settings),
        "active": connection.active,
        "created_at": connection.created_at.isoformat(),
        "updated_at": connection.updated_at.isoformat(),
    }


def describe_opened(opened: Opened) -> dict[str, Any]:
    """An endpoint that was connected just now; its secret is not shown again."""
    shown = {"secret": opened.secret} if opened.secret is not None else {}
    return {**describe(opened.connection, opened.webhook_url), **shown}


def describe_sender(sender: Sender) -> dict[str, Any]:
    """A sender as the owner sees them."""
    return {name: _jsonable(value) for name, value in asdict(sender).items()}


def describe_delivery(delivery: Delivery) -> dict[str, Any]:
    """A delivery as its user sees it."""
    return {name: _jsonable(value) for name, value in asdict(delivery).items()}


def _jsonable(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID) else value


def _endpoint(request: Request) -> UUID:
    return path_id(request, "endpoint_id", NO_ENDPOINT)


def _delivery(request: Request) -> UUID:
    return path_id(request, "delivery_id", NO_DELIVERY)


def _cursor(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput("This cursor is not one that we gave out.") from None
