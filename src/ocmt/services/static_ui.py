"""Serves the built UI: hashed assets for ever, the page itself always fresh, unknown paths as the page."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)


def find_ui(configured: Path | None) -> Path | None:
    """The folder with the built UI: as configured, inside an installed package, or of this clone."""
    here = Path(__file__).resolve()
    candidates = [configured] if configured else [here.parents[1] / "ui", here.parents[3] / "ui" / "dist"]
    return next((folder for folder in candidates if folder and (folder / "index.html").is_file()), None)


class StaticUi:
    """ASGI application over the folder that Vite built; without one it says how to build it."""

    def __init__(self, folder: Path | None) -> None:
        self._files = StaticFiles(directory=folder) if folder else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self._files is None:
            missing = PlainTextResponse("The UI is not built. Run `make setup`.\n", 503)
            await missing(scope, receive, send)
            return
        response = await self._respond(self._files, scope)
        await response(scope, receive, send)

    async def _respond(self, files: StaticFiles, scope: Scope) -> Response:
        path = files.get_path(scope)
        if path == ".":
            path = "index.html"
        try:
            response = await files.get_response(path, scope)
        except HTTPException as error:
            # The pages of the UI have addresses of their own; a missing asset is missing.
            if error.status_code != 404 or path.startswith("assets"):
                return PlainTextResponse("Not found\n", error.status_code)
            response = await files.get_response("index.html", scope)
        lasting = path.startswith("assets")
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if lasting else "no-cache"
        return response
