"""HTTP edge of the user's snapshots: `GET|POST /agent/snapshots`, and of each of them
`POST /agent/snapshots/{generation}/restore` and `GET /agent/snapshots/{generation}/archive`."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ocmt.agents.snapshots.rows import NO_SUCH, Snapshot
from ocmt.agents.snapshots.service import Snapshots
from ocmt.agents.snapshots.transfers import PIECE, PIECE_SECONDS, Transfers
from ocmt.errors import InvalidInput, NotFound
from ocmt.platform.http import principal
from ocmt.platform.http.headers import raw_fields

PAGE = 50
LARGEST = 2**63 - 1


class _Download(Response):
    """A generation as a zip. Slower than a piece a minute it is cut off: its agent stays awake for it."""

    def __init__(self, transfers: Transfers, user_id: UUID, generation: int) -> None:
        self._transfers = transfers
        self._user_id = user_id
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._transfers.archive(self._user_id, self._generation) as (file, size):
            name = f"agent-files-{self._generation}.zip"
            headers = {
                "content-type": "application/zip",
                "content-length": str(size),
                "content-disposition": f'attachment; filename="{name}"',
            }
            await send({"type": "http.response.start", "status": 200, "headers": raw_fields(headers)})
            while True:
                piece = await asyncio.to_thread(file.read, PIECE)
                message = {"type": "http.response.body", "body": piece, "more_body": bool(piece)}
                async with asyncio.timeout(PIECE_SECONDS):
                    await send(message)
                if not piece:
                    return


def routes(snapshots: Snapshots, transfers: Transfers) -> list[Route]:
    """The routes, to be mounted at the root of the orchestrator."""

    async def list_snapshots(request: Request) -> Response:
        user_id = principal(request).user_id
        cursor = request.query_params.get("cursor")
        before = None if cursor is None else _number(cursor)
        if cursor is not None and before is None:
            raise InvalidInput("This cursor is none of ours. Begin again without one.")
        found = await snapshots.list(user_id, before=before, limit=PAGE)
        return JSONResponse(
            {
                "items": [describe_snapshot(snapshot) for snapshot in found],
                "next_cursor": str(found[-1].generation) if len(found) == PAGE else None,
                "restore_asked": await snapshots.restore_asked(user_id),
                "import_asked": await transfers.import_asked(user_id),
            }
        )

    async def restore(request: Request) -> Response:
        user_id = principal(request).user_id
        generation = _number(request.path_params["generation"])
        if generation is None:
            raise NotFound(NO_SUCH)
        await snapshots.ask_restore(user_id, generation)
        return JSONResponse({"restore_asked": generation}, 202)

    async def download(request: Request) -> Response:
        user_id = principal(request).user_id
        generation = _number(request.path_params["generation"])
        if generation is None:
            raise NotFound(NO_SUCH)
        return _Download(transfers, user_id, generation)

    async def upload(request: Request) -> Response:
        user_id = principal(request).user_id
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/zip":
            raise InvalidInput("Send the archive itself, as application/zip.")
        return JSONResponse({"files": await transfers.receive(user_id, request.stream())}, 202)

    return [
        Route("/agent/snapshots", list_snapshots, methods=["GET"]),
        Route("/agent/snapshots", upload, methods=["POST"]),
        Route("/agent/snapshots/{generation}/archive", download, methods=["GET"]),
        Route("/agent/snapshots/{generation}/restore", restore, methods=["POST"]),
    ]


def describe_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """A generation as its user sees it."""
    return {
        "generation": snapshot.generation,
        "created_at": snapshot.created_at.isoformat(),
        "image": snapshot.image,
        "files": snapshot.files,
        "bytes": snapshot.size,
    }


def _number(text: str) -> int | None:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0
    return number if 0 < number <= LARGEST else None
