"""Sends a file that has been made ready for one user, as long as the user takes it fast enough."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import IO
from uuid import UUID

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ocmt.platform.http.headers import raw_fields
from ocmt.platform.places import Pace
from ocmt.platform.work import FILES

PIECE = 1024 * 1024
PIECE_SECONDS = 60.0
"""So long a browser may take for a piece."""


@dataclass(frozen=True)
class Ready:
    """A complete file at its beginning, and the place that its transfer holds."""

    file: IO[bytes]
    size: int
    pace: Pace
    user_id: UUID


class Download(Response):
    """A zip. It is made when the response begins, so that its place is given back whatever happens."""

    def __init__(self, making: AbstractAsyncContextManager[Ready], name: str) -> None:
        self._making = making
        self._name = name
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Make the file and send it. Raises: what the making raises; Unavailable for too slow a reader."""
        async with self._making as ready:
            headers = {
                "content-type": "application/zip",
                "content-length": str(ready.size),
                "content-disposition": f'attachment; filename="{self._name}"',
                "cache-control": "no-store",
            }
            await send({"type": "http.response.start", "status": 200, "headers": raw_fields(headers)})
            ready.pace.begin()
            piece = b" "
            while piece:
                piece = await FILES.run(ready.file.read, PIECE, of=ready.user_id)
                message = {"type": "http.response.body", "body": piece, "more_body": bool(piece)}
                async with ready.pace.waiting_for_user(), asyncio.timeout(PIECE_SECONDS):
                    await send(message)
                ready.pace.moved(len(piece))
