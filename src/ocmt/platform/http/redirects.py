"""Redirects. None of them is ever made of a request's own scheme, host or port.

What a request says about its address is what somebody wrote into a header, and behind a proxy it is wrong as
well: a client that follows would send its token, and with 307 its body, to another place or over plain http.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.background import BackgroundTask
from starlette.responses import RedirectResponse

from ocmt.platform.http.headers import UnsafeHeader, safe

SEE_OTHER = 303


def redirect(
    path: str, status: int = SEE_OTHER, *, background: BackgroundTask | None = None
) -> RedirectResponse:
    """Lead the browser to another path of the address that it is at. Raises: UnsafeHeader.

    `path` begins with one slash: `//host` and `/\\host` are other hosts to a browser.
    """
    if not path.startswith("/") or path.startswith("//") or "\\" in path:
        raise UnsafeHeader("A redirect would lead away from our address.")
    return RedirectResponse(safe(path), status, background=background)


def redirect_to(url: str, status: int = SEE_OTHER) -> RedirectResponse:
    """Lead the browser to an address from the configuration, never the request's. Raises: UnsafeHeader."""
    parts = urlsplit(safe(url))
    if parts.scheme not in ("http", "https") or not parts.netloc or "\\" in url:
        raise UnsafeHeader("A redirect would lead to what is no address.")
    return RedirectResponse(url, status)
