"""OpenClaw's own pages, the Control UI, for its protocol at `/agent/gateway`.

They are files of the OpenClaw that the platform has installed, never the agent's: what comes out of a sandbox
must not run on our own address (docs/decisions/0026). And since they draw what agents say, they are fenced
in all the same: they reach the gateway's addresses and no others, open no windows, have no frames or workers.
"""

from __future__ import annotations

import base64
import hashlib
import re
import stat
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from ocmt.errors import NotFound, Unauthenticated
from ocmt.platform.http import principal, problem, redirect
from ocmt.platform.http.headers import fields

BELOW = "/agent/gateway"
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?")
_INLINE = re.compile(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
_LASTING = ("assets/", "fonts/")


class ControlUi:
    """ASGI, for what `/agent/gateway/…` is asked that is no address of the gateway's own."""

    def __init__(self, folder: Path | None, *, strangers_to: str = "/") -> None:
        """`folder`: `dist/control-ui` of OpenClaw's package; None where there is none.

        `strangers_to`: the path at which whoever is not signed in begins to do so.
        """
        self._strangers_to = strangers_to
        self._files = StaticFiles(directory=folder) if folder is not None else None
        self._page = (folder / "index.html").read_bytes() if folder is not None else b""
        self._scripts = [_hash_of(text) for text in _INLINE.findall(self._page.decode())]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        if self._files is None or request.method not in ("GET", "HEAD"):
            return problem(
                NotFound("There is no such address of your agent's gateway, or none for its user.")
            )
        path = self._files.get_path(request.scope)
        try:
            principal(request)
        except Unauthenticated as error:
            return redirect(self._strangers_to) if path == "." else problem(error)
        fence = {"content-security-policy": self.fence(request.headers.get("host", ""))}
        if path == ".":
            page = {"content-type": "text/html; charset=utf-8", "cache-control": "no-cache"}
            return Response(self._page, headers=fields({**fence, **page}))
        found = self._files.lookup_path(path)[1]
        if found is None or not stat.S_ISREG(found.st_mode):
            if "." in path.rpartition("/")[2]:
                return problem(NotFound("There is no such file."))
            # One of its own addresses: its files have addresses that begin at the page's.
            return redirect(f"{BELOW}/")
        response = await self._files.get_response(path, request.scope)
        lasting = "public, max-age=31536000, immutable" if path.startswith(_LASTING) else "no-cache"
        response.headers.update(fields({**fence, "cache-control": lasting}))
        return response

    def fence(self, host: str) -> str:
        """The content security policy, for pages at that host: https://www.w3.org/TR/CSP3/."""
        named = _HOST.fullmatch(host) is not None
        own = f"{host}{BELOW}/" if named else "'self'"
        sockets = f"ws://{host}{BELOW} wss://{host}{BELOW}" if named else ""
        return "; ".join(
            (
                "sandbox allow-scripts allow-same-origin allow-forms allow-modals allow-downloads",
                "default-src 'none'",
                f"script-src {' '.join([own, *self._scripts])}",
                f"style-src {own} 'unsafe-inline'",
                f"img-src {own} data: blob:",
                f"media-src {own} data: blob:",
                f"font-src {own} data:",
                f"manifest-src {own}",
                f"connect-src {own} {sockets}".rstrip(),
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            )
        )


def _hash_of(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
