"""Refuses what adds to the disk while it is almost full, before anything of the request is read."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from ocmt.errors import DiskFull
from ocmt.platform.free_space import FreeSpace
from ocmt.platform.http import problem

_ADDS = re.compile(
    r"/webhooks/.*"
    r"|/agent/(?:wake|restart|snapshots|attachments)/?"
    r"|/agent/snapshots/[^/]+/restore/?"
    r"|/agent/conversations(?:/[^/]+/turns)?/?"
    r"|/agent/turns/[^/]+/retry/?"
)


def adds_to_disk(method: str, path: str) -> bool:
    """Whether that request is one that a full disk must refuse."""
    return method in ("POST", "PUT", "PATCH") and _ADDS.fullmatch(path) is not None


class RefusedWhenFull:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, space: FreeSpace) -> None:
        self._app = app
        self._space = space

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http" and adds_to_disk(scope["method"], scope["path"]):
            try:
                self._space.check()
            except DiskFull as error:
                await problem(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)
