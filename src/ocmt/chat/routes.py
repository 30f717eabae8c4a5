"""HTTP edge of conversations and turns, below `/agent`. The event stream is `stream`'s."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ocmt.chat.attachments import GONE
from ocmt.chat.model import MAX_ATTACHMENTS, Conversation, Turn
from ocmt.chat.service import UNKNOWN, Chat
from ocmt.chat.stream import EventStream
from ocmt.errors import InvalidInput
from ocmt.platform.http import as_id, json_body, path_id, principal
from ocmt.platform.http.headers import disposition, fields, media_type

PAGE = 50
SHOWN_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Which a browser may show on our pages; all else is downloaded."""


class NewConversation(BaseModel):
    """Body of `POST /agent/conversations`."""

    model_config = ConfigDict(extra="forbid")

    title: str | None = None


class Rename(BaseModel):
    """Body of `PATCH /agent/conversations/{id}`."""

    model_config = ConfigDict(extra="forbid")

    title: str


class NewTurn(BaseModel):
    """Body of `POST /agent/conversations/{id}/turns`."""

    model_config = ConfigDict(extra="forbid")

    text: str = ""
    attachments: list[UUID] = Field(default=[], max_length=MAX_ATTACHMENTS)
    """Ids of files that were uploaded."""


def routes(chat: Chat, stream: EventStream) -> list[Route]:
    """The routes, to be mounted at the root of the orchestrator."""

    async def list_conversations(request: Request) -> Response:
        before = _conversation_cursor(request.query_params.get("cursor"))
        found = await chat.conversations(principal(request).user_id, before=before, limit=PAGE)
        more = _cursor_of(found[-1]) if len(found) == PAGE else None
        return JSONResponse({"items": [describe_conversation(item) for item in found], "next_cursor": more})

    async def create_conversation(request: Request) -> Response:
        body = await json_body(request, NewConversation)
        made = await chat.create_conversation(principal(request).user_id, body.title)
        return JSONResponse(describe_conversation(made), 201)

    async def rename(request: Request) -> Response:
        body = await json_body(request, Rename)
        renamed = await chat.rename(principal(request).user_id, _id(request, "conversation_id"), body.title)
        return JSONResponse(describe_conversation(renamed))

    async def delete(request: Request) -> Response:
        await chat.delete(principal(request).user_id, _id(request, "conversation_id"))
        return Response(status_code=204)

    async def list_turns(request: Request) -> Response:
        cursor = request.query_params.get("before")
        page = await chat.history(
            principal(request).user_id,
            _id(request, "conversation_id"),
            before=as_id(cursor, UNKNOWN) if cursor else None,
            limit=PAGE,
        )
        return JSONResponse(
            {
                "items": [describe_turn(turn, page.tools.get(turn.id, [])) for turn in page.turns],
                "next_cursor": str(page.older) if page.older else None,
                "resume_after": page.resume_after,
            }
        )

    async def post_turn(request: Request) -> Response:
        body = await json_body(request, NewTurn)
        turn = await chat.post(
            principal(request).user_id,
            _id(request, "conversation_id"),
            body.text,
            key=request.headers.get("idempotency-key"),
            attachments=body.attachments,
        )
        return JSONResponse(describe_turn(turn), 202)

    async def stop(request: Request) -> Response:
        return JSONResponse(
            describe_turn(await chat.stop(principal(request).user_id, _id(request, "turn_id"))), 202
        )

    async def retry(request: Request) -> Response:
        return JSONResponse(
            describe_turn(await chat.retry(principal(request).user_id, _id(request, "turn_id"))), 202
        )

    async def upload(request: Request) -> Response:
        name = request.query_params.get("name", "")
        kind = request.headers.get("content-type")
        announced = request.headers.get("content-length", "")
        kept = await chat.attachments.keep(
            principal(request).user_id,
            name,
            kind,
            request.stream(),
            size=int(announced) if announced.isascii() and announced.isdigit() else None,
        )
        return JSONResponse(kept.as_data(), 201)

    async def download(request: Request) -> Response:
        user_id, attachment_id = principal(request).user_id, path_id(request, "attachment_id", GONE)
        found = await chat.attachments.find(user_id, attachment_id)
        # Whatever it says it is: nothing of it may run under our address.
        shown = found.media_type in SHOWN_IMAGES
        headers = {
            "content-disposition": disposition(found.name, inline=shown),
            "content-security-policy": "default-src 'none'; sandbox",
            "x-content-type-options": "nosniff",
            # Asked again each time: whoever signs in next in that browser must not see it.
            "cache-control": "private, no-cache",
            "etag": f'"{found.id}"',
        }
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=fields(headers))
        pieces = await chat.attachments.pieces(user_id, attachment_id)
        headers["content-length"] = str(found.size)
        headers["content-type"] = media_type(found.media_type, among=SHOWN_IMAGES)
        return StreamingResponse(pieces, headers=fields(headers))

    async def drop(request: Request) -> Response:
        attachment_id = path_id(request, "attachment_id", GONE)
        await chat.attachments.drop(principal(request).user_id, attachment_id)
        return Response(status_code=204)

    one = "/agent/conversations/{conversation_id}"
    return [
        Route("/agent/conversations", list_conversations, methods=["GET"]),
        Route("/agent/conversations", create_conversation, methods=["POST"]),
        Route(one, rename, methods=["PATCH"]),
        Route(one, delete, methods=["DELETE"]),
        Route(f"{one}/turns", list_turns, methods=["GET"]),
        Route(f"{one}/turns", post_turn, methods=["POST"]),
        Route(f"{one}/events", stream, methods=["GET"]),
        Route("/agent/attachments", upload, methods=["POST"]),
        Route("/agent/attachments/{attachment_id}", download, methods=["GET"]),
        Route("/agent/attachments/{attachment_id}", drop, methods=["DELETE"]),
        Route("/agent/turns/{turn_id}/stop", stop, methods=["POST"]),
        Route("/agent/turns/{turn_id}/retry", retry, methods=["POST"]),
    ]


def describe_conversation(conversation: Conversation) -> dict[str, Any]:
    """A conversation as its user sees it."""
    return {
        "id": str(conversation.id),
        "title": conversation.title,
        "created_at": conversation.created_at.isoformat(),
        "updated_at": conversation.updated_at.isoformat(),
    }


def describe_turn(turn: Turn, tools: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """A turn as its user sees it."""
    return {
        "id": str(turn.id),
        "conversation_id": str(turn.conversation_id),
        "text": turn.text,
        "attachments": list(turn.attachments),
        "status": turn.status.value,
        "attempt": turn.attempt,
        "answer": turn.answer,
        "tools": tools or [],
        "usage": turn.usage,
        "error": turn.error,
        "created_at": turn.created_at.isoformat(),
        "started_at": turn.started_at.isoformat() if turn.started_at else None,
        "finished_at": turn.finished_at.isoformat() if turn.finished_at else None,
    }


def _id(request: Request, name: str) -> UUID:
    return path_id(request, name, UNKNOWN)


def _cursor_of(conversation: Conversation) -> str:
    value = json.dumps([conversation.updated_at.isoformat(), str(conversation.id)])
    return base64.urlsafe_b64encode(value.encode()).decode()


def _conversation_cursor(text: str | None) -> tuple[datetime, UUID] | None:
    if text is None:
        return None
    try:
        updated_at, conversation_id = json.loads(base64.urlsafe_b64decode(text))
        moment = datetime.fromisoformat(updated_at).astimezone(UTC)
        return moment, UUID(conversation_id)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error):
        raise InvalidInput("This cursor is not one that we gave out.") from None
